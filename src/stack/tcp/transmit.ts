/**
 * Data from the host to the guest.
 *
 * Payload stays in the host socket's receive queue until the guest has acknowledged it: sending is a peek (MSG_PEEK) from the
 * queue straight into frames, acknowledging is a discard from its front, and a retransmission is another peek further in front. The
 * place in the queue that belongs to a sequence number is `seq − queueSeq`; SO_PEEK_OFF is set only when the kernel's idea of
 * the next peek differs from ours, which begins with the first peek behind something unacknowledged: many connections never
 * come to that.
 *
 * How much: what the guest's window has left, in full segments; less than one full segment only when nothing is in flight or
 * when it is at least MIN_PARTIAL_BYTES or half of the largest window seen (sender's silly window avoidance, RFC 9293 §3.8.6.2.1, with
 * the large segments of large MTUs in mind). There is no congestion control: the path is a socket that exerts back-pressure. What was
 * lost all the same is sent again before anything new (recovery.ts).
 *
 * Readiness is edge-triggered: FLAG_HOST_READABLE stays until a peek has come back short. It is not cleared when the window, the link
 * or the turn's share ends the loop, so no wake-up is lost.
 *
 * A guest that takes offloads gets many segments in one frame (offloaded-writer.ts): what is laid, peeked and counted against the room
 * is frames, and windows are still measured in segments.
 *
 * Not done: the Nagle algorithm (the remote's sender has done it); sending timestamps; urgent data is passed on in line.
 */
import { EAGAIN } from '../../base/errno.ts';
import { addSeq, diffSeq } from '../../base/sequence.ts';
import { NO_SUMS } from '../ports.ts';
import {
  FLAG_FORCE_SEND,
  FLAG_HOST_ENDING,
  FLAG_HOST_FAILED,
  FLAG_HOST_FIN,
  FLAG_HOST_READABLE,
  FLAG_HOST_URGENT,
  FLAG_NO_PEEK_OFF,
  FLAG_PEEK_OFF,
  FLAG_RECOVERING,
} from './columns.ts';
import { PEEK_SEGMENTS, type TcpCore } from './core.ts';
import { noteAnswer } from './delayed-ack.ts';
import { frameUnit, leavesChecksums, writeOffloadedBatch } from './offloaded-writer.ts';
import { dataHeaderBytes, writeAck, writeDataBatch } from './segment-writer.ts';

const SOL_SOCKET = 1;
const SO_PEEK_OFF = 42;

/** Everything that can be sent has been sent. */
export const SENT_ALL = 0;
/** The guest's window ended it. */
export const SENT_WINDOW = 1;
/** The link's room ended it: the flow has to wait in the room queue. */
export const SENT_NO_ROOM = 2;
/** The flow's share of the turn ended it. */
export const SENT_SHARE = 3;
/** The host socket failed. */
export const SENT_FAILED = 4;

/** What one flow sends before others get their turn. */
const SHARE_BYTES = 1 << 20;
/** A segment of this size is worth sending even where a full one would be larger. */
const MIN_PARTIAL_BYTES = 16 * 1024;
/** Room behind a batch for the padding of a short last frame. */
const PADDING_BYTES = 64;

