/**
 * Single IP packets towards the guest: the way out for everything but TCP data, which lays whole batches itself.
 *
 * `openIpPacket` finds room and says where the L4 bytes go; the caller writes them; `closeIpPacket` puts IP and Ethernet headers in
 * front and queues the frame. Nothing may be reserved in between. Frames are padded to Ethernet's 60 bytes.
 */

import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_MIN_FRAME_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  writeEthernetHeader,
} from '../wire/ethernet.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, writeIpv4Header } from '../wire/ipv4.ts';
import { IPV6_HEADER_BYTES, writeIpv6Header } from '../wire/ipv6.ts';
import { VNET_HEADER_BYTES, writeVnetWhole } from '../wire/vnet.ts';
import type { StackContext } from './context.ts';

const DEFAULT_HOP_LIMIT = 255;

/** Bytes in front of the L4 part: link headroom excluded. */
export function ipFrameHeaderBytes(family: number): number {
  return ETHERNET_HEADER_BYTES + (family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
}

/**
 * Makes room for one packet with `l4Bytes` behind the IP header.
 * @returns where the L4 header goes, or -1 when the link has no room (counted as dropped)
 */
export function openIpPacket(ctx: StackContext, family: number, l4Bytes: number): number {
  const { link } = ctx;
  const headerBytes = ipFrameHeaderBytes(family);
  const frameBytes = Math.max(headerBytes + l4Bytes, ETHERNET_MIN_FRAME_BYTES);
  if (frameBytes > link.maxFrameBytes) return -1;
  const start = link.reserve(link.headroomBytes + frameBytes);
  if (start < 0) {
    ctx.counters.droppedNoRoom++;
    return -1;
  }
  return start + link.headroomBytes + headerBytes;
}

/**
 * Writes the headers in front of `l4Offset` and queues the frame.
 * @param source 4 words at `sourceAt`, the address the guest sees as sender
 * @param hopLimit TTL or hop limit; 255 if left out, which NDP demands and everything else bears
 */
export function closeIpPacket(
  ctx: StackContext,
  family: number,
  protocol: number,
  l4Offset: number,
  l4Bytes: number,
  source: Uint32Array,
  sourceAt: number,
  destination: Uint32Array,
  destinationAt: number,
  hopLimit: number = DEFAULT_HOP_LIMIT,
): void {
  const { guest } = ctx;
  closeIpPacketTo(
    ctx,
    family,
    protocol,
    l4Offset,
    l4Bytes,
    source,
    sourceAt,
    destination,
    destinationAt,
    hopLimit,
    guest.macHi,
    guest.macLo,
  );
}

/** `closeIpPacket` to a MAC of the caller's choice: multicast and broadcast. */
export function closeIpPacketTo(
  ctx: StackContext,
  family: number,
  protocol: number,
  l4Offset: number,
  l4Bytes: number,
  source: Uint32Array,
  sourceAt: number,
  destination: Uint32Array,
  destinationAt: number,
  hopLimit: number,
  macHi: number,
  macLo: number,
): void {
  const { view, config } = ctx;
  const headerBytes = ipFrameHeaderBytes(family);
  const frame = l4Offset - headerBytes;
  const ip = frame + ETHERNET_HEADER_BYTES;
  if (family === 4) {
    writeEthernetHeader(view, frame, macHi, macLo, config.ourMacHi, config.ourMacLo, ETHERTYPE_IPV4);
    writeIpv4Header(
      view,
      ip,
      IPV4_HEADER_BYTES + l4Bytes,
      // RFC 6864: the identification of a packet that may not be fragmented says nothing.
      0,
      IPV4_DONT_FRAGMENT,
      hopLimit,
      protocol,
      source[sourceAt + 3]!,
      destination[destinationAt + 3]!,
      0,
    );
  } else {
    writeEthernetHeader(view, frame, macHi, macLo, config.ourMacHi, config.ourMacLo, ETHERTYPE_IPV6);
    writeIpv6Header(view, ip, l4Bytes, protocol, hopLimit, source, sourceAt, destination, destinationAt, 0, 0);
  }
  commitPadded(ctx, frame, headerBytes + l4Bytes);
}

/**
 * Writes the Ethernet header of a frame to the guest. On the data path in place of `writeEthernetHeader`, through whose arguments halves of
 * addresses pass as objects on the heap where it is not inlined.
 */
export function writeFrameHeader(ctx: StackContext, frameOffset: number, etherType: number): void {
  const { view, guest, config } = ctx;
  view.setUint16(frameOffset, guest.macHi);
  view.setUint32(frameOffset + 2, guest.macLo);
  view.setUint16(frameOffset + 6, config.ourMacHi);
  view.setUint32(frameOffset + 8, config.ourMacLo);
  view.setUint16(frameOffset + 12, etherType);
}

/** Queues a frame, padded with zeros to Ethernet's minimum; the room reserved for it must have allowed for that. */
export function commitPadded(ctx: StackContext, frameOffset: number, frameBytes: number): void {
  let length = frameBytes;
  if (length < ETHERNET_MIN_FRAME_BYTES) {
    ctx.arena.bytes.fill(0, frameOffset + length, frameOffset + ETHERNET_MIN_FRAME_BYTES);
    length = ETHERNET_MIN_FRAME_BYTES;
  }
  if (ctx.link.hasVnetHeader) writeVnetWhole(ctx.view, frameOffset - VNET_HEADER_BYTES);
  ctx.counters.hostFrames++;
  ctx.counters.hostBytes += length;
  ctx.link.commit(frameOffset, length);
}
