/**
 * What was lost on the way to the guest, and when it is sent again (RFC 5681, 6582, 6675 in outline).
 *
 * The link is a socket and loses nothing; losses happen inside the guest, when its own queues overflow. They are rare, so everything
 * about them lives here and the ordinary path only asks for one flag.
 *
 * While FLAG_RECOVERING is set, the numbers from `resentEnd` to `lostEnd` have to be sent again, except for what the guest has
 * reported by SACK; `transmit` does that before anything new. Recovery is over when `recover`, the end of what was sent when it
 * began, is acknowledged. It begins:
 *
 * - with the third duplicate acknowledgement, or when more than two segments' worth of SACK has come in: lost is what lies below the
 *   last SACK block, as nothing is reordered on the link; without SACK one segment, and the next with each partial acknowledgement;
 * - with the retransmission timeout: lost is everything not reported. What may be in flight then grows from one segment.
 *
 * What was sent again may be lost again. In recovery the timer is short (two round trips) and has the holes filled anew, until its
 * doubling reaches the ordinary timeout.
 *
 * A guest may take back what it has reported (RFC 2018 §8): after a few timeouts in a row the reports are forgotten.
 */
import { addSeq, diffSeq } from '../../base/sequence.ts';
import { parseTcpOptions, TCP_HEADER_BYTES } from '../../wire/tcp.ts';
import { FLAG_RECOVERING, FLAG_RTO_RESTART, FLAG_SACK_OK } from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { recoveryInterval } from './round-trip.ts';

const DUP_ACK_THRESHOLD = 3;
/** More ranges than this are not remembered; what they cover is sent again for nothing. */
const MAX_RANGES = 512;
/** Timeouts in a row after which SACK reports are not believed any more. */
const RENEGE_RETRIES = 3;

/** The ranges beyond `sndUna` that the guest has reported, sorted, apart from each other. */
export class Scoreboard {
  private readonly left: number[] = [];
  private readonly right: number[] = [];

  get isEmpty(): boolean {
    return this.left.length === 0;
  }

  /** Left edge of the last range. Only while not empty. */
  get lastLeft(): number {
    return this.left[this.left.length - 1]!;
  }

  /** Bytes reported. */
  countBytes(): number {
    let bytes = 0;
    for (let i = 0; i < this.left.length; i++) bytes += diffSeq(this.right[i]!, this.left[i]!);
    return bytes;
  }

  /** Adds a range, merging it with those that it touches. */
  add(left: number, right: number): void {
    let first = this.left.length;
    while (first > 0 && diffSeq(this.right[first - 1]!, left) >= 0) first--;
    let end = first;
    let low = left;
    let high = right;
    while (end < this.left.length && diffSeq(this.left[end]!, right) <= 0) {
      if (diffSeq(this.left[end]!, low) < 0) low = this.left[end]!;
      if (diffSeq(this.right[end]!, high) > 0) high = this.right[end]!;
      end++;
    }
    if (end === first && this.left.length >= MAX_RANGES) return;
    this.left.splice(first, end - first, low);
    this.right.splice(first, end - first, high);
  }

  /** Forgets what lies before `una`. */
  forget(una: number): void {
    let gone = 0;
    while (gone < this.left.length && diffSeq(this.right[gone]!, una) <= 0) gone++;
    if (gone === 0) return;
    this.left.splice(0, gone);
    this.right.splice(0, gone);
  }

  /** The first number from `seq` on that was not reported. */
  skip(seq: number): number {
    for (let i = 0; i < this.left.length; i++) {
      if (diffSeq(this.left[i]!, seq) > 0) return seq;
      if (diffSeq(this.right[i]!, seq) > 0) return this.right[i]!;
    }
    return seq;
  }

  /** Where the hole at `seq` ends: the next reported number, or `end`. */
  holeEnd(seq: number, end: number): number {
    for (let i = 0; i < this.left.length; i++) {
      const left = this.left[i]!;
      if (diffSeq(left, seq) > 0) return diffSeq(left, end) < 0 ? left : end;
    }
    return end;
  }
}

/**
 * Looks at an acknowledgement for signs of loss; `sndUna` has been moved already.
 * @param advance bytes newly acknowledged
 * @param isDuplicate it is one by RFC 5681's definition
 */
