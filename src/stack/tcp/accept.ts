/**
 * Connections that come in on forwarded ports.
 *
 * All that wait are accepted at once, since the listener is reported once. Each becomes a flow whose SYN goes to the guest in the
 * same turn; the guest's answer, or its refusal, decides what the remote sees: a RST closes the host socket with a RST. The guest sees
 * the remote's own address, or what the address map makes of one that it could not answer (loopback, its own).
 *
 * A unix socket's clients have no address and no port: the guest sees the host's loopback, with a port of our choosing.
 *
 * A remote whose pair of addresses and ports is in use at the guest is refused, unless that flow is over but for its last
 * acknowledgement.
 *
 * Out of descriptors: a listener that is not emptied would be reported again and again. One descriptor is held in reserve; it
 * makes room to accept what waits, only to reset it.
 */
import { EAGAIN, EBADF, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM } from '../../base/errno.ts';
import { createLogGate, warnGated } from '../../base/logger.ts';
import { IP_PROTOCOL_TCP } from '../../wire/ip-protocol.ts';
import { isIpv4Mapped } from '../../wire/ipv4.ts';
import { isIpv6LinkLocal } from '../../wire/ipv6.ts';
import { getEndpointPort, loadEndpointAddress } from '../endpoint.ts';
import { FLOW_TCP } from '../flow/table.ts';
import { type ForwardTarget, SOCKET_DGRAM } from '../ports.ts';
import { endFlow } from './close.ts';
import { FLAG_SYN_DUE, STATE_SYN_SENT } from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { prepareSocket, watchSocket } from './host-socket.ts';
import { generateIsn } from './isn.ts';
import { isClosedBothWays } from './receive.ts';
import { computePseudoSum } from './segment-writer.ts';
import { startSynTimer } from './timers.ts';

const SOL_SOCKET = 1;
const SO_LINGER = 13;
/** Errors of single connections may follow each other; an error that stays must not keep us here. */
const MAX_ERRORS = 64;
const LOG_INTERVAL_MS = 10_000;
/** Ports for those who have none: where Linux has those of its clients. */
const UNIX_FIRST_PORT = 32_768;
const UNIX_PORTS = 28_232;
const LOOPBACK_V4 = Uint32Array.of(0, 0, 0xffff, 0x7f000001);
const LOOPBACK_V6 = Uint32Array.of(0, 0, 0, 1);

const peer = new Uint32Array(4);
const noAddress = new Uint32Array(4);
const refusedGate = createLogGate(LOG_INTERVAL_MS);

/** Accepts what waits at the listener `listenerIndex`. */
export function acceptAll(core: TcpCore, listenerIndex: number): void {
  const { ctx, sockets, view } = core;
  const listener = ctx.forwards.fdOf(listenerIndex);
  const target = ctx.forwards.targetOf(listenerIndex);
  if (listener < 0 || target === undefined) return;
  if (core.spareFd < 0) core.spareFd = sockets.open(4, SOCKET_DGRAM, 0);
  for (let errors = 0; errors < MAX_ERRORS; ) {
    const fd = sockets.accept(listener, ctx.endpoint);
    if (fd >= 0) {
      if (ctx.bypass?.takeConnection(listenerIndex, fd, ctx.endpoint) === true) continue;
      const family = loadEndpointAddress(view, ctx.endpoint, peer, 0);
      const port = getEndpointPort(view, ctx.endpoint);
      const opened = family === 0 ? openFromUnix(core, fd, target) : openFromHost(core, fd, port, target);
      if (!opened) refuse(core, fd);
      continue;
    }
    switch (fd) {
      case EAGAIN:
      case EBADF:
      case EINVAL:
        return;
      case EMFILE:
      case ENFILE:
        warnGated(ctx.log, refusedGate, ctx.nowMs, 'no descriptors left: connections to forwarded ports are reset');
        if (!refuseNext(core, listener)) return;
        break;
      case ENOMEM:
      case ENOBUFS:
        warnGated(ctx.log, refusedGate, ctx.nowMs, 'no memory to accept connections to forwarded ports');
        return;
      default:
        // The connection at hand failed before it was accepted (accept(2)): the next one may be good.
        errors++;
    }
  }
}

