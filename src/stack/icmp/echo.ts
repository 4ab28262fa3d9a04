/**
 * Echo requests of the guest (RFC 792, RFC 4443 §4): what answers is the real destination, never the stack in its name.
 *
 * **Sessions.** One flow per (guest address, identifier, destination), with a ping socket of its own (icmp(7): SOCK_DGRAM of protocol
 * ICMP or ICMPV6), connected, and bound to the guest's identifier where that is free on the host. The kernel writes its own
 * identifier into requests; replies get the guest's back. A session ends 60 s after its last message.
 *
 * **Without ping sockets** a raw socket does the same for all sessions (raw-echo.ts); identifiers are then ours to keep apart.
 * Without either, the host itself, being where this runs, still answers; other destinations do not, and the log says why, once.
 *
 * Requests to our own link-local address are answered here: no host stands behind it. TTL and hop limit of requests are the guest's,
 * and errors from the socket's error queue go back to it: traceroute with echo requests works.
 */
import { finishChecksum, pseudoSumIpv6 } from '../../wire/checksum.ts';
import {
  getIcmpCode,
  getIcmpEchoId,
  getIcmpEchoSeq,
  getIcmpType,
  ICMP_ECHO_REPLY,
  ICMP_HEADER_BYTES,
  writeIcmpEcho,
} from '../../wire/icmp.ts';
import { checkIcmpv6, ICMPV6_ECHO_REPLY, writeIcmpv6Echo } from '../../wire/icmpv6.ts';
import { IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6 } from '../../wire/ip-protocol.ts';
import { IPV4_BROADCAST } from '../../wire/ipv4.ts';
import { isIpv6Multicast, isIpv6Unspecified } from '../../wire/ipv6.ts';
import type { FlowModule, StackContext } from '../context.ts';
import { loadEndpointAddress } from '../endpoint.ts';
import type { FlowDescription } from '../flow/description.ts';
import { FLOW_PING } from '../flow/table.ts';
import { GuestPackets, sumAddresses } from '../fragment/guest-packets.ts';
import { getHopLimit, openConnectedSocket, scopeOfAddress, setHopLimit } from '../host-datagram-socket.ts';
import type { PacketMeta } from '../packet-meta.ts';
import {
  DATAGRAM_META_BYTES,
  DATAGRAM_META_LENGTH,
  DATAGRAM_META_SOURCE,
  EVENT_EDGE,
  EVENT_ERR,
  EVENT_IN,
  KIND_PING,
  MAP_AS_IS,
  MAP_REFUSED,
} from '../ports.ts';
import { EACCES, EAGAIN, EPERM } from '../socket-options.ts';
import { createQuotedDatagram, type IcmpErrorSender } from './errors.ts';
import type { RawEcho } from './raw-echo.ts';
import { reasonOfErrno } from './reasons.ts';
import { SocketErrors } from './socket-errors.ts';

const SESSION_TIMEOUT_MS = 60_000;
const BATCH_MESSAGES = 8;
const MAX_MESSAGE_BYTES = 65_535;
const SLOT_BYTES = 66_112;
const MAX_ERRORS = 256;
/** A guest pinging whole networks must leave room for connections. */
const MAX_SESSIONS = 4096;

export class EchoModule implements FlowModule {
  private readonly ctx: StackContext;
  private readonly icmpErrors: IcmpErrorSender;
  private readonly socketErrors: SocketErrors;
  private readonly packets: GuestPackets;
  private readonly raw: RawEcho | undefined;
  private readonly quoted = createQuotedDatagram();
  private readonly slots: number;
  private readonly metas: number;
  private readonly worstBytes: number;
  private readonly remote = new Uint32Array(4);
  private readonly from = new Uint32Array(4);
  private hasWarned = false;

