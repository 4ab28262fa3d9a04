/** What the demo asks of a guest, whatever kind it is. */

export type GuestKind = 'qemu' | 'namespace' | 'built-in';

/** What DHCP gave. */
export interface Lease {
  readonly address: string;
  readonly prefixLength: number;
  readonly router: string;
  readonly resolvers: readonly string[];
  /** 0: none was told. */
  readonly mtu: number;
}

/** What a router advertisement gave, and the address that the guest made of it. */
export interface Advertisement {
  readonly prefix: string;
  readonly address: string;
}

export interface DemoGuest {
  readonly kind: GuestKind;
  /** Completes the sentence "The guest is …". */
  readonly title: string;
  /** What would make the demo more real; undefined: nothing. */
  readonly improvement: string | undefined;
  getLease(): Promise<Lease>;
  getAdvertisement(): Promise<Advertisement>;
  /** Asks `resolver` for an A record. @returns addresses, or what the resolver said instead */
  resolveName(name: string, resolver: string): Promise<string>;
  /** HTTP GET of `/`. @returns the body */
  fetchPage(address: string, port: number): Promise<string>;
  /** Listens on a TCP port and answers one connection with `text`. Resolves once it listens. */
  answerOnce(port: number, text: string): Promise<void>;
  /** Connects, reads to the end. @returns bytes read */
  download(address: string, port: number): Promise<number>;
  /** Connects, sends `bytes` zero bytes, ends, waits for the other side to end as well. */
  upload(address: string, port: number, bytes: number): Promise<void>;
  stop(): Promise<void>;
}

/** Bytes for the throughput scenes: about a second's worth for this kind. */
export const TRANSFER_BYTES: Readonly<Record<GuestKind, number>> = {
  qemu: 128 * 1024 * 1024,
  namespace: 256 * 1024 * 1024,
  'built-in': 256 * 1024 * 1024,
};

/** Rejects if `work` takes longer. */
export async function withTimeout<T>(what: string, ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no answer within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
