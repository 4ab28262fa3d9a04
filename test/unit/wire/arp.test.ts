import { describe, expect, it } from 'vitest';
import {
  ARP_BYTES,
  ARP_REPLY,
  ARP_REQUEST,
  ARP_SENDER_MAC_OFFSET,
  ARP_TARGET_MAC_OFFSET,
  checkArp,
  getArpOperation,
  getArpSenderAddress,
  getArpTargetAddress,
  writeArp,
} from '../../../src/wire/arp.ts';
import { getMacHi, getMacLo } from '../../../src/wire/ethernet.ts';
import { WIRE_UNSUPPORTED } from '../../../src/wire/status.ts';
import { BASE, blankView, Dice, expectBuilt, expectTruncationsRefused, packBits, toHex, viewOf } from './bytes.ts';
import { ARP_REPLY_FRAME, ARP_REQUEST_FRAME } from './golden-frames.ts';

const REQUEST = ARP_REQUEST_FRAME.slice(14);
const REPLY = ARP_REPLY_FRAME.slice(14);

describe('an ARP packet', () => {
  it('is read as captured', () => {
    const view = viewOf(REQUEST);
    expect(checkArp(view, BASE, BASE + REQUEST.length)).toBe(ARP_BYTES);
    expect(getArpOperation(view, BASE)).toBe(ARP_REQUEST);
    expect(getMacHi(view, BASE + ARP_SENDER_MAC_OFFSET)).toBe(0x0200);
    expect(getMacLo(view, BASE + ARP_SENDER_MAC_OFFSET)).toBe(0x15);
    expect(getArpSenderAddress(view, BASE)).toBe(0x0a00030f);
    expect(getMacLo(view, BASE + ARP_TARGET_MAC_OFFSET)).toBe(0);
    expect(getArpTargetAddress(view, BASE)).toBe(0x0a000302);
  });

  it('is built on a dirty buffer as Linux answers', () => {
    const view = blankView(28);
    writeArp(view, BASE, ARP_REPLY, 0x0200, 0x02, 0x0a000302, 0x0200, 0x15, 0x0a00030f);
    expectBuilt(view, toHex(REPLY));
  });

  it('equals that of a naive codec, both ways', () => {
    const dice = new Dice(826);
    for (let i = 0; i < 300; i++) {
      const [op, sHi, sLo, spa] = [dice.bits(16), dice.bits(16), dice.bits(32), dice.bits(32)];
      const [tHi, tLo, tpa] = [dice.bits(16), dice.bits(32), dice.bits(32)];
      const naive = packBits(
        ...([
          [16, 1],
          [16, 0x800],
          [8, 6],
          [8, 4],
          [16, op],
        ] as const),
        ...([
          [16, sHi],
          [32, sLo],
          [32, spa],
          [16, tHi],
          [32, tLo],
          [32, tpa],
        ] as const),
      );
      const view = blankView(28);
      writeArp(view, BASE, op, sHi, sLo, spa, tHi, tLo, tpa);
      expectBuilt(view, toHex(naive));
      expect(checkArp(view, BASE, BASE + 28)).toBe(28);
      expect(getArpOperation(view, BASE)).toBe(op);
      expect(getArpSenderAddress(view, BASE)).toBe(spa);
      expect(getArpTargetAddress(view, BASE)).toBe(tpa);
      expect(getMacHi(view, BASE + ARP_TARGET_MAC_OFFSET)).toBe(tHi);
    }
  });

  it('is refused when cut off', () => {
    expectTruncationsRefused(REQUEST, checkArp);
  });

  it.each([0, 1, 2, 3, 4, 5])('is refused when byte %i says that it is not about IPv4 over Ethernet', (at) => {
    const view = viewOf(REQUEST);
    view.setUint8(BASE + at, view.getUint8(BASE + at) ^ 0x10);
    expect(checkArp(view, BASE, BASE + REQUEST.length)).toBe(WIRE_UNSUPPORTED);
  });
});