  /** Destination as the host knows it, 4 words a flow. */
  private readonly remoteAddress: Uint32Array;
  private readonly hopLimit: Uint8Array;
  private readonly lastBytes: Uint16Array;
  /** Identifier of a session on the raw socket, plus 1; 0: it has a ping socket. */
  private readonly rawId: Uint32Array;
  /** Flow + 1 by raw identifier; made with the first raw session. */
  private flowOfRawId: Int32Array | undefined;

  constructor(ctx: StackContext, icmpErrors: IcmpErrorSender, raw?: RawEcho) {
    const { capacity, columns } = ctx.flows;
    this.ctx = ctx;
    this.icmpErrors = icmpErrors;
    this.socketErrors = new SocketErrors(ctx, icmpErrors);
    this.packets = new GuestPackets(ctx);
    this.raw = raw;
    this.slots = ctx.arena.allocate(BATCH_MESSAGES * SLOT_BYTES);
    this.metas = ctx.arena.allocate(BATCH_MESSAGES * DATAGRAM_META_BYTES);
    this.worstBytes = Math.max(this.packets.roomFor(4, MAX_MESSAGE_BYTES), this.packets.roomFor(6, MAX_MESSAGE_BYTES));
    this.remoteAddress = columns.uint32(capacity * 4);
    this.hopLimit = columns.uint8(capacity);
    this.lastBytes = columns.uint16(capacity);
    this.rawId = columns.uint32(capacity);
    if (raw !== undefined) raw.onMessage = (family, source, message) => this.takeRaw(family, source, message);
  }

  /** Takes an ICMP echo request, its checksum verified. */
  input4(meta: PacketMeta): void {
    const to = meta.destination[3]!;
    const from = meta.source[3]!;
    const isUnicast = to >>> 28 !== 0xe && to !== IPV4_BROADCAST && from !== 0 && from >>> 28 !== 0xe;
    if (isUnicast) this.request(meta);
    else this.ctx.counters.echoUndeliverable++;
  }

  /** Takes an ICMPv6 echo request of at least 8 bytes. */
  input6(meta: PacketMeta): void {
    const { ctx } = this;
    const { source, destination, l4Offset, l4Length } = meta;
    const pseudo = pseudoSumIpv6(source, 0, destination, 0, IP_PROTOCOL_ICMPV6, l4Length);
    if (checkIcmpv6(ctx.view, l4Offset, l4Offset + l4Length, pseudo) < 0) {
      ctx.counters.badIcmp++;
    } else if (isIpv6Multicast(destination, 0) || isIpv6Unspecified(source, 0)) {
      ctx.counters.echoUndeliverable++;
    } else if (ctx.config.ipv6 !== undefined && isSameWords(destination, 0, ctx.config.ipv6.ourLinkLocal, 0)) {
      this.answer(meta);
    } else {
      this.request(meta);
    }
  }

  onHostEvent(index: number, events: number): void {
    if ((events & EVENT_ERR) !== 0) this.readErrors(index);
    this.receive(index);
  }

  onTimer(index: number): void {
    this.ctx.flows.retire(index);
  }

  onRoom(index: number): void {
    this.receive(index);
  }

  describe(index: number, description: FlowDescription): void {
    description.state = this.rawId[index] === 0 ? 'open' : 'raw';
    if (description.fd >= 0) return;
    description.remoteAddress = this.remoteAddress.slice(index * 4, index * 4 + 4);
  }

  onRelease(index: number): void {
    const rawId = this.rawId[index]!;
    if (rawId === 0) return;
    this.flowOfRawId![rawId - 1] = 0;
    this.rawId[index] = 0;
  }

