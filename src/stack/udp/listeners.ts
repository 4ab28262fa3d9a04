/**
 * The forwarded UDP ports: datagrams from all remotes come in by one socket each, and are sorted into flows here. See module.ts for
 * why the flows have no sockets of their own.
 *
 * Listeners are watched level-triggered, so what is not read now is reported again. While the link has no room, that would be at once and
 * without end: the listener is then taken off the poller until there is room.
 */
import { IP_PROTOCOL_UDP } from '../../wire/ip-protocol.ts';
import { IPV4_BROADCAST } from '../../wire/ipv4.ts';
import { isIpv6LinkLocal, isIpv6Multicast } from '../../wire/ipv6.ts';
import type { StackContext } from '../context.ts';
import { getEndpointPort, getEndpointScope, isSameEndpoint, loadEndpointAddress } from '../endpoint.ts';
import { FLOW_UDP } from '../flow/table.ts';
import { enlargeBuffers } from '../host-datagram-socket.ts';
import { createQuotedDatagram } from '../icmp/errors.ts';
import type { SocketErrors } from '../icmp/socket-errors.ts';
import {
  DATAGRAM_META_LOCAL,
  DATAGRAM_META_SOURCE,
  EVENT_IN,
  type ForwardTarget,
  KIND_UDP_LISTENER,
  MAP_REFUSED,
} from '../ports.ts';
import { EAGAIN, IP_RECVERR, IPV6_RECVERR, SOL_IP, SOL_IPV6 } from '../socket-options.ts';
import type { UdpColumns } from './columns.ts';
import { fillQuoted } from './quoted.ts';
import type { DatagramsToGuest } from './to-guest.ts';

/** Batches read from one listener in one turn; others want to be heard too, and it will be reported again. */
const BATCHES_PER_TURN = 8;
const MAX_ERRORS = 256;
/** In the list of flows: the bypass has the datagram. */
const TAKEN = -2;

export class UdpListeners {
  private readonly ctx: StackContext;
  private readonly columns: UdpColumns;
  private readonly toGuest: DatagramsToGuest;
  private readonly socketErrors: SocketErrors;
  private readonly maxFlows: number;
  private readonly touch: (flow: number) => void;
  private readonly quoted = createQuotedDatagram();
  private readonly remote = new Uint32Array(4);
  private readonly peer = new Uint32Array(4);
  /** Listeners that have been read before: their error queue is on and their buffers are large. */
  private readonly prepared = new Set<number>();
  /** Listeners taken off the poller for want of room. */
  private blocked: number[] = [];
  /** Flow of each datagram of the batch at hand; -1: it goes nowhere. */
  private readonly flowOf: Int32Array;

  /** @param touch notes that a remote has sent something: sets the flow's timeout */
  constructor(
    ctx: StackContext,
    columns: UdpColumns,
    toGuest: DatagramsToGuest,
    socketErrors: SocketErrors,
    maxFlows: number,
    touch: (flow: number) => void,
  ) {
    this.ctx = ctx;
    this.columns = columns;
    this.toGuest = toGuest;
    this.socketErrors = socketErrors;
    this.maxFlows = maxFlows;
    this.touch = touch;
    this.flowOf = new Int32Array(toGuest.batchDatagrams);
  }

  /** Reads what a listener has, datagrams first, then errors. */
  onReadable(listener: number): void {
    const { ctx, toGuest } = this;
    const fd = ctx.forwards.fdOf(listener);
    if (fd < 0) return;
    if (!this.prepared.has(listener)) this.prepare(listener, fd);
    for (let round = 0; round < BATCHES_PER_TURN; round++) {
      let limit = toGuest.batchLimit();
      if (limit === 0) {
        // Either this makes room, or the link is waiting for its transport and will give us a turn when it can go on.
        ctx.link.flush();
        limit = toGuest.batchLimit();
        if (limit === 0) {
          this.block(listener, fd);
          return;
        }
      }
      const count = toGuest.receive(fd, limit);
      if (count > 0) {
        this.deliver(listener, count);
        if (count < limit) return;
      } else {
        this.readErrors(listener, fd);
        if (count === -EAGAIN) return;
      }
    }
  }

  /** Delivers the i-th datagram of the batch at hand as if it had come by a listener. */
  deliverOne(listener: number, i: number): void {
    const target = this.ctx.forwards.targetOf(listener);
    if (target === undefined) return;
    const flow = this.flowFor(listener, target, this.toGuest.metaOf(i));
    if (flow < 0) return;
    this.flowOf[i] = flow;
    this.layRun(i, i + 1, this.ctx.flows.family[flow]!);
  }

