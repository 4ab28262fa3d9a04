/** What follows from the description of a link. */
import { isAbsolute } from 'node:path';
import type { Netdev, UnixAddress } from './netdev.ts';

/** The most that fits a UDP datagram: over IPv4 the headers take 28 bytes of 65 535. */
export const UDP_FRAME_BYTES = 65_507;

/** Unix paths made absolute: the working directory is left. */
export function resolvePaths(netdev: Netdev, resolve: (path: string) => string): Netdev {
  const absolute = <Address extends { readonly type: string }>(address: Address): Address => {
    if (address.type !== 'unix') return address;
    const unix = address as unknown as UnixAddress;
    if (unix.isAbstract || isAbsolute(unix.path)) return address;
    return { ...address, path: resolve(unix.path) };
  };
  if (netdev.form === 'stream') return { ...netdev, address: absolute(netdev.address) };
  return netdev.form === 'datagram'
    ? { ...netdev, local: absolute(netdev.local), remote: absolute(netdev.remote) }
    : netdev;
}

/** The descriptor that a link was given by number. */
export function inheritedFd(netdev: Netdev): number | undefined {
  if (netdev.form === 'inherited') return netdev.fd;
  return netdev.form === 'stream' && netdev.address.type === 'fd' ? netdev.address.fd : undefined;
}

/** Whether frames travel in UDP datagrams, which are shorter than the longest frame. */
export function isOverUdp(netdev: Netdev): boolean {
  return netdev.form === 'multicast' || (netdev.form === 'datagram' && netdev.local.type === 'inet');
}
