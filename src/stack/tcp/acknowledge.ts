/**
 * What the guest's segments say about our data: acknowledgement number and window (RFC 9293 §3.10.7.4). Signs of loss go on to
 * recovery.ts.
 *
 * An acknowledgement beyond what was ever sent is answered and ignored; one that is older than the largest window
 * likewise (RFC 5961 §5). The window is taken from the newest segment only (SND.WL1, SND.WL2).
 */
import { diffSeq } from '../../base/sequence.ts';
import { TCP_HEADER_BYTES } from '../../wire/tcp.ts';
import { FLAG_ACK_DUE, FLAG_FIN_ACKED, FLAG_HOST_FIN, FLAG_RECOVERING, FLAG_RTO_RESTART } from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { advanceRecovery, takeLossSignals } from './recovery.ts';
import { currentRto, recoveryInterval, takeRoundTrip } from './round-trip.ts';

/** Acknowledgements this old are believed to come from the connection at hand even if it had a tiny window. */
const MIN_ACCEPTED_AGE_BYTES = 65_535;

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
    if (diffSeq(ack, c.sndNxt[index]!) > 0) return refuse(core, index);
    takeAdvance(core, index, ack, advance);
  } else if (advance < 0 && -advance > Math.max(c.maxWnd[index]!, MIN_ACCEPTED_AGE_BYTES)) {
    return refuse(core, index);
  }

  const sndWnd = c.sndWnd[index]!;
  const age = diffSeq(seq, c.sndWl1[index]!);
  if (age > 0 || (age === 0 && diffSeq(ack, c.sndWl2[index]!) >= 0)) {
    c.sndWl1[index] = seq;
    c.sndWl2[index] = ack;
    if (window !== sndWnd) takeWindow(core, index, window);
  }

  const isDuplicate = advance === 0 && isPure && window === sndWnd && c.sndNxt[index] !== una;
  if (isDuplicate || headerBytes > TCP_HEADER_BYTES || (c.flags[index]! & FLAG_RECOVERING) !== 0) {
    takeLossSignals(core, index, advance, isDuplicate, tcpOffset, headerBytes);
  }
  return true;
}

/** @returns false */
function refuse(core: TcpCore, index: number): boolean {
  core.columns.flags[index] = core.columns.flags[index]! | FLAG_ACK_DUE;
  addToTurn(core, index);
  return false;
}

function takeWindow(core: TcpCore, index: number, window: number): void {
  const { columns: c } = core;
  if (c.sndWnd[index] === 0) {
    // The timer's back-off was about a closed window; what is in flight must not wait for it.
    c.rtoMs[index] = currentRto(core, index);
    c.flags[index] = c.flags[index]! | FLAG_RTO_RESTART;
  }
  c.sndWnd[index] = window;
  if (window > c.maxWnd[index]!) c.maxWnd[index] = window;
  addToTurn(core, index);
}

function takeAdvance(core: TcpCore, index: number, ack: number, advance: number): void {
  const { columns: c } = core;
  const { bytesToGuest } = core.flows;
  bytesToGuest[index] = bytesToGuest[index]! + advance;
  c.sndUna[index] = ack;
  c.dupAcks[index] = 0;
  c.retries[index] = 0;
  let flags = c.flags[index]! | FLAG_RTO_RESTART;
  if ((flags & FLAG_HOST_FIN) !== 0 && diffSeq(ack, c.finSeq[index]!) > 0) flags |= FLAG_FIN_ACKED;
  c.flags[index] = flags;
  if ((flags & FLAG_RECOVERING) !== 0) advanceRecovery(core, index, advance);

  const started = c.rttStartMs[index]!;
  if (started !== 0 && diffSeq(ack, c.rttSeq[index]!) >= 0) {
    c.rttStartMs[index] = 0;
    takeRoundTrip(core, index, core.ctx.nowMs - started);
  }
  const recovering = (c.flags[index]! & FLAG_RECOVERING) !== 0;
  c.rtoMs[index] = recovering ? recoveryInterval(core, index) : currentRto(core, index);
  addToTurn(core, index);
}
