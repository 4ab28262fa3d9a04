/**
 * Datagrams on their way to the guest: taken from a host socket in batches, with the addon's payload sums, and laid onto the link as
 * IP packets.
 *
 * Frames on the link lie back to back, and how long a datagram is shows only when it has been received. But mostly a batch is as long as
 * the one before. So once a batch was of one length the next is received into the link's room, spaced for frames of that length:
 * if that was right, headers are written in front and that is all. If not, what came is copied to an area of our own, where what was
 * longer than expected went on anyway, and from there, as every batch is that follows one of different lengths.
 *
 * A guest that takes UDP offloads gets datagrams of one flow that follow each other in one frame of up to 64 KiB, as far as they are of
 * equal length: one write into a tap instead of dozens.
 *
 * What the link has no room for stays in the socket: a batch is asked for only as large as would fit at worst.
 */
import { foldChecksum } from '../../wire/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_MIN_FRAME_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
} from '../../wire/ethernet.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ip-protocol.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES } from '../../wire/ipv4.ts';
import { IPV6_HEADER_BYTES, writeIpv6Header } from '../../wire/ipv6.ts';
import { UDP_HEADER_BYTES, writeUdpHeader } from '../../wire/udp.ts';
import { VNET_HEADER_BYTES, VNET_UDP, writeVnetPartial } from '../../wire/vnet.ts';
import type { StackContext } from '../context.ts';
import { type GuestPackets, writeIpv4HeaderSummed } from '../fragment/guest-packets.ts';
import { ipFrameHeaderBytes, writeFrameHeader } from '../output.ts';
import { DATAGRAM_META_BYTES, DATAGRAM_META_LENGTH, DATAGRAM_META_SUM, OFFLOAD_UDP4, OFFLOAD_UDP6 } from '../ports.ts';

/** Datagrams in one recvmmsg: beyond this a larger batch saves nothing that shows. */
const BATCH_DATAGRAMS = 64;
const HOP_LIMIT = 255;
/** Where in a UDP header its checksum stands. */
const CHECKSUM_OFFSET = 6;
/** Longest UDP payload: 65535 less the UDP header (IPv6; IPv4's is shorter by its own header). */
const MAX_PAYLOAD_BYTES = 65_535 - UDP_HEADER_BYTES;
/**
 * From one slot to the next: UDP header and longest payload, rounded up, and off the page size so that the starts of all slots do not
 * compete for the same lines of the processor's caches.
 */
const SLOT_BYTES = 66_112;

export class DatagramsToGuest {
  /** The most that `batchLimit` ever gives. */
  readonly batchDatagrams = BATCH_DATAGRAMS;
  private readonly ctx: StackContext;
  private readonly packets: GuestPackets;
  private readonly slots: number;
  private readonly metas: number;
  /** Room that the longest datagram takes, whichever the family. */
  private readonly worstBytes: number;
  private cursor = 0;
  /** Payload bytes of every datagram of the next batch, if it is like the last one; 0: nothing is expected. */
  private expectedBytes = 0;
  private expectedFamily = 4;
  /** Where the payloads of the batch at hand lie, and how far apart: in the slots or on the link. */
  private base: number;
  private stride = SLOT_BYTES;
  private received = 0;

  constructor(ctx: StackContext, packets: GuestPackets) {
    this.ctx = ctx;
    this.packets = packets;
    this.slots = ctx.arena.allocate(BATCH_DATAGRAMS * SLOT_BYTES);
    this.metas = ctx.arena.allocate(BATCH_DATAGRAMS * DATAGRAM_META_BYTES);
    this.base = this.slots + UDP_HEADER_BYTES;
    this.worstBytes = Math.max(packets.roomFor(4, 65_535), packets.roomFor(6, 65_535));
  }

  /** How many datagrams the link would take now, however long they are; all of a batch while there is no guest to take any. */
  batchLimit(): number {
    const { link } = this.ctx;
    if (!link.connected) return BATCH_DATAGRAMS;
    const fit = Math.floor(link.roomBytes() / this.worstBytes);
    return Math.min(fit, BATCH_DATAGRAMS);
  }

