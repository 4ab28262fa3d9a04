/** What connections cost that are open and silent. */
import { readFileSync } from 'node:fs';
import { waitUntil } from '../support/netns/process.ts';
import { type PeerOptions, spawnPeer, startListener } from '../support/peer.ts';
import type { NamespaceRig } from './measure.ts';
import type { Sample } from './statistics.ts';

const PORT = 5010;
/** Opened and closed before anything is read off, so that compiled code and first buffers do not count. */
const WARM_UP_FLOWS = 500;
/** More connects than this at once overrun the queue of a listener, and its guest's retries would be measured. */
const CONNECTS_AT_ONCE = 100;

/**
 * Opens `flows` connections from the guest to the host and lets them be. Meant for a rig of its own: memory that flows have left
 * behind is used again and does not show.
 * @returns growth of the stack's resident set in bytes per flow; `second` is its CPU in ms a second while all are silent
 */
export async function measureIdleFlows(rig: NamespaceRig, flows: number, seconds: number): Promise<Sample> {
  await withFlows(rig, WARM_UP_FLOWS, async () => undefined);
  const [resentBefore, dropsBefore] = [await rig.countResent(), await rig.countDrops()];
  const before = rig.stack.rssBytes();
  return await withFlows(rig, flows, async () => {
    const value = (rig.stack.rssBytes() - before) / flows;
    // What the last connections have left to do, such as a first keep-alive or a delayed acknowledgement.
    await sleep(500);
    const cpuBefore = rig.stack.cpuSeconds();
    await sleep(seconds * 1000);
    const second = ((rig.stack.cpuSeconds() - cpuBefore) / seconds) * 1000;
    return {
      value,
      second,
      retransmits: (await rig.countResent()) - resentBefore,
      drops: (await rig.countDrops()) - dropsBefore,
      rssMib: rig.stack.rssBytes() / 2 ** 20,
    };
  });
}

async function withFlows<T>(rig: NamespaceRig, flows: number, work: () => Promise<T>): Promise<T> {
  const common: PeerOptions = { port: PORT, finish: 'wait', 'no-verify': true, timeout: 120 };
  const [atGuest, atHost] = [countSockets(rig.guest.pid), countSockets(rig.host.pid)];
  const server = await startListener(rig.host, 'listen', common);
  const client = spawnPeer(rig.guest, 'connect', {
    ...common,
    addr: rig.hostSeenByGuest,
    count: flows,
    pace: CONNECTS_AT_ONCE,
  });
  try {
    await waitUntil(`${flows} connections of the guest`, () => countSockets(rig.guest.pid) - atGuest >= flows, 60_000);
    // The listener, what it has accepted, and the stack's own.
    await waitUntil(`${flows} connections`, () => countSockets(rig.host.pid) - atHost >= 2 * flows + 1, 60_000);
    return await work();
  } finally {
    await Promise.all([client.stop(), server.process.stop()]);
    await waitUntil('all connections to end', () => countSockets(rig.host.pid) <= atHost, 60_000);
  }
}

/** TCP sockets of both families in the network namespace of a process. */
function countSockets(pid: number): number {
  const text = ['sockstat', 'sockstat6'].map((file) => readFileSync(`/proc/${pid}/net/${file}`, 'utf8')).join('');
  return [...text.matchAll(/^TCP6?: inuse (\d+)/gm)].reduce((sum, match) => sum + Number(match[1]), 0);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
