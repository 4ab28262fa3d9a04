/**
 * The same guest in QEMU, emulated, behind each network that it can have: ours and Debian's passt on a stream socket, and QEMU's own
 * user network. Each at the MTU that its network announces; ours in place of the user network also at that one's, 1500. What counts as the stack's CPU
 * is QEMU's and the helper's together, since the user network works inside QEMU; most of it is the emulation.
 */
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildTool } from '../support/native-tools.ts';
import { createHost, HOST_NET, type Host, type HostOptions } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/process.ts';
import type { PeerOptions } from '../support/peer.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';
import { describeProcess, startStack } from '../support/stack-process.ts';
import { stackCommand } from '../support/stack-under-test.ts';
import type { RigRow } from './alternate.ts';
import {
  type BenchRig,
  countResent,
  measureConnectRequestResponse,
  measureRequestResponse,
  measureTcp,
} from './measure.ts';
import { missingPasstReason, type PasstStackName, QEMU_NET } from './passt-rig.ts';

/** Each network announces its own MTU; QEMU's none, which is 1500. */
const OWN_MTU = 0;

type Row = RigRow<BenchRig>;

function tcpRows(prefix: string, title: string, mtu: number): Row[] {
  const suffix = mtu === OWN_MTU ? '' : `-${mtu}`;
  const at = mtu === OWN_MTU ? '' : `, MTU ${mtu}`;
  return (['tx', 'rx'] as const).map((direction) => ({
    name: `${prefix}-tcp-${direction}${suffix}`,
    title: `${title}: TCP ${direction === 'tx' ? 'guest→host' : 'host→guest'}${at}`,
    unit: 'Gbit/s',
    mtu,
    measure: (rig, seconds) => measureTcp(rig, direction, seconds),
  }));
}

function latencyRows(prefix: string, title: string): Row[] {
  return [
    {
      name: `${prefix}-rr`,
      title: `${title}: TCP request/response`,
      unit: 'µs p50',
      lowerIsBetter: true,
      secondTitle: 'p99 µs',
      mtu: OWN_MTU,
      measure: measureRequestResponse,
    },
    {
      name: `${prefix}-crr`,
      title: `${title}: connect/request/response`,
      unit: '1/s',
      secondTitle: 'p99 µs',
      mtu: OWN_MTU,
      measure: measureConnectRequestResponse,
    },
  ];
}

export const TCG_ROWS: readonly Row[] = [
  ...tcpRows('tcg', 'emulated guest', OWN_MTU),
  ...latencyRows('tcg', 'emulated guest'),
];

/** Our `--user-net` against QEMU's `-netdev user`. */
export const USER_NET_ROWS: readonly Row[] = [
  ...tcpRows('user', '-netdev user', OWN_MTU),
  ...latencyRows('user', '-netdev user'),
  ...tcpRows('user', '-netdev user', 1500),
];

/** Why there can be no such guest; empty: there can. */
export async function missingTcgReason(name: PasstStackName): Promise<string> {
  const reasons = await Promise.all(needGuest('cloud').map((requirement) => requirement.probe()));
  return [...reasons, missingPasstReason(name)].find((reason) => reason !== '') ?? '';
}

/** Boots a guest behind a network, with the traffic peer in it. */
export function createTcgRig(name: PasstStackName, mtu: number): Promise<BenchRig> {
  return createEmulatedRig(name, mtu, []);
}

/** The same with ours in place of QEMU's own. */
export function createUserNetRig(name: PasstStackName, mtu: number): Promise<BenchRig> {
  return createEmulatedRig(name, mtu, ['--user-net', 'user']);
}

async function createEmulatedRig(name: PasstStackName, mtu: number, helperArgs: readonly string[]): Promise<BenchRig> {
  // A guest that gets an address of one family only is up at once, and all rows are of IPv4.
  const options: HostOptions = { ipv6: false };
  const host = await createHost(options);
  try {
    const helper = name === 'qemu' ? undefined : await startHelper(host, name, helperArgs);
    const guest = await bootGuest({
      netdev: helper === undefined ? 'user,id=n0' : `stream,id=n0,server=off,addr.type=unix,addr.path=${helper.socket}`,
      launcher: flatten(host.enter('env', [])),
      extraArgs: ['-drive', `file=${await makePeerDisk(host)},if=virtio,format=raw,readonly=on`],
    });
    try {
      await guest.check('cat /dev/vda > /tmp/peer && chmod +x /tmp/peer');
      await guest.check('udhcpc -i eth0 -n -q -t 10');
      if (mtu !== OWN_MTU) await guest.check(`ip link set eth0 mtu ${mtu}`);
    } catch (error) {
      await guest.stop();
      throw error;
    }
    const processes = [guest.child.pid as number, ...(helper === undefined ? [] : [helper.pid])].map(describeProcess);
    const sum = (value: (one: (typeof processes)[number]) => number) => () =>
      processes.reduce((total, one) => total + value(one), 0);
    return {
      stackName: name,
      host,
      runInGuest: (mode, peerOptions) => runPeerIn(guest, mode, peerOptions),
      hostSeenByGuest: name === 'qemu' || helperArgs.length > 0 ? QEMU_NET.host : HOST_NET.gatewayV4,
      stack: {
        cpuSeconds: sum((one) => one.cpuSeconds()),
        rssBytes: sum((one) => one.rssBytes()),
        peakBytes: sum((one) => one.peakBytes()),
      },
      countResent: async () => countResent(await guest.check('cat /proc/net/snmp /proc/net/netstat')),
      countDrops: async () =>
        Number(
          await guest
            .check('cd /sys/class/net/eth0/statistics && cat *_dropped *_errors')
            .then((text) => text.split(/\s+/).reduce((total, count) => total + Number(count), 0)),
        ),
      close: async () => {
        await guest.stop();
        await host.close();
      },
    };
  } catch (error) {
    await host.close();
    throw error;
  }
}

function flatten([command, args]: [string, string[]]): string[] {
  return [command, ...args];
}

async function startHelper(
  host: Host,
  name: 'ours' | 'debian',
  args: readonly string[],
): Promise<{ socket: string; pid: number }> {
  const socket = join(host.directory, `${name}.socket`);
  const stack = startStack(host, stackCommand(name), ['--foreground', '--quiet', '--socket', socket, ...args]);
  await waitUntil(`${name} to listen`, () => existsSync(socket) || !stack.running(), 10_000);
  if (!stack.running()) throw new Error(`${name} did not start: ${stack.output()}`);
  return { socket, pid: stack.pid };
}

/** A disk that is the program, filled up to whole sectors. */
async function makePeerDisk(host: Host): Promise<string> {
  const program = await readFile(buildTool('peer', ['-static']));
  const disk = Buffer.alloc(Math.ceil(program.length / 4096) * 4096);
  program.copy(disk);
  const path = join(host.directory, 'peer.disk');
  await writeFile(path, disk);
  return path;
}

/** The peer's last line is its report. */
async function runPeerIn<T>(guest: Guest, mode: string, options: PeerOptions): Promise<T> {
  const args = Object.entries(options).flatMap(([name, value]) =>
    value === false ? [] : value === true ? [`--${name}`] : [`--${name}`, String(value)],
  );
  const timeoutMs = (Number(options['duration'] ?? 0) + Number(options['timeout'] ?? 60) + 10) * 1000;
  const text = await guest.check(`/tmp/peer ${mode} ${args.join(' ')}`, { timeoutMs });
  return JSON.parse(text.slice(text.lastIndexOf('\n') + 1)) as T;
}