/** Sends what window, link and the flow's share allow. @returns SENT_… */
export function transmit(core: TcpCore, index: number): number {
  const { columns: c } = core;
  if ((c.flags[index]! & FLAG_RECOVERING) !== 0) {
    const outcome = retransmit(core, index);
    if (outcome !== SENT_ALL) return outcome;
  }
  let share = SHARE_BYTES;
  for (;;) {
    const flags = c.flags[index]!;
    const sndNxt = c.sndNxt[index]!;
    if ((flags & FLAG_HOST_FIN) !== 0) {
      return sndNxt === c.finSeq[index] ? transmitFin(core, index) : SENT_ALL;
    }
    if ((flags & FLAG_HOST_READABLE) === 0) return SENT_ALL;

    const inFlight = diffSeq(sndNxt, c.sndUna[index]!);
    const usable = limitedWindow(core, index) - inFlight;
    const mss = c.mss[index]!;
    let frameBytes: number;
    let count: number;
    let onlyLast = false;
    if (usable >= mss) {
      frameBytes = fullFrameBytes(core, index);
      // What is left of the window behind full frames makes a frame of its own, of whole segments.
      if (frameBytes > usable) frameBytes = usable - (usable % mss);
      count = Math.trunc(usable / frameBytes);
    } else {
      if (usable <= 0) return SENT_WINDOW;
      if (!isWorthSending(core, index, usable)) {
        // It is worth it after all if nothing follows, which takes a look; with data in flight an answer will come anyway.
        if (inFlight > 0 && (flags & FLAG_HOST_ENDING) === 0) return SENT_WINDOW;
        onlyLast = true;
      }
      frameBytes = usable;
      count = 1;
    }
    if (share <= 0) return SENT_SHARE;

    const sent = sendBatch(core, index, sndNxt, frameBytes, count, share, onlyLast);
    if (sent <= 0) {
      if (sent === BATCH_HELD) return SENT_WINDOW;
      if (sent === BATCH_NO_ROOM) return SENT_NO_ROOM;
      if (sent === BATCH_FAILED) return SENT_FAILED;
      if (sent === BATCH_EMPTY) return SENT_ALL;
      // The end of the stream: go round for the FIN.
    } else {
      noteSent(core, index, addSeq(sndNxt, sent));
      noteAnswer(core, index);
      share -= sent;
    }
  }
}

/** Payload of a full frame: one segment, or many if the guest cuts them itself. */
function fullFrameBytes(core: TcpCore, index: number): number {
  return frameUnit(core, index, dataHeaderBytes(core.flows.family[index]!));
}

/** Bytes from sndUna on that may be in flight. */
function limitedWindow(core: TcpCore, index: number): number {
  const window = core.columns.sndWnd[index]!;
  const limit = core.columns.sendLimit[index]!;
  return limit !== 0 && limit < window ? limit : window;
}

/** Sends again what counts as lost (recovery.ts). @returns SENT_ALL when that is done, so that new data may follow */
function retransmit(core: TcpCore, index: number): number {
  const { columns: c, ctx } = core;
  const board = core.scoreboards.get(index);
  const lostEnd = c.lostEnd[index]!;
  for (;;) {
    let seq = c.resentEnd[index]!;
    if (board !== undefined) seq = board.skip(seq);
    if (diffSeq(lostEnd, seq) <= 0) return SENT_ALL;
    const allowed = limitedWindow(core, index) - diffSeq(seq, c.sndUna[index]!);
    if (allowed <= 0) return SENT_WINDOW;
    let end = board === undefined ? lostEnd : board.holeEnd(seq, lostEnd);
    if ((c.flags[index]! & FLAG_HOST_FIN) !== 0) {
      if (seq === c.finSeq[index]) {
        if (!writeAck(core, index, seq, true)) return SENT_NO_ROOM;
        c.resentEnd[index] = addSeq(seq, 1);
        ctx.counters.tcpRetransmits++;
        continue;
      }
      if (diffSeq(end, c.finSeq[index]!) > 0) end = c.finSeq[index]!;
    }
    const bytes = Math.min(diffSeq(end, seq), allowed);
    const frameBytes = Math.min(fullFrameBytes(core, index), bytes);
    const sent = sendBatch(core, index, seq, frameBytes, Math.trunc(bytes / frameBytes), SHARE_BYTES, false);
    if (sent <= 0) return sent === BATCH_NO_ROOM ? SENT_NO_ROOM : SENT_FAILED;
    ctx.counters.tcpRetransmits += Math.ceil(sent / c.mss[index]!);
    c.resentEnd[index] = addSeq(seq, sent);
  }
}

