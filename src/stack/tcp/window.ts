/**
 * The window that we offer to the guest: a cap minus what is spilled.
 *
 * The right edge never moves back (RFC 9293 §3.8.6: a window SHOULD NOT shrink), so what the guest may send is always taken:
 * spilled + (edge − rcvNxt) never exceeds the cap by more than a little. It moves forward only by a worthwhile amount (silly
 * window avoidance, RFC 9293 §3.8.6.2.2).
 *
 * The field counts in units of 2^scale, so an edge between two units is rounded up; a guest that sends tiny segments would thereby
 * gain a little with each acknowledgement, hence rounding goes down once the allowance for it is used up.
 */
import { addSeq, diffSeq } from '../../base/sequence.ts';
import { FLAG_GUEST_FIN, type TcpColumns } from './columns.ts';

/** Bytes that a flow may have between the guest and its host socket. */
export const WINDOW_CAP_BYTES = 4 << 20;
/** By how much rounding may exceed the cap. */
const ROUNDING_ALLOWANCE_BYTES = 64 * 1024;
/** The shift we offer: windows up to 16 MiB, in steps of 256 bytes. */
export const RCV_SCALE = 8;
/** The window in a SYN is not scaled. */
export const SYN_WINDOW_BYTES = 65535;

/** What the flow's window is at most: without window scaling the field ends at 64 KiB. */
function capOf(c: TcpColumns, index: number): number {
  return c.rcvScale[index] === 0 ? SYN_WINDOW_BYTES : WINDOW_CAP_BYTES;
}

/** Moves the edge forward if that is worth it. @returns the window field for the next segment */
export function advertiseWindow(c: TcpColumns, index: number): number {
  const rcvNxt = c.rcvNxt[index]!;
  const spilled = c.spilled[index]!;
  const scale = c.rcvScale[index]!;
  const cap = capOf(c, index);
  // After its FIN the guest sends no more; its number must not make the window look shrunk.
  if ((c.flags[index]! & FLAG_GUEST_FIN) !== 0) return Math.min(Math.max(0, cap - spilled) >> scale, 0xffff);
  let window = diffSeq(c.rcvEdge[index]!, rcvNxt);
  if (window < 0) window = 0;
  const free = cap - spilled;
  if (free - window >= openingStep(c, index, cap)) window = free;
  let field = window >> scale;
  const rest = window - (field << scale);
  if (rest !== 0 && spilled + window <= cap + ROUNDING_ALLOWANCE_BYTES) field++;
  if (field > 0xffff) field = 0xffff;
  const edge = addSeq(rcvNxt, field << scale);
  if (diffSeq(edge, c.rcvEdge[index]!) > 0) c.rcvEdge[index] = edge;
  return field;
}

/** Whether the window could be opened so far that the guest should be told without being asked. */
export function isWindowUpdateDue(c: TcpColumns, index: number): boolean {
  // A guest that has sent its FIN has no use for it, and may be gone and answer with a RST.
  if ((c.flags[index]! & FLAG_GUEST_FIN) !== 0) return false;
  const cap = capOf(c, index);
  const window = diffSeq(c.rcvEdge[index]!, c.rcvNxt[index]!);
  return cap - c.spilled[index]! - window >= openingStep(c, index, cap);
}

/** Two full segments or half the window, whichever is less. */
function openingStep(c: TcpColumns, index: number, cap: number): number {
  const twoSegments = 2 * c.mss[index]!;
  return Math.min(twoSegments, cap >> 1);
}
