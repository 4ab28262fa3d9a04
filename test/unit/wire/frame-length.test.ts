import { describe, expect, it } from 'vitest';
import {
  checkFrameLength,
  FRAME_MAX_BYTES,
  FRAME_MIN_BYTES,
  FRAME_PREFIX_BYTES,
  getFrameLength,
  writeFrameLength,
} from '../../../src/wire/frame-length.ts';
import { WIRE_BAD_LENGTH, WIRE_TRUNCATED } from '../../../src/wire/status.ts';
import { BASE, blankView, expectBuilt, fromHex, viewOf } from './bytes.ts';

describe('the length in front of a frame', () => {
  it('is big endian', () => {
    const view = viewOf(fromHex('0000005a'));
    expect(checkFrameLength(view, BASE, BASE + 4)).toBe(FRAME_PREFIX_BYTES);
    expect(getFrameLength(view, BASE)).toBe(90);
  });

  it('is built on a dirty buffer', () => {
    const view = blankView(4);
    writeFrameLength(view, BASE, 0xfedc);
    expectBuilt(view, '0000fedc');
  });

  it('is awaited while cut off', () => {
    for (let length = 0; length < 4; length++) {
      expect(checkFrameLength(viewOf(fromHex('0000005a')), BASE, BASE + length)).toBe(WIRE_TRUNCATED);
    }
  });

  it.each([
    [0, WIRE_BAD_LENGTH],
    [FRAME_MIN_BYTES - 1, WIRE_BAD_LENGTH],
    [FRAME_MIN_BYTES, 4],
    [FRAME_MAX_BYTES, 4],
    [FRAME_MAX_BYTES + 1, WIRE_BAD_LENGTH],
    [0x7fffffff, WIRE_BAD_LENGTH],
    [0xffffffff, WIRE_BAD_LENGTH],
  ])('of %i gives %i', (length, expected) => {
    const view = blankView(4);
    writeFrameLength(view, BASE, length);
    expect(checkFrameLength(view, BASE, BASE + 4)).toBe(expected);
  });
});
