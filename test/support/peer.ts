/** The traffic peer (see peer/peer.c) in a namespace. */
import { type JsonChild, type JsonEvent, wrapJsonChild } from './json-child.ts';
import { buildTool } from './native-tools.ts';
import type { Namespace } from './netns/namespace.ts';

/** Counts by error name, such as `{ECONNREFUSED: 1}`. */
export type ErrorCounts = Record<string, number>;

/** What `peer listen` and `peer connect` report. */
export interface TcpResult extends JsonEvent {
  opened: number;
  established: number;
  /** Connections that ended as asked, without an error. */
  clean: number;
  unfinished: number;
  /** Bytes, of all connections. */
  sent: number;
  received: number;
  /** Pieces of received data that differ from the pattern, and the stream position of the first (or -1). */
  mismatches: number;
  firstMismatch: number;
  timedOut: boolean;
  seconds: number;
  /** From the first received byte to the last. */
  receiveSeconds: number;
  /** Longest time between two reads that gave data. */
  maxGapMs: number;
  errors: ErrorCounts;
}

/** What `peer rr` and `peer crr` report. */
export interface LatencyResult extends JsonEvent {
  transactions: number;
  failed: number;
  seconds: number;
  perSecond: number;
  p50Us: number;
  p90Us: number;
  p99Us: number;
  maxUs: number;
  errors: ErrorCounts;
}

/** What `peer udp-listen` reports: sources as `ADDRESS,PORT`, sizes of the first 64 datagrams. */
export interface UdpListenResult extends JsonEvent {
  datagrams: number;
  bytes: number;
  bad: number;
  echoed: number;
  seconds: number;
  sources: string[];
  sizes: number[];
  errors: ErrorCounts;
}

/** What `peer udp-send` reports: `missing` are sizes for which no echo came. */
export interface UdpSendResult extends JsonEvent {
  sent: number;
  echoed: number;
  bad: number;
  missing: number[];
  errors: ErrorCounts;
}

/** What `peer udp-stream` reports. */
export interface UdpStreamResult extends JsonEvent {
  sent: number;
  answered: number;
  lost: number;
  seconds: number;
  perSecond: number;
  bytesPerSecond: number;
  errors: ErrorCounts;
}

/** What each mode reports. */
export interface PeerResults {
  listen: TcpResult;
  connect: TcpResult;
  rr: LatencyResult;
  crr: LatencyResult;
  'udp-listen': UdpListenResult;
  'udp-send': UdpSendResult;
  'udp-stream': UdpStreamResult;
}

/** Modes of the peer. */
export type PeerMode = keyof PeerResults;

/** Options as peer.c documents them, without the dashes; `true` for a flag. */
export type PeerOptions = Record<string, string | number | boolean>;

/** A peer that listens. */
export interface Listener<T> {
  readonly process: JsonChild;
  /** Waits until it is done (`accept` connections or datagrams), and gives its report. */
  result(timeoutMs?: number): Promise<T>;
  /** Ends it now and gives its report. */
  stop(): Promise<T>;
}

/** Starts a peer; its report is the event `result`, at its end or on SIGTERM. */
export function spawnPeer(namespace: Pick<Namespace, 'spawn'>, mode: PeerMode, options: PeerOptions): JsonChild {
  const args: string[] = [mode];
  for (const [name, value] of Object.entries(options)) {
    if (value === false) continue;
    args.push(`--${name}`);
    if (value !== true) args.push(String(value));
  }
  const child = namespace.spawn(buildTool('peer'), args, { stdio: ['ignore', 'pipe', 'pipe'] });
  return wrapJsonChild(`peer ${args.join(' ')}`, child);
}

/** Starts a listener and waits until it listens. */
export async function startListener<M extends 'listen' | 'udp-listen'>(
  namespace: Pick<Namespace, 'spawn'>,
  mode: M,
  options: PeerOptions,
): Promise<Listener<PeerResults[M]>> {
  const process = spawnPeer(namespace, mode, options);
  await process.next('ready', 5_000);
  return {
    process,
    result: (timeoutMs) => process.next<PeerResults[M]>('result', timeoutMs),
    stop: async () => {
      process.child.kill('SIGTERM');
      return await process.next<PeerResults[M]>('result', 5_000);
    },
  };
}

/** Runs a peer to its end. */
export function runPeer<M extends Exclude<PeerMode, 'listen' | 'udp-listen'>>(
  namespace: Pick<Namespace, 'spawn'>,
  mode: M,
  options: PeerOptions,
  timeoutMs?: number,
): Promise<PeerResults[M]> {
  return spawnPeer(namespace, mode, options).next<PeerResults[M]>('result', timeoutMs);
}
