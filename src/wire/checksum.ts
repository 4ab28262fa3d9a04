/**
 * The Internet checksum (RFC 1071): the one's complement sum of 16-bit big-endian words.
 *
 * A *sum* in this folder is a number that may be wider than 16 bits: carries are folded in once, at the end. Sums of parts
 * can be added with `+` as long as each part starts at an even distance from the first one; up to 2^53 the total stays exact. So
 * the sum of a payload (usually from the native addon, folded or not), of a pseudo-header and of a header meet in one addition.
 *
 * The functions here add in small integers and add at most 2^20 to what they are given, because V8 keeps small integers in registers
 * but allocates a heap number for a larger value whenever it crosses a call that was not inlined: 48 bytes per packet when it was
 * measured.
 *
 * Not done: parts that start at an odd distance; incremental updates (RFC 1624), since headers are always written whole.
 */

const TWO_TO_32 = 0x1_0000_0000;

/** The two 16-bit words of a 32-bit one (int32 or uint32), added: what a 32-bit field contributes to a sum. */
export function addHalves(word: number): number {
  return (word >>> 16) + (word & 0xffff);
}

/**
 * Adds `length` bytes from `offset` to the sum `initial`; an odd last byte counts as the high half of a word.
 * @param length at most 65536, so that the halves stay below 2^31
 * @returns a sum, `initial` + at most 2^18
 */
export function sumBytes(view: DataView, offset: number, length: number, initial: number): number {
  let high = 0;
  let low = 0;
  let at = offset;
  const end = offset + length;
  for (; at + 4 <= end; at += 4) {
    const word = view.getUint32(at);
    high += word >>> 16;
    low += word & 0xffff;
  }
  if (at + 2 <= end) {
    high += view.getUint16(at);
    at += 2;
  }
  if (at < end) low += view.getUint8(at) << 8;
  return initial + (high >>> 16) + (high & 0xffff) + (low >>> 16) + (low & 0xffff);
}

/** Folds a sum (0 … 2^53) to 16 bits, not inverted. 0 only if every word was 0. */
export function foldChecksum(sum: number): number {
  // 2^16 and 2^32 are both congruent to 1 modulo 0xffff, so high parts are just added.
  let folded = (sum & 0xffff) + ((sum >>> 16) & 0xffff);
  if (sum >= TWO_TO_32) folded += Math.floor(sum / TWO_TO_32);
  folded = (folded & 0xffff) + (folded >>> 16);
  return (folded & 0xffff) + (folded >>> 16);
}

/** The value of a checksum field: the folded sum, inverted (0 … 0xffff). */
export function finishChecksum(sum: number): number {
  return ~foldChecksum(sum) & 0xffff;
}

/**
 * Whether `length` bytes from `offset`, their own checksum field included, add up. `pseudoSum` is 0 for protocols without a
 * pseudo-header. For UDP the caller has to let a zero field pass on IPv4 (RFC 768) and refuse it on IPv6 (RFC 8200 §8.1).
 */
export function verifyChecksum(view: DataView, offset: number, length: number, pseudoSum: number): boolean {
  return foldChecksum(sumBytes(view, offset, length, pseudoSum)) === 0xffff;
}

/**
 * Sum of the IPv4 pseudo-header (RFC 9293 §3.1, RFC 768).
 * @param src source address, uint32
 * @param dst destination address, uint32
 * @param length bytes of upper-layer header and payload
 */
export function pseudoSumIpv4(src: number, dst: number, protocol: number, length: number): number {
  return addHalves(src) + addHalves(dst) + protocol + length;
}

/**
 * Sum of the IPv6 pseudo-header (RFC 8200 §8.1).
 * @param src holds the source address at `srcAt`, `dst` the destination address at `dstAt`: four 32-bit words each
 * @param length bytes of upper-layer header and payload
 */
export function pseudoSumIpv6(
  src: Uint32Array,
  srcAt: number,
  dst: Uint32Array,
  dstAt: number,
  protocol: number,
  length: number,
): number {
  let sum = protocol + addHalves(length);
  for (let i = 0; i < 4; i++) sum += addHalves(src[srcAt + i]!) + addHalves(dst[dstAt + i]!);
  return sum;
}
