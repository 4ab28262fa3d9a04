/**
 * Two guests on one network, each a Linux stack behind a tap and a pump, and what joins their pumps:
 *
 *     guest ── tap ── pump ── unix socket ── switch ── unix socket ── pump ── tap ── guest
 *
 * `ours` is passel-passt with two links, its peer QEMU without a machine, whose hub joins two stream sockets. The rest are limits, not peers:
 * `limit-direct` joins the pumps by one socket, so that there is no switch at all, and `limit-bridge` is a bridge of the kernel between two veth pairs,
 * without pumps and without segmentation offloads, so that each frame is switched by itself as it is with the others.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findCommand } from '../support/netns/capabilities.ts';
import { createHost, type Host } from '../support/netns/host.ts';
import {
  configureLink,
  createNamespace,
  linkVeth,
  type Namespace,
  stopChild,
  waitUntil,
} from '../support/netns/namespace.ts';
import { type PeerOptions, runPeer, startListener } from '../support/peer.ts';
import { type Pump, startPump, waitForPump } from '../support/pump.ts';
import { type StackProcess, startStack } from '../support/stack-process.ts';
import { stackCommand } from '../support/stack-under-test.ts';
import type { RigRow } from './alternate.ts';
import {
  describeGuest,
  measureRequestResponse,
  measureTcp,
  measureUdp,
  type NamespaceRig,
  type StackReadings,
} from './measure.ts';
import { countPumpDrops, QEMU } from './passt-rig.ts';
import type { Sample } from './statistics.ts';

export const LAN_STACKS = ['ours', 'qemu', 'limit-direct', 'limit-bridge'] as const;
export type LanStackName = (typeof LAN_STACKS)[number];

/** Both guests, and what is beyond their network. */
interface LanRig extends NamespaceRig {
  /** Its loopback is {@link WORLD_SEEN_BY_GUESTS}, where the switch has such a thing. */
  readonly world: Namespace;
}

type Row = RigRow<LanRig>;

function tcpRow(mtu: number, streams: number): Row {
  const [suffix, more] = streams === 1 ? ['', ''] : [`-x${streams}`, `, ${streams} streams`];
  return {
    name: `lan-tcp-${mtu}${suffix}`,
    title: `TCP guest→guest, MTU ${mtu}${more}`,
    unit: 'Gbit/s',
    mtu,
    measure: (rig, seconds) => measureTcp(rig, 'tx', seconds, streams),
  };
}

export const LAN_ROWS: readonly Row[] = [
  tcpRow(65520, 1),
  tcpRow(65520, 8),
  {
    name: 'lan-rr',
    title: 'TCP request/response between guests, 1 byte',
    unit: 'µs p50',
    lowerIsBetter: true,
    secondTitle: 'p99 µs',
    mtu: 65520,
    measure: measureRequestResponse,
  },
  tcpRow(1500, 1),
  tcpRow(1500, 8),
  {
    name: 'lan-udp-1400',
    title: 'UDP guest→guest, 1400 bytes',
    unit: 'k/s',
    mtu: 1500,
    measure: (rig, seconds) => measureUdp(rig, 'tx', 1400, seconds),
  },
  {
    name: 'lan-flooded',
    title: 'TCP host→guest while another guest floods it',
    unit: '% of alone',
    mtu: 65520,
    stacks: ['ours'],
    measure: measureFlooded,
  },
];

const WORLD_SEEN_BY_GUESTS = '10.0.2.2';

/** Where leases of `--user-net` begin. */
const ADDRESSES = ['10.0.2.15', '10.0.2.16'] as const;

/** What a guest gets from the host while the other one sends it datagrams that nobody takes, as fast as it can. */
async function measureFlooded(rig: LanRig, seconds: number): Promise<Sample> {
  const [flooding, flooded] = [rig.guest, rig.host];
  const download = async (): Promise<{ rate: number; gapMs: number }> => {
    const common: PeerOptions = { port: 5002, 'no-verify': true, timeout: seconds + 15 };
    const server = await startListener(rig.world, 'listen', { ...common, duration: seconds, accept: 1 });
    const result = await runPeer(flooded, 'connect', { ...common, addr: WORLD_SEEN_BY_GUESTS, finish: 'wait' });
    await server.stop();
    return { rate: (result.received * 8) / result.receiveSeconds / 1e9, gapMs: result.maxGapMs };
  };
  const alone = await download();
  const sent = (): number => Number(readInterface(flooding, 'tap0')[9]);
  const flood = flooding.spawn('socat', ['-u', '-b', '60000', 'OPEN:/dev/zero', `UDP4-SENDTO:${ADDRESSES[1]}:9`]);
  try {
    const before = sent();
    await waitUntil('the flood', () => sent() > before + 100, 5_000);
    const [framesBefore, startMs] = [sent(), performance.now()];
    const underFlood = await download();
    const framesPerSecond = ((sent() - framesBefore) / (performance.now() - startMs)) * 1000;
    return {
      value: (100 * underFlood.rate) / alone.rate,
      others: {
        ...{ 'alone Gbit/s': alone.rate, 'flooded Gbit/s': underFlood.rate, 'flood frames/s': framesPerSecond },
        ...{ 'longest gap alone ms': alone.gapMs, 'flooded ms': underFlood.gapMs },
      },
    };
  } finally {
    await stopChild(flood);
  }
}

