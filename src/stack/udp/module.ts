/**
 * UDP between the guest and the host's sockets.
 *
 * **Flows.** One per (guest address, guest port, peer address, peer port), as the guest sees them. It exists as long as datagrams come
 * often enough: 30 s while they come from one side only, 120 s once both sides have spoken (the defaults of Linux's
 * connection tracking, nf_conntrack_udp_timeout and ..._stream).
 *
 * **Started by the guest.** The flow has a socket of its own, bound to the guest's source port where that can be had and connected
 * to the peer's address as the host knows it. Connected, it hears of ICMP errors and of nobody but the peer. Where that port is a
 * forwarded one too, the socket may catch others' datagrams between bind and connect: they are passed to the listener.
 *
 * **Started by a remote.** Datagrams for a forwarded port come in by its listener, all remotes' mixed. The flow has no socket: what the
 * guest answers leaves by the listener too, with the address that the remote wrote to as source. (A socket bound to
 * the same port and then connected to the remote would, between the two calls, receive what others send to that port, and
 * would split a remote's datagrams over two queues.) Who the remote is, is remembered as the host saw it: 127.0.0.1 and
 * 127.0.0.2 may look the same to the guest.
 *
 * **Batches.** Datagrams of one flow that follow each other in one read of the link leave in one sendmmsg, from where they
 * were read to; where they have one length, the kernel gets them as one (UDP_SEGMENT). What waits in a host socket is received up to 64 at a time.
 *
 * **Errors** of the host's sockets become ICMP errors to the guest; its TTL or hop limit is the host socket's. So traceroute works.
 *
 * Not done: checksums of the guest's datagrams are not verified: they come over a local byte stream that does not corrupt, and the
 * host's kernel makes new ones. The guest's "don't fragment" is not handed on: the kernel does path MTU
 * discovery itself and cuts what is too long. A full host socket drops, as any router does; multicast and broadcast go nowhere.
 */
import { createLogGate, passLogGate, takeSuppressed } from '../../base/logger.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ip-protocol.ts';
import { IPV4_BROADCAST } from '../../wire/ipv4.ts';
import { isIpv6Multicast, isIpv6Unspecified } from '../../wire/ipv6.ts';
import { getUdpDstPort, getUdpLength, getUdpSrcPort, UDP_HEADER_BYTES } from '../../wire/udp.ts';
import type { FlowModule, StackContext } from '../context.ts';
import type { FlowDescription } from '../flow/description.ts';
import { FLOW_UDP } from '../flow/table.ts';
import { GuestPackets } from '../fragment/guest-packets.ts';
import {
  familyOfAddress,
  getHopLimit,
  openConnectedSocket,
  scopeOfAddress,
  setHopLimit,
} from '../host-datagram-socket.ts';
import { createQuotedDatagram, type IcmpErrorSender } from '../icmp/errors.ts';
import { reasonOfErrno } from '../icmp/reasons.ts';
import { SocketErrors } from '../icmp/socket-errors.ts';
import type { PacketMeta } from '../packet-meta.ts';
import {
  DATAGRAM_META_SOURCE,
  ENDPOINT_ADDRESS,
  ENDPOINT_PORT,
  EVENT_EDGE,
  EVENT_ERR,
  EVENT_IN,
  KIND_UDP,
  MAP_REFUSED,
} from '../ports.ts';
import { EAGAIN } from '../socket-options.ts';
import { SEEN_BOTH, SEEN_FROM_GUEST, SEEN_FROM_HOST, UdpColumns } from './columns.ts';
import { UdpListeners } from './listeners.ts';
import { fillQuoted } from './quoted.ts';
import { DatagramsToGuest } from './to-guest.ts';
import { DatagramsToHost } from './to-host.ts';

const ONE_WAY_TIMEOUT_MS = 30_000;
const TWO_WAY_TIMEOUT_MS = 120_000;

/** Entries taken from an error queue at a time; a queue that long is a flood. */
const MAX_ERRORS = 256;
/** Batches taken from one socket in one turn: a flood must not keep others waiting. */
const BATCHES_PER_TURN = 8;
const LOG_INTERVAL_MS = 10_000;

