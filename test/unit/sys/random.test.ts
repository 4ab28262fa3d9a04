import { describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import { randomWords } from '../../../src/sys/random.ts';
import { EINVAL } from './support.ts';

const native = loadNative();

describe('random numbers', () => {
  it('differ from each other and from one time to the next, in all bytes', () => {
    const first = randomWords(native, 64);
    const second = randomWords(native, 64);
    // 128 equal words, or a byte that stays the same, come by chance once in more than 2^20 runs.
    expect(new Set([...first, ...second]).size).toBe(128);
    for (let shift = 0; shift < 32; shift += 8) {
      expect(new Set([...first].map((word) => (word >>> shift) & 0xff)).size).toBeGreaterThan(16);
    }
  });
  it('come in no larger number than the kernel gives at once', () => {
    expect(native.fillRandom(new Uint8Array(257))).toBe(EINVAL);
    expect(native.fillRandom(new Uint8Array(0))).toBe(0);
  });
});
