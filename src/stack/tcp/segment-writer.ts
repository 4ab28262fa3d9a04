/**
 * Segments towards the guest, straight into the link's memory.
 *
 * Control segments (SYN, ACK, RST, FIN, probes) go out one by one with the general writers of wire/. Data segments come in
 * batches that lie ready behind their headroom, `strideBytes` apart, with the sums of their payloads: their headers are written
 * by a loop of its own that keeps everything constant out of it. All checksum arithmetic in it is on sums folded to 16 bits and
 * stays in small integers.
 */
import { addSeq, diffSeq } from '../../base/sequence.ts';
import { foldChecksum, pseudoSumIpv6 } from '../../wire/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_MIN_FRAME_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
} from '../../wire/ethernet.ts';
import { IP_PROTOCOL_TCP } from '../../wire/ip-protocol.ts';
import { IPV4_DONT_FRAGMENT } from '../../wire/ipv4.ts';
import {
  getTcpAck,
  getTcpDstPort,
  getTcpFlags,
  getTcpSeq,
  getTcpSrcPort,
  TCP_ACK,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_MAX_SACK_BLOCKS,
  TCP_MAX_SYN_OPTIONS_BYTES,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  writeTcpHeader,
  writeTcpSackOption,
  writeTcpSynOptions,
} from '../../wire/tcp.ts';
import { VNET_HEADER_BYTES, writeVnetWhole } from '../../wire/vnet.ts';
import { closeIpPacket, commitPadded, ipFrameHeaderBytes } from '../output.ts';
import type { PacketMeta } from '../packet-meta.ts';
import { FLAG_ACK_DELAYED, FLAG_ACK_DUE, FLAG_HAS_GAP, FLAG_SACK_OK } from './columns.ts';
import type { TcpCore } from './core.ts';
import { advertiseWindow, SYN_WINDOW_BYTES } from './window.ts';

const HOP_LIMIT = 255;
/** Version 4, header of five words, no TOS. */
const IPV4_FIRST_HALF = 0x4500;
const IPV4_TTL_PROTOCOL = (HOP_LIMIT << 8) | IP_PROTOCOL_TCP;
const IPV6_NEXT_HOP = (IP_PROTOCOL_TCP << 8) | HOP_LIMIT;
/** Most bytes of a SACK option. */
const MAX_SACK_BYTES = 4 + 8 * TCP_MAX_SACK_BLOCKS;

const sackBlocks = new Uint32Array(2 * TCP_MAX_SACK_BLOCKS);

/** Bytes from the start of a data frame (link headroom excluded) to its payload. */
export function dataHeaderBytes(family: number): number {
  return ipFrameHeaderBytes(family) + TCP_HEADER_BYTES;
}

/** Sum over addresses and protocol for the flow's checksums, folded. */
export function computePseudoSum(core: TcpCore, index: number): number {
  const { guestAddress, peerAddress } = core.flows;
  // The v4-mapped form has the word 0xffff twice, which is zero in this arithmetic.
  return foldChecksum(pseudoSumIpv6(peerAddress, index * 4, guestAddress, index * 4, IP_PROTOCOL_TCP, 0));
}

/** Finds room for a control segment. @returns where its TCP header goes, or -1 */
function openControl(core: TcpCore, family: number, tcpBytes: number): number {
  const { link } = core.ctx;
  const headerBytes = ipFrameHeaderBytes(family);
  const start = link.reserve(link.headroomBytes + Math.max(headerBytes + tcpBytes, ETHERNET_MIN_FRAME_BYTES));
  return start < 0 ? -1 : start + link.headroomBytes + headerBytes;
}

function closeControl(
  core: TcpCore,
  index: number,
  offset: number,
  tcpBytes: number,
  flags: number,
  seq: number,
  window: number,
): void {
  const { columns: c, flows } = core;
  const ack = (flags & TCP_ACK) !== 0 ? c.rcvNxt[index]! : 0;
  const sum = c.pseudoSum[index]! + tcpBytes;
  const { peerPort, guestPort } = flows;
  writeTcpHeader(core.view, offset, peerPort[index]!, guestPort[index]!, seq, ack, tcpBytes, flags, window, sum);
  closeIpPacket(
    core.ctx,
    flows.family[index]!,
    IP_PROTOCOL_TCP,
    offset,
    tcpBytes,
    flows.peerAddress,
    index * 4,
    flows.guestAddress,
    index * 4,
  );
}

/**
 * Sends a SYN, or with `ack` a SYN-ACK.
 * @param windowScale shift we offer, -1: none
 * @returns false when the link has no room
 */
export function writeSyn(
  core: TcpCore,
  index: number,
  ack: boolean,
  mss: number,
  windowScale: number,
  sackPermitted: boolean,
): boolean {
  const offset = openControl(core, core.flows.family[index]!, TCP_HEADER_BYTES + TCP_MAX_SYN_OPTIONS_BYTES);
  if (offset < 0) return false;
  const options = writeTcpSynOptions(
    core.view,
    offset + TCP_HEADER_BYTES,
    mss,
    windowScale,
    sackPermitted,
    false,
    0,
    0,
  );
  const flags = ack ? TCP_SYN | TCP_ACK : TCP_SYN;
  const { iss } = core.columns;
  closeControl(core, index, offset, TCP_HEADER_BYTES + options, flags, iss[index]!, SYN_WINDOW_BYTES);
  return true;
}