  private request(meta: PacketMeta): void {
    const { ctx } = this;
    const { view, flows, counters } = ctx;
    const { l4Offset, l4Length, hopLimit } = meta;
    if (getIcmpCode(view, l4Offset) !== 0) {
      counters.badIcmp++;
      return;
    }
    const id = getIcmpEchoId(view, l4Offset);
    let index = flows.find(FLOW_PING, meta.source, 0, id, meta.destination, 0, 0);
    if (index < 0) index = this.openSession(meta, id);
    if (index < 0) return;
    this.lastBytes[index] = l4Length;
    flows.bytesToHost[index] = flows.bytesToHost[index]! + l4Length - ICMP_HEADER_BYTES;
    ctx.timers.arm(index, ctx.nowMs + SESSION_TIMEOUT_MS);
    if (this.rawId[index] !== 0) {
      this.hopLimit[index] = hopLimit;
      this.sendRaw(index, meta);
      return;
    }
    const fd = flows.fd[index]!;
    if (hopLimit !== 0 && hopLimit !== this.hopLimit[index]) {
      setHopLimit(ctx, fd, this.hostFamily(index), hopLimit);
      this.hopLimit[index] = hopLimit;
    }
    // The first failure may be the news of an earlier request's fate (ip(7)).
    if (ctx.sockets.send(fd, l4Offset, l4Length, 0) >= 0) return;
    const status = ctx.sockets.send(fd, l4Offset, l4Length, 0);
    if (status >= 0) return;
    counters.echoUndeliverable++;
    const reason = reasonOfErrno(-status);
    if (reason >= 0) this.icmpErrors.sendAbout(meta, reason, 0);
  }

  private openSession(meta: PacketMeta, id: number): number {
    const { ctx, remote } = this;
    const { flows, counters } = ctx;
    const protocol = meta.family === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6;
    for (let i = 0; i < 4; i++) remote[i] = meta.destination[i]!;
    const mapped = ctx.map.toHost(remote, 0, protocol);
    if (mapped === MAP_REFUSED) {
      counters.echoUndeliverable++;
      return -1;
    }
    if (flows.live[FLOW_PING]! >= MAX_SESSIONS) {
      counters.flowTableFull++;
      return -1;
    }
    const fd = openConnectedSocket(ctx, protocol, remote, 0, 0, id, false);
    const isRefused = fd === -EACCES || fd === -EPERM;
    if (fd < 0 && !(isRefused && this.raw?.open(meta.family) === true)) {
      this.refuse(meta, fd, mapped !== MAP_AS_IS);
      return -1;
    }
    const index = flows.open(FLOW_PING, meta.family, meta.source, 0, id, meta.destination, 0, 0);
    if (index < 0) {
      counters.flowTableFull++;
      if (fd >= 0) ctx.sockets.close(fd);
      return -1;
    }
    for (let i = 0; i < 4; i++) this.remoteAddress[index * 4 + i] = remote[i]!;
    if (fd < 0) {
      this.assignRawId(index, id);
      return index;
    }
    flows.fd[index] = fd;
    this.hopLimit[index] = getHopLimit(ctx, fd, this.hostFamily(index));
    ctx.sockets.watch(fd, (EVENT_IN | EVENT_EDGE) >>> 0, KIND_PING, index);
    return index;
  }

  /** No socket for this destination: says why, or answers in its place when the destination is the host we run on. */
  private refuse(meta: PacketMeta, status: number, isOurHost: boolean): void {
    const { ctx } = this;
    if (status !== -EACCES && status !== -EPERM) {
      ctx.counters.echoUndeliverable++;
      const reason = reasonOfErrno(-status);
      if (reason >= 0) this.icmpErrors.sendAbout(meta, reason, 0);
      return;
    }
    if (isOurHost) {
      this.answer(meta);
      return;
    }
    ctx.counters.echoUndeliverable++;
    if (this.hasWarned) return;
    this.hasWarned = true;
    ctx.log.warn(
      "the guest's pings are not answered: this user may open neither ping sockets (sysctl net.ipv4.ping_group_range) nor raw sockets (CAP_NET_RAW)",
    );
  }

  private hostFamily(index: number): number {
    return this.ctx.flows.family[index]!;
  }