/** A limit's work is the kernel's, or nobody's. */
const NO_READINGS: StackReadings = {
  cpuSeconds: () => Number.NaN,
  rssBytes: () => Number.NaN,
  peakBytes: () => Number.NaN,
};

/** Why it cannot be measured here; empty: it can. */
export function missingLanReason(name: LanStackName): string {
  const command = { ours: '', qemu: QEMU, 'limit-direct': '', 'limit-bridge': 'ethtool' }[name];
  return command === '' || findCommand(command) !== '' ? '' : `${command} is not installed`;
}

/** Builds the network of one program at one MTU of the guests. Rows have one of the two as `guest`, the other as `host`. */
export async function createLanRig(name: LanStackName, mtu: number): Promise<LanRig> {
  const [host, ...guests] = await Promise.all([createHost(), createNamespace('one'), createNamespace('two')]);
  const close = async (): Promise<void> => {
    await Promise.all([host, ...guests].map((each) => each.close()));
  };
  try {
    const { stack, countDrops } =
      name === 'limit-bridge' ? await joinByBridge(host, guests, mtu) : await joinByPumps(name, host, guests, mtu);
    const [one, two] = guests as [Namespace, Namespace];
    return {
      stackName: name,
      ...describeGuest(one),
      host: two,
      world: host,
      hostSeenByGuest: ADDRESSES[1],
      guestSeenByHost: ADDRESSES[0],
      stack,
      countDrops,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

type Joined = Pick<NamespaceRig, 'stack' | 'countDrops'>;

async function joinByPumps(
  name: Exclude<LanStackName, 'limit-bridge'>,
  host: Host,
  guests: readonly Namespace[],
  mtu: number,
): Promise<Joined> {
  const direct = name === 'limit-direct';
  const sockets = guests.map((_guest, index) => join(host.directory, direct ? 'pumps' : `link-${index}`));
  const stack = direct ? undefined : await startSwitch(name, host, sockets);
  const pumps: Pump[] = [];
  for (const [index, guest] of guests.entries()) {
    const listen = direct && index === 0;
    const pump = startPump(guest, {
      socket: sockets[index]!,
      listen,
      mtu,
      mac: `52:54:00:00:00:0${index + 1}`,
      connectTimeoutMs: 10_000,
    });
    if (listen) await pump.process.next('listening', 10_000);
    pumps.push(pump);
  }
  await Promise.all(pumps.map((pump) => waitForPump(pump, 11_000)));
  await Promise.all(
    guests.map((guest, index) =>
      configureLink(guest, { name: pumps[index]!.tapName, addresses: [`${ADDRESSES[index]}/24`] }),
    ),
  );
  return {
    stack: stack ?? NO_READINGS,
    countDrops: async () => (await Promise.all(pumps.map(countPumpDrops))).reduce((sum, count) => sum + count, 0),
  };
}

async function startSwitch(name: 'ours' | 'qemu', host: Host, sockets: readonly string[]): Promise<StackProcess> {
  const links = sockets.map((path, index) => `stream,id=link${index},server=on,addr.type=unix,addr.path=${path}`);
  const stack =
    name === 'ours'
      ? startStack(host, stackCommand('ours'), [
          '--foreground',
          '--quiet',
          ...links.flatMap((link) => ['--netdev', link]),
        ])
      : startStack(host, { command: QEMU, args: [] }, [
          ...['-machine', 'none', '-nodefaults', '-no-user-config', '-display', 'none'],
          ...links.flatMap((link, index) => [
            '-netdev',
            link,
            '-netdev',
            `hubport,id=port${index},hubid=0,netdev=link${index}`,
          ]),
        ]);
  await waitUntil(`${name} to listen`, () => !stack.running() || sockets.every((path) => existsSync(path)), 10_000);
  if (!stack.running()) throw new Error(`${name} did not start: ${stack.output()}`);
  return stack;
}

async function joinByBridge(host: Host, guests: readonly Namespace[], mtu: number): Promise<Joined> {
  await host.sh('ip link add br0 type bridge && ip link set br0 up');
  for (const [index, guest] of guests.entries()) {
    const port = `port${index}`;
    await linkVeth(guest, host, {
      a: { name: 'tap0', addresses: [`${ADDRESSES[index]}/24`], mtu },
      b: { name: port, mtu },
    });
    await guest.sh('ethtool -K tap0 tx off tso off gso off gro off > /dev/null');
    await host.sh(`ethtool -K ${port} tx off tso off gso off gro off > /dev/null; ip link set ${port} master br0`);
  }
  const countDrops = async (): Promise<number> => guests.reduce((sum, guest) => sum + readDrops(guest, 'tap0'), 0);
  return { stack: NO_READINGS, countDrops };
}

/** Frames that an interface dropped, received and to be sent. */
function readDrops(namespace: Namespace, name: string): number {
  const fields = readInterface(namespace, name);
  return (fields[3] ?? Number.NaN) + (fields[11] ?? Number.NaN);
}

/** An interface's counters in /proc/net/dev: bytes, frames, errors, dropped and four more received; the same sent. */
function readInterface(namespace: Namespace, name: string): number[] {
  const text = readFileSync(`/proc/${namespace.pid}/net/dev`, 'utf8');
  const [, line = ''] = new RegExp(`^ *${name}:(.*)$`, 'm').exec(text) ?? [];
  return line.trim().split(/\s+/).map(Number);
}
