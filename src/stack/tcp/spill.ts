/**
 * Bytes of the guest that its host socket had no space for.
 *
 * They were inside the window that we had advertised, so they are kept, acknowledged, and sent when the socket reports space. A spill
 * exists only while it holds bytes: a flow whose host keeps up never has one. Its size is bounded by the window: the window offered is
 * the cap minus what is spilled, and its right edge never moves back (window.ts).
 *
 * Chunks come from a small pool, so that a slow host does not make work for the garbage collector.
 */
import type { HostSockets } from '../ports.ts';

const CHUNK_BYTES = 256 * 1024;
const POOL_CHUNKS = 32;

const pool: Uint8Array[] = [];

function takeChunk(): Uint8Array {
  // Not zeroed: every byte is written before it is sent.
  return pool.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
}

function giveChunk(chunk: Uint8Array): void {
  if (pool.length < POOL_CHUNKS) pool.push(chunk);
}

export class Spill {
  /** Bytes kept. */
  lengthBytes = 0;
  private readonly chunks: Uint8Array[] = [];
  /** First byte not sent, in the first chunk. */
  private head = 0;
  /** End of what was written, in the last chunk. */
  private tail = CHUNK_BYTES;

  /** Copies `length` bytes of `source` from `offset` to the end. */
  append(source: Uint8Array, offset: number, length: number): void {
    let from = offset;
    let left = length;
    while (left > 0) {
      if (this.tail === CHUNK_BYTES) {
        this.chunks.push(takeChunk());
        this.tail = 0;
      }
      const part = Math.min(left, CHUNK_BYTES - this.tail);
      this.chunks[this.chunks.length - 1]!.set(source.subarray(from, from + part), this.tail);
      this.tail += part;
      from += part;
      left -= part;
    }
    this.lengthBytes += length;
  }

  /**
   * Sends from the front until empty or the socket is full.
   * @returns bytes sent, or -errno (-EAGAIN included) when nothing was
   */
  drain(sockets: HostSockets, fd: number): number {
    let total = 0;
    while (this.lengthBytes > 0) {
      const chunk = this.chunks[0]!;
      const end = this.chunks.length === 1 ? this.tail : CHUNK_BYTES;
      const wanted = end - this.head;
      const sent = sockets.sendBuffer(fd, chunk, this.head, wanted, 0);
      if (sent < 0) return total > 0 ? total : sent;
      total += sent;
      this.head += sent;
      this.lengthBytes -= sent;
      if (sent < wanted) return total;
      giveChunk(chunk);
      this.chunks.shift();
      this.head = 0;
      if (this.chunks.length === 0) this.tail = CHUNK_BYTES;
    }
    return total;
  }

  /** Gives the memory back. */
  clear(): void {
    for (const chunk of this.chunks) giveChunk(chunk);
    this.chunks.length = 0;
    this.lengthBytes = 0;
    this.head = 0;
    this.tail = CHUNK_BYTES;
  }
}
