/**
 * Data segments for a guest that takes offloads (a kernel behind a tap): many in one frame of up to 64 KiB, with the segment size in the
 * virtio-net header and the pseudo-header's sum in the place of the checksum. What the payload sums to is nobody's concern then, so
 * it is not read at all here.
 *
 * Frames are few and large: they are written with the general writers. They are not padded to Ethernet's minimum, which is for wires.
 */
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../wire/ethernet.ts';
import { IP_PROTOCOL_TCP } from '../../wire/ip-protocol.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER_BYTES, writeIpv4Header } from '../../wire/ipv4.ts';
import { IPV6_HEADER_BYTES, writeIpv6Header } from '../../wire/ipv6.ts';
import { TCP_ACK, TCP_HEADER_BYTES, TCP_PSH, writeTcpHeader } from '../../wire/tcp.ts';
import { VNET_HEADER_BYTES, VNET_TCP4, VNET_TCP6, VNET_WHOLE, writeVnetPartial } from '../../wire/vnet.ts';
import { writeFrameHeader } from '../output.ts';
import { OFFLOAD_CHECKSUM, OFFLOAD_TCP4, OFFLOAD_TCP6 } from '../ports.ts';
import { FLAG_ACK_DELAYED, FLAG_ACK_DUE } from './columns.ts';
import type { TcpCore } from './core.ts';
import { advertiseWindow } from './window.ts';

const HOP_LIMIT = 255;
/** Where in a TCP header its checksum stands. */
const CHECKSUM_OFFSET = 16;

/** Whether the flow's frames leave their checksums to the guest. */
export function leavesChecksums(core: TcpCore): boolean {
  return (core.ctx.link.offloads & OFFLOAD_CHECKSUM) !== 0;
}

/**
 * Most payload of one frame: one segment, or as many whole segments as a frame holds if the guest cuts them itself.
 * @param headerBytes Ethernet, IP and TCP
 */
export function frameUnit(core: TcpCore, index: number, headerBytes: number): number {
  const { link } = core.ctx;
  const mss = core.columns.mss[index]!;
  const offload = core.flows.family[index] === 4 ? OFFLOAD_TCP4 : OFFLOAD_TCP6;
  if ((link.offloads & offload) === 0) return mss;
  return Math.max(1, Math.trunc((link.maxFrameBytes - headerBytes) / mss)) * mss;
}

/**
 * Writes the headers of a batch of data frames and queues them. Every frame but the last has `frameBytes` of payload.
 * @param frameOffset where the first frame's Ethernet header goes; payload i lies at `frameOffset + i * strideBytes` + headers
 * @param seq number of the first payload byte
 * @param totalBytes payload of all frames together, at least 1
 * @param push whether the last segment carries PSH
 */
export function writeOffloadedBatch(
  core: TcpCore,
  index: number,
  frameOffset: number,
  strideBytes: number,
  frameBytes: number,
  seq: number,
  totalBytes: number,
  push: boolean,
): void {
  const { view, flows, columns: c, ctx } = core;
  const { link, counters } = ctx;
  const { peerAddress, guestAddress } = flows;
  const isIpv4 = flows.family[index] === 4;
  const ipBytes = isIpv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  const headerBytes = ETHERNET_HEADER_BYTES + ipBytes + TCP_HEADER_BYTES;
  const tcpStart = ETHERNET_HEADER_BYTES + ipBytes;
  const srcPort = flows.peerPort[index]!;
  const dstPort = flows.guestPort[index]!;
  const at = index * 4;
  const mss = c.mss[index]!;
  const window = advertiseWindow(c, index);
  const ack = c.rcvNxt[index]!;
  const pseudoSum = c.pseudoSum[index]!;

  let frame = frameOffset;
  let number = seq;
  for (let left = totalBytes; left > 0; ) {
    const payload = Math.min(left, frameBytes);
    left -= payload;
    const tcpBytes = TCP_HEADER_BYTES + payload;
    const ip = frame + ETHERNET_HEADER_BYTES;
    const tcp = ip + ipBytes;
    const kind = payload <= mss ? VNET_WHOLE : isIpv4 ? VNET_TCP4 : VNET_TCP6;
    writeVnetPartial(view, frame - VNET_HEADER_BYTES, kind, headerBytes, mss, tcpStart, CHECKSUM_OFFSET);
    writeFrameHeader(ctx, frame, isIpv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    if (isIpv4) {
      const total = IPV4_HEADER_BYTES + tcpBytes;
      const source = peerAddress[at + 3]!;
      const destination = guestAddress[at + 3]!;
      writeIpv4Header(view, ip, total, 0, IPV4_DONT_FRAGMENT, HOP_LIMIT, IP_PROTOCOL_TCP, source, destination, 0);
    } else {
      writeIpv6Header(view, ip, tcpBytes, IP_PROTOCOL_TCP, HOP_LIMIT, peerAddress, at, guestAddress, at, 0, 0);
    }
    const flags = left === 0 && push ? TCP_ACK | TCP_PSH : TCP_ACK;
    writeTcpHeader(view, tcp, srcPort, dstPort, number, ack, TCP_HEADER_BYTES, flags, window, 0);
    const sum = pseudoSum + tcpBytes;
    view.setUint16(tcp + CHECKSUM_OFFSET, (sum & 0xffff) + (sum >>> 16));
    const length = headerBytes + payload;
    link.commit(frame, length);
    counters.hostFrames++;
    counters.hostBytes += length;
    frame += strideBytes;
    number = (number + payload) >>> 0;
  }
  c.flags[index] = c.flags[index]! & ~(FLAG_ACK_DUE | FLAG_ACK_DELAYED);
  c.ackedSeq[index] = c.rcvNxt[index]!;
}