export class UdpModule implements FlowModule {
  private readonly ctx: StackContext;
  private readonly columns: UdpColumns;
  private readonly toHost: DatagramsToHost;
  private readonly toGuest: DatagramsToGuest;
  private readonly listeners: UdpListeners;
  private readonly icmpErrors: IcmpErrorSender;
  private readonly socketErrors: SocketErrors;
  private readonly quoted = createQuotedDatagram();
  private readonly openGate = createLogGate(LOG_INTERVAL_MS);
  /** At most this share of the flow table: a flood of datagrams must leave room for connections. */
  private readonly maxFlows: number;

  private readonly remote = new Uint32Array(4);

  constructor(ctx: StackContext, icmpErrors: IcmpErrorSender) {
    this.ctx = ctx;
    this.columns = new UdpColumns(ctx.flows.capacity, ctx.flows.columns);
    this.toHost = new DatagramsToHost(ctx, this.columns, icmpErrors, (index) => this.touch(index, SEEN_FROM_GUEST));
    this.toGuest = new DatagramsToGuest(ctx, new GuestPackets(ctx));
    this.icmpErrors = icmpErrors;
    this.socketErrors = new SocketErrors(ctx, icmpErrors);
    this.maxFlows = Math.ceil(ctx.flows.capacity / 2);
    this.listeners = new UdpListeners(ctx, this.columns, this.toGuest, this.socketErrors, this.maxFlows, (index) =>
      this.touch(index, SEEN_FROM_HOST),
    );
  }

  /** Takes a datagram from the guest, its UDP header checked. It is sent when the flow changes, at the latest by `endInput`. */
  input(meta: PacketMeta): void {
    const { ctx, columns } = this;
    const { view, flows } = ctx;
    const udp = meta.l4Offset;
    const guestPort = getUdpSrcPort(view, udp);
    const peerPort = getUdpDstPort(view, udp);
    let index = flows.find(FLOW_UDP, meta.source, 0, guestPort, meta.destination, 0, peerPort);
    if (index >= 0 && columns.via[index] !== 0 && ctx.forwards.fdOf(columns.via[index]! - 1) < 0) {
      // Its forward was removed.
      this.toHost.flush();
      flows.retire(index);
      index = -1;
    }
    if (index < 0) {
      // What waits may be of the flow that the table now has no room for.
      this.toHost.flush();
      index = this.openFlow(meta, guestPort, peerPort);
      if (index < 0) return;
    }
    const { hopLimit } = meta;
    if (hopLimit !== columns.hopLimit[index]) {
      this.toHost.flush();
      // A listener's socket serves many: what it sends goes with the host's own.
      if (hopLimit !== 0 && columns.via[index] === 0) {
        setHopLimit(ctx, flows.fd[index]!, familyOfAddress(columns.remoteAddress, index * 4), hopLimit);
      }
      columns.hopLimit[index] = hopLimit;
    }
    const payloadBytes = getUdpLength(view, udp) - UDP_HEADER_BYTES;
    const payload = udp + UDP_HEADER_BYTES;
    const { datagramBytes } = meta;
    if (datagramBytes === 0 || datagramBytes >= payloadBytes) {
      this.toHost.add(index, payload, payloadBytes);
      columns.lastBytes[index] = payloadBytes;
      return;
    }
    // The guest has left the cutting to us (UDP_SEGMENT); what is collected may leave as one again.
    for (let at = 0; at < payloadBytes; at += datagramBytes) {
      this.toHost.add(index, payload + at, Math.min(datagramBytes, payloadBytes - at));
    }
    columns.lastBytes[index] = datagramBytes;
  }

  /** The bytes of the packets taken so far are about to be overwritten. */
  endInput(): void {
    this.toHost.flush();
  }

  /** A forwarded port's socket has datagrams or errors. */
  onReadable(listenerIndex: number): void {
    this.listeners.onReadable(listenerIndex);
  }

  onHostEvent(index: number, events: number): void {
    if ((events & EVENT_ERR) !== 0) this.readErrors(index);
    // After an error too: it may have cut a batch short, and then nothing else would tell of the rest.
    this.receive(index);
  }

  onTimer(index: number): void {
    this.ctx.flows.retire(index);
  }

  onRoom(index: number): void {
    this.receive(index);
  }

  /** A forwarded port is about to be closed: what came by it ends. */
  onListenerRemoved(listener: number): void {
    const { ctx, columns } = this;
    const { flows } = ctx;
    this.toHost.flush();
    this.listeners.forget(listener);
    for (let index = 0; index < flows.bound; index++) {
      const isOurs = flows.kind[index] === FLOW_UDP && flows.isLive(index);
      if (isOurs && columns.via[index] === listener + 1) flows.retire(index);
    }
  }

