/**
 * Sockets of the host for one remote: opened, bound to a port if one is wanted, connected, with the error queue on. UDP flows and echo
 * sessions are made of them.
 */
import { isIpv4Mapped } from '../wire/ipv4.ts';
import { isIpv6LinkLocal } from '../wire/ipv6.ts';
import type { StackContext } from './context.ts';
import { getEndpointPort, writeEndpoint, writeWildcardEndpoint } from './endpoint.ts';
import { ENDPOINT_ADDRESS, SOCKET_DGRAM } from './ports.ts';
import {
  IP_RECVERR,
  IP_TTL,
  IPV6_RECVERR,
  IPV6_UNICAST_HOPS,
  IPV6_V6ONLY,
  SO_BINDTODEVICE,
  SO_RCVBUF,
  SO_REUSEADDR,
  SO_SNDBUF,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
} from './socket-options.ts';

const BUFFER_BYTES = 4 << 20;

/** Family of the host's socket for a destination in 4 words. */
export function familyOfAddress(words: Uint32Array, at: number): number {
  return isIpv4Mapped(words, at) ? 4 : 6;
}

/** Scope that a destination on the host's side needs. */
export function scopeOfAddress(ctx: StackContext, words: Uint32Array, at: number): number {
  return isIpv6LinkLocal(words, at) ? ctx.map.linkLocalScopeId : 0;
}

function isLoopback(words: Uint32Array, at: number): boolean {
  if (isIpv4Mapped(words, at)) return words[at + 3]! >>> 24 === 127;
  return words[at + 3] === 1 && (words[at]! | words[at + 1]! | words[at + 2]!) === 0;
}

/**
 * Opens a datagram socket and connects it.
 *
 * The port is shared (SO_REUSEADDR) among all flows from one port of the guest, so that each remote sees the port the guest
 * has chosen; where it cannot be had (taken by another program, or privileged) the kernel picks one. `--outbound` addresses
 * and interfaces apply to all destinations but the host's loopback, which is not reached from them.
 *
 * @param protocol 0 for UDP, else the IPPROTO number of a ping socket
 * @param remote destination as the host knows it, 4 words at `remoteAt`
 * @param boundPort local port (for a ping socket: identifier) to try; 0: any
 * @param isPortShared false for ping sockets, whose identifiers nobody must share
 * @returns an fd that belongs to the caller, or -errno of open or connect
 */
export function openConnectedSocket(
  ctx: StackContext,
  protocol: number,
  remote: Uint32Array,
  remoteAt: number,
  remotePort: number,
  boundPort: number,
  isPortShared: boolean,
): number {
  const { sockets, view, config, endpoint } = ctx;
  const family = familyOfAddress(remote, remoteAt);
  const fd = sockets.open(family, SOCKET_DGRAM, protocol);
  if (fd < 0) return fd;
  if (family === 4) {
    sockets.setOption(fd, SOL_IP, IP_RECVERR, 1);
  } else {
    sockets.setOption(fd, SOL_IPV6, IPV6_RECVERR, 1);
    // Or a port bound for IPv6 would catch IPv4 datagrams until it is connected.
    sockets.setOption(fd, SOL_IPV6, IPV6_V6ONLY, 1);
  }
  if (protocol === 0) enlargeBuffers(ctx, fd);
  if (isPortShared && boundPort !== 0) sockets.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  const isRemoteLocal = isLoopback(remote, remoteAt);
  const outbound = family === 4 ? config.ipv4 : config.ipv6;
  const device = outbound === undefined || isRemoteLocal ? '' : outbound.outboundInterface;
  if (device !== '') {
    const status = sockets.setOptionString(fd, SOL_SOCKET, SO_BINDTODEVICE, device);
    if (status < 0) return closeWith(ctx, fd, status);
  }
  if (!bindLocal(ctx, fd, family, isRemoteLocal, boundPort)) bindLocal(ctx, fd, family, isRemoteLocal, 0);
  writeEndpoint(view, endpoint, remote, remoteAt, remotePort, scopeOfAddress(ctx, remote, remoteAt));
  const status = sockets.connect(fd, endpoint);
  if (status < 0) return closeWith(ctx, fd, status);
  if (boundPort === 0 || boundPort !== remotePort || !isOwnPeer(ctx, fd, remote, remoteAt, remotePort)) return fd;
  // From a port of the host to the same one, with nobody else there, a socket talks to itself: the guest would hear its own echo.
  sockets.close(fd);
  return openConnectedSocket(ctx, protocol, remote, remoteAt, remotePort, 0, isPortShared);
}

function isOwnPeer(ctx: StackContext, fd: number, remote: Uint32Array, remoteAt: number, remotePort: number): boolean {
  const { view, endpoint, sockets } = ctx;
  if (sockets.getName(fd, endpoint) < 0 || getEndpointPort(view, endpoint) !== remotePort) return false;
  if (isIpv4Mapped(remote, remoteAt)) return view.getUint32(endpoint + ENDPOINT_ADDRESS) === remote[remoteAt + 3];
  for (let i = 0; i < 4; i++) {
    if (view.getUint32(endpoint + ENDPOINT_ADDRESS + 4 * i) !== remote[remoteAt + i]) return false;
  }
  return true;
}

/** Asks for the largest buffers that the host grants (it cuts the number down to its limits): bursts overflow the default ones. */
export function enlargeBuffers(ctx: StackContext, fd: number): void {
  ctx.sockets.setOption(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_BYTES);
  ctx.sockets.setOption(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES);
}

/** @returns false when the bind failed; nothing to bind is a success */
function bindLocal(ctx: StackContext, fd: number, family: number, isRemoteLocal: boolean, port: number): boolean {
  const { view, endpoint, config, sockets } = ctx;
  if (!isRemoteLocal && family === 4 && config.ipv4 !== undefined && config.ipv4.outboundAddress !== 0) {
    writeWildcardEndpoint(view, endpoint, 4, port);
    view.setUint32(endpoint + ENDPOINT_ADDRESS, config.ipv4.outboundAddress);
  } else if (!isRemoteLocal && family === 6 && config.ipv6?.outboundAddress !== undefined) {
    writeEndpoint(view, endpoint, config.ipv6.outboundAddress, 0, port, 0);
  } else if (port !== 0) {
    writeWildcardEndpoint(view, endpoint, family, port);
  } else {
    return true;
  }
  return sockets.bind(fd, endpoint) >= 0;
}

function closeWith(ctx: StackContext, fd: number, status: number): number {
  ctx.sockets.close(fd);
  return status;
}

/** TTL or hop limit that a socket sends with. */
export function getHopLimit(ctx: StackContext, fd: number, hostFamily: number): number {
  const value =
    hostFamily === 4
      ? ctx.sockets.getOption(fd, SOL_IP, IP_TTL)
      : ctx.sockets.getOption(fd, SOL_IPV6, IPV6_UNICAST_HOPS);
  return value > 0 && value <= 255 ? value : 0;
}

/** Makes a socket send with this TTL or hop limit (1 … 255), which is what traceroute lives on. */
export function setHopLimit(ctx: StackContext, fd: number, hostFamily: number, hopLimit: number): void {
  if (hostFamily === 4) ctx.sockets.setOption(fd, SOL_IP, IP_TTL, hopLimit);
  else ctx.sockets.setOption(fd, SOL_IPV6, IPV6_UNICAST_HOPS, hopLimit);
}
