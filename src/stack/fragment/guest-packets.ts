/**
 * IP packets towards the guest whose transport part lies elsewhere in the arena and may be longer than the MTU: datagrams and
 * echo replies. A packet that does not fit is cut into fragments (RFC 791 §3.2, RFC 8200 §4.5); the kernel has reassembled
 * what the host received, so the pieces are ours to make.
 *
 * Room is asked for first (`roomFor`), for as many packets as are to be laid; then each `lay` puts one packet, or its fragments,
 * at a cursor that walks through that room. IPv4 identifications count up from a random start and are drawn for
 * fragments only (RFC 6864 §4.1); IPv6 ones likewise (RFC 7739 wants them hard to guess across destinations; here
 * there is only one, and nobody else hears it).
 *
 * Not done: fragments of fragments, IPv4 options, IPv6 extension headers in front of the fragment header.
 */
import { finishChecksum, foldChecksum, pseudoSumIpv4, pseudoSumIpv6 } from '../../wire/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_MIN_FRAME_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
} from '../../wire/ethernet.ts';
import { IP_PROTOCOL_FRAGMENT } from '../../wire/ip-protocol.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, IPV4_MORE_FRAGMENTS } from '../../wire/ipv4.ts';
import {
  IPV6_FRAGMENT_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  IPV6_MIN_MTU,
  writeIpv6FragmentHeader,
  writeIpv6Header,
} from '../../wire/ipv6.ts';
import type { StackContext } from '../context.ts';
import { commitPadded, writeFrameHeader } from '../output.ts';

/** As in output.ts: the guest is one hop away whatever the number says. */
const HOP_LIMIT = 255;
/** Fragments begin at multiples of this. */
const FRAGMENT_UNIT_MASK = ~7;

/**
 * The share that a packet's addresses have in its checksums: IPv4 header and pseudo-header. Folded to 16 bits: a small integer costs
 * nothing to keep and to pass on, where the plain sum would be a number on the heap.
 */
export function sumAddresses(
  family: number,
  source: Uint32Array,
  sourceAt: number,
  destination: Uint32Array,
  destinationAt: number,
): number {
  const sum =
    family === 4
      ? pseudoSumIpv4(source[sourceAt + 3]!, destination[destinationAt + 3]!, 0, 0)
      : pseudoSumIpv6(source, sourceAt, destination, destinationAt, 0, 0);
  return foldChecksum(sum);
}

/** As `writeIpv4Header` of wire/ipv4.ts, without addresses passing through arguments, and with their sum known. */
export function writeIpv4HeaderSummed(
  view: DataView,
  offset: number,
  totalLength: number,
  id: number,
  flagsFragment: number,
  protocol: number,
  source: Uint32Array,
  sourceAt: number,
  destination: Uint32Array,
  destinationAt: number,
  addressSum: number,
): void {
  const ttlAndProtocol = (HOP_LIMIT << 8) | protocol;
  view.setUint16(offset, 0x4500);
  view.setUint16(offset + 2, totalLength);
  view.setUint16(offset + 4, id);
  view.setUint16(offset + 6, flagsFragment);
  view.setUint16(offset + 8, ttlAndProtocol);
  view.setUint16(offset + 10, finishChecksum(0x4500 + totalLength + id + flagsFragment + ttlAndProtocol + addressSum));
  view.setUint32(offset + 12, source[sourceAt + 3]!);
  view.setUint32(offset + 16, destination[destinationAt + 3]!);
}

export class GuestPackets {
  private readonly ctx: StackContext;
  /** Largest transport part of a whole packet. */
  private readonly wholeBytes4: number;
  private readonly wholeBytes6: number;
  /** Transport bytes in every fragment but the last. */
  private readonly pieceBytes4: number;
  private readonly pieceBytes6: number;
  private id4: number;
  private id6: number;

  constructor(ctx: StackContext) {
    this.ctx = ctx;
    const frameMtu = ctx.link.maxFrameBytes - ETHERNET_HEADER_BYTES;
    const mtu4 = Math.min(ctx.config.mtu, frameMtu);
    // Below this there is no IPv6 (RFC 8200 §5); a guest that speaks it takes packets of this size.
    const mtu6 = Math.min(Math.max(ctx.config.mtu, IPV6_MIN_MTU), frameMtu);
    this.wholeBytes4 = mtu4 - IPV4_HEADER_BYTES;
    this.wholeBytes6 = mtu6 - IPV6_HEADER_BYTES;
    this.pieceBytes4 = this.wholeBytes4 & FRAGMENT_UNIT_MASK;
    this.pieceBytes6 = (this.wholeBytes6 - IPV6_FRAGMENT_HEADER_BYTES) & FRAGMENT_UNIT_MASK;
    this.id4 = ctx.secret[2]! & 0xffff;
    this.id6 = ctx.secret[3]!;
  }

