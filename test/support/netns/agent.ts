/**
 * A Node process inside a namespace that serves and talks as a test asks: HTTP, UDP echo, DNS, single exchanges.
 * It ends with its namespace, or with the test runner.
 */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Namespace } from './namespace.ts';

/** Where a server or a peer is. Port 0, the default for servers, lets the kernel choose. */
export interface Endpoint {
  host: string;
  port?: number;
}

/** Result of {@link Agent.exchangeTcp}. */
export interface TcpExchange {
  receivedBytes: number;
  /** SHA-256, hexadecimal. */
  receivedHash: string;
  sentHash: string;
  /** The first 4 KiB received, as Latin-1. */
  text: string;
  elapsedMs: number;
}

/** Result of {@link Agent.exchangeUdp}. */
export interface UdpExchange {
  /** The answer equals what was sent. */
  same: boolean;
  lengthBytes: number;
  /** Address that answered. */
  from: string;
}

/** Drives the process; every method rejects with what went wrong inside. */
export interface Agent {
  /** GET /bytes/LENGTH/SEED, GET /from (the client's address), POST (answers `SHA256 LENGTH`). */
  serveHttp(at: Endpoint): Promise<{ port: number }>;
  serveUdpEcho(at: Endpoint): Promise<{ port: number }>;
  /** Datagrams that the echo servers saw. */
  listUdpSeen(): Promise<{ address: string; port: number; lengthBytes: number }[]>;
  /** `records`: lower-case name to addresses of both families. Port 53 unless given. */
  serveDns(at: Endpoint & { records: Record<string, string[]> }): Promise<{ port: number }>;
  listDnsSeen(): Promise<{ transport: 'udp' | 'tcp'; address: string }[]>;
  /** Connects, sends `lengthBytes` of pattern, half-closes, reads to the end. */
  exchangeTcp(to: Endpoint & { lengthBytes?: number; seed?: number; localAddress?: string }): Promise<TcpExchange>;
  /** Sends one datagram, again each second since datagrams may be lost, and waits for one. */
  exchangeUdp(
    to: Endpoint & { lengthBytes: number; seed?: number; timeoutMs?: number; localAddress?: string },
  ): Promise<UdpExchange>;
  /** SHA-256 of the pattern that the servers send for this length and seed. */
  hashPattern(pattern: { lengthBytes: number; seed: number }): Promise<string>;
}

interface Answer {
  id?: number;
  ready?: boolean;
  result?: unknown;
  error?: string;
}

/** Starts an agent in `namespace`. */
export async function startAgent(namespace: Namespace): Promise<Agent> {
  const script = fileURLToPath(new URL('./agent.mjs', import.meta.url));
  const child = namespace.spawn(process.execPath, [script], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    // Options of the test runner's Node (loaders, coverage) are not for it.
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  const pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  child.on('message', ({ id, result, error }: Answer) => {
    const waiting = pending.get(id ?? 0);
    pending.delete(id ?? 0);
    if (error !== undefined) waiting?.reject(new Error(`in namespace ${namespace.name}: ${error}`));
    else waiting?.resolve(result);
  });
  child.on('exit', () => {
    for (const { reject } of pending.values()) reject(new Error(`the agent in namespace ${namespace.name} ended`));
    pending.clear();
  });
  const started = await Promise.race([once(child, 'message').then(() => true), once(child, 'exit').then(() => false)]);
  if (!started) throw new Error(`the agent in namespace ${namespace.name} did not start`);
  let lastId = 0;
  const request =
    (operation: string) =>
    (args: unknown = {}): Promise<never> =>
      new Promise((resolve, reject) => {
        const id = ++lastId;
        pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
        child.send({ id, operation, args });
      });
  return {
    serveHttp: request('serveHttp'),
    serveUdpEcho: request('serveUdpEcho'),
    listUdpSeen: request('listUdpSeen'),
    serveDns: request('serveDns'),
    listDnsSeen: request('listDnsSeen'),
    exchangeTcp: request('exchangeTcp'),
    exchangeUdp: request('exchangeUdp'),
    hashPattern: request('hashPattern'),
  };
}
