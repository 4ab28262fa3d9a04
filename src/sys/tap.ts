/** Tap devices: Documentation/networking/tuntap.rst of Linux. */
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { checkStatus } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';

export const IFF_TUN = 0x0001;
export const IFF_TAP = 0x0002;
export const IFF_MULTI_QUEUE = 0x0100;
/** No 4 bytes of packet information in front of each frame. */
export const IFF_NO_PI = 0x1000;
/** A virtio-net header in front of each frame, which offloads need. */
export const IFF_VNET_HDR = 0x4000;
/** Fails when the device exists already. */
export const IFF_TUN_EXCL = 0x8000;

export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
export const TUN_F_TSO_ECN = 0x08;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;

export { VNET_HEADER_BYTES };

export interface TapOptions {
  /** Name, or '' or a pattern such as `tap%d` for the kernel to complete. */
  readonly name?: string;
  /** Frames carry a virtio-net header of {@link VNET_HEADER_BYTES}. */
  readonly vnetHeader?: boolean;
  /** Fail instead of attaching to a device that exists. */
  readonly exclusive?: boolean;
}

export interface Tap {
  /** Non-blocking, close-on-exec; the caller's. The device goes with it unless it was made persistent. */
  readonly fd: number;
  readonly name: string;
}

/**
 * Opens a tap device in this thread's network namespace.
 * @throws EACCES (no access to /dev/net/tun), EPERM (no CAP_NET_ADMIN), EBUSY (in use), ENOENT (no /dev/net/tun)
 */
export function openTap(native: NativeAddon, options: TapOptions = {}): Tap {
  const { name = '', vnetHeader = false, exclusive = false } = options;
  const flags = IFF_TAP | IFF_NO_PI | (vnetHeader ? IFF_VNET_HDR : 0) | (exclusive ? IFF_TUN_EXCL : 0);
  const fd = checkStatus(native.tunOpen(name, flags), 'TUNSETIFF', name === '' ? '/dev/net/tun' : name);
  const chosen = native.tunGetName(fd);
  const status = typeof chosen === 'number' ? chosen : vnetHeader ? native.tunSetVnetHeader(fd, VNET_HEADER_BYTES) : 0;
  if (status < 0) native.close(fd);
  checkStatus(status, 'TUNSETVNETHDRSZ', name);
  return { fd, name: String(chosen) };
}

/** Whether `fd` is a tap device of the plain kind that {@link openTap} makes: frames only, or frames with a virtio-net header. */
export function isTap(native: NativeAddon, fd: number): boolean {
  const flags = native.tunGetFlags(fd);
  return flags >= 0 && (flags & IFF_TAP) !== 0 && (flags & IFF_NO_PI) !== 0;
}

/** What a tap does beyond plain frames, for the link (link/tap.ts). */
export interface TapOffloads {
  /** Frames carry a virtio-net header of {@link VNET_HEADER_BYTES}; TCP frames of up to 64 KiB pass both ways. */
  readonly vnetHeader: boolean;
  /** UDP frames may be left to the kernel to cut (Linux 6.2). */
  readonly udpSegmentation: boolean;
}

/** What the reader of a tap may be asked to bear, the best first: kernels that do not know one bit refuse them all. */
const OFFLOAD_STEPS = [
  TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
  TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
  TUN_F_CSUM,
  0,
] as const;

/**
 * Turns on every offload that the tap's kernel has, if the tap was opened with IFF_VNET_HDR; without, it stays plain.
 * @throws when the kernel refuses virtio-net headers of this size
 */
export function prepareTapOffloads(
  native: Pick<NativeAddon, 'tunGetFlags' | 'tunSetVnetHeader' | 'tunSetOffload'>,
  fd: number,
): TapOffloads {
  const flags = native.tunGetFlags(fd);
  if (flags < 0 || (flags & IFF_VNET_HDR) === 0) return { vnetHeader: false, udpSegmentation: false };
  checkStatus(native.tunSetVnetHeader(fd, VNET_HEADER_BYTES), 'TUNSETVNETHDRSZ', 'tap');
  const taken = OFFLOAD_STEPS.find((step) => native.tunSetOffload(fd, step) >= 0) ?? 0;
  return { vnetHeader: true, udpSegmentation: (taken & TUN_F_USO4) !== 0 };
}
