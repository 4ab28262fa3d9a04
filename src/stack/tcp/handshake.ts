/**
 * Segments of the guest on a flow whose handshake is under way (RFC 9293 §3.10.7.3 and .4), and the options of SYNs.
 *
 * We offer: MSS from the link's MTU, window scale 8, SACK-permitted. The guest's MSS bounds our segments; without one it is
 * 536 (IPv4) or 1220 (IPv6). Its SACK blocks tell us what to send again, ours tell it. Without its window scale neither side
 * scales. Timestamps are not negotiated: round trips are measured without them, and the link neither reorders nor delays
 * segments long enough for sequence numbers to come round (RFC 7323 §5).
 *
 * A repeated SYN of a guest that waits (its retransmission timer, or a restart with new numbers) never disturbs the host's connect:
 * the latest numbers count.
 */
import { addSeq, diffSeq } from '../../base/sequence.ts';
import { ETHERNET_HEADER_BYTES } from '../../wire/ethernet.ts';
import {
  getTcpAck,
  getTcpFlags,
  getTcpSeq,
  getTcpWindow,
  parseTcpOptions,
  TCP_ACK,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
} from '../../wire/tcp.ts';
import { ipFrameHeaderBytes } from '../output.ts';
import type { PacketMeta } from '../packet-meta.ts';
import { resetHost } from './close.ts';
import {
  FLAG_ACK_DUE,
  FLAG_SACK_OK,
  FLAG_SYN_DUE,
  STATE_CONNECTING,
  STATE_ESTABLISHED,
  STATE_SYN_RECEIVED,
  STATE_SYN_SENT,
} from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { receiveSegment } from './receive.ts';
import { takeRoundTrip } from './round-trip.ts';
import { writeResetFor } from './segment-writer.ts';
import { startSynTimer } from './timers.ts';
import { RCV_SCALE, SYN_WINDOW_BYTES } from './window.ts';

/** RFC 9293 §3.7.1. */
const DEFAULT_MSS_IPV4 = 536;
const DEFAULT_MSS_IPV6 = 1220;
/** A guest that names less would have us send headers only; nothing real does. */
const MIN_MSS = 48;

/** The MSS that the guest is told. */
export function ownMss(core: TcpCore, index: number): number {
  const { config, link } = core.ctx;
  const headerBytes = ipFrameHeaderBytes(core.flows.family[index]!) + TCP_HEADER_BYTES;
  return Math.min(config.mtu + ETHERNET_HEADER_BYTES, link.maxFrameBytes) - headerBytes;
}

/** Takes the numbers and options of the guest's SYN or SYN-ACK at `l4`. */
export function takeSyn(core: TcpCore, index: number, l4: number, headerBytes: number): void {
  const { columns: c, options, view } = core;
  parseTcpOptions(view, l4, headerBytes, options);
  const isIpv4 = core.flows.family[index] === 4;
  const own = ownMss(core, index);
  const theirs = options.mss === 0 ? (isIpv4 ? DEFAULT_MSS_IPV4 : DEFAULT_MSS_IPV6) : options.mss;
  c.mss[index] = Math.max(Math.min(own, theirs), Math.min(own, MIN_MSS));
  const scaled = options.windowScale >= 0;
  c.sndScale[index] = scaled ? options.windowScale : 0;
  c.rcvScale[index] = scaled ? RCV_SCALE : 0;
  const flags = c.flags[index]! & ~FLAG_SACK_OK;
  c.flags[index] = options.sackPermitted ? flags | FLAG_SACK_OK : flags;
  const seq = getTcpSeq(view, l4);
  c.rcvNxt[index] = addSeq(seq, 1);
  c.rcvEdge[index] = addSeq(seq, 1 + SYN_WINDOW_BYTES);
  // The window of a SYN is never scaled (RFC 7323 §2.2).
  setWindow(core, index, seq, getTcpWindow(view, l4));
}

function setWindow(core: TcpCore, index: number, seq: number, window: number): void {
  const { columns: c } = core;
  c.sndWnd[index] = window;
  c.maxWnd[index] = window;
  c.sndWl1[index] = seq;
  c.sndWl2[index] = c.iss[index]!;
}

/** Takes a segment of a flow that is not established. */
export function receiveInHandshake(core: TcpCore, index: number, meta: PacketMeta, headerBytes: number): void {
  core.columns.heardMs[index] = core.ctx.nowMs;
  switch (core.columns.state[index]) {
    case STATE_CONNECTING:
      receiveWhileConnecting(core, index, meta, headerBytes);
      break;
    case STATE_SYN_RECEIVED:
      receiveAfterSynAck(core, index, meta, headerBytes);
      break;
    case STATE_SYN_SENT:
      receiveAfterSyn(core, index, meta, headerBytes);
      break;
    default:
      // A RST is on its way; it answers this segment as well.
      break;
  }
}