/**
 * The number for a segment that carries nothing: behind all that was sent, unless the guest has shrunk its window below that, for
 * then it would take the segment as out of window and ignore its acknowledgement.
 */
export function acceptableSeq(core: TcpCore, index: number): number {
  const { columns: c } = core;
  const sndNxt = c.sndNxt[index]!;
  const edge = addSeq(c.sndUna[index]!, c.sndWnd[index]!);
  return diffSeq(sndNxt, edge) > 0 ? edge : sndNxt;
}

/**
 * Sends a segment without data: ACK, with SACK blocks when there is a gap, or FIN-ACK, or a probe with an old number.
 * @returns false when the link has no room
 */
export function writeAck(core: TcpCore, index: number, seq: number, fin: boolean): boolean {
  const { columns: c } = core;
  const state = c.flags[index]!;
  const withSack = (state & (FLAG_HAS_GAP | FLAG_SACK_OK)) === (FLAG_HAS_GAP | FLAG_SACK_OK);
  const offset = openControl(core, core.flows.family[index]!, TCP_HEADER_BYTES + (withSack ? MAX_SACK_BYTES : 0));
  if (offset < 0) return false;
  let tcpBytes = TCP_HEADER_BYTES;
  if (withSack) {
    const count = core.gaps.get(index)!.describe(sackBlocks, TCP_MAX_SACK_BLOCKS);
    if (count > 0) tcpBytes += writeTcpSackOption(core.view, offset + TCP_HEADER_BYTES, sackBlocks, count);
  }
  const flags = fin ? TCP_ACK | TCP_FIN : TCP_ACK;
  closeControl(core, index, offset, tcpBytes, flags, seq, advertiseWindow(c, index));
  c.flags[index] = c.flags[index]! & ~(FLAG_ACK_DUE | FLAG_ACK_DELAYED);
  c.ackedSeq[index] = c.rcvNxt[index]!;
  return true;
}

/** Sends a RST. @param ack false while nothing was received that could be acknowledged */
export function writeReset(core: TcpCore, index: number, seq: number, ack: boolean): boolean {
  const offset = openControl(core, core.flows.family[index]!, TCP_HEADER_BYTES);
  if (offset < 0) return false;
  closeControl(core, index, offset, TCP_HEADER_BYTES, ack ? TCP_RST | TCP_ACK : TCP_RST, seq, 0);
  return true;
}

/**
 * Answers a segment that belongs to no flow (RFC 9293 §3.10.7.1). Lost when the link has no room: the guest will ask again.
 * @param payloadBytes of the segment
 */
export function writeResetFor(core: TcpCore, meta: PacketMeta, payloadBytes: number): void {
  const { view } = core;
  const l4 = meta.l4Offset;
  const flags = getTcpFlags(view, l4);
  // Read before anything is written: the answer may not overlap the question, but reads first cost nothing.
  const srcPort = getTcpSrcPort(view, l4);
  const dstPort = getTcpDstPort(view, l4);
  const theirSeq = getTcpSeq(view, l4);
  const theirAck = getTcpAck(view, l4);
  const offset = openControl(core, meta.family, TCP_HEADER_BYTES);
  if (offset < 0) return;
  const hasAck = (flags & TCP_ACK) !== 0;
  const seq = hasAck ? theirAck : 0;
  const length = payloadBytes + ((flags & TCP_SYN) !== 0 ? 1 : 0) + ((flags & TCP_FIN) !== 0 ? 1 : 0);
  const ack = hasAck ? 0 : (theirSeq + length) >>> 0;
  const sum = pseudoSumIpv6(meta.destination, 0, meta.source, 0, IP_PROTOCOL_TCP, TCP_HEADER_BYTES);
  const answer = hasAck ? TCP_RST : TCP_RST | TCP_ACK;
  writeTcpHeader(view, offset, dstPort, srcPort, seq, ack, TCP_HEADER_BYTES, answer, 0, sum);
  const { destination, source } = meta;
  closeIpPacket(core.ctx, meta.family, IP_PROTOCOL_TCP, offset, TCP_HEADER_BYTES, destination, 0, source, 0);
}

