import { describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { EFAULT, EINVAL, fillPattern, sumNaively } from '../sys/support.ts';

const native = loadNative();
const ARENA_BYTES = 1 << 18;
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const base = arena.allocate(ARENA_BYTES - 1024);
fillPattern(arena.bytes);

describe('sum', () => {
  it('gives the example of RFC 1071', () => {
    arena.bytes.set([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], base);
    expect(native.sum(base, 8, 0)).toBe(0xddf2);
  });

  it('agrees with the slow sum at every small length and offset', () => {
    for (let offset = 0; offset < 9; offset++) {
      for (let length = 0; length < 140; length++) {
        const bytes = arena.bytes.subarray(base + offset, base + offset + length);
        expect(native.sum(base + offset, length, 0)).toBe(sumNaively(bytes));
        expect(native.checksumBuffer(arena.bytes, base + offset, length, 0)).toBe(sumNaively(bytes));
      }
    }
  });

  it('agrees with it on large blocks, the worst of carries among them', () => {
    for (const length of [1460, 4095, 65483, 65535, 200_001]) {
      expect(native.sum(base + 1, length, 0)).toBe(sumNaively(arena.bytes.subarray(base + 1, base + 1 + length)));
    }
    const ones = new Uint8Array(65535).fill(0xff);
    expect(native.checksumBuffer(ones, 0, ones.length, 0)).toBe(sumNaively(ones));
    expect(native.checksumBuffer(new Uint8Array(64), 0, 64, 0)).toBe(0);
  });

  it('adds an initial sum of up to 32 bits', () => {
    const bytes = arena.bytes.subarray(base, base + 99);
    for (const initial of [0, 1, 0xffff, 0x10000, 0x2fffd, 0xffffffff]) {
      expect(native.sum(base, 99, initial)).toBe(sumNaively(bytes, initial));
    }
  });

  it('refuses ranges outside the arena or the buffer', () => {
    expect(native.sum(ARENA_BYTES, 0, 0)).toBe(0);
    expect(native.sum(ARENA_BYTES, 1, 0)).toBe(EFAULT);
    expect(native.sum(1, ARENA_BYTES, 0)).toBe(EFAULT);
    expect(native.sum(0xffffffff, 0xffffffff, 0)).toBe(EFAULT);
    const bytes = new Uint8Array(10);
    expect(native.checksumBuffer(bytes, 0, 11, 0)).toBe(EFAULT);
    expect(native.checksumBuffer(bytes, 0xffffffff, 1, 0)).toBe(EFAULT);
    expect(native.checksumBuffer(bytes, 10, 0, 0)).toBe(0);
    expect(native.checksumBuffer([] as unknown as Uint8Array, 0, 0, 0)).toBe(EINVAL);
    expect(native.checksumBuffer(new Uint16Array(4) as unknown as Uint8Array, 0, 0, 0)).toBe(EINVAL);
  });
});
