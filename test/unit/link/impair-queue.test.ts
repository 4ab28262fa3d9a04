import { describe, expect, it } from 'vitest';
import { FrameQueue } from '../../../src/link/impair-queue.ts';
import { seededRandom } from '../../support/seeded-random.ts';

const MEGABYTE = 1 << 20;

/** A frame that begins with its number. */
function frame(number: number, length: number): Buffer {
  const bytes = Buffer.alloc(length, number & 0xff);
  bytes.writeUInt32BE(number);
  return bytes;
}

describe('the queue of frames under way', () => {
  it('gives frames back in order, byte for byte, whatever lies around them', () => {
    const queue = new FrameQueue(MEGABYTE);
    const source = Buffer.concat([Buffer.alloc(3, 0xee), frame(1, 60), frame(2, 1514), Buffer.alloc(3, 0xee)]);
    expect(queue.push(source, 3, 60, 5)).toBe(true);
    expect(queue.push(source, 63, 1514, 7)).toBe(true);
    expect([queue.count, queue.bytes, queue.nextDueMs, queue.nextBytes]).toEqual([2, 1574, 5, 60]);
    const out = Buffer.alloc(2000, 0xa5);
    queue.take(out, 10);
    expect(out.subarray(0, 10)).toEqual(Buffer.alloc(10, 0xa5));
    expect(out.subarray(10, 70)).toEqual(frame(1, 60));
    expect(out[70]).toBe(0xa5);
    expect([queue.nextDueMs, queue.nextBytes]).toEqual([7, 1514]);
    queue.take(out, 0);
    expect(out.subarray(0, 1514)).toEqual(frame(2, 1514));
    expect([queue.count, queue.bytes, queue.nextDueMs]).toEqual([0, 0, Number.POSITIVE_INFINITY]);
  });

  it('keeps order and bytes over thousands of frames of all lengths, growing and wrapping', () => {
    const random = seededRandom(5);
    const queue = new FrameQueue(8 * MEGABYTE);
    const lengths = Array.from({ length: 6000 }, () => 14 + Math.floor(random() ** 4 * 65_000));
    const out = Buffer.alloc(66_000);
    let [pushed, taken, bytes] = [0, 0, 0];
    while (taken < lengths.length) {
      for (let burst = Math.floor(random() * 300); burst > 0 && pushed < lengths.length; burst--) {
        const length = lengths[pushed]!;
        if (!queue.push(frame(pushed, length), 0, length, pushed)) break;
        pushed++;
        bytes += length;
      }
      for (let burst = Math.floor(random() * 300); burst > 0 && taken < pushed; burst--) {
        expect(queue.nextDueMs).toBe(taken);
        queue.take(out, 0);
        expect(Buffer.compare(out.subarray(0, lengths[taken]!), frame(taken, lengths[taken]!))).toBe(0);
        bytes -= lengths[taken++]!;
      }
      expect([queue.count, queue.bytes]).toEqual([pushed - taken, bytes]);
    }
  });

  it('takes nothing beyond its limit, and goes on when there is room again', () => {
    const queue = new FrameQueue(MEGABYTE);
    let pushed = 0;
    while (queue.push(frame(pushed, 60_000), 0, 60_000, 0)) pushed++;
    expect(pushed).toBe(Math.floor(MEGABYTE / 60_000));
    const out = Buffer.alloc(60_000);
    queue.take(out, 0);
    expect(queue.push(frame(pushed, 60_000), 0, 60_000, 0)).toBe(true);
    for (let number = 1; number <= pushed; number++) {
      queue.take(out, 0);
      expect(out.readUInt32BE()).toBe(number);
    }
    expect(queue.count).toBe(0);
  });

  it('does not lay a frame over the first one, not by a byte', () => {
    for (const [length, fits] of [
      [100_000, true],
      [100_001, false],
    ] as const) {
      // A ring of 256 KiB, which may not grow.
      const queue = new FrameQueue(256 * 1024);
      for (const number of [1, 2]) queue.push(frame(number, 100_000), 0, 100_000, 0);
      const out = Buffer.alloc(100_001);
      queue.take(out, 0);
      expect(queue.push(frame(3, length), 0, length, 0)).toBe(fits);
      queue.take(out, 0);
      expect(Buffer.compare(out.subarray(0, 100_000), frame(2, 100_000))).toBe(0);
    }
  });

  it('has no limit of frames, wherever the first one is', () => {
    const queue = new FrameQueue(MEGABYTE);
    const out = Buffer.alloc(20);
    let [pushed, taken] = [0, 0];
    const push = (count: number): void => {
      for (const end = pushed + count; pushed < end; pushed++) queue.push(frame(pushed, 20), 0, 20, pushed);
    };
    const take = (count: number): void => {
      for (const end = taken + count; taken < end; taken++) {
        expect(queue.nextDueMs).toBe(taken);
        queue.take(out, 0);
        expect(out.readUInt32BE()).toBe(taken);
      }
    };
    push(1000);
    take(500);
    push(4000);
    take(4500);
  });

  it('forgets all when it is told to', () => {
    const queue = new FrameQueue(MEGABYTE);
    for (let i = 0; i < 5000; i++) queue.push(frame(i, 100), 0, 100, i);
    queue.clear();
    expect([queue.count, queue.bytes, queue.nextDueMs]).toEqual([0, 0, Number.POSITIVE_INFINITY]);
    expect(queue.push(frame(1, 100), 0, 100, 9)).toBe(true);
    expect(queue.nextDueMs).toBe(9);
  });

  it('lets all frames arrive at once when it is told to', () => {
    const queue = new FrameQueue(MEGABYTE);
    for (let i = 0; i < 3; i++) queue.push(frame(i, 100), 0, 100, 1000 + i);
    queue.hurry();
    const out = Buffer.alloc(100);
    for (let i = 0; i < 3; i++) {
      expect(queue.nextDueMs).toBe(0);
      queue.take(out, 0);
      expect(out.readUInt32BE()).toBe(i);
    }
  });
});
