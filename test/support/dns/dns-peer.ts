/** Resolvers and DNS clients in a namespace (dns-peer.mjs), driven over IPC; they end with their namespace. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Namespace } from '../netns/namespace.ts';

/** One query that a resolver has got. */
export interface SeenQuery {
  readonly label: string;
  readonly via: 'udp' | 'tcp';
  readonly name: string;
  readonly type: string;
  readonly id: number;
  /** Who asked. */
  readonly port: number;
  /** What EDNS says, 0 without. */
  readonly udp: number;
  readonly options: readonly (readonly [number, string])[];
}

export interface DnsAnswer {
  readonly id: number;
  readonly rcode: string;
  readonly truncated: boolean;
  readonly authoritative: boolean;
  readonly lengthBytes: number;
  readonly answers: readonly (readonly [string, string])[];
  readonly authorities: readonly (readonly [string, string])[];
}

export interface DnsPeer {
  /** The first label of a name says how it is answered: `silent`, `fail`, `missing`, `forged`, `big`, `careless`; others get what is given here. */
  serve(at: { host: string; port?: number; label: string; address: string; rcode?: number }): Promise<void>;
  /** Passes queries on to another resolver as they come, IPv4 only. */
  relay(way: { host: string; port: number; to: { host: string; port: number }; label: string }): Promise<void>;
  /** What the resolvers got since the last call. */
  seen(): Promise<SeenQuery[]>;
  ask(to: {
    host: string;
    port?: number;
    questions: readonly (readonly [string, string])[];
    tcp?: boolean;
    /** EDNS with this size; 0: none. */
    udp?: number;
    /** An option of EDNS. */
    option?: number;
    timeoutMs?: number;
  }): Promise<DnsAnswer[]>;
}

export async function startDnsPeer(namespace: Namespace): Promise<DnsPeer> {
  const script = fileURLToPath(new URL('./dns-peer.mjs', import.meta.url));
  const child = namespace.spawn(process.execPath, [script], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  const [first] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (typeof first !== 'object') throw new Error(`the DNS peer in namespace ${namespace.name} did not start`);
  let lastId = 0;
  const request =
    (operation: string) =>
    (args: unknown = {}): Promise<never> => {
      const id = ++lastId;
      return new Promise((resolve, reject) => {
        const onMessage = (answer: { id?: number; result?: unknown; error?: string }): void => {
          if (answer.id !== id) return;
          child.off('message', onMessage);
          child.off('exit', onExit);
          if (answer.error !== undefined) reject(new Error(`in namespace ${namespace.name}: ${answer.error}`));
          else resolve(answer.result as never);
        };
        const onExit = (): void => reject(new Error(`the DNS peer in namespace ${namespace.name} ended`));
        child.on('message', onMessage);
        child.once('exit', onExit);
        child.send({ id, operation, args });
      });
    };
  return { serve: request('serve'), relay: request('relay'), seen: request('seen'), ask: request('ask') };
}
