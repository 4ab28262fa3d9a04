import { describe, expect, it } from 'vitest';
import { ColumnBlock } from '../../../src/base/column-block.ts';

const CACHE_SETS = 64;
const CACHE_LINE_BYTES = 64;

function takeOneOfEach(block: ColumnBlock, length: number) {
  return [
    block.uint8(length),
    block.uint16(length),
    block.uint32(length),
    block.int32(length),
    block.float32(length),
    block.float64(length),
  ];
}

describe('a block of columns', () => {
  it('gives arrays of the lengths and kinds that were asked for, all zero', () => {
    const columns = takeOneOfEach(new ColumnBlock(4096), 7);
    expect(columns.map((one) => one.constructor.name)).toEqual([
      'Uint8Array',
      'Uint16Array',
      'Uint32Array',
      'Int32Array',
      'Float32Array',
      'Float64Array',
    ]);
    for (const one of columns) expect([...one]).toEqual([0, 0, 0, 0, 0, 0, 0]);
  });
  it('keeps columns apart', () => {
    const columns = takeOneOfEach(new ColumnBlock(4096), 9);
    for (const [i, one] of columns.entries()) one.fill(i + 1);
    for (const [i, one] of columns.entries()) expect(new Set<number>(one)).toEqual(new Set([i + 1]));
  });
  it('takes all from one buffer', () => {
    const columns = takeOneOfEach(new ColumnBlock(1 << 20), 1000);
    expect(new Set(columns.map((one) => one.buffer)).size).toBe(1);
  });
  it('puts what belongs to one entry of a large table into different sets of the cache', () => {
    const length = 131_072;
    const block = new ColumnBlock(40 * 5 * length);
    const sets = Array.from({ length: 40 }, () => (block.uint32(length).byteOffset / CACHE_LINE_BYTES) % CACHE_SETS);
    expect(new Set(sets).size).toBe(40);
  });
  it('gives columns that do not fit memory of their own', () => {
    const block = new ColumnBlock(64);
    const [first, second] = [block.uint32(16), block.uint32(16)];
    second.fill(1);
    expect(second.buffer).not.toBe(first.buffer);
    expect([...first]).toEqual(Array(16).fill(0));
  });
});
