import { describe, expect, it } from 'vitest';
import {
  finishChecksum,
  foldChecksum,
  pseudoSumIpv4,
  pseudoSumIpv6,
  sumBytes,
  verifyChecksum,
} from '../../../src/wire/checksum.ts';
import { BASE, concat, Dice, fromHex, naiveChecksum, packBits, viewOf, wordBytes } from './bytes.ts';

describe('the Internet checksum', () => {
  it('gives the sums of the example in RFC 1071 section 3', () => {
    const bytes = fromHex('0001 f203 f4f5 f6f7');
    const view = viewOf(bytes);
    expect(foldChecksum(sumBytes(view, BASE, 8, 0))).toBe(0xddf2);
    expect(finishChecksum(sumBytes(view, BASE, 8, 0))).toBe(0x220d);
  });

  it('can be computed in parts at even distances, RFC 1071 section 2 (A)', () => {
    const view = viewOf(fromHex('0001 f203 f4f5 f6f7'));
    const first = sumBytes(view, BASE, 2, 0);
    const rest = foldChecksum(sumBytes(view, BASE + 2, 6, 0));
    expect(foldChecksum(first + rest)).toBe(0xddf2);
  });

  it('takes an odd last byte as the high half of a word, RFC 1071 section 1', () => {
    const view = viewOf(fromHex('0102 03'));
    expect(sumBytes(view, BASE, 3, 0)).toBe(0x0102 + 0x0300);
  });

  it('equals a naive implementation for every length and every start', () => {
    const dice = new Dice(1071);
    for (let length = 0; length <= 130; length++) {
      const bytes = dice.bytes(length);
      const view = viewOf(bytes);
      expect(finishChecksum(sumBytes(view, BASE, length, 0)) % 0xffff).toBe(naiveChecksum(bytes) % 0xffff);
    }
  });

  it('keeps all carries of 64 KiB of 0xff', () => {
    const view = viewOf(new Uint8Array(65536).fill(0xff));
    expect(foldChecksum(sumBytes(view, BASE, 65536, 0))).toBe(0xffff);
  });

  it('folds sums of any width below 2^53, and never a positive one to zero', () => {
    const dice = new Dice(53);
    for (let i = 0; i < 2_000; i++) {
      const sum = dice.bits(21) * 2 ** 32 + dice.bits(32);
      const folded = foldChecksum(sum);
      expect(folded).toBeLessThanOrEqual(0xffff);
      expect(folded % 0xffff).toBe(sum % 0xffff);
      if (sum > 0) expect(folded).toBeGreaterThan(0);
    }
    expect(foldChecksum(0)).toBe(0);
    expect(finishChecksum(0)).toBe(0xffff);
    expect(foldChecksum(Number.MAX_SAFE_INTEGER) % 0xffff).toBe(Number.MAX_SAFE_INTEGER % 0xffff);
  });

  it('verifies what it has computed, and notices each flipped bit', () => {
    const bytes = new Dice(5).bytes(40);
    bytes.set([0, 0], 10);
    const view = viewOf(bytes);
    view.setUint16(BASE + 10, finishChecksum(sumBytes(view, BASE, 40, 4711)));
    expect(verifyChecksum(view, BASE, 40, 4711)).toBe(true);
    for (let bit = 0; bit < 320; bit++) {
      const at = BASE + (bit >> 3);
      view.setUint8(at, view.getUint8(at) ^ (1 << (bit & 7)));
      expect(verifyChecksum(view, BASE, 40, 4711)).toBe(false);
      view.setUint8(at, view.getUint8(at) ^ (1 << (bit & 7)));
    }
  });
});

describe('pseudo-headers', () => {
  it('sum as their bytes would, for IPv4, with addresses signed or not', () => {
    const dice = new Dice(768);
    for (let i = 0; i < 500; i++) {
      const [src, dst, protocol, length] = [dice.bits(32), dice.bits(32), dice.bits(8), dice.bits(16)];
      const bytes = packBits([32, src], [32, dst], [8, 0], [8, protocol], [16, length]);
      const expected = naiveChecksum(bytes) % 0xffff;
      expect(finishChecksum(pseudoSumIpv4(src, dst, protocol, length)) % 0xffff).toBe(expected);
      expect(pseudoSumIpv4(src | 0, dst | 0, protocol, length)).toBe(pseudoSumIpv4(src, dst, protocol, length));
    }
  });

  it('sum as their bytes would, for IPv6', () => {
    const dice = new Dice(8200);
    for (let i = 0; i < 500; i++) {
      const words = dice.words(12);
      const [protocol, length] = [dice.bits(8), dice.bits(32)];
      const bytes = concat(
        wordBytes(words, 1, 4),
        wordBytes(words, 6, 4),
        packBits([32, length], [24, 0], [8, protocol]),
      );
      expect(finishChecksum(pseudoSumIpv6(words, 1, words, 6, protocol, length)) % 0xffff).toBe(
        naiveChecksum(bytes) % 0xffff,
      );
    }
  });
});