export function takeLossSignals(
  core: TcpCore,
  index: number,
  advance: number,
  isDuplicate: boolean,
  tcpOffset: number,
  headerBytes: number,
): void {
  const { columns: c } = core;
  const board = noteReports(core, index, tcpOffset, headerBytes);
  const una = c.sndUna[index]!;
  if ((c.flags[index]! & FLAG_RECOVERING) !== 0) {
    if (diffSeq(c.resentEnd[index]!, una) < 0) c.resentEnd[index] = una;
    if (board !== undefined) extendLost(core, index, board.lastLeft);
    else if (advance > 0 && c.sendLimit[index] === 0 && c.resentEnd[index] === una) {
      extendLost(core, index, addSeq(una, c.mss[index]!));
    }
    addToTurn(core, index);
    return;
  }
  let isLost = board !== undefined && board.countBytes() > 2 * c.mss[index]!;
  if (isDuplicate) {
    const count = c.dupAcks[index]! + 1;
    c.dupAcks[index] = Math.min(count, 255);
    if (count === DUP_ACK_THRESHOLD) isLost = true;
  }
  if (isLost) beginRecovery(core, index, board !== undefined ? board.lastLeft : addSeq(una, c.mss[index]!));
}

function extendLost(core: TcpCore, index: number, end: number): void {
  const { lostEnd, recover } = core.columns;
  const limited = diffSeq(end, recover[index]!) > 0 ? recover[index]! : end;
  if (diffSeq(limited, lostEnd[index]!) > 0) lostEnd[index] = limited;
}

/** Takes the SACK blocks of a segment. @returns the flow's scoreboard if there is anything on it */
function noteReports(core: TcpCore, index: number, tcpOffset: number, headerBytes: number): Scoreboard | undefined {
  const { columns: c, options } = core;
  let board = core.scoreboards.get(index);
  const una = c.sndUna[index]!;
  if (
    headerBytes > TCP_HEADER_BYTES &&
    (c.flags[index]! & FLAG_SACK_OK) !== 0 &&
    parseTcpOptions(core.view, tcpOffset, headerBytes, options) === 0
  ) {
    for (let i = 0; i < options.sackCount; i++) {
      const left = options.sackBlocks[2 * i]!;
      const right = options.sackBlocks[2 * i + 1]!;
      // Blocks below sndUna report duplicates (RFC 2883); others must be about something that was sent.
      const isSane = diffSeq(left, una) > 0 && diffSeq(right, left) > 0 && diffSeq(right, c.sndNxt[index]!) <= 0;
      if (!isSane) continue;
      if (board === undefined) {
        board = new Scoreboard();
        core.scoreboards.set(index, board);
      }
      board.add(left, right);
    }
  }
  if (board === undefined) return undefined;
  board.forget(una);
  if (!board.isEmpty) return board;
  core.scoreboards.delete(index);
  return undefined;
}

function beginRecovery(core: TcpCore, index: number, lostEnd: number): void {
  const { columns: c } = core;
  c.recover[index] = c.sndNxt[index]!;
  c.resentEnd[index] = c.sndUna[index]!;
  c.lostEnd[index] = c.sndUna[index]!;
  extendLost(core, index, lostEnd);
  c.rttStartMs[index] = 0;
  c.rtoMs[index] = recoveryInterval(core, index);
  c.flags[index] = c.flags[index]! | FLAG_RECOVERING | FLAG_RTO_RESTART;
  addToTurn(core, index);
}

/** The short timer of recovery is due: what was sent again is taken for lost again. */
export function refillHoles(core: TcpCore, index: number): void {
  core.columns.resentEnd[index] = core.columns.sndUna[index]!;
  addToTurn(core, index);
}

/** The retransmission timeout: everything that the guest has not reported is taken for lost. */
export function loseEverything(core: TcpCore, index: number): void {
  const { columns: c } = core;
  if (c.retries[index]! >= RENEGE_RETRIES) core.scoreboards.delete(index);
  c.recover[index] = c.sndNxt[index]!;
  c.lostEnd[index] = c.sndNxt[index]!;
  c.resentEnd[index] = c.sndUna[index]!;
  c.sendLimit[index] = c.mss[index]!;
  c.dupAcks[index] = 0;
  c.rttStartMs[index] = 0;
  c.flags[index] = c.flags[index]! | FLAG_RECOVERING;
  addToTurn(core, index);
}

/** Moves on in recovery when `sndUna` has moved. */
export function advanceRecovery(core: TcpCore, index: number, advance: number): void {
  const { columns: c } = core;
  if (diffSeq(c.sndUna[index]!, c.recover[index]!) >= 0) {
    c.flags[index] = c.flags[index]! & ~FLAG_RECOVERING;
    c.sendLimit[index] = 0;
    core.scoreboards.delete(index);
  } else if (c.sendLimit[index] !== 0) {
    // Slow start: what may be in flight doubles with each round (RFC 5681 §3.1).
    c.sendLimit[index] = Math.min(c.sendLimit[index]! + advance, 0x4000_0000);
  }
}
