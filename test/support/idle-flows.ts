/** Thousands of TCP connections that are open and carry nothing. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Namespace } from './netns/namespace.ts';
import { waitUntil } from './netns/process.ts';
import { type PeerOptions, spawnPeer, startListener } from './peer.ts';

const PORT = 5010;
/** More connects than this at once overrun the queue of a listener, and its guest's retries would be measured. */
const CONNECTS_AT_ONCE = 100;

/** From where to where they go. */
export interface IdlePath {
  readonly guest: Namespace;
  /** Where the listener runs, and the stack's sockets are. */
  readonly host: Namespace;
  /** The host as the guest addresses it. */
  readonly address: string;
}

/** Opens `flows` connections from the guest to the host, does `work`, and closes them; resolves when neither has one left. */
export async function withIdleFlows<T>(path: IdlePath, flows: number, work: () => Promise<T>): Promise<T> {
  const { guest, host, address } = path;
  const common: PeerOptions = { port: PORT, finish: 'wait', 'no-verify': true, timeout: 180 };
  const [atGuest, atHost] = [countSockets(guest.pid), countSockets(host.pid)];
  const server = await startListener(host, 'listen', common);
  const client = spawnPeer(guest, 'connect', { ...common, addr: address, count: flows, pace: CONNECTS_AT_ONCE });
  try {
    // Whole counts, not growth: a connection of before may just be ending.
    await waitUntil(`${flows} connections of the guest`, () => countSockets(guest.pid) >= flows, 60_000);
    // What the listener has accepted, and the stack's own.
    await waitUntil(`${flows} connections`, () => countSockets(host.pid) >= 2 * flows, 60_000);
    return await work();
  } finally {
    await Promise.all([client.stop(), server.process.stop()]);
    // Of the guest too: what is left there would be missing in the next count.
    const ended = (): boolean => countSockets(host.pid) <= atHost && countSockets(guest.pid) <= atGuest;
    await waitUntil('all connections to end', ended, 60_000);
  }
}

/** TCP sockets of both families in the network namespace of a process. */
function countSockets(pid: number): number {
  const text = ['sockstat', 'sockstat6'].map((file) => readFileSync(`/proc/${pid}/net/${file}`, 'utf8')).join('');
  return [...text.matchAll(/^TCP6?: inuse (\d+)/gm)].reduce((sum, match) => sum + Number(match[1]), 0);
}

/** Descriptors that a process may have at most. */
export function readFileLimit(): number {
  const text = execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).trim();
  return text === 'unlimited' ? Number.POSITIVE_INFINITY : Number(text);
}