  private receive(index: number): void {
    const { ctx } = this;
    const { link, sockets } = ctx;
    const fd = ctx.flows.fd[index]!;
    if (fd < 0) return;
    for (let failures = 0; failures < MAX_ERRORS; ) {
      let limit = BATCH_MESSAGES;
      if (link.connected) {
        limit = Math.min(limit, Math.floor(link.roomBytes() / this.worstBytes));
        if (limit <= 0) {
          ctx.roomQueue.add(index);
          return;
        }
      }
      const count = sockets.receiveDatagrams(fd, this.slots, SLOT_BYTES, MAX_MESSAGE_BYTES, limit, this.metas);
      if (count > 0) {
        for (let i = 0; i < count; i++) this.reply(index, i);
        if (count < limit) return;
      } else if (count === -EAGAIN) {
        return;
      } else {
        failures++;
        this.readErrors(index);
      }
    }
  }

  private reply(index: number, i: number): void {
    const { ctx, from } = this;
    const { view } = ctx;
    const meta = this.metas + i * DATAGRAM_META_BYTES;
    // A ping socket hears every reply with its identifier, whoever sends it.
    loadEndpointAddress(view, meta + DATAGRAM_META_SOURCE, from, 0);
    if (!isSameWords(from, 0, this.remoteAddress, index * 4)) return;
    this.deliver(index, this.slots + i * SLOT_BYTES, view.getUint32(meta + DATAGRAM_META_LENGTH, true));
  }

  /** Passes an echo reply, whole in the arena, on to the session's guest address with the guest's identifier. */
  private deliver(index: number, offset: number, lengthBytes: number): void {
    const { ctx, packets } = this;
    const { view, flows, link } = ctx;
    if (!link.connected || lengthBytes < ICMP_HEADER_BYTES) return;
    const family = flows.family[index]!;
    const at = index * 4;
    if (getIcmpType(view, offset) !== (family === 4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY)) return;
    const cursor = link.reserve(packets.roomFor(family, lengthBytes));
    if (cursor < 0) {
      ctx.counters.droppedNoRoom++;
      return;
    }
    const { peerAddress, guestAddress } = flows;
    this.writeReply(family, offset, lengthBytes, flows.guestPort[index]!, peerAddress, at, guestAddress, at);
    const protocol = family === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6;
    const sum = sumAddresses(family, peerAddress, at, guestAddress, at);
    packets.lay(cursor, family, protocol, offset, lengthBytes, peerAddress, at, guestAddress, at, sum);
    flows.bytesToGuest[index] = flows.bytesToGuest[index]! + lengthBytes - ICMP_HEADER_BYTES;
    ctx.timers.arm(index, ctx.nowMs + SESSION_TIMEOUT_MS);
  }

  /** Makes the echo message at `offset` a reply with this identifier; its sequence number and data stay. */
  private writeReply(
    family: number,
    offset: number,
    lengthBytes: number,
    id: number,
    source: Uint32Array,
    sourceAt: number,
    destination: Uint32Array,
    destinationAt: number,
  ): void {
    const { view, sockets } = this.ctx;
    const seq = getIcmpEchoSeq(view, offset);
    const dataSum = sockets.sum(offset + ICMP_HEADER_BYTES, lengthBytes - ICMP_HEADER_BYTES, 0);
    if (family === 4) {
      writeIcmpEcho(view, offset, ICMP_ECHO_REPLY, id, seq, dataSum);
      return;
    }
    const pseudo = pseudoSumIpv6(source, sourceAt, destination, destinationAt, IP_PROTOCOL_ICMPV6, lengthBytes);
    writeIcmpv6Echo(view, offset, ICMPV6_ECHO_REPLY, id, seq, pseudo + dataSum);
  }