function isWorthSending(core: TcpCore, index: number, usable: number): boolean {
  const { columns: c } = core;
  if (usable >= MIN_PARTIAL_BYTES) return true;
  const flags = c.flags[index]!;
  if ((flags & FLAG_FORCE_SEND) !== 0) return true;
  return usable >= c.maxWnd[index]! >>> 1;
}

/** Results of `sendBatch` that are no number of bytes. */
const BATCH_ENDED = 0;
const BATCH_EMPTY = -1;
const BATCH_NO_ROOM = -2;
const BATCH_FAILED = -3;
const BATCH_HELD = -4;

/**
 * Lays one batch of at most `count` frames.
 * @param onlyLast send nothing if more data follows
 * @returns payload bytes sent, or BATCH_…
 */
function sendBatch(
  core: TcpCore,
  index: number,
  seq: number,
  wantedFrameBytes: number,
  count: number,
  shareBytes: number,
  onlyLast: boolean,
): number {
  const { columns: c, flows, sockets, ctx } = core;
  const { link } = ctx;
  const headerBytes = dataHeaderBytes(flows.family[index]!);
  const overheadBytes = link.headroomBytes + headerBytes;
  const room = link.roomBytes() - PADDING_BYTES;
  let frameBytes = wantedFrameBytes;
  if (room < overheadBytes + frameBytes) {
    // Not even one: of many segments some may still fit.
    const mss = c.mss[index]!;
    frameBytes = Math.trunc((room - overheadBytes) / mss) * mss;
    if (frameBytes <= 0) return BATCH_NO_ROOM;
  }
  const strideBytes = overheadBytes + frameBytes;
  const frames = Math.min(count, PEEK_SEGMENTS, Math.ceil(shareBytes / frameBytes), Math.trunc(room / strideBytes));
  const start = link.reserve(frames * strideBytes + PADDING_BYTES);
  if (start < 0) return BATCH_NO_ROOM;

  const partial = leavesChecksums(core);
  const frameOffset = start + link.headroomBytes;
  const skip = seekPeek(core, index, seq);
  const fd = flows.fd[index]!;
  const wanted = frames * frameBytes;
  const got = sockets.peekSegments(
    fd,
    frameOffset + headerBytes,
    strideBytes,
    frameBytes,
    frames,
    skip,
    partial ? NO_SUMS : core.sumsOffset,
  );
  if (got <= 0) return noteNothingRead(core, index, seq, got);

  if ((c.flags[index]! & FLAG_PEEK_OFF) !== 0) c.peekOffset[index] = c.peekOffset[index]! + got;
  const isShort = got < wanted;
  if (isShort) noteDrained(core, index);
  else if (onlyLast) return BATCH_HELD;
  const push = isShort || frames === count;
  if (partial) writeOffloadedBatch(core, index, frameOffset, strideBytes, frameBytes, seq, got, push);
  else writeDataBatch(core, index, frameOffset, strideBytes, frameBytes, seq, got, push);
  return got;
}

/** A peek came back short: an event will say when there is more, unless the end or urgent data may hide behind it. */
function noteDrained(core: TcpCore, index: number): void {
  const { flags } = core.columns;
  if ((flags[index]! & (FLAG_HOST_ENDING | FLAG_HOST_URGENT | FLAG_HOST_FAILED)) === 0) {
    flags[index] = flags[index]! & ~FLAG_HOST_READABLE;
  }
}