/** @returns false when the connection cannot be passed on; the caller then closes `fd` */
function openFromUnix(core: TcpCore, fd: number, target: ForwardTarget): boolean {
  const { ctx, flows } = core;
  const { guestAddress } = target;
  const isIpv4 = guestAddress === undefined ? ctx.config.ipv4 !== undefined : isIpv4Mapped(guestAddress, 0);
  const loopback = isIpv4 ? LOOPBACK_V4 : LOOPBACK_V6;
  peer.set(loopback);
  ctx.map.toGuest(peer, 0, IP_PROTOCOL_TCP);
  const guest = guestAddress ?? guestAddressFor(core, isIpv4 ? 4 : 6);
  for (let tries = 0; tries < UNIX_PORTS; tries++) {
    core.unixPort = (core.unixPort + 1) % UNIX_PORTS;
    const port = UNIX_FIRST_PORT + core.unixPort;
    if (flows.find(FLOW_TCP, guest, 0, target.guestPort, peer, 0, port) >= 0) continue;
    peer.set(loopback);
    return openFromHost(core, fd, port, target);
  }
  return false;
}

/** @returns false when the connection cannot be passed on; the caller then closes `fd` */
function openFromHost(core: TcpCore, fd: number, peerPort: number, target: ForwardTarget): boolean {
  const { ctx, flows, columns: c } = core;
  ctx.map.toGuest(peer, peerPort, IP_PROTOCOL_TCP);
  const shown = isIpv4Mapped(peer, 0) ? 4 : 6;
  const guest = target.guestAddress ?? guestAddressFor(core, shown);
  if (guest === noAddress || isIpv4Mapped(guest, 0) !== (shown === 4)) return false;

  const taken = flows.find(FLOW_TCP, guest, 0, target.guestPort, peer, 0, peerPort);
  if (taken >= 0) {
    if (!isClosedBothWays(core, taken)) return false;
    endFlow(core, taken);
  }
  const index = flows.open(FLOW_TCP, shown, guest, 0, target.guestPort, peer, 0, peerPort);
  if (index < 0) {
    ctx.counters.flowTableFull++;
    return false;
  }
  flows.fromHost[index] = 1;
  const iss = generateIsn(ctx.secret, guest, target.guestPort, peer, peerPort, ctx.nowMs);
  c.reset(index, STATE_SYN_SENT, iss, ctx.nowMs);
  c.pseudoSum[index] = computePseudoSum(core, index);
  prepareSocket(core, fd);
  if (watchSocket(core, index, fd) < 0) {
    endFlow(core, index);
    return false;
  }
  flows.fd[index] = fd;
  c.flags[index] = c.flags[index]! | FLAG_SYN_DUE;
  startSynTimer(core, index);
  addToTurn(core, index);
  return true;
}

/** The guest's current address of the family that fits the peer's. */
function guestAddressFor(core: TcpCore, family: number): Uint32Array {
  const { guest, config } = core.ctx;
  if (family === 4) return config.ipv4 === undefined ? noAddress : guest.ipv4;
  if (config.ipv6 === undefined) return noAddress;
  return isIpv6LinkLocal(peer, 0) && guest.linkLocal[0] !== 0 ? guest.linkLocal : guest.ipv6;
}

/** Resets the next connection that waits, with the descriptor held in reserve. @returns false when there is none */
function refuseNext(core: TcpCore, listener: number): boolean {
  const { sockets, ctx } = core;
  if (core.spareFd < 0) return false;
  sockets.close(core.spareFd);
  core.spareFd = -1;
  const fd = sockets.accept(listener, ctx.endpoint);
  if (fd >= 0) refuse(core, fd);
  core.spareFd = sockets.open(4, SOCKET_DGRAM, 0);
  return fd >= 0;
}

function refuse(core: TcpCore, fd: number): void {
  core.sockets.setOption(fd, SOL_SOCKET, SO_LINGER, 0);
  core.sockets.close(fd);
}
