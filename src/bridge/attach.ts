/**
 * A new tap device as a port of a bridge, as QEMU's `-netdev bridge` wants it.
 *
 * The bridge is looked up before anything is made. The tap gets the bridge's MTU, so that no frame is too long for its other ports; and 0xfe
 * as first byte of its hardware address, because a bridge takes the lowest address of its ports for its own and must not change it
 * when guests come and go (the guest's own address is another one). The tap is not persistent: it goes with its last descriptor,
 * so a failure at any step leaves nothing behind.
 */

import { writeFileSync } from 'node:fs';
import { EINVAL } from '../base/errno.ts';
import { reasonOf } from '../base/errors.ts';
import { checkStatus, createSystemError } from '../sys/errors.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL, IFF_VNET_HDR } from '../sys/tap.ts';

export interface AttachRequest {
  readonly bridge: string;
  /** A virtio-net header in front of each frame, if the kernel has it. */
  readonly vnetHeader: boolean;
  /** Name of the tap; a `%d` in it becomes a number. Default `tap%d`. */
  readonly tapName?: string;
  /** The port exchanges frames only with ports that are not isolated. */
  readonly isolated?: boolean;
  /** Descriptors of one device, 1 … {@link MAX_QUEUES}. Default 1. */
  readonly queues?: number;
}

/** MAX_TAP_QUEUES of the kernel. */
export const MAX_QUEUES = 256;

export interface AttachedTap {
  readonly name: string;
  readonly bridge: string;
  readonly mtu: number;
  /** One a queue; blocking, close-on-exec, the caller's. */
  readonly fds: readonly number[];
  readonly vnetHeader: boolean;
}

/** A step that failed; the message names step, device and reason. */
export class AttachError extends Error {
  override readonly name = 'AttachError';
}

const IFF_UP = 1;
const HIGH_FIRST_BYTE = 0xfe;

/**
 * Whether `bridge` is one, and its MTU. Makes nothing. SIOCBRADDIF of interface 0 tells a bridge from other interfaces, but asks for
 * CAP_NET_ADMIN first.
 * @returns its MTU
 * @throws AttachError
 */
export function lookUpBridge(native: NativeAddon, bridge: string): number {
  const mtu = step(`get mtu of bridge '${bridge}'`, () => checkStatus(native.netifGetMtu(bridge), 'SIOCGIFMTU'));
  const probe = native.netifBridgeAdd(bridge, 0);
  // Of the kernel's answers to a port with interface index 0, that of a bridge is EINVAL.
  if (probe !== EINVAL && probe < 0) {
    const reason = reasonOf(createSystemError('SIOCBRADDIF', probe));
    throw new AttachError(`failed to add an interface to bridge '${bridge}': ${reason}`);
  }
  return mtu;
}

/**
 * Makes a tap and adds it to the bridge.
 * @throws AttachError; nothing is left then
 */
export function attachTap(native: NativeAddon, request: AttachRequest): AttachedTap {
  const { bridge, tapName = 'tap%d', isolated = false, queues = 1 } = request;
  const mtu = lookUpBridge(native, bridge);
  const fds: number[] = [];
  try {
    const vnetHeader = request.vnetHeader && hasVnetHeader(native);
    const flags = IFF_TAP | IFF_NO_PI | (vnetHeader ? IFF_VNET_HDR : 0) | (queues > 1 ? IFF_MULTI_QUEUE : 0);
    let name = tapName;
    for (let queue = 0; queue < queues; queue++) {
      // Only the first makes the device: one that exists already must not be taken over.
      const exclusive = queue === 0 ? IFF_TUN_EXCL : 0;
      const opened = native.tunOpen(name, flags | exclusive);
      fds.push(step(`create tun device '${name}'`, () => checkStatus(opened, 'TUNSETIFF')));
      if (queue === 0) name = nameOf(native, opened);
    }
    step(`set mtu of device '${name}' to ${mtu}`, () => checkStatus(native.netifSetMtu(name, mtu), 'SIOCSIFMTU'));
    raiseAddress(native, name);
    step(`add interface '${name}' to bridge '${bridge}'`, () =>
      checkStatus(native.netifBridgeAdd(bridge, native.netifIndex(name)), 'SIOCBRADDIF'),
    );
    if (isolated) isolatePort(name);
    step(`bring up interface '${name}'`, () => checkStatus(native.netifSetFlags(name, IFF_UP, 0), 'SIOCSIFFLAGS'));
    // As the C program's: QEMU changes it to what it needs, others may not.
    for (const fd of fds) checkStatus(native.setNonBlocking(fd, 0), 'fcntl');
    return { name, bridge, mtu, fds, vnetHeader };
  } catch (error) {
    for (const fd of fds) native.close(fd);
    throw error;
  }
}

function hasVnetHeader(native: NativeAddon): boolean {
  const features = step('open /dev/net/tun', () => checkStatus(native.tunGetFeatures(), 'TUNGETFEATURES'));
  return (features & IFF_VNET_HDR) !== 0;
}

function nameOf(native: NativeAddon, fd: number): string {
  const name = native.tunGetName(fd);
  if (typeof name === 'number') throw new AttachError(`failed to get the tap's name: ${describe('TUNGETIFF', name)}`);
  return name;
}

function raiseAddress(native: NativeAddon, name: string): void {
  const address = new Uint8Array(6);
  step(`get MAC address of device '${name}'`, () =>
    checkStatus(native.netifGetHardwareAddress(name, address), 'SIOCGIFHWADDR'),
  );
  address[0] = HIGH_FIRST_BYTE;
  step(`set MAC address of device '${name}'`, () =>
    checkStatus(native.netifSetHardwareAddress(name, address), 'SIOCSIFHWADDR'),
  );
}

/** By sysfs (Documentation/ABI/testing/sysfs-class-net of Linux), which must be that of this network namespace. */
function isolatePort(name: string): void {
  step(`isolate the port of '${name}'`, () => writeFileSync(`/sys/class/net/${name}/brport/isolated`, '1'));
}

function step<T>(what: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new AttachError(`failed to ${what}: ${reasonOf(error)}`, { cause: error });
  }
}

function describe(call: string, status: number): string {
  return reasonOf(createSystemError(call, status));
}
