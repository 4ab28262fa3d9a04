/**
 * Segments of the guest that arrived beyond a gap.
 *
 * The link loses nothing, so gaps come from inside the guest (its own queues dropped something, or a bridge in it reordered). What
 * lies beyond is kept until the gap is filled, so that the guest resends only what is missing; it is told by SACK
 * (RFC 2018). Pieces are kept sorted and free of overlaps: bytes that are there already win over later copies.
 *
 * Limits: all pieces lie inside the window offered, hence the bytes are bounded by it; the number of pieces is bounded too, and
 * further ones are dropped, which the guest makes good by resending.
 */
import { addSeq, diffSeq } from '../../base/sequence.ts';

const MAX_PIECES = 1024;

interface Piece {
  seq: number;
  bytes: Uint8Array;
}

export class GapStore {
  /** Bytes kept. */
  lengthBytes = 0;
  private readonly pieces: Piece[] = [];
  /** Number of the piece that came last: its block is reported first (RFC 2018 §4). */
  private latestSeq = 0;

  get isEmpty(): boolean {
    return this.pieces.length === 0;
  }

  /**
   * Keeps a copy of what is new in `length` bytes of `source` from `offset`, which stand at `seq` in the stream.
   * @returns bytes added
   */
  insert(seq: number, source: Uint8Array, offset: number, length: number): number {
    const { pieces } = this;
    this.latestSeq = seq;
    let at = seq;
    let from = offset;
    let left = length;
    let added = 0;
    // New segments mostly belong at the end: look for the place from there.
    let place = pieces.length;
    while (place > 0 && diffSeq(pieces[place - 1]!.seq, seq) > 0) place--;
    if (place > 0) {
      const before = pieces[place - 1]!;
      const covered = diffSeq(addSeq(before.seq, before.bytes.length), at);
      if (covered >= left) return 0;
      if (covered > 0) {
        at = addSeq(at, covered);
        from += covered;
        left -= covered;
      }
    }
    while (left > 0 && pieces.length < MAX_PIECES) {
      const next = pieces[place];
      const free = next === undefined ? left : Math.min(left, diffSeq(next.seq, at));
      if (free > 0) {
        pieces.splice(place, 0, { seq: at, bytes: source.slice(from, from + free) });
        place++;
        added += free;
      }
      const skipped = next === undefined ? free : free + next.bytes.length;
      at = addSeq(at, skipped);
      from += skipped;
      left -= skipped;
      place++;
    }
    this.lengthBytes += added;
    return added;
  }

  /**
   * Takes the first piece if it continues the stream at `seq`; bytes before `seq` are cut off.
   * @returns the bytes, or undefined when the gap is still there
   */
  take(seq: number): Uint8Array | undefined {
    for (let first = this.pieces[0]; first !== undefined; first = this.pieces[0]) {
      const old = diffSeq(seq, first.seq);
      if (old < 0) return undefined;
      this.pieces.shift();
      this.lengthBytes -= first.bytes.length;
      if (old < first.bytes.length) return old === 0 ? first.bytes : first.bytes.subarray(old);
    }
    return undefined;
  }

  /**
   * Fills in the blocks for a SACK option, the one that holds the latest segment first.
   * @param blocks left and right edges in turn
   * @param most blocks that fit
   * @returns number of blocks
   */
  describe(blocks: Uint32Array, most: number): number {
    let count = 0;
    let first = 0;
    const { pieces } = this;
    for (let i = 0; i < pieces.length; ) {
      const left = pieces[i]!.seq;
      let right = addSeq(left, pieces[i]!.bytes.length);
      for (i++; i < pieces.length && pieces[i]!.seq === right; i++) right = addSeq(right, pieces[i]!.bytes.length);
      const hasLatest = diffSeq(this.latestSeq, left) >= 0 && diffSeq(this.latestSeq, right) < 0;
      if (count < most) {
        if (hasLatest) first = count;
        blocks[2 * count] = left;
        blocks[2 * count + 1] = right;
        count++;
      } else if (hasLatest) {
        first = most - 1;
        blocks[2 * first] = left;
        blocks[2 * first + 1] = right;
      }
    }
    if (first > 0) {
      swap(blocks, 0, 2 * first);
      swap(blocks, 1, 2 * first + 1);
    }
    return count;
  }
}

function swap(words: Uint32Array, a: number, b: number): void {
  const kept = words[a]!;
  words[a] = words[b]!;
  words[b] = kept;
}