  describe(index: number, description: FlowDescription): void {
    const { columns } = this;
    const seen = columns.seen[index]!;
    description.state = seen === SEEN_BOTH ? 'replied' : seen === SEEN_FROM_GUEST ? 'from-guest' : 'from-host';
    const via = columns.via[index]!;
    if (via === 0) return;
    description.listener = via - 1;
    const at = index * 4;
    description.remoteAddress = columns.remoteAddress.slice(at, at + 4);
    description.remotePort = columns.remotePort[index]!;
    if (columns.localFamily[index] !== 0) description.localAddress = columns.localAddress.slice(at, at + 4);
  }

  onRelease(index: number): void {
    this.toHost.forget(index);
  }

  endTurn(): void {
    this.toHost.flush();
    this.listeners.endTurn();
  }

  private touch(index: number, side: number): void {
    const { ctx, columns } = this;
    const seen = columns.seen[index]! | side;
    columns.seen[index] = seen;
    ctx.timers.arm(index, ctx.nowMs + (seen === SEEN_BOTH ? TWO_WAY_TIMEOUT_MS : ONE_WAY_TIMEOUT_MS));
  }

  private openFlow(meta: PacketMeta, guestPort: number, peerPort: number): number {
    const { ctx, columns, remote } = this;
    const { flows, counters } = ctx;
    if (peerPort === 0 || !this.isAnswerable(meta)) {
      counters.udpUndeliverable++;
      return -1;
    }
    for (let i = 0; i < 4; i++) remote[i] = meta.destination[i]!;
    if (ctx.map.toHost(remote, peerPort, IP_PROTOCOL_UDP) === MAP_REFUSED) {
      counters.udpUndeliverable++;
      return -1;
    }
    if (flows.live[FLOW_UDP]! >= this.maxFlows) {
      counters.flowTableFull++;
      return -1;
    }
    const fd = openConnectedSocket(ctx, 0, remote, 0, peerPort, guestPort, true);
    if (fd < 0) {
      counters.udpUndeliverable++;
      const reason = reasonOfErrno(-fd);
      if (reason >= 0) this.icmpErrors.sendAbout(meta, reason, 0);
      else if (passLogGate(this.openGate, ctx.nowMs)) {
        const more = takeSuppressed(this.openGate);
        ctx.log.warn(`no socket for a UDP flow of the guest: errno ${-fd} (${more} more since the last line)`);
      }
      return -1;
    }
    const index = flows.open(FLOW_UDP, meta.family, meta.source, 0, guestPort, meta.destination, 0, peerPort);
    if (index < 0) {
      counters.flowTableFull++;
      ctx.sockets.close(fd);
      return -1;
    }
    flows.fd[index] = fd;
    columns.reset(flows, index);
    for (let i = 0; i < 4; i++) columns.remoteAddress[index * 4 + i] = remote[i]!;
    columns.remotePort[index] = peerPort;
    columns.remoteScope[index] = scopeOfAddress(ctx, remote, 0);
    columns.hopLimit[index] = getHopLimit(ctx, fd, familyOfAddress(remote, 0));
    ctx.sockets.watch(fd, (EVENT_IN | EVENT_EDGE) >>> 0, KIND_UDP, index);
    this.touch(index, SEEN_FROM_GUEST);
    // What others have sent to a forwarded port while our socket stood before its listener is taken out before the listener is read again.
    if (this.listenerBeside(index) >= 0) this.receive(index);
    return index;
  }

  /** Whether source and destination are single hosts' addresses. */
  private isAnswerable(meta: PacketMeta): boolean {
    const { source, destination } = meta;
    if (meta.family !== 4) return !isIpv6Multicast(destination, 0) && !isIpv6Unspecified(source, 0);
    const to = destination[3]!;
    const from = source[3]!;
    if (to >>> 28 === 0xe || to === IPV4_BROADCAST || from === 0 || from >>> 28 === 0xe) return false;
    const { ipv4 } = this.ctx.config;
    if (ipv4 === undefined || ipv4.prefixLength >= 31) return true;
    const hostMask = 0xffffffff >>> ipv4.prefixLength;
    const isOnLink = ((to ^ ipv4.guestAddress) & ~hostMask) === 0;
    return !(isOnLink && (to & hostMask) >>> 0 === hostMask);
  }

