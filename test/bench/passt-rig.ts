/**
 * The guest of rig.ts behind each of the programs that speak QEMU's stream protocol: ours, Debian's passt, and QEMU itself, whose
 * `-netdev user` (libslirp) a hub joins to a socket on which the pump is the guest, as it is with the others.
 */
import { join } from 'node:path';
import { findCommand } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { createNamespace } from '../support/netns/namespace.ts';
import { type Pump, startPump, waitForPump } from '../support/pump.ts';
import { createRig } from '../support/rig.ts';
import { startStack } from '../support/stack-process.ts';
import { stackCommand } from '../support/stack-under-test.ts';
import { describeGuest, type NamespaceRig, UDP_FORWARDED_PORT } from './measure.ts';

export const PASST_STACKS = ['ours', 'debian', 'qemu'] as const;
export type PasstStackName = (typeof PASST_STACKS)[number];

/** What QEMU's own network calls the guest and the host's loopback, whatever the host has. */
export const QEMU_NET = { guest: '10.0.2.15', host: '10.0.2.2' } as const;

export const QEMU = 'qemu-system-x86_64';

/** Why a program cannot be measured here; empty: it can. */
export function missingPasstReason(name: PasstStackName): string {
  const command = name === 'qemu' ? QEMU : stackCommand(name).command;
  return name === 'ours' || findCommand(command) !== '' ? '' : `${command} is not installed`;
}

/** Builds the rig of one program at one MTU of the guest; QEMU's network announces segments of 1460 bytes at every MTU. */
export async function createPasstRig(name: PasstStackName, mtu: number): Promise<NamespaceRig> {
  if (name === 'qemu') return await createQemuRig(mtu);
  const rig = await createRig({
    stack: stackCommand(name),
    mtu,
    args: ['--quiet', '-u', String(UDP_FORWARDED_PORT)],
  });
  return {
    stackName: name,
    host: rig.host,
    ...describeGuest(rig.guest),
    hostSeenByGuest: HOST_NET.gatewayV4,
    guestSeenByHost: '127.0.0.1',
    stack: rig.stack,
    countDrops: () => countPumpDrops(rig.pump),
    close: () => rig.close(),
  };
}

async function createQemuRig(mtu: number): Promise<NamespaceRig> {
  const [host, guest] = await Promise.all([createHost(), createNamespace('guest')]);
  const close = async (): Promise<void> => {
    await Promise.all([guest.close(), host.close()]);
  };
  try {
    const socket = join(host.directory, 'qemu.socket');
    const stack = startQemuNetwork(host, socket);
    try {
      const pump = startPump(guest, { socket, mtu, connectTimeoutMs: 10_000 });
      await waitForPump(pump, 11_000);
      await guest.sh(
        [
          `ip link set ${pump.tapName} up`,
          `ip addr add ${QEMU_NET.guest}/24 dev ${pump.tapName}`,
          `ip route add default via ${QEMU_NET.host} dev ${pump.tapName}`,
        ].join('\n'),
      );
      return {
        stackName: 'qemu',
        host,
        ...describeGuest(guest),
        hostSeenByGuest: QEMU_NET.host,
        guestSeenByHost: '127.0.0.1',
        stack,
        countDrops: () => countPumpDrops(pump),
        close,
      };
    } catch (error) {
      throw new Error(`${(error as Error).message}\nQEMU said:\n${stack.output()}`);
    }
  } catch (error) {
    await close();
    throw error;
  }
}

/** QEMU without a machine: its user network, its stream socket, and a hub between the two. */
function startQemuNetwork(host: Host, socket: string) {
  const forward = `hostfwd=udp:127.0.0.1:${UDP_FORWARDED_PORT}-${QEMU_NET.guest}:${UDP_FORWARDED_PORT}`;
  const args = [
    ...['-machine', 'none', '-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-netdev', `user,id=user,${forward}`],
    ...['-netdev', `stream,id=wire,server=on,addr.type=unix,addr.path=${socket}`],
    ...['-netdev', 'hubport,id=a,hubid=0,netdev=user', '-netdev', 'hubport,id=b,hubid=0,netdev=wire'],
  ];
  return startStack(host, { command: QEMU, args: [] }, args);
}

/** What the guest's kernel dropped for want of room in the tap's queue, what arrived damaged, and what the tap refused. */
export async function countPumpDrops(pump: Pump): Promise<number> {
  const { tap, toTap } = await pump.counters();
  return tap.txDropped + tap.rxDropped + tap.txErrors + tap.rxErrors + toTap.errors;
}
