/**
 * Holding acknowledgements back for the answer (RFC 9293 §3.8.6.3, RFC 5681 §4.2).
 *
 * Where guest and host take turns, the acknowledgement of a request would leave some microseconds before the response that carries it
 * as well: a frame, and an interrupt in the guest, for nothing. So a flow on which the host has answered before waits a moment with
 * the acknowledgement of a short request, or of the guest's FIN, since a host that hears of it mostly closes as well. A
 * second request in the meantime, more than a short one, or anything out of the ordinary is acknowledged at once.
 *
 * A guest whose next write waits for the acknowledgement (Nagle's algorithm, two writes to a request) would lose that moment with
 * each request. Hence a flow on which waiting was in vain does not wait for a number of answers: one that was late only because the machine
 * was busy comes back to it, and the other kind loses the moment with one request in many.
 */

import { diffSeq } from '../../base/sequence.ts';
import {
  FLAG_ACK_DELAYED,
  FLAG_ACK_DUE,
  FLAG_GUEST_FIN,
  FLAG_GUEST_FIN_SEEN,
  FLAG_HAS_GAP,
  FLAG_HAS_SPILL,
  FLAG_HOST_FIN,
  FLAG_RECOVERING,
} from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';

/** The host has answered. 0: not yet; more: waiting was in vain, and so many answers less one must come before it is tried again. */
const DIALOGUE_ALTERNATES = 1;
const DIALOGUE_IN_VAIN = 65;

/** How long an acknowledgement is held back: two ticks of the timers. Far below what RFC 5681 allows (500 ms) and Linux does (40 ms). */
export const ACK_DELAY_MS = 8;
/** Requests longer than this are part of a transfer. */
const SHORT_BYTES = 4096;

const FLAGS_AT_ONCE = FLAG_ACK_DELAYED | FLAG_HAS_GAP | FLAG_HAS_SPILL | FLAG_HOST_FIN | FLAG_RECOVERING;

const FLAGS_FIN = FLAG_GUEST_FIN | FLAG_GUEST_FIN_SEEN;

/** Data goes to the guest: the next request may be answered as well. */
export function noteAnswer(core: TcpCore, index: number): void {
  const { dialogue } = core.columns;
  const value = dialogue[index]!;
  if (value === DIALOGUE_ALTERNATES) return;
  dialogue[index] = value === 0 ? DIALOGUE_ALTERNATES : value - 1;
}

/** Holds the acknowledgement back that is due, if that is likely to pay. @returns whether it does */
export function holdAcknowledgement(core: TcpCore, index: number): boolean {
  const { columns: c } = core;
  const flags = c.flags[index]!;
  if (c.dialogue[index] !== DIALOGUE_ALTERNATES || (flags & FLAGS_AT_ONCE) !== 0) return false;
  // A FIN beyond a gap: the guest waits to hear of the gap.
  if ((flags & FLAGS_FIN) === FLAG_GUEST_FIN_SEEN) return false;
  // With something in flight the timer has more important things to do.
  if (c.sndNxt[index] !== c.sndUna[index]) return false;
  const news = diffSeq(c.rcvNxt[index]!, c.ackedSeq[index]!);
  if (news <= 0 || news > SHORT_BYTES) return false;
  c.flags[index] = (flags & ~FLAG_ACK_DUE) | FLAG_ACK_DELAYED;
  return true;
}

/** Has the acknowledgement that is due not held back: a gap was filled, which the guest waits to hear (RFC 5681 §4.2). */
export function hurryAcknowledgement(core: TcpCore, index: number): void {
  const { columns: c } = core;
  // Nothing is held back that brings no news.
  c.ackedSeq[index] = c.rcvNxt[index]!;
}

/** No answer has come to carry the acknowledgement. */
export function releaseAcknowledgement(core: TcpCore, index: number): void {
  const { columns: c } = core;
  c.dialogue[index] = DIALOGUE_IN_VAIN;
  c.flags[index] = c.flags[index]! | FLAG_ACK_DUE;
  addToTurn(core, index);
}