  private readErrors(index: number): void {
    const { ctx, columns, socketErrors, quoted } = this;
    const { flows } = ctx;
    for (let i = 0; i < MAX_ERRORS; i++) {
      const bytes = socketErrors.take(flows.fd[index]!);
      if (bytes < 0) return;
      fillQuoted(quoted, flows, columns, index, socketErrors.payloadOffset, bytes);
      const at = index * 4;
      socketErrors.tell(quoted, columns.remoteAddress, at, flows.guestAddress, at, flows.peerAddress, at);
    }
  }

  /** Takes what has come for a flow with a socket of its own, as far as the link has room and others' turn allows. */
  private receive(index: number): void {
    const { ctx, toGuest } = this;
    const fd = ctx.flows.fd[index]!;
    if (fd < 0) return;
    let failures = 0;
    for (let batches = 0; ; batches++) {
      const limit = toGuest.batchLimit();
      if (limit === 0 || batches === BATCHES_PER_TURN) {
        // The poller tells of these datagrams once only; the queue brings us back.
        ctx.roomQueue.add(index);
        return;
      }
      const count = toGuest.receive(fd, limit);
      if (count > 0) {
        this.deliver(index, count);
        if (count < limit) return;
      } else if (count === -EAGAIN || ++failures > MAX_ERRORS) {
        return;
      } else if (count < 0) {
        this.readErrors(index);
      }
    }
  }

  private deliver(index: number, count: number): void {
    const { ctx, toGuest } = this;
    const { flows } = ctx;
    if (!ctx.link.connected) return;
    const family = flows.family[index]!;
    if (!toGuest.open(0, count, family)) return;
    const { guestAddress, peerAddress } = flows;
    const at = index * 4;
    const guestPort = flows.guestPort[index]!;
    const peerPort = flows.peerPort[index]!;
    const addressSum = this.columns.addressSum[index]!;
    let delivered = 0;
    let bytes = 0;
    for (let i = 0; i < count; ) {
      let end = i;
      while (end < count && this.isFromRemote(index, toGuest.metaOf(end))) bytes += toGuest.lengthOf(end++);
      delivered += end - i;
      while (i < end) {
        i = toGuest.layFrom(i, end, family, peerAddress, at, peerPort, guestAddress, at, guestPort, addressSum);
      }
      // The one that has ended the run is a stranger's.
      i++;
    }
    flows.bytesToGuest[index] = flows.bytesToGuest[index]! + bytes;
    if (delivered > 0) this.touch(index, SEEN_FROM_HOST);
    if (delivered < count) this.handOver(index, count);
  }

  /** Gives what strangers have sent to the listener of the same port, if there is one; it was meant for it. */
  private handOver(index: number, count: number): void {
    const listener = this.listenerBeside(index);
    if (listener < 0) return;
    for (let i = 0; i < count; i++) {
      if (!this.isFromRemote(index, this.toGuest.metaOf(i))) this.listeners.deliverOne(listener, i);
    }
  }

  /** The listener whose port the flow's socket shares, or -1. */
  private listenerBeside(index: number): number {
    const { flows, forwards } = this.ctx;
    return forwards.udpListenerAt === undefined ? -1 : forwards.udpListenerAt(flows.guestPort[index]!);
  }

  /** Others' datagrams can reach the socket between its bind and its connect. */
  private isFromRemote(index: number, meta: number): boolean {
    const { columns } = this;
    const { view } = this.ctx;
    const at = index * 4;
    const { remoteAddress } = columns;
    const address = meta + DATAGRAM_META_SOURCE + ENDPOINT_ADDRESS;
    if (view.getUint16(meta + DATAGRAM_META_SOURCE + ENDPOINT_PORT) !== columns.remotePort[index]) return false;
    if (view.getUint8(meta + DATAGRAM_META_SOURCE) === 4) return view.getUint32(address) === remoteAddress[at + 3];
    return (
      view.getUint32(address) === remoteAddress[at] &&
      view.getUint32(address + 4) === remoteAddress[at + 1] &&
      view.getUint32(address + 8) === remoteAddress[at + 2] &&
      view.getUint32(address + 12) === remoteAddress[at + 3]
    );
  }
}
