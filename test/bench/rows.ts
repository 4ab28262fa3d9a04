/** The table's rows. */
import { HOST_NET } from '../support/netns/host.ts';
import { createNamespace } from '../support/netns/namespace.ts';
import { runPeer, startListener } from '../support/peer.ts';
import { startPump, waitForPump } from '../support/pump.ts';
import {
  type BenchRig,
  type Direction,
  measureConnectRequestResponse,
  measureIdle,
  measureRequestResponse,
  measureResident,
  measureTcp,
  measureUdp,
} from './measure.ts';
import type { Sample } from './statistics.ts';

/** A row measured with a guest behind each stack. */
export interface Row {
  /** For `--rows`, which takes the beginning of a name. */
  readonly name: string;
  readonly title: string;
  readonly unit: string;
  readonly lowerIsBetter?: boolean;
  /** What `second` is, with its unit. */
  readonly secondTitle?: string;
  readonly mtu: number;
  /** Left out unless asked for. */
  readonly optional?: boolean;
  measure(rig: BenchRig, seconds: number): Promise<Sample>;
}

const DIRECTION_TITLES: Record<Direction, string> = { tx: 'guest→host', rx: 'host→guest' };

function tcpRow(direction: Direction, mtu: number, streams = 1): Row {
  const several = streams === 1 ? '' : `, ${streams} streams`;
  return {
    name: `tcp-${direction}-${mtu}${streams === 1 ? '' : `-x${streams}`}`,
    title: `TCP ${DIRECTION_TITLES[direction]}, MTU ${mtu}${several}`,
    unit: 'Gbit/s',
    mtu,
    optional: streams > 1,
    measure: (rig, seconds) => measureTcp(rig, direction, seconds, streams),
  };
}

function udpRow(direction: Direction, size: number): Row {
  return {
    name: `udp-${direction}-${size}`,
    title: `UDP ${DIRECTION_TITLES[direction]}, ${size} bytes`,
    unit: 'k/s',
    mtu: 1500,
    measure: (rig, seconds) => measureUdp(rig, direction, size, seconds),
  };
}

/** All rows that need a guest. */
export const ROWS: readonly Row[] = [
  tcpRow('tx', 65520),
  tcpRow('rx', 65520),
  tcpRow('tx', 65520, 4),
  tcpRow('rx', 65520, 4),
  {
    name: 'tcp-rr',
    title: 'TCP request/response, 1 byte',
    unit: 'µs p50',
    lowerIsBetter: true,
    secondTitle: 'p99 µs',
    mtu: 65520,
    measure: measureRequestResponse,
  },
  {
    name: 'tcp-crr',
    title: 'TCP connect/request/response',
    unit: '1/s',
    secondTitle: 'p99 µs',
    mtu: 65520,
    measure: measureConnectRequestResponse,
  },
  tcpRow('tx', 9000),
  tcpRow('rx', 9000),
  tcpRow('tx', 1500),
  tcpRow('rx', 1500),
  tcpRow('tx', 1500, 4),
  tcpRow('rx', 1500, 4),
  udpRow('tx', 1400),
  udpRow('rx', 1400),
  udpRow('tx', 64),
  udpRow('rx', 64),
  {
    name: 'idle-cpu',
    title: 'Idle CPU',
    unit: 'ms/s',
    lowerIsBetter: true,
    mtu: 1500,
    measure: measureIdle,
  },
  {
    name: 'rss',
    title: 'Resident set, guest connected',
    unit: 'MiB',
    lowerIsBetter: true,
    mtu: 1500,
    measure: measureResident,
  },
];

/** MTUs of the rows that show what the rig itself can carry. */
export const RIG_LIMIT_MTUS: readonly number[] = [65520, 9000, 1500];

/** TCP between two guests whose pumps are joined back to back, Gbit/s: what a stack of no cost at all would reach. */
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
    const server = await startListener(b, 'listen', { port: 5001, accept: 1, 'no-verify': true });
    await runPeer(a, 'connect', { addr: HOST_NET.gatewayV4, port: 5001, duration: seconds, 'no-verify': true });
    const { received, receiveSeconds } = await server.result();
    return { value: (received * 8) / receiveSeconds / 1e9 };
  } finally {
    await Promise.all([a.close(), b.close()]);
  }
}
