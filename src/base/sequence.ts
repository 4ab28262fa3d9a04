/**
 * Arithmetic on 32-bit sequence numbers that wrap (RFC 9293 §3.4). All values are kept as unsigned 32-bit numbers.
 */

/** `a + n` modulo 2^32. */
export function addSeq(a: number, n: number): number {
  return (a + n) >>> 0;
}

/** The signed distance from `b` to `a`: positive when `a` is later. Meaningful within ±2^31. */
export function diffSeq(a: number, b: number): number {
  return (a - b) | 0;
}
