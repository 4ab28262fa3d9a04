/** What the rig itself can carry: two pumps joined back to back, each with a complete Linux stack, and no translator between them. */
import { HOST_NET } from '../support/netns/host.ts';
import { createNamespace } from '../support/netns/namespace.ts';
import { runPeer, startListener } from '../support/peer.ts';
import { startPump, waitForPump } from '../support/pump.ts';
import { describeGuest } from './measure.ts';
import type { RowTitle } from './rows.ts';
import type { Sample } from './statistics.ts';

export const RIG_LIMIT_MTUS: readonly number[] = [65520, 9000, 1500];

export function rigLimitRow(mtu: number): RowTitle {
  return { name: `rig-limit-${mtu}`, title: `The rig's own limit, MTU ${mtu}`, unit: 'Gbit/s' };
}

/** TCP between two guests whose pumps are joined, Gbit/s: what a stack of no cost at all would reach. */
export async function measureRigLimit(mtu: number, directory: string, seconds: number): Promise<Sample> {
  const [a, b] = await Promise.all([createNamespace('left'), createNamespace('right')]);
  try {
    const socket = `${directory}/back-to-back.socket`;
    const left = startPump(a, { socket, listen: true, mtu, mac: '52:54:00:00:00:01' });
    await left.process.next('listening', 5_000);
    const right = startPump(b, { socket, mtu, mac: '52:54:00:00:00:02' });
    await Promise.all([waitForPump(left), waitForPump(right)]);
    await Promise.all([
      a.sh(`ip link set tap0 up; ip addr add ${HOST_NET.hostV4}/24 dev tap0`),
      b.sh(`ip link set tap0 up; ip addr add ${HOST_NET.gatewayV4}/24 dev tap0`),
    ]);
    const countDrops = async (): Promise<number> => {
      const counters = await Promise.all([left.counters(), right.counters()]);
      return counters.reduce((sum, { tap, toTap }) => sum + tap.txDropped + tap.rxDropped + toTap.errors, 0);
    };
    // Frames that came while one of the two was not up yet.
    const dropsBefore = await countDrops();
    const server = await startListener(b, 'listen', { port: 5001, accept: 1, 'no-verify': true });
    await runPeer(a, 'connect', { addr: HOST_NET.gatewayV4, port: 5001, duration: seconds, 'no-verify': true });
    const { received, receiveSeconds } = await server.result();
    return {
      value: (received * 8) / receiveSeconds / 1e9,
      retransmits: await describeGuest(a).countResent(),
      drops: (await countDrops()) - dropsBefore,
    };
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}
