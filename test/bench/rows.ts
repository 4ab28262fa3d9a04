/** The table's rows for programs that speak QEMU's stream protocol. */
import type { RigRow } from './alternate.ts';
import {
  type Direction,
  measureConnectRequestResponse,
  measureIdle,
  measurePeak,
  measureRequestResponse,
  measureTcp,
  measureUdp,
  type NamespaceRig,
} from './measure.ts';

/** How a row is called and read. */
export interface RowTitle {
  /** For `--rows`, which takes the beginning of a name. */
  readonly name: string;
  readonly title: string;
  readonly unit: string;
  readonly lowerIsBetter?: boolean;
  /** What `second` is, with its unit. */
  readonly secondTitle?: string;
}

type Row = RigRow<NamespaceRig>;

const DIRECTION_TITLES: Record<Direction, string> = { tx: 'guest→host', rx: 'host→guest' };

function tcpRows(mtu: number): Row[] {
  return [1, 8].flatMap((streams) =>
    (['tx', 'rx'] as const).map((direction) => ({
      name: `tcp-${direction}-${mtu}${streams === 1 ? '' : `-x${streams}`}`,
      title: `TCP ${DIRECTION_TITLES[direction]}, MTU ${mtu}${streams === 1 ? '' : `, ${streams} streams`}`,
      unit: 'Gbit/s',
      mtu,
      measure: (rig: NamespaceRig, seconds: number) => measureTcp(rig, direction, seconds, streams),
    })),
  );
}

/** Datagrams larger than the usual MTU go over a link that takes them whole: Debian's passt, of 2023, takes no fragments. */
function udpRows(size: number, mtu: number): Row[] {
  return (['tx', 'rx'] as const).map((direction) => ({
    name: `udp-${direction}-${size}`,
    title: `UDP ${DIRECTION_TITLES[direction]}, ${size} bytes`,
    unit: 'k/s',
    mtu,
    measure: (rig: NamespaceRig, seconds: number) => measureUdp(rig, direction, size, seconds),
  }));
}

/** All rows that need a guest, in the table's order. */
export const ROWS: readonly Row[] = [
  ...tcpRows(65520),
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
  ...udpRows(8192, 65520),
  {
    name: 'rss-load',
    title: 'Greatest resident set of the rows above',
    unit: 'MiB',
    lowerIsBetter: true,
    mtu: 65520,
    measure: measurePeak,
  },
  ...tcpRows(9000),
  ...tcpRows(1500),
  ...udpRows(1400, 1500),
  ...udpRows(64, 1500),
  {
    name: 'idle-cpu',
    title: 'CPU with a silent guest',
    unit: 'ms/s',
    lowerIsBetter: true,
    mtu: 1500,
    measure: measureIdle,
  },
];

/** How many flows {@link IDLE_FLOWS_ROW} opens. */
export const IDLE_FLOWS = 10_000;

/** On rigs of its own, see idle-flows.ts. */
export const IDLE_FLOWS_ROW: RowTitle = {
  name: 'idle-flows',
  title: '10 000 idle flows',
  unit: 'B/flow',
  lowerIsBetter: true,
  secondTitle: 'CPU ms/s',
};
