import { describe, expect, it } from 'vitest';
import { WIRE_BAD_LENGTH, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from '../../../src/wire/status.ts';
import {
  checkVnet,
  getVnetFlags,
  getVnetKind,
  getVnetSegmentBytes,
  VNET_CHECKSUM_VALID,
  VNET_HEADER_BYTES,
  VNET_NEEDS_CHECKSUM,
  VNET_TCP4,
  VNET_TCP6,
  VNET_UDP,
  VNET_WHOLE,
  writeVnetPartial,
  writeVnetWhole,
} from '../../../src/wire/vnet.ts';
import { BASE, blankView, Dice, expectBuilt, expectTruncationsRefused, fromHex, toHex, viewOf } from './bytes.ts';

/** As Linux 6.18 gave it on a tap: 2 segments of 1460 bytes over IPv4, checksum of TCP at 34 + 16; the last two bytes are not used. */
const FROM_LINUX = '0101 3600 b405 2200 1000 0000';

/** The header, and a frame of `frameBytes` behind it. */
function withFrame(hex: string, frameBytes: number): DataView {
  return viewOf(Uint8Array.from([...fromHex(hex), ...new Uint8Array(frameBytes)]));
}

function check(hex: string, frameBytes: number): number {
  return checkVnet(withFrame(hex, frameBytes), BASE, BASE + VNET_HEADER_BYTES + frameBytes);
}

describe('a virtio-net header', () => {
  it('is read as Linux writes it', () => {
    const view = withFrame(FROM_LINUX, 2974);
    expect(checkVnet(view, BASE, BASE + VNET_HEADER_BYTES + 2974)).toBe(VNET_HEADER_BYTES);
    expect(getVnetFlags(view, BASE)).toBe(VNET_NEEDS_CHECKSUM);
    expect(getVnetKind(view, BASE)).toBe(VNET_TCP4);
    expect(getVnetSegmentBytes(view, BASE)).toBe(1460);
  });

  it('is built on a dirty buffer', () => {
    const partial = blankView(VNET_HEADER_BYTES);
    writeVnetPartial(partial, BASE, VNET_TCP4, 54, 1460, 34, 16);
    expectBuilt(partial, FROM_LINUX);
    const single = blankView(VNET_HEADER_BYTES);
    writeVnetPartial(single, BASE, VNET_WHOLE, 74, 1440, 54, 16);
    expectBuilt(single, '0100 4a00 0000 3600 1000 0000');
    const whole = blankView(VNET_HEADER_BYTES);
    writeVnetWhole(whole, BASE);
    expectBuilt(whole, '00'.repeat(12));
  });

  it('equals that of a naive codec, both ways', () => {
    const dice = new Dice(12);
    for (let i = 0; i < 1000; i++) {
      const kind = [VNET_TCP4, VNET_TCP6, VNET_UDP][dice.between(0, 3 - 1)]!;
      const [headers, segment, start, offset] = [
        dice.between(0, 200 - 1),
        1 + dice.between(0, 65_535 - 1),
        dice.between(0, 200 - 1),
        dice.between(0, 100 - 1),
      ];
      const little = (value: number): number[] => [value & 255, value >> 8];
      const naive = [1, kind, ...little(headers), ...little(segment), ...little(start), ...little(offset), 0, 0];
      const view = blankView(VNET_HEADER_BYTES);
      writeVnetPartial(view, BASE, kind, headers, segment, start, offset);
      expectBuilt(view, toHex(Uint8Array.from(naive)));
      const frame = viewOf(Uint8Array.from([...naive, ...new Uint8Array(400)]));
      expect(checkVnet(frame, BASE, BASE + VNET_HEADER_BYTES + 400)).toBe(VNET_HEADER_BYTES);
      expect([getVnetKind(frame, BASE), getVnetSegmentBytes(frame, BASE)]).toEqual([kind, segment]);
    }
  });

  it('is refused at every truncation', () => {
    expectTruncationsRefused(fromHex('0000 0000 0000 0000 0000 0000'), checkVnet);
    expect(check(FROM_LINUX, 51)).toBe(WIRE_BAD_LENGTH);
    expect(check(FROM_LINUX, 52)).toBe(VNET_HEADER_BYTES);
    expect(checkVnet(withFrame(FROM_LINUX, 0), BASE, BASE + 11)).toBe(WIRE_TRUNCATED);
  });

  it('is refused when it asks for what cannot be done', () => {
    expect(check('0001 3600 0000 0000 0000 0000', 100)).toBe(WIRE_BAD_LENGTH);
    expect(check('0003 3600 b405 0000 0000 0000', 100)).toBe(WIRE_UNSUPPORTED);
    expect(check('0102 3600 b405 2200 1000 0000', 100)).toBe(WIRE_UNSUPPORTED);
  });

  it('may say that the first segment reports congestion, and that a checksum was verified', () => {
    const view = withFrame('0281 3600 b405 0000 0000 0000', 100);
    expect(checkVnet(view, BASE, BASE + VNET_HEADER_BYTES + 100)).toBe(VNET_HEADER_BYTES);
    expect(getVnetKind(view, BASE)).toBe(VNET_TCP4);
    expect(getVnetFlags(view, BASE)).toBe(VNET_CHECKSUM_VALID);
  });
});
