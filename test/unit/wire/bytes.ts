/** Tools for codec tests: hex, buffers filled with 0xa5, and a slow bit-by-bit codec to compare the fast ones with. */
import { expect } from 'vitest';
import { seededRandom } from '../../support/seeded-random.ts';

/** Where tests place headers: odd, so that nothing may rely on alignment, and not 0, so that nothing may ignore the offset. */
export const BASE = 17;
const FILLER = 0xa5;

export function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** A view of 0xa5 bytes with `bytes` at BASE and room for at least `room` bytes more behind them. */
export function viewOf(bytes: Uint8Array, room = 64): DataView {
  const all = new Uint8Array(BASE + bytes.length + room).fill(FILLER);
  all.set(bytes, BASE);
  return new DataView(all.buffer);
}

/** A view with `length` bytes to build on at BASE, all 0xa5. */
export function blankView(length: number): DataView {
  return viewOf(new Uint8Array(length).fill(FILLER));
}

/** `length` bytes at `offset`, as hex. */
export function hexAt(view: DataView, offset: number, length: number): string {
  return toHex(new Uint8Array(view.buffer, view.byteOffset + offset, length));
}

/** Asserts that exactly [BASE, BASE + expected length) was written, with these bytes. */
export function expectBuilt(view: DataView, expectedHex: string): void {
  const expected = expectedHex.replaceAll(/\s/g, '');
  const behind = view.byteLength - BASE - expected.length / 2;
  // One comparison of everything, since this runs thousands of times.
  expect(hexAt(view, 0, view.byteLength)).toBe(`${'a5'.repeat(BASE)}${expected}${'a5'.repeat(behind)}`);
}

/** Asserts that every shorter end than the whole is refused. */
export function expectTruncationsRefused(
  bytes: Uint8Array,
  check: (view: DataView, offset: number, end: number) => number,
): void {
  const view = viewOf(bytes);
  for (let length = 0; length < bytes.length; length++) {
    expect(check(view, BASE, BASE + length), `${length} of ${bytes.length} bytes`).toBeLessThan(0);
  }
  expect(check(view, BASE, BASE + bytes.length)).toBeGreaterThan(0);
}

/** Packs fields of any width, most significant bit first. The slow codec: nothing in it knows about bytes or alignment. */
export function packBits(...fields: readonly (readonly [bits: number, value: number | bigint])[]): Uint8Array {
  let digits = '';
  for (const [bits, value] of fields) {
    const text = BigInt.asUintN(bits, BigInt(value)).toString(2);
    digits += text.padStart(bits, '0');
  }
  const bytes = new Uint8Array(digits.length / 8);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(digits.slice(8 * i, 8 * i + 8), 2);
  return bytes;
}

/** The bits [from, from + bits) as a number. */
export function unpackBits(bytes: Uint8Array, from: number, bits: number): number {
  let value = 0;
  for (let i = from; i < from + bits; i++) value = 2 * value + ((bytes[i >> 3]! >> (7 - (i & 7))) & 1);
  return value;
}

/** RFC 1071 as its text has it: add 16-bit words, carry at once, invert. */
export function naiveChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** Repeatable random integers; every sixth or so is an extreme, where carries and signs go wrong. */
export class Dice {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = seededRandom(seed);
  }

  /** An integer of `bits` bits (1 … 32). */
  bits(bits: number): number {
    const range = 2 ** bits;
    const kind = Math.floor(this.#next() * 12);
    if (kind === 0) return 0;
    if (kind === 1) return range - 1;
    return Math.floor(this.#next() * range);
  }

  /** An integer in [low, high]. */
  between(low: number, high: number): number {
    return low + Math.floor(this.#next() * (high - low + 1));
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.bits(8));
  }

  words(length: number): Uint32Array {
    return Uint32Array.from({ length }, () => this.bits(32));
  }
}

/** The bytes of an array of 32-bit words, big endian. */
export function wordBytes(words: Uint32Array, at = 0, count = words.length - at): Uint8Array {
  return packBits(...[...words.subarray(at, at + count)].map((word) => [32, word] as const));
}
