/**
 * Frames under way, first in, first out, each with the time at which it arrives, or later: no frame comes before those in front of it.
 *
 * The bytes lie in a ring that is made with the first frame, doubles when it is full, up to a limit, and is given up when the queue is
 * empty again, unless it is small. A frame never wraps: what does not fit behind the last one goes to the front.
 *
 * It is not in the arena, since it may be larger than that: a copy from one to the other costs a small object, as in pcap.ts.
 */

const MIN_RING_BYTES = 256 * 1024;
const MIN_SLOTS = 1024;

export class FrameQueue {
  /** Frames that wait. */
  count = 0;
  /** Their bytes, what was in front of each included. */
  bytes = 0;
  private readonly maxBytes: number;
  private ring = Buffer.alloc(0);
  /** Where the next frame goes, if it fits there. */
  private tail = 0;
  /** By slot, in a ring of their own. */
  private dueMs = new Float64Array(MIN_SLOTS);
  private offsets = new Uint32Array(MIN_SLOTS);
  private lengths = new Uint32Array(MIN_SLOTS);
  private head = 0;

  /** @param maxBytes - how large the ring may get */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** When the first frame arrives; infinity without one. */
  get nextDueMs(): number {
    return this.count === 0 ? Number.POSITIVE_INFINITY : this.dueMs[this.head]!;
  }

  /** Bytes of the first frame. */
  get nextBytes(): number {
    return this.lengths[this.head]!;
  }

  /** Copies a frame behind the others. @param dueMs - when it arrives, unless that is before the one in front of it @returns false when there is no room */
  push(source: Buffer, offset: number, lengthBytes: number, dueMs: number): boolean {
    let at = this.place(lengthBytes);
    while (at < 0) {
      if (!this.grow(lengthBytes)) return false;
      at = this.place(lengthBytes);
    }
    if (this.count === this.dueMs.length) this.growSlots();
    const slot = (this.head + this.count) & (this.dueMs.length - 1);
    source.copy(this.ring, at, offset, offset + lengthBytes);
    this.dueMs[slot] = dueMs;
    this.offsets[slot] = at;
    this.lengths[slot] = lengthBytes;
    this.tail = at + lengthBytes;
    this.count++;
    this.bytes += lengthBytes;
    return true;
  }

  /** Copies the first frame out and forgets it. */
  take(target: Buffer, offset: number): void {
    const from = this.offsets[this.head]!;
    const length = this.lengths[this.head]!;
    this.ring.copy(target, offset, from, from + length);
    this.head = (this.head + 1) & (this.dueMs.length - 1);
    this.count--;
    this.bytes -= length;
    if (this.count === 0) this.clear();
  }

  /** Has all frames arrive at once. */
  hurry(): void {
    this.dueMs.fill(0);
  }

  clear(): void {
    this.count = 0;
    this.bytes = 0;
    this.head = 0;
    this.tail = 0;
    if (this.ring.length > MIN_RING_BYTES) this.ring = Buffer.alloc(0);
  }

  /** @returns where so many bytes fit, or -1 */
  private place(lengthBytes: number): number {
    const { ring, tail, count } = this;
    const first = count === 0 ? 0 : this.offsets[this.head]!;
    if (count === 0 || first < tail) {
      if (lengthBytes <= ring.length - tail) return tail;
      return lengthBytes <= first ? 0 : -1;
    }
    return lengthBytes <= first - tail ? tail : -1;
  }

  /** Moves everything to a larger ring, from its front on. */
  private grow(lengthBytes: number): boolean {
    let size = Math.max(MIN_RING_BYTES, 2 * this.ring.length);
    while (size < lengthBytes) size *= 2;
    if (size > this.maxBytes) return false;
    const ring = Buffer.allocUnsafeSlow(size);
    let at = 0;
    for (let i = 0; i < this.count; i++) {
      const slot = (this.head + i) & (this.dueMs.length - 1);
      const from = this.offsets[slot]!;
      this.ring.copy(ring, at, from, from + this.lengths[slot]!);
      this.offsets[slot] = at;
      at += this.lengths[slot]!;
    }
    this.ring = ring;
    this.tail = at;
    return true;
  }

  private growSlots(): void {
    const { dueMs, offsets, lengths, head, count } = this;
    this.dueMs = new Float64Array(2 * count);
    this.offsets = new Uint32Array(2 * count);
    this.lengths = new Uint32Array(2 * count);
    for (let i = 0; i < count; i++) {
      const slot = (head + i) & (count - 1);
      this.dueMs[i] = dueMs[slot]!;
      this.offsets[i] = offsets[slot]!;
      this.lengths[i] = lengths[slot]!;
    }
    this.head = 0;
  }
}
