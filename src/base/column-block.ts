/**
 * One piece of memory for many typed-array columns of a table.
 *
 * Why not an array each: every buffer is something that V8 accounts for by itself, and some eighty of them at the size of the flow table
 * set off four garbage collections while the process starts. And large buffers all begin at the same place within a page, so that what
 * belongs to one entry would share one set of the first-level cache, which holds eight lines: columns of a block lie one cache line
 * further each.
 *
 * Zero-filled; pages that nobody touches cost no memory.
 */

const CACHE_LINE_BYTES = 64;

export class ColumnBlock {
  private readonly buffer: ArrayBuffer;
  private top = 0;

  /** @param lengthBytes - for all columns together; those that do not fit any more get memory of their own */
  constructor(lengthBytes: number) {
    this.buffer = new ArrayBuffer(lengthBytes);
  }

  uint8(length: number): Uint8Array {
    const at = this.take(length);
    return at < 0 ? new Uint8Array(length) : new Uint8Array(this.buffer, at, length);
  }

  uint16(length: number): Uint16Array {
    const at = this.take(length * 2);
    return at < 0 ? new Uint16Array(length) : new Uint16Array(this.buffer, at, length);
  }

  uint32(length: number): Uint32Array {
    const at = this.take(length * 4);
    return at < 0 ? new Uint32Array(length) : new Uint32Array(this.buffer, at, length);
  }

  int32(length: number): Int32Array {
    const at = this.take(length * 4);
    return at < 0 ? new Int32Array(length) : new Int32Array(this.buffer, at, length);
  }

  float32(length: number): Float32Array {
    const at = this.take(length * 4);
    return at < 0 ? new Float32Array(length) : new Float32Array(this.buffer, at, length);
  }

  float64(length: number): Float64Array {
    const at = this.take(length * 8);
    return at < 0 ? new Float64Array(length) : new Float64Array(this.buffer, at, length);
  }

  /** @returns the offset of a new column, or -1 */
  private take(lengthBytes: number): number {
    const at = this.top;
    if (at + lengthBytes > this.buffer.byteLength) return -1;
    const end = at + lengthBytes;
    this.top = end + CACHE_LINE_BYTES - (end % CACHE_LINE_BYTES);
    return at;
  }
}
