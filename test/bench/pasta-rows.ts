/** The table's rows for programs that join a network namespace to the host. */
import type { RigRow } from './alternate.ts';
import {
  type Direction,
  measureConnectRequestResponse,
  measureIdle,
  measurePeak,
  measureRequestResponse,
  measureSplicedTcp,
  measureSplicedUdp,
  measureTcp,
  measureUdp,
  type NamespaceRig,
} from './measure.ts';

export type PastaRow = RigRow<NamespaceRig>;

/** slirp4netns does not splice, and our bare stack has nothing that does. */
const SPLICING: readonly string[] = ['ours', 'debian'];

const TITLES: Record<Direction, string> = { tx: 'namespace→host', rx: 'host→namespace' };

function tapRow(direction: Direction, mtu: number): PastaRow {
  return {
    name: `pasta-tcp-${direction}-${mtu}`,
    title: `tap TCP ${TITLES[direction]}, MTU ${mtu}`,
    unit: 'Gbit/s',
    mtu,
    measure: (rig: NamespaceRig, seconds) => measureTcp(rig, direction, seconds),
  };
}

function udpRow(direction: Direction): PastaRow {
  return {
    name: `pasta-udp-${direction}-1400`,
    title: `tap UDP ${TITLES[direction]}, 1400 bytes`,
    unit: 'k/s',
    mtu: 1500,
    measure: (rig, seconds) => measureUdp(rig, direction, 1400, seconds),
  };
}

function splicedRow(direction: Direction): PastaRow {
  return {
    name: `pasta-splice-tcp-${direction}`,
    title: `spliced TCP ${TITLES[direction]}`,
    unit: 'Gbit/s',
    mtu: 65520,
    stacks: SPLICING,
    measure: (rig, seconds) => measureSplicedTcp(rig, direction, seconds),
  };
}

export const PASTA_ROWS: readonly PastaRow[] = [
  tapRow('tx', 65520),
  tapRow('rx', 65520),
  {
    name: 'pasta-rr',
    title: 'tap TCP request/response, 1 byte',
    unit: 'µs p50',
    lowerIsBetter: true,
    secondTitle: 'p99 µs',
    mtu: 65520,
    measure: measureRequestResponse,
  },
  {
    name: 'pasta-crr',
    title: 'tap TCP connect/request/response',
    unit: '1/s',
    secondTitle: 'p99 µs',
    mtu: 65520,
    measure: measureConnectRequestResponse,
  },
  splicedRow('rx'),
  splicedRow('tx'),
  {
    name: 'pasta-splice-udp-1400',
    title: 'spliced UDP host→namespace, 1400 bytes',
    unit: 'k/s',
    mtu: 65520,
    stacks: SPLICING,
    measure: (rig, seconds) => measureSplicedUdp(rig, 1400, seconds),
  },
  tapRow('tx', 1500),
  tapRow('rx', 1500),
  udpRow('tx'),
  udpRow('rx'),
  {
    name: 'pasta-idle-cpu',
    title: 'pasta: CPU with a silent namespace',
    unit: 'ms/s',
    lowerIsBetter: true,
    mtu: 1500,
    measure: measureIdle,
  },
  {
    name: 'pasta-rss',
    title: 'pasta: greatest resident set at MTU 1500',
    unit: 'MiB',
    lowerIsBetter: true,
    mtu: 1500,
    measure: measurePeak,
  },
];