  /** Whether a packet with `l4Bytes` of transport header and payload need not be cut into fragments. */
  isWhole(family: number, l4Bytes: number): boolean {
    return l4Bytes <= (family === 4 ? this.wholeBytes4 : this.wholeBytes6);
  }

  /** Bytes of link room (headrooms included) that a packet with `l4Bytes` of transport header and payload takes. */
  roomFor(family: number, l4Bytes: number): number {
    const { headroomBytes } = this.ctx.link;
    if (l4Bytes <= (family === 4 ? this.wholeBytes4 : this.wholeBytes6)) {
      const frameBytes = ETHERNET_HEADER_BYTES + (family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + l4Bytes;
      return headroomBytes + Math.max(frameBytes, ETHERNET_MIN_FRAME_BYTES);
    }
    const pieceBytes = family === 4 ? this.pieceBytes4 : this.pieceBytes6;
    const headerBytes = family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES + IPV6_FRAGMENT_HEADER_BYTES;
    const fullPieces = Math.ceil(l4Bytes / pieceBytes) - 1;
    const lastBytes = ETHERNET_HEADER_BYTES + headerBytes + l4Bytes - fullPieces * pieceBytes;
    return (
      fullPieces * (headroomBytes + ETHERNET_HEADER_BYTES + headerBytes + pieceBytes) +
      headroomBytes +
      Math.max(lastBytes, ETHERNET_MIN_FRAME_BYTES)
    );
  }

  /**
   * Lays and commits one packet, in fragments if need be.
   * @param cursor where its first headroom goes: what `reserve` gave, or what the last `lay` returned
   * @param l4Offset where the transport header and payload, checksum included, stand now; they are copied unless it is where the
   * packet wants them
   * @param source holds 4 words at `sourceAt`, `destination` at `destinationAt`
   * @param addressSum `sumAddresses` of them
   * @returns the cursor behind the packet
   */
  lay(
    cursor: number,
    family: number,
    protocol: number,
    l4Offset: number,
    l4Bytes: number,
    source: Uint32Array,
    sourceAt: number,
    destination: Uint32Array,
    destinationAt: number,
    addressSum: number,
  ): number {
    const { ctx } = this;
    const { view, link } = ctx;
    const { bytes } = ctx.arena;
    const { headroomBytes } = link;
    const isIpv4 = family === 4;
    const isWhole = l4Bytes <= (isIpv4 ? this.wholeBytes4 : this.wholeBytes6);
    let pieceBytes = l4Bytes;
    let id = 0;
    if (!isWhole) {
      pieceBytes = isIpv4 ? this.pieceBytes4 : this.pieceBytes6;
      id = isIpv4 ? this.drawId4() : this.drawId6();
    }
    let at = cursor;
    // An empty transport part would still be a packet, but nobody sends one: every protocol here has a header.
    for (let done = 0; done < l4Bytes; done += pieceBytes) {
      const left = l4Bytes - done;
      const isLast = left <= pieceBytes;
      const length = isLast ? left : pieceBytes;
      const frame = at + headroomBytes;
      const ip = frame + ETHERNET_HEADER_BYTES;
      let payload: number;
      if (isIpv4) {
        writeFrameHeader(ctx, frame, ETHERTYPE_IPV4);
        const flags = isWhole ? IPV4_DONT_FRAGMENT : (done >>> 3) | (isLast ? 0 : IPV4_MORE_FRAGMENTS);
        writeIpv4HeaderSummed(
          view,
          ip,
          IPV4_HEADER_BYTES + length,
          id,
          flags,
          protocol,
          source,
          sourceAt,
          destination,
          destinationAt,
          addressSum,
        );
        payload = ip + IPV4_HEADER_BYTES;
      } else {
        writeFrameHeader(ctx, frame, ETHERTYPE_IPV6);
        const extension = isWhole ? 0 : IPV6_FRAGMENT_HEADER_BYTES;
        writeIpv6Header(
          view,
          ip,
          extension + length,
          isWhole ? protocol : IP_PROTOCOL_FRAGMENT,
          HOP_LIMIT,
          source,
          sourceAt,
          destination,
          destinationAt,
          0,
          0,
        );
        payload = ip + IPV6_HEADER_BYTES;
        if (!isWhole) {
          writeIpv6FragmentHeader(view, payload, protocol, done, !isLast, id);
          payload += IPV6_FRAGMENT_HEADER_BYTES;
        }
      }
      if (payload !== l4Offset + done) bytes.copyWithin(payload, l4Offset + done, l4Offset + done + length);
      const frameBytes = payload + length - frame;
      commitPadded(ctx, frame, frameBytes);
      at = frame + Math.max(frameBytes, ETHERNET_MIN_FRAME_BYTES);
    }
    return at;
  }

  private drawId4(): number {
    this.id4 = (this.id4 + 1) & 0xffff;
    return this.id4;
  }

  private drawId6(): number {
    this.id6 = (this.id6 + 1) >>> 0;
    return this.id6;
  }
}
