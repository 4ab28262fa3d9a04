/**
 * Connections that the guest opens.
 *
 * A SYN makes a flow and a host socket that connects, without blocking, to what the address map says stands behind the guest's
 * destination. The SYN-ACK goes out when the host's connect has succeeded, not before: the guest sees a refusal as a refusal and
 * an unreachable host as a timeout. Failure is told by a RST.
 *
 * An address may be a service (`GuestServices`) instead: one that leads to an address of the host is connected to in the same way; for others,
 * the connected socket comes later from another process (`takeServiceConnection`).
 *
 * Not done: ICMP errors instead of a RST for unreachable destinations; connecting in advance.
 */

import { EINPROGRESS } from '../../base/errno.ts';
import { IP_PROTOCOL_TCP } from '../../wire/ip-protocol.ts';
import { isIpv4Mapped } from '../../wire/ipv4.ts';
import { isIpv6LinkLocal } from '../../wire/ipv6.ts';
import { getTcpDstPort, getTcpSrcPort } from '../../wire/tcp.ts';
import { writeEndpoint } from '../endpoint.ts';
import { FLOW_TCP } from '../flow/table.ts';
import type { PacketMeta } from '../packet-meta.ts';
import { MAP_AS_IS, MAP_REFUSED, MAP_REWRITTEN, SOCKET_STREAM } from '../ports.ts';
import { endFlow, resetBoth } from './close.ts';
import { FLAG_SYN_DUE, STATE_CONNECTING, STATE_SYN_RECEIVED } from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { takeSyn } from './handshake.ts';
import { prepareSocket, watchConnect, watchSocket } from './host-socket.ts';
import { generateIsn } from './isn.ts';
import { computePseudoSum, writeResetFor } from './segment-writer.ts';
import { startConnectTimer, startSynTimer } from './timers.ts';

const SOL_SOCKET = 1;
const SO_BINDTODEVICE = 25;
const IPPROTO_IP = 0;
/** ip(7): leave the choice of a port to connect(2), which needs it unique per destination only. */
const IP_BIND_ADDRESS_NO_PORT = 24;

/** What the host is asked for; reused. */
const target = new Uint32Array(4);
const outbound4 = new Uint32Array([0, 0, 0xffff, 0]);

/** Takes a SYN that belongs to no flow. */
export function openFromGuest(core: TcpCore, meta: PacketMeta, headerBytes: number): void {
  const { ctx, flows, view } = core;
  const l4 = meta.l4Offset;
  const guestPort = getTcpSrcPort(view, l4);
  const peerPort = getTcpDstPort(view, l4);
  target.set(meta.destination);
  const { services } = ctx;
  const service = services === undefined ? -1 : services.find(target, peerPort);
  const mapped = service >= 0 ? MAP_REWRITTEN : ctx.map.toHost(target, peerPort, IP_PROTOCOL_TCP);
  if (mapped === MAP_REFUSED || guestPort === 0 || peerPort === 0) {
    writeResetFor(core, meta, meta.l4Length - headerBytes);
    return;
  }
  const { source, destination } = meta;
  const index = flows.open(FLOW_TCP, meta.family, source, 0, guestPort, destination, 0, peerPort);
  if (index < 0) {
    // The guest tries again, and there may be room then.
    ctx.counters.flowTableFull++;
    return;
  }
  const iss = generateIsn(ctx.secret, source, guestPort, destination, peerPort, ctx.nowMs);
  core.columns.reset(index, STATE_CONNECTING, iss, ctx.nowMs);
  core.columns.pseudoSum[index] = computePseudoSum(core, index);
  takeSyn(core, index, l4, headerBytes);

  let port = peerPort;
  if (service >= 0) {
    const to = services!.targetOf(service);
    if (to === undefined) {
      if (services!.connect(service, index, flows.generation[index]!)) startConnectTimer(core, index);
      else resetBoth(core, index);
      return;
    }
    target.set(to.address);
    port = to.port;
  }
  const fd = ctx.sockets.open(isIpv4Mapped(target, 0) ? 4 : 6, SOCKET_STREAM, 0);
  if (fd < 0) {
    // Out of descriptors or memory: silence makes the guest try again.
    endFlow(core, index);
    return;
  }
  flows.fd[index] = fd;
  connectToTarget(core, index, fd, port, mapped === MAP_AS_IS);
}

function connectToTarget(core: TcpCore, index: number, fd: number, port: number, isAsIs: boolean): void {
  const { ctx, sockets, view } = core;
  prepareSocket(core, fd);
  // What was rewritten lies on the host itself, where an outbound address or interface would not lead.
  if (isAsIs && !bindOutbound(core, fd)) {
    resetBoth(core, index);
    return;
  }
  const scope = isIpv6LinkLocal(target, 0) ? ctx.map.linkLocalScopeId : 0;
  writeEndpoint(view, ctx.endpoint, target, 0, port, scope);
  const result = sockets.connect(fd, ctx.endpoint);
  // Watched only now: a socket that is neither connected nor connecting reports a hang-up.
  if (result === 0 && watchSocket(core, index, fd) >= 0) {
    onHostConnected(core, index);
  } else if (result === EINPROGRESS && watchConnect(core, index, fd) >= 0) {
    startConnectTimer(core, index);
  } else {
    resetBoth(core, index);
  }
}

/** The connection that was asked for. @param fd - becomes the flow's; or -errno */
export function takeServiceConnection(core: TcpCore, index: number, fd: number): void {
  const { sockets, flows, columns: c } = core;
  if (c.state[index] !== STATE_CONNECTING || flows.fd[index]! >= 0) {
    if (fd >= 0) sockets.close(fd);
    return;
  }
  flows.fd[index] = fd < 0 ? -1 : fd;
  if (fd >= 0) prepareSocket(core, fd);
  if (fd < 0 || watchSocket(core, index, fd) < 0) resetBoth(core, index);
  else onHostConnected(core, index);
}

/** The host's connect has succeeded. */
export function onHostConnected(core: TcpCore, index: number): void {
  const { columns: c } = core;
  c.state[index] = STATE_SYN_RECEIVED;
  c.flags[index] = c.flags[index]! | FLAG_SYN_DUE;
  startSynTimer(core, index);
  addToTurn(core, index);
}

/** Applies --outbound and --outbound-if. @returns false when the host refuses */
function bindOutbound(core: TcpCore, fd: number): boolean {
  const { ctx, sockets, view } = core;
  const isIpv4 = isIpv4Mapped(target, 0);
  const family = isIpv4 ? ctx.config.ipv4 : ctx.config.ipv6;
  if (family === undefined) return true;
  if (family.outboundInterface !== '') {
    const result = sockets.setOptionString(fd, SOL_SOCKET, SO_BINDTODEVICE, family.outboundInterface);
    if (result < 0) return false;
  }
  let address: Uint32Array | undefined;
  if (typeof family.outboundAddress === 'number') {
    if (family.outboundAddress !== 0) {
      outbound4[3] = family.outboundAddress;
      address = outbound4;
    }
  } else {
    address = family.outboundAddress;
  }
  if (address === undefined) return true;
  sockets.setOption(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  const scope = isIpv6LinkLocal(address, 0) ? ctx.map.linkLocalScopeId : 0;
  writeEndpoint(view, ctx.endpoint, address, 0, 0, scope);
  return sockets.bind(fd, ctx.endpoint) >= 0;
}
