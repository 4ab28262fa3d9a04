import { describe, expect, it } from 'vitest';
import { measureRun } from '../../../../src/stack/udp/runs.ts';
import { seededRandom } from '../../../support/seeded-random.ts';

function listOf(lengths: readonly number[]): DataView {
  const view = new DataView(new ArrayBuffer(8 * lengths.length));
  lengths.forEach((length, i) => {
    view.setUint32(8 * i + 4, length, true);
  });
  return view;
}

/** Lengths of the parts that a list is sent in: runs as positive, others as negative numbers. */
function parts(lengths: readonly number[]): number[] {
  const view = listOf(lengths);
  const found: number[] = [];
  for (let at = 0; at < lengths.length; ) {
    const run = measureRun(view, 8 * at, lengths.length - at);
    found.push(run);
    at += Math.abs(run);
  }
  return found;
}

const times = (count: number, length: number): number[] => Array<number>(count).fill(length);

describe('a run of datagrams', () => {
  it.each<[string, number[], number[]]>([
    ['needs four of a length', [7, 7, 7], [-3]],
    ['is four of a length', [7, 7, 7, 7], [4]],
    ['may end with a shorter one', [7, 7, 7, 3], [4]],
    ['does not go on behind a shorter one', [7, 7, 7, 3, 7], [4, -1]],
    ['does not end with an empty one', [7, 7, 7, 7, 0], [4, -1]],
    ['is not made of empty ones', times(9, 0), [-9]],
    ['is found behind others', [1, 2, 3, 7, 7, 7, 7, 7], [-3, 5]],
    ['is found behind a start that looks like one', [7, 7, 8, 8, 8, 8], [-2, 4]],
    ['has 64 datagrams at most', times(130, 100), [64, 64, -2]],
    ['has 65000 bytes at most', times(60, 1472), [44, 16]],
    ['is not made of what is too long for four', times(8, 20_000), [-8]],
    ['is one even where the next is longer', [7, 7, 7, 7, 8], [4, -1]],
  ])('%s', (_what, lengths, expected) => {
    expect(parts(lengths)).toEqual(expected);
  });

  it('is always one that the kernel would take, and every datagram is in one part', () => {
    const random = seededRandom(99);
    for (let round = 0; round < 2000; round++) {
      const sizes = [1 + Math.floor(random() * 5), 1000, 1472, 30_000, 0];
      const lengths: number[] = [];
      while (lengths.length < 100) {
        lengths.push(...times(1 + Math.floor(random() * 8), sizes[Math.floor(random() * sizes.length)]!));
      }
      let at = 0;
      for (const part of parts(lengths)) {
        const piece = lengths.slice(at, at + Math.abs(part));
        at += piece.length;
        if (part < 0) continue;
        expect(piece.slice(0, -1).every((length) => length === piece[0])).toBe(true);
        expect(piece.at(-1)).toBeLessThanOrEqual(piece[0]!);
        expect(piece.at(-1)).toBeGreaterThan(0);
        expect(piece.length).toBeGreaterThanOrEqual(4);
        expect(piece.length).toBeLessThanOrEqual(64);
        expect(piece.reduce((sum, length) => sum + length, 0)).toBeLessThanOrEqual(65_000);
      }
      expect(at).toBe(lengths.length);
    }
  });
});