function noteNothingRead(core: TcpCore, index: number, seq: number, result: number): number {
  const { columns: c } = core;
  const flags = c.flags[index]!;
  if (result === EAGAIN) {
    // Bytes that were sent before can only be missing when the queue was dropped: the connection is dead.
    if (seq !== c.sndNxt[index] || (flags & FLAG_HOST_FAILED) !== 0) return BATCH_FAILED;
    // A peek that has to skip cannot see the end; once all is acknowledged there is nothing to skip.
    if ((flags & FLAG_NO_PEEK_OFF) !== 0 && (flags & FLAG_HOST_ENDING) !== 0) return BATCH_EMPTY;
    c.flags[index] = flags & ~(FLAG_HOST_READABLE | FLAG_HOST_URGENT);
    return BATCH_EMPTY;
  }
  if (result < 0 || seq !== c.sndNxt[index] || (flags & FLAG_HOST_FAILED) !== 0) return BATCH_FAILED;
  c.finSeq[index] = seq;
  c.flags[index] = (flags | FLAG_HOST_FIN) & ~FLAG_HOST_READABLE;
  return BATCH_ENDED;
}

/** Makes the next peek start at `seq`. @returns bytes that the peek has to skip itself */
function seekPeek(core: TcpCore, index: number, seq: number): number {
  const { columns: c } = core;
  const wanted = diffSeq(seq, c.queueSeq[index]!);
  if ((c.flags[index]! & FLAG_NO_PEEK_OFF) !== 0) return wanted;
  if (c.peekOffset[index] === wanted) return 0;
  if (core.sockets.setOption(core.flows.fd[index]!, SOL_SOCKET, SO_PEEK_OFF, wanted) < 0) {
    // Once it was accepted it is not refused: the kernel knows it or does not.
    c.flags[index] = c.flags[index]! | FLAG_NO_PEEK_OFF;
    return wanted;
  }
  c.flags[index] = c.flags[index]! | FLAG_PEEK_OFF;
  c.peekOffset[index] = wanted;
  return 0;
}

/** Notes that everything up to `end` has been sent for the first time. */
function noteSent(core: TcpCore, index: number, end: number): void {
  const { columns: c } = core;
  c.sndNxt[index] = end;
  // Only bytes that were sent once are timed (Karn's algorithm, RFC 6298 §3).
  if (c.rttStartMs[index] === 0) {
    c.rttSeq[index] = end;
    c.rttStartMs[index] = core.ctx.nowMs;
  }
  c.flags[index] = c.flags[index]! & ~FLAG_FORCE_SEND;
}

/** Sends the FIN once all data has been sent. It occupies a number, hence it waits for the window too. */
function transmitFin(core: TcpCore, index: number): number {
  const { columns: c } = core;
  const seq = c.finSeq[index]!;
  const inFlight = diffSeq(seq, c.sndUna[index]!);
  if (inFlight >= c.sndWnd[index]! && (c.flags[index]! & FLAG_FORCE_SEND) === 0) return SENT_WINDOW;
  if (!writeAck(core, index, seq, true)) return SENT_NO_ROOM;
  noteSent(core, index, addSeq(seq, 1));
  return SENT_ALL;
}

/** Drops what the guest has acknowledged from the front of the host socket's receive queue. */
export function discardAcknowledged(core: TcpCore, index: number): void {
  const { columns: c } = core;
  let end = c.sndUna[index]!;
  if ((c.flags[index]! & FLAG_HOST_FIN) !== 0 && diffSeq(end, c.finSeq[index]!) > 0) end = c.finSeq[index]!;
  let left = diffSeq(end, c.queueSeq[index]!);
  while (left > 0) {
    const dropped = core.sockets.discard(core.flows.fd[index]!, left);
    // Refused only by a connection that has failed, of which an event tells.
    if (dropped <= 0) return;
    left -= dropped;
    c.queueSeq[index] = addSeq(c.queueSeq[index]!, dropped);
    const offset = c.peekOffset[index]!;
    c.peekOffset[index] = offset > dropped ? offset - dropped : 0;
  }
}

/** Whether anything waits that the window keeps back: data or FIN. */
export function hasUnsent(core: TcpCore, index: number): boolean {
  const { columns: c } = core;
  const flags = c.flags[index]!;
  if ((flags & FLAG_HOST_FIN) !== 0) return c.sndNxt[index] === c.finSeq[index];
  return (flags & FLAG_HOST_READABLE) !== 0;
}