function receiveWhileConnecting(core: TcpCore, index: number, meta: PacketMeta, headerBytes: number): void {
  const { view, columns: c } = core;
  const l4 = meta.l4Offset;
  const flags = getTcpFlags(view, l4);
  const seq = getTcpSeq(view, l4);
  if ((flags & TCP_RST) !== 0) {
    if (seq === c.rcvNxt[index]) resetHost(core, index);
  } else if ((flags & (TCP_SYN | TCP_ACK)) === TCP_SYN && addSeq(seq, 1) !== c.rcvNxt[index]) {
    takeSyn(core, index, l4, headerBytes);
  }
}

function receiveAfterSynAck(core: TcpCore, index: number, meta: PacketMeta, headerBytes: number): void {
  const { view, columns: c } = core;
  const l4 = meta.l4Offset;
  const flags = getTcpFlags(view, l4);
  const seq = getTcpSeq(view, l4);
  if ((flags & TCP_RST) !== 0) {
    if (seq === c.rcvNxt[index]) resetHost(core, index);
    return;
  }
  const hasAck = (flags & TCP_ACK) !== 0;
  if ((flags & TCP_SYN) !== 0 && !hasAck) {
    if (addSeq(seq, 1) !== c.rcvNxt[index]) takeSyn(core, index, l4, headerBytes);
    c.flags[index] = c.flags[index]! | FLAG_SYN_DUE;
    addToTurn(core, index);
    return;
  }
  if (!hasAck) return;
  const ack = getTcpAck(view, l4);
  if (ack !== addSeq(c.iss[index]!, 1) || c.sndNxt[index] !== ack) {
    writeResetFor(core, meta, meta.l4Length - headerBytes);
    return;
  }
  // A SYN-ACK here is the answer of a guest that opened at the same time: its SYN is known already.
  const isSynAck = (flags & TCP_SYN) !== 0;
  const distance = diffSeq(seq, c.rcvNxt[index]!);
  if (!isSynAck && (distance < -1 || distance > diffSeq(c.rcvEdge[index]!, c.rcvNxt[index]!))) {
    c.flags[index] = c.flags[index]! | FLAG_ACK_DUE | FLAG_SYN_DUE;
    addToTurn(core, index);
    return;
  }
  establish(core, index, ack);
  if (isSynAck) {
    c.flags[index] = c.flags[index]! | FLAG_ACK_DUE;
    return;
  }
  setWindow(core, index, seq, getTcpWindow(view, l4) << c.sndScale[index]!);
  receiveSegment(core, index, meta, headerBytes);
}

function receiveAfterSyn(core: TcpCore, index: number, meta: PacketMeta, headerBytes: number): void {
  const { view, columns: c } = core;
  const l4 = meta.l4Offset;
  const flags = getTcpFlags(view, l4);
  const hasAck = (flags & TCP_ACK) !== 0;
  const ack = getTcpAck(view, l4);
  if (hasAck && (ack !== addSeq(c.iss[index]!, 1) || c.sndNxt[index] !== ack)) {
    if ((flags & TCP_RST) === 0) writeResetFor(core, meta, meta.l4Length - headerBytes);
    return;
  }
  if ((flags & TCP_RST) !== 0) {
    if (hasAck) resetHost(core, index);
    return;
  }
  if ((flags & TCP_SYN) === 0) return;
  takeSyn(core, index, l4, headerBytes);
  if (hasAck) {
    establish(core, index, ack);
    c.flags[index] = c.flags[index]! | FLAG_ACK_DUE;
  } else {
    // Both sides have opened at once (RFC 9293 §3.5).
    c.state[index] = STATE_SYN_RECEIVED;
    c.flags[index] = c.flags[index]! | FLAG_SYN_DUE;
    startSynTimer(core, index);
    addToTurn(core, index);
  }
}

function establish(core: TcpCore, index: number, ack: number): void {
  const { columns: c } = core;
  c.state[index] = STATE_ESTABLISHED;
  c.sndUna[index] = ack;
  c.flags[index] = c.flags[index]! & ~FLAG_SYN_DUE;
  c.retries[index] = 0;
  const started = c.rttStartMs[index]!;
  if (started !== 0) takeRoundTrip(core, index, core.ctx.nowMs - started);
  c.rttStartMs[index] = 0;
  addToTurn(core, index);
}
