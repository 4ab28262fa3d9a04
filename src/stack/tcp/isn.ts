/**
 * Initial sequence numbers (RFC 6528): a clock that ticks every 4 µs plus a keyed hash of the connection's addresses and ports, so
 * that numbers of one pair of endpoints rise and those of another cannot be guessed. The hash is HalfSipHash-2-4
 * (Aumasson and Bernstein), which needs 32-bit arithmetic only; its key is the first two words of the stack's secret.
 */

const TICKS_PER_MS = 250;

/** State of the hash, reused: one thread, no calls in between. */
const v = new Int32Array(4);

function rotate(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

function round(): void {
  v[0] = v[0]! + v[1]!;
  v[1] = rotate(v[1]!, 5) ^ v[0]!;
  v[0] = rotate(v[0]!, 16);
  v[2] = v[2]! + v[3]!;
  v[3] = rotate(v[3]!, 8) ^ v[2]!;
  v[0] = v[0]! + v[3]!;
  v[3] = rotate(v[3]!, 7) ^ v[0]!;
  v[2] = v[2]! + v[1]!;
  v[1] = rotate(v[1]!, 13) ^ v[2]!;
  v[2] = rotate(v[2]!, 16);
}

function absorb(word: number): void {
  v[3] = v[3]! ^ word;
  round();
  round();
  v[0] = v[0]! ^ word;
}

/**
 * The ISN for a connection that opens now.
 * @param secret at least two random words
 * @returns uint32
 */
export function generateIsn(
  secret: Uint32Array,
  guest: Uint32Array,
  guestPort: number,
  peer: Uint32Array,
  peerPort: number,
  nowMs: number,
): number {
  v[0] = secret[0]!;
  v[1] = secret[1]!;
  v[2] = 0x6c796765 ^ secret[0]!;
  v[3] = 0x74656462 ^ secret[1]!;
  for (let i = 0; i < 4; i++) absorb(guest[i]!);
  for (let i = 0; i < 4; i++) absorb(peer[i]!);
  absorb((guestPort << 16) | peerPort);
  // The length of the message, as the algorithm wants it in the last word's top byte.
  absorb(36 << 24);
  v[2] = v[2]! ^ 0xff;
  for (let i = 0; i < 4; i++) round();
  const ticks = Math.floor(nowMs * TICKS_PER_MS) % 0x1_0000_0000;
  return ((v[1]! ^ v[3]!) + ticks) >>> 0;
}