  /** Answers a request ourselves. */
  private answer(meta: PacketMeta): void {
    const { ctx, packets, slots } = this;
    const { family, l4Offset, l4Length, source, destination } = meta;
    const cursor = ctx.link.reserve(packets.roomFor(family, l4Length));
    if (cursor < 0) {
      ctx.counters.droppedNoRoom++;
      return;
    }
    ctx.arena.bytes.copyWithin(slots, l4Offset, l4Offset + l4Length);
    this.writeReply(family, slots, l4Length, getIcmpEchoId(ctx.view, slots), destination, 0, source, 0);
    const protocol = family === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6;
    const sum = sumAddresses(family, destination, 0, source, 0);
    packets.lay(cursor, family, protocol, slots, l4Length, destination, 0, source, 0, sum);
  }

  private readErrors(index: number): void {
    const { ctx, quoted, socketErrors } = this;
    const { flows, view } = ctx;
    const { payloadOffset } = socketErrors;
    for (let i = 0; i < MAX_ERRORS; i++) {
      const bytes = socketErrors.take(flows.fd[index]!);
      if (bytes < 0) return;
      // Without the message's header there is nothing that the guest could match.
      if (bytes < ICMP_HEADER_BYTES) continue;
      const id = flows.guestPort[index]!;
      replaceEchoId(view, payloadOffset, id);
      quoted.family = flows.family[index]!;
      quoted.protocol = quoted.family === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6;
      quoted.guestPort = id;
      quoted.peerPort = 0;
      quoted.hopLimit = this.hopLimit[index]!;
      quoted.payloadOffset = payloadOffset;
      quoted.payloadBytes = bytes;
      quoted.fullPayloadBytes = Math.max(this.lastBytes[index]!, bytes);
      const at = index * 4;
      socketErrors.tell(quoted, this.remoteAddress, at, flows.guestAddress, at, flows.peerAddress, at);
    }
  }

  private assignRawId(index: number, wanted: number): void {
    this.flowOfRawId ??= new Int32Array(0x10000);
    let id = wanted;
    while (this.flowOfRawId[id] !== 0) id = (id + 1) & 0xffff;
    this.flowOfRawId[id] = index + 1;
    this.rawId[index] = id + 1;
  }

  private sendRaw(index: number, meta: PacketMeta): void {
    const { ctx, remote, slots } = this;
    const { l4Offset, l4Length, family, hopLimit } = meta;
    ctx.arena.bytes.copyWithin(slots, l4Offset, l4Offset + l4Length);
    replaceEchoId(ctx.view, slots, this.rawId[index]! - 1);
    for (let i = 0; i < 4; i++) remote[i] = this.remoteAddress[index * 4 + i]!;
    const message = ctx.arena.bytes.subarray(slots, slots + l4Length);
    this.raw!.send(family, message, remote, scopeOfAddress(ctx, remote, 0), hopLimit === 0 ? 1 : hopLimit);
  }

  private takeRaw(family: number, source: Uint32Array, message: Uint8Array): void {
    const { ctx, slots } = this;
    if (message.length < ICMP_HEADER_BYTES || message.length > MAX_MESSAGE_BYTES) return;
    const index = (this.flowOfRawId?.[(message[4]! << 8) | message[5]!] ?? 0) - 1;
    if (index < 0 || !ctx.flows.isLive(index) || ctx.flows.family[index] !== family) return;
    if (!isSameWords(source, 0, this.remoteAddress, index * 4)) return;
    ctx.arena.bytes.set(message, slots);
    this.deliver(index, slots, message.length);
  }
}

function isSameWords(a: Uint32Array, at: number, b: Uint32Array, bt: number): boolean {
  return a[at + 3] === b[bt + 3] && a[at + 2] === b[bt + 2] && a[at + 1] === b[bt + 1] && a[at] === b[bt];
}

/** Puts another identifier into an echo message and corrects its checksum by the difference (RFC 1624), as it may be cut off. */
function replaceEchoId(view: DataView, offset: number, id: number): void {
  const before = view.getUint16(offset + 4);
  const checksum = view.getUint16(offset + 2);
  view.setUint16(offset + 4, id);
  view.setUint16(offset + 2, finishChecksum((~checksum & 0xffff) + (~before & 0xffff) + id));
}