function fold16(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/**
 * Writes the headers of a batch of data segments and queues the frames. Every segment but the last is `segmentBytes` long.
 * @param frameOffset where the first frame's Ethernet header goes; payload i lies at `frameOffset + i * strideBytes` + headers
 * @param seq number of the first payload byte
 * @param totalBytes payload of all segments together, at least 1
 * @param push whether the last segment carries PSH
 */
export function writeDataBatch(
  core: TcpCore,
  index: number,
  frameOffset: number,
  strideBytes: number,
  segmentBytes: number,
  seq: number,
  totalBytes: number,
  push: boolean,
): void {
  const { view, flows, columns: c, ctx } = core;
  const { config, guest, link, counters } = ctx;
  const { hasVnetHeader } = link;
  const isIpv4 = flows.family[index] === 4;
  const ipBytes = isIpv4 ? 20 : 40;
  const window = advertiseWindow(c, index);
  const ack = c.rcvNxt[index]!;
  const srcPort = flows.peerPort[index]!;
  const dstPort = flows.guestPort[index]!;
  const at = index * 4;
  const { peerAddress, guestAddress } = flows;
  const headAndFlags = (TCP_HEADER_BYTES << 10) | TCP_ACK;
  // What all segments have in common; `TCP_HEADER_BYTES + payload` joins it per segment.
  const common = fold16(
    fold16(c.pseudoSum[index]! + srcPort + dstPort + (ack >>> 16) + (ack & 0xffff)) + headAndFlags + window,
  );
  const src4 = peerAddress[at + 3]!;
  const dst4 = guestAddress[at + 3]!;
  const ip4Common = fold16(
    IPV4_FIRST_HALF +
      IPV4_DONT_FRAGMENT +
      IPV4_TTL_PROTOCOL +
      (src4 >>> 16) +
      (src4 & 0xffff) +
      (dst4 >>> 16) +
      (dst4 & 0xffff),
  );
  const mac0 = (guest.macHi << 16) | (guest.macLo >>> 16);
  const mac1 = (guest.macLo << 16) | config.ourMacHi;
  const mac2 = config.ourMacLo;
  const headerBytes = ETHERNET_HEADER_BYTES + ipBytes + TCP_HEADER_BYTES;

  let frame = frameOffset;
  // Signed, since that is never an object, even before the loop is compiled.
  let number = seq | 0;
  let sums = core.sumsOffset;
  let frames = 0;
  for (let left = totalBytes; left > 0; ) {
    const payload = Math.min(left, segmentBytes);
    left -= payload;
    const tcpBytes = TCP_HEADER_BYTES + payload;
    view.setUint32(frame, mac0);
    view.setUint32(frame + 4, mac1);
    view.setUint32(frame + 8, mac2);
    let tcp = frame + ETHERNET_HEADER_BYTES;
    if (isIpv4) {
      const total = tcpBytes + 20;
      view.setUint32(tcp - 2, (ETHERTYPE_IPV4 << 16) | IPV4_FIRST_HALF);
      view.setUint32(tcp + 2, total << 16);
      view.setUint32(tcp + 6, (IPV4_DONT_FRAGMENT << 16) | IPV4_TTL_PROTOCOL);
      view.setUint16(tcp + 10, ~fold16(ip4Common + total));
      view.setUint32(tcp + 12, src4);
      view.setUint32(tcp + 16, dst4);
      tcp += 20;
    } else {
      view.setUint16(tcp - 2, ETHERTYPE_IPV6);
      view.setUint32(tcp, 0x6000_0000);
      view.setUint32(tcp + 4, (tcpBytes << 16) | IPV6_NEXT_HOP);
      view.setUint32(tcp + 8, peerAddress[at]!);
      view.setUint32(tcp + 12, peerAddress[at + 1]!);
      view.setUint32(tcp + 16, peerAddress[at + 2]!);
      view.setUint32(tcp + 20, src4);
      view.setUint32(tcp + 24, guestAddress[at]!);
      view.setUint32(tcp + 28, guestAddress[at + 1]!);
      view.setUint32(tcp + 32, guestAddress[at + 2]!);
      view.setUint32(tcp + 36, dst4);
      tcp += 40;
    }
    const flags = left === 0 && push ? TCP_PSH : 0;
    const sum = common + tcpBytes + flags + (number >>> 16) + (number & 0xffff) + (view.getUint32(sums, true) & 0xffff);
    view.setUint32(tcp, (srcPort << 16) | dstPort);
    view.setUint32(tcp + 4, number);
    view.setUint32(tcp + 8, ack);
    view.setUint32(tcp + 12, ((headAndFlags | flags) << 16) | window);
    view.setUint32(tcp + 16, (~fold16(sum) & 0xffff) << 16);
    const length = headerBytes + payload;
    if (length >= ETHERNET_MIN_FRAME_BYTES) {
      if (hasVnetHeader) writeVnetWhole(view, frame - VNET_HEADER_BYTES);
      link.commit(frame, length);
      frames++;
      counters.hostBytes += length;
    } else {
      // Only a last segment can be this short: the room behind it was reserved.
      commitPadded(ctx, frame, length);
    }
    frame += strideBytes;
    number = (number + payload) | 0;
    sums += 4;
  }
  counters.hostFrames += frames;
  c.flags[index] = c.flags[index]! & ~(FLAG_ACK_DUE | FLAG_ACK_DELAYED);
  c.ackedSeq[index] = c.rcvNxt[index]!;
}