  /** A listener is about to be closed, and its index may come back as another. */
  forget(listener: number): void {
    this.prepared.delete(listener);
    this.blocked = this.blocked.filter((other) => other !== listener);
  }

  /** Puts listeners that waited for room back. */
  endTurn(): void {
    const { ctx, blocked } = this;
    if (blocked.length === 0 || this.toGuest.batchLimit() === 0) return;
    this.blocked = [];
    for (const listener of blocked) {
      const fd = ctx.forwards.fdOf(listener);
      if (fd >= 0) ctx.sockets.rewatch(fd, EVENT_IN, KIND_UDP_LISTENER, listener);
    }
  }

  private prepare(listener: number, fd: number): void {
    enlargeBuffers(this.ctx, fd);
    // One socket may serve both families; the option of the other one is refused, which is no harm.
    this.ctx.sockets.setOption(fd, SOL_IP, IP_RECVERR, 1);
    this.ctx.sockets.setOption(fd, SOL_IPV6, IPV6_RECVERR, 1);
    this.prepared.add(listener);
  }

  private block(listener: number, fd: number): void {
    this.ctx.sockets.rewatch(fd, 0, KIND_UDP_LISTENER, listener);
    this.blocked.push(listener);
  }

  private deliver(listener: number, count: number): void {
    const { ctx, toGuest, flowOf } = this;
    const target = ctx.forwards.targetOf(listener);
    if (target === undefined) return;
    const bypassed = ctx.bypass === undefined ? 0 : this.offerToBypass(listener, count);
    if (bypassed === count || !ctx.link.connected) return;
    for (let i = 0; i < count; i++) {
      if (bypassed > 0 && flowOf[i] === TAKEN) continue;
      const meta = toGuest.metaOf(i);
      const isAsBefore =
        i > 0 &&
        flowOf[i - 1] !== TAKEN &&
        isSameEndpoint(ctx.view, meta + DATAGRAM_META_SOURCE, toGuest.metaOf(i - 1) + DATAGRAM_META_SOURCE) &&
        isSameEndpoint(ctx.view, meta + DATAGRAM_META_LOCAL, toGuest.metaOf(i - 1) + DATAGRAM_META_LOCAL);
      flowOf[i] = isAsBefore ? flowOf[i - 1]! : this.flowFor(listener, target, meta);
    }
    // Runs of one family, since how much room a datagram takes depends on it.
    const { flows } = ctx;
    for (let first = 0; first < count; ) {
      if (flowOf[first]! < 0) {
        first++;
        continue;
      }
      const family = flows.family[flowOf[first]!]!;
      let end = first + 1;
      while (end < count && flowOf[end]! >= 0 && flows.family[flowOf[end]!] === family) end++;
      this.layRun(first, end, family);
      first = end;
    }
  }

  /** Marks the datagrams of the batch that went another way. @returns their number */
  private offerToBypass(listener: number, count: number): number {
    const { toGuest, flowOf } = this;
    const bypass = this.ctx.bypass!;
    let taken = 0;
    for (let i = 0; i < count; ) {
      const run = bypass.takeDatagrams(listener, toGuest.metaOf(i), toGuest.dataOf(i), toGuest.strideBytes, count - i);
      flowOf.fill(TAKEN, i, i + run);
      // Anything but the mark: the flow of the others is still to be found.
      if (run === 0) flowOf[i] = -1;
      taken += run;
      i += run === 0 ? 1 : run;
    }
    return taken;
  }

  private layRun(first: number, end: number, family: number): void {
    const { toGuest, flowOf, columns } = this;
    const { flows } = this.ctx;
    if (!toGuest.open(first, end, family)) return;
    for (let i = first; i < end; ) {
      const flow = flowOf[i]!;
      const at = flow * 4;
      let runEnd = i;
      let bytes = 0;
      while (runEnd < end && flowOf[runEnd] === flow) bytes += toGuest.lengthOf(runEnd++);
      while (i < runEnd) {
        i = toGuest.layFrom(
          i,
          runEnd,
          family,
          flows.peerAddress,
          at,
          flows.peerPort[flow]!,
          flows.guestAddress,
          at,
          flows.guestPort[flow]!,
          columns.addressSum[flow]!,
        );
      }
      this.touch(flow);
      flows.bytesToGuest[flow] = flows.bytesToGuest[flow]! + bytes;
    }
  }

