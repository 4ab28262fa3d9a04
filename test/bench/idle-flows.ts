/** What connections cost that are open and silent. */
import { withIdleFlows } from '../support/idle-flows.ts';
import type { NamespaceRig } from './measure.ts';
import type { Sample } from './statistics.ts';

/** Opened and closed before anything is read off, so that compiled code and first buffers do not count. */
const WARM_UP_FLOWS = 500;

/**
 * Opens `flows` connections from the guest to the host and lets them be. Meant for a rig of its own: memory that flows have left
 * behind is used again and does not show.
 * @returns growth of the stack's resident set in bytes per flow; `second` is its CPU in ms a second while all are silent
 */
export async function measureIdleFlows(rig: NamespaceRig, flows: number, seconds: number): Promise<Sample> {
  const path = { guest: rig.guest, host: rig.host, address: rig.hostSeenByGuest };
  await withIdleFlows(path, WARM_UP_FLOWS, async () => undefined);
  const [resentBefore, dropsBefore] = [await rig.countResent(), await rig.countDrops()];
  const before = rig.stack.rssBytes();
  return await withIdleFlows(path, flows, async () => {
    const value = (rig.stack.rssBytes() - before) / flows;
    // What the last connections have left to do, such as a first keep-alive or a delayed acknowledgement.
    await sleep(1000);
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

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
