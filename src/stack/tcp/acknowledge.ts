/**
 * What the guest's segments say about our data: acknowledgements, windows, duplicates (RFC 9293 §3.10.7.4, RFC 5681, RFC 6582).
 *
 * Three duplicate acknowledgements start a fast retransmission of what is missing: up to the lowest SACK block if the guest sends
 * any, else one segment. Until `recover` is reached, each partial acknowledgement has the next hole filled. An acknowledgement beyond
 * what was ever sent is answered and ignored; one that is older than the largest window likewise (RFC 5961 §5).
 *
 * Round-trip times are measured one segment at a time (RFC 6298).
 */
import { diffSeq } from '../../base/sequence.ts';
import { parseTcpOptions, TCP_HEADER_BYTES } from '../../wire/tcp.ts';
import { FLAG_ACK_DUE, FLAG_FAST_RECOVERY, FLAG_FIN_ACKED, FLAG_HOST_FIN, FLAG_RTO_RESTART } from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { retransmitHole } from './transmit.ts';

const DUP_ACK_THRESHOLD = 3;

/** RFC 6298 §2.1, and the bounds that Linux has. */
export const RTO_INITIAL_MS = 1000;
const RTO_MIN_MS = 200;
export const RTO_MAX_MS = 60_000;

/**
 * Takes acknowledgement number and window of an acceptable segment.
 * @param window already scaled
 * @param isPure whether the segment has neither data nor FIN
 * @param tcpOffset of the segment's header, for SACK blocks
 * @returns false when the segment is to be dropped
 */
export function takeAcknowledgement(
  core: TcpCore,
  index: number,
  seq: number,
  ack: number,
  window: number,
  isPure: boolean,
  tcpOffset: number,
  headerBytes: number,
): boolean {
  const { columns: c } = core;
  const una = c.sndUna[index]!;
  const advance = diffSeq(ack, una);
  if (advance > 0) {
    if (diffSeq(ack, c.sndMax[index]!) > 0) {
      c.flags[index] = c.flags[index]! | FLAG_ACK_DUE;
      addToTurn(core, index);
      return false;
    }
    takeAdvance(core, index, ack, advance);
    addToTurn(core, index);
  } else if (advance < 0 && -advance > Math.max(c.maxWnd[index]!, 65535)) {
    c.flags[index] = c.flags[index]! | FLAG_ACK_DUE;
    addToTurn(core, index);
    return false;
  }

  const sndWnd = c.sndWnd[index]!;
  const age = diffSeq(seq, c.sndWl1[index]!);
  if (age > 0 || (age === 0 && diffSeq(ack, c.sndWl2[index]!) >= 0)) {
    c.sndWl1[index] = seq;
    c.sndWl2[index] = ack;
    if (window !== sndWnd) {
      c.sndWnd[index] = window;
      if (window > c.maxWnd[index]!) c.maxWnd[index] = window;
      addToTurn(core, index);
    }
  }

  if (advance === 0 && isPure && window === sndWnd && c.sndNxt[index] !== una) {
    takeDuplicate(core, index, tcpOffset, headerBytes);
  } else if ((c.flags[index]! & FLAG_FAST_RECOVERY) !== 0 && advance > 0) {
    fillNextHole(core, index, tcpOffset, headerBytes);
  }
  return true;
}