  /** Receives up to `count` (a `batchLimit`) datagrams. @returns how many, or -errno */
  receive(fd: number, count: number): number {
    const { sockets } = this.ctx;
    const slots = this.slots + UDP_HEADER_BYTES;
    const start = this.expectedBytes === 0 ? -1 : this.reserveExpected(count);
    if (start < 0) {
      this.base = slots;
      this.stride = SLOT_BYTES;
      this.received = sockets.receiveDatagrams(fd, slots, SLOT_BYTES, MAX_PAYLOAD_BYTES, count, this.metas);
    } else {
      const { expectedBytes, stride, metas } = this;
      this.base = start;
      const tails = slots + expectedBytes;
      this.received = sockets.receiveSplitDatagrams(fd, start, stride, expectedBytes, count, metas, tails, SLOT_BYTES);
    }
    if (this.received > 0) this.learnLength();
    return this.received;
  }

  /** Makes room on the link for datagrams as expected and sets `stride`. @returns where the first payload goes, or -1 */
  private reserveExpected(count: number): number {
    const { expectedBytes, expectedFamily } = this;
    const { link } = this.ctx;
    const headerBytes = ipFrameHeaderBytes(expectedFamily) + UDP_HEADER_BYTES;
    this.stride = link.headroomBytes + headerBytes + expectedBytes;
    const start = link.reserve(count * this.stride);
    return start < 0 ? -1 : start + link.headroomBytes + headerBytes;
  }

  /** Sees whether the batch at hand is of one length, and has it lie in the slots if it is not as expected. */
  private learnLength(): void {
    const length = this.lengthOf(0);
    let uniform = true;
    for (let i = 1; i < this.received && uniform; i++) uniform = this.lengthOf(i) === length;
    if (this.stride !== SLOT_BYTES && (!uniform || length !== this.expectedBytes)) this.moveToSlots(0);
    this.expectedBytes = uniform && this.isExpectable(length) ? length : 0;
  }

  /** Whether such datagrams become frames that are neither padded, cut, nor joined. */
  private isExpectable(length: number): boolean {
    const { link } = this.ctx;
    return (
      length >= ETHERNET_MIN_FRAME_BYTES &&
      (link.offloads & (OFFLOAD_UDP4 | OFFLOAD_UDP6)) === 0 &&
      this.packets.isWhole(4, UDP_HEADER_BYTES + length) &&
      this.packets.isWhole(6, UDP_HEADER_BYTES + length)
    );
  }

  /** Moves the payloads of the i-th and all later datagrams, as far as they lie on the link, to the slots. */
  private moveToSlots(i: number): void {
    const { bytes } = this.ctx.arena;
    const slots = this.slots + UDP_HEADER_BYTES;
    for (let k = i; k < this.received; k++) {
      const at = this.dataOf(k);
      // What is longer than expected lies in the slot already.
      const length = Math.min(this.lengthOf(k), this.expectedBytes);
      bytes.copyWithin(slots + k * SLOT_BYTES, at, at + length);
    }
    this.base = slots;
    this.stride = SLOT_BYTES;
  }

  /** The DATAGRAM_META record of the i-th datagram received. */
  metaOf(i: number): number {
    return this.metas + i * DATAGRAM_META_BYTES;
  }

  /** Where the payload of the i-th datagram received lies; that of the next is {@link strideBytes} on. */
  dataOf(i: number): number {
    return this.base + i * this.stride;
  }

  /** From the payload of one datagram received to that of the next. */
  get strideBytes(): number {
    return this.stride;
  }

  /** Payload bytes of the i-th datagram received. */
  lengthOf(i: number): number {
    return this.ctx.view.getUint32(this.metas + i * DATAGRAM_META_BYTES + DATAGRAM_META_LENGTH, true);
  }

  /** Reserves room for datagrams first … end - 1, all of one family. @returns false if there is none, which counts as drops */
  open(first: number, end: number, family: number): boolean {
    const { link, counters } = this.ctx;
    let room = 0;
    for (let i = first; i < end; i++) room += this.packets.roomFor(family, UDP_HEADER_BYTES + this.lengthOf(i));
    if (this.stride !== SLOT_BYTES && family !== this.expectedFamily) this.moveToSlots(first);
    this.expectedFamily = family;
    this.cursor = link.reserve(room);
    if (this.cursor >= 0) return true;
    counters.droppedNoRoom += end - first;
    return false;
  }