  /** The flow of a datagram, opened if it is a remote's first. @returns -1 when it must not reach the guest */
  private flowFor(listener: number, target: ForwardTarget, meta: number): number {
    const { ctx, columns, remote, peer } = this;
    const { view, flows } = ctx;
    const source = meta + DATAGRAM_META_SOURCE;
    const family = loadEndpointAddress(view, source, remote, 0);
    const port = getEndpointPort(view, source);
    if (!this.setPeer(family, port)) return -1;
    const guest = guestAddressOf(ctx, target, family, peer);
    if (guest === undefined) return -1;
    let flow = flows.find(FLOW_UDP, guest, 0, target.guestPort, peer, 0, port);
    if (flow < 0) {
      if (flows.live[FLOW_UDP]! >= this.maxFlows) flow = -1;
      else flow = flows.open(FLOW_UDP, family, guest, 0, target.guestPort, peer, 0, port);
      if (flow < 0) {
        ctx.counters.flowTableFull++;
        return -1;
      }
      flows.fromHost[flow] = 1;
      columns.reset(flows, flow);
    }
    // Answers go where the remote spoke last, also in a flow that the guest has begun.
    columns.via[flow] = listener + 1;
    columns.remotePort[flow] = port;
    columns.remoteScope[flow] = getEndpointScope(view, source);
    for (let i = 0; i < 4; i++) columns.remoteAddress[flow * 4 + i] = remote[i]!;
    this.noteLocal(flow, meta + DATAGRAM_META_LOCAL);
    return flow;
  }

  private setPeer(family: number, port: number): boolean {
    const { ctx, remote, peer } = this;
    if (family === 0 || (family === 4 ? ctx.config.ipv4 : ctx.config.ipv6) === undefined) return false;
    for (let i = 0; i < 4; i++) peer[i] = remote[i]!;
    // Port 0 as source means that no answer is wanted; it is delivered all the same.
    return ctx.map.toGuest(peer, port, IP_PROTOCOL_UDP) !== MAP_REFUSED;
  }

  /** Remembers which of the host's addresses the remote wrote to. */
  private noteLocal(flow: number, record: number): void {
    const { columns } = this;
    const at = flow * 4;
    const family = loadEndpointAddress(this.ctx.view, record, columns.localAddress, at);
    const isUnicast =
      family === 4
        ? isSourceAddress(columns.localAddress[at + 3]!)
        : family === 6 && !isIpv6Multicast(columns.localAddress, at);
    columns.localFamily[flow] = isUnicast ? family : 0;
    // The interface matters for link-local addresses only; otherwise the route decides.
    const isScoped = family === 6 && isIpv6LinkLocal(columns.localAddress, at);
    columns.localScope[flow] = isScoped ? getEndpointScope(this.ctx.view, record) : 0;
  }

  /** Errors about answers: the queue's entries say to whom, and that finds the flow. */
  private readErrors(listener: number, fd: number): void {
    const { ctx, socketErrors, remote, peer, quoted } = this;
    const { view, flows } = ctx;
    for (let i = 0; i < MAX_ERRORS; i++) {
      const bytes = socketErrors.take(fd);
      if (bytes < 0) return;
      const target = ctx.forwards.targetOf(listener);
      if (target === undefined) continue;
      const family = loadEndpointAddress(view, socketErrors.destination, remote, 0);
      const port = getEndpointPort(view, socketErrors.destination);
      if (!this.setPeer(family, port)) continue;
      const guest = guestAddressOf(ctx, target, family, peer);
      if (guest === undefined) continue;
      const flow = flows.find(FLOW_UDP, guest, 0, target.guestPort, peer, 0, port);
      if (flow < 0) continue;
      fillQuoted(quoted, flows, this.columns, flow, socketErrors.payloadOffset, bytes);
      socketErrors.tell(quoted, remote, 0, flows.guestAddress, flow * 4, flows.peerAddress, flow * 4);
    }
  }
}

function isSourceAddress(address: number): boolean {
  return address !== 0 && address >>> 28 !== 0xe && address !== IPV4_BROADCAST;
}

/** Where a forward leads for a peer of `family`; undefined when the rule names an address of the other family. */
function guestAddressOf(
  ctx: StackContext,
  target: ForwardTarget,
  family: number,
  peer: Uint32Array,
): Uint32Array | undefined {
  const { guest } = ctx;
  const named = target.guestAddress;
  if (named !== undefined) {
    const isIpv4 = named[0] === 0 && named[1] === 0 && named[2] === 0xffff;
    return isIpv4 === (family === 4) ? named : undefined;
  }
  if (family === 4) return guest.ipv4;
  const hasLinkLocal = guest.linkLocal[0] !== 0;
  return hasLinkLocal && isIpv6LinkLocal(peer, 0) ? guest.linkLocal : guest.ipv6;
}