function takeAdvance(core: TcpCore, index: number, ack: number, advance: number): void {
  const { columns: c } = core;
  c.sndUna[index] = ack;
  // A guest that had more than we thought, after a timeout: no need to send that again.
  if (diffSeq(ack, c.sndNxt[index]!) > 0) c.sndNxt[index] = ack;
  let flags = c.flags[index]! | FLAG_RTO_RESTART;
  c.dupAcks[index] = 0;
  c.retries[index] = 0;
  if ((flags & FLAG_HOST_FIN) !== 0 && diffSeq(ack, c.finSeq[index]!) > 0) flags |= FLAG_FIN_ACKED;
  const recovered = diffSeq(ack, c.recover[index]!) >= 0;
  if (recovered) {
    flags &= ~FLAG_FAST_RECOVERY;
    c.sendLimit[index] = 0;
  } else if (c.sendLimit[index] !== 0) {
    // Slow start, in effect: what may be in flight doubles with each round (RFC 5681 §3.1).
    c.sendLimit[index] = Math.min(c.sendLimit[index]! + advance, 0x4000_0000);
  }
  c.flags[index] = flags;

  const started = c.rttStartMs[index]!;
  if (started !== 0 && diffSeq(ack, c.rttSeq[index]!) >= 0) {
    c.rttStartMs[index] = 0;
    takeRoundTrip(core, index, core.ctx.nowMs - started);
  } else if (c.retries[index] === 0 && c.srttMs[index] !== 0) {
    c.rtoMs[index] = currentRto(core, index);
  }
}

/** Smooths a measured round trip (RFC 6298 §2). */
export function takeRoundTrip(core: TcpCore, index: number, sampleMs: number): void {
  const { columns: c } = core;
  const smoothed = c.srttMs[index]!;
  // Below a tick of the timers the value does not matter, but zero means "none".
  const sample = Math.max(sampleMs, 0.01);
  if (smoothed === 0) {
    c.srttMs[index] = sample;
    c.rttVarMs[index] = sample / 2;
  } else {
    c.rttVarMs[index] = c.rttVarMs[index]! * 0.75 + Math.abs(smoothed - sample) * 0.25;
    c.srttMs[index] = smoothed * 0.875 + sample * 0.125;
  }
  c.rtoMs[index] = currentRto(core, index);
}

/** The retransmission timeout without back-off. */
export function currentRto(core: TcpCore, index: number): number {
  const { columns: c } = core;
  if (c.srttMs[index] === 0) return RTO_INITIAL_MS;
  const rto = c.srttMs[index]! + 4 * c.rttVarMs[index]!;
  return rto < RTO_MIN_MS ? RTO_MIN_MS : Math.min(rto, RTO_MAX_MS);
}

function takeDuplicate(core: TcpCore, index: number, tcpOffset: number, headerBytes: number): void {
  const { columns: c } = core;
  if ((c.flags[index]! & FLAG_FAST_RECOVERY) !== 0) return;
  const count = c.dupAcks[index]! + 1;
  c.dupAcks[index] = Math.min(count, 255);
  if (count !== DUP_ACK_THRESHOLD) return;
  // What is sent again after a timeout makes duplicates too (RFC 6582 §3.2, step 1).
  if (c.sendLimit[index] !== 0) return;
  c.flags[index] = c.flags[index]! | FLAG_FAST_RECOVERY;
  c.recover[index] = c.sndMax[index]!;
  c.resentEnd[index] = c.sndUna[index]!;
  fillNextHole(core, index, tcpOffset, headerBytes);
}

/** Sends again what is missing from `sndUna` on, as far as is known. The timer stands behind it. */
function fillNextHole(core: TcpCore, index: number, tcpOffset: number, headerBytes: number): void {
  const { columns: c, options } = core;
  const una = c.sndUna[index]!;
  // An acknowledgement inside what was just sent again says nothing new.
  if (diffSeq(c.resentEnd[index]!, una) > 0) return;
  let end = una + c.mss[index]!;
  if (headerBytes > TCP_HEADER_BYTES && parseTcpOptions(core.view, tcpOffset, headerBytes, options) === 0) {
    let nearest = 0;
    for (let i = 0; i < options.sackCount; i++) {
      const distance = diffSeq(options.sackBlocks[2 * i]!, una);
      if (distance > 0 && (nearest === 0 || distance < nearest)) nearest = distance;
    }
    if (nearest > 0) end = una + nearest;
  }
  const sent = diffSeq(c.sndMax[index]!, una);
  if (diffSeq(end >>> 0, una) > sent) end = una + sent;
  if (retransmitHole(core, index, end >>> 0)) c.resentEnd[index] = end >>> 0;
  c.flags[index] = c.flags[index]! | FLAG_RTO_RESTART;
}