  /**
   * Lays the i-th datagram behind the last one, and in the same frame those after it that may share it: the guest cuts them apart.
   * @param end of those that have the same addresses and ports
   * @param source 4 words at `sourceAt`, `destination` at `destinationAt`: as the guest is to see them
   * @param addressSum `sumAddresses` of them
   * @returns index of the first that was not laid, at least i + 1
   */
  layFrom(
    i: number,
    end: number,
    family: number,
    source: Uint32Array,
    sourceAt: number,
    sourcePort: number,
    destination: Uint32Array,
    destinationAt: number,
    destinationPort: number,
    addressSum: number,
  ): number {
    const next = this.endOfShared(i, end, family);
    if (next === i + 1) {
      this.lay(i, family, source, sourceAt, sourcePort, destination, destinationAt, destinationPort, addressSum);
      return next;
    }
    const { ctx } = this;
    const { view, link, counters, arena } = ctx;
    const isIpv4 = family === 4;
    const frame = this.cursor + link.headroomBytes;
    const ip = frame + ETHERNET_HEADER_BYTES;
    const udp = ip + (isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
    const payload = udp + UDP_HEADER_BYTES;
    let at = payload;
    for (let k = i; k < next; k++) {
      const slot = this.dataOf(k);
      const length = this.lengthOf(k);
      arena.bytes.copyWithin(at, slot, slot + length);
      at += length;
    }
    const udpBytes = at - udp;
    writeVnetPartial(
      view,
      frame - VNET_HEADER_BYTES,
      VNET_UDP,
      payload - frame,
      this.lengthOf(i),
      udp - frame,
      CHECKSUM_OFFSET,
    );
    writeFrameHeader(ctx, frame, isIpv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    if (isIpv4) {
      writeIpv4HeaderSummed(
        view,
        ip,
        IPV4_HEADER_BYTES + udpBytes,
        0,
        IPV4_DONT_FRAGMENT,
        IP_PROTOCOL_UDP,
        source,
        sourceAt,
        destination,
        destinationAt,
        addressSum,
      );
    } else {
      writeIpv6Header(
        view,
        ip,
        udpBytes,
        IP_PROTOCOL_UDP,
        HOP_LIMIT,
        source,
        sourceAt,
        destination,
        destinationAt,
        0,
        0,
      );
    }
    writeUdpHeader(view, udp, sourcePort, destinationPort, udpBytes, 0);
    view.setUint16(udp + CHECKSUM_OFFSET, foldChecksum(addressSum + IP_PROTOCOL_UDP + udpBytes));
    counters.hostFrames++;
    counters.hostBytes += at - frame;
    link.commit(frame, at - frame);
    this.cursor = at;
    return next;
  }

  /** Index behind those, from the i-th on, that one frame may hold: of equal length, but for the last, which may be shorter. */
  private endOfShared(i: number, end: number, family: number): number {
    const { link } = this.ctx;
    if (i + 1 >= end || (link.offloads & (family === 4 ? OFFLOAD_UDP4 : OFFLOAD_UDP6)) === 0) return i + 1;
    const length = this.lengthOf(i);
    if (length === 0 || !this.packets.isWhole(family, UDP_HEADER_BYTES + length)) return i + 1;
    let room = link.maxFrameBytes - ipFrameHeaderBytes(family) - UDP_HEADER_BYTES - length;
    let next = i + 1;
    for (let last = length; next < end && last === length; next++) {
      last = this.lengthOf(next);
      if (last === 0 || last > length || last > room) break;
      room -= last;
    }
    return next;
  }

  /**
   * Lays the i-th datagram behind the last one, alone.
   */
  private lay(
    i: number,
    family: number,
    source: Uint32Array,
    sourceAt: number,
    sourcePort: number,
    destination: Uint32Array,
    destinationAt: number,
    destinationPort: number,
    addressSum: number,
  ): void {
    const { view } = this.ctx;
    const udp = this.dataOf(i) - UDP_HEADER_BYTES;
    const length = UDP_HEADER_BYTES + this.lengthOf(i);
    const payloadSum = view.getUint32(this.metas + i * DATAGRAM_META_BYTES + DATAGRAM_META_SUM, true);
    const sum = addressSum + IP_PROTOCOL_UDP + length + payloadSum;
    writeUdpHeader(view, udp, sourcePort, destinationPort, length, sum);
    this.cursor = this.packets.lay(
      this.cursor,
      family,
      IP_PROTOCOL_UDP,
      udp,
      length,
      source,
      sourceAt,
      destination,
      destinationAt,
      addressSum,
    );
  }
}
