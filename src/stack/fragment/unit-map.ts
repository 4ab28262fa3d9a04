/** Which 8-byte units of a datagram have come: bit sets of 8192 bits (65536 bytes), as ranges of one Uint32Array. */
export const UNIT_BYTES = 8;
/** Words that one datagram's set takes. */
export const UNIT_MAP_WORDS = 65_536 / UNIT_BYTES / 32;

/** Bits from … to - 1 of a word, 0 ≤ from < to ≤ 32. */
function maskOf(from: number, to: number): number {
  const upper = to === 32 ? 0xffffffff : (1 << to) - 1;
  return (upper & ~((1 << from) - 1)) >>> 0;
}

function countBits(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  x = (x + (x >>> 4)) & 0x0f0f0f0f;
  return Math.imul(x, 0x01010101) >>> 24;
}

/** @returns how many of the units first … end - 1 are in the set that starts at word `base` */
export function countUnits(map: Uint32Array, base: number, first: number, end: number): number {
  let count = 0;
  for (let unit = first; unit < end; ) {
    const word = unit >>> 5;
    const from = unit & 31;
    const to = Math.min(32, from + end - unit);
    count += countBits(map[base + word]! & maskOf(from, to));
    unit += to - from;
  }
  return count;
}

/** Puts the units first … end - 1 into the set that starts at word `base`. */
export function addUnits(map: Uint32Array, base: number, first: number, end: number): void {
  for (let unit = first; unit < end; ) {
    const word = unit >>> 5;
    const from = unit & 31;
    const to = Math.min(32, from + end - unit);
    map[base + word] = map[base + word]! | maskOf(from, to);
    unit += to - from;
  }
}
