import { expect, it } from 'vitest';
import { generateIsn } from '../../../../src/stack/tcp/isn.ts';

const GUEST = new Uint32Array([0, 0, 0xffff, 0xc0000202]);
const PEER = new Uint32Array([0x20010db8, 7, 0, 9]);
const SECRET = new Uint32Array([0x03020100, 0x07060504]);

/** HalfSipHash-2-4 with 32 bits of output, straight from its definition, over whole words. */
function halfSipHash(key: readonly number[], words: readonly number[]): number {
  let [v0, v1, v2, v3] = [key[0]!, key[1]!, 0x6c796765 ^ key[0]!, 0x74656462 ^ key[1]!];
  const rotl = (x: number, b: number): number => (x << b) | (x >>> (32 - b));
  const sipRound = (): void => {
    v0 = (v0 + v1) | 0;
    v1 = rotl(v1, 5) ^ v0;
    v0 = rotl(v0, 16);
    v2 = (v2 + v3) | 0;
    v3 = rotl(v3, 8) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = rotl(v3, 7) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = rotl(v1, 13) ^ v2;
    v2 = rotl(v2, 16);
  };
  for (const word of [...words, (words.length * 4) << 24]) {
    v3 ^= word;
    sipRound();
    sipRound();
    v0 ^= word;
  }
  v2 ^= 0xff;
  for (let i = 0; i < 4; i++) sipRound();
  return (v1 ^ v3) >>> 0;
}

it('the hash is HalfSipHash of addresses and ports', () => {
  // The published vector for the empty message and the key 00 01 … 07.
  expect(halfSipHash([0x03020100, 0x07060504], [])).toBe(0x5b9f35a9);
  const words = [...GUEST, ...PEER, (40_000 << 16) | 80];
  expect(generateIsn(SECRET, GUEST, 40_000, PEER, 80, 0)).toBe(halfSipHash([...SECRET], words));
});

it('a number rises by 250 in a millisecond and wraps', () => {
  const at = (ms: number): number => generateIsn(SECRET, GUEST, 1, PEER, 2, ms);
  expect((at(1) - at(0)) | 0).toBe(250);
  expect((at(1e9 + 8) - at(1e9)) | 0).toBe(2000);
});

it('other ports, addresses or secrets give unrelated numbers', () => {
  const numbers = new Set([
    generateIsn(SECRET, GUEST, 1, PEER, 2, 0),
    generateIsn(SECRET, GUEST, 2, PEER, 1, 0),
    generateIsn(SECRET, PEER, 1, GUEST, 2, 0),
    generateIsn(new Uint32Array([1, 2]), GUEST, 1, PEER, 2, 0),
  ]);
  expect(numbers.size).toBe(4);
});
