import { describe, expect, it } from 'vitest';
import {
  checkEthernet,
  ETHERNET_DST_OFFSET,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SRC_OFFSET,
  ETHERTYPE_ARP,
  getEtherType,
  getMacHi,
  getMacLo,
  isMulticastMac,
  MAC_BROADCAST_HI,
  MAC_BROADCAST_LO,
  setMac,
  writeEthernetHeader,
} from '../../../src/wire/ethernet.ts';
import { WIRE_TRUNCATED } from '../../../src/wire/status.ts';
import { BASE, blankView, Dice, expectBuilt, expectTruncationsRefused, packBits, toHex, viewOf } from './bytes.ts';
import { ARP_REQUEST_FRAME } from './golden-frames.ts';

const HEADER = ARP_REQUEST_FRAME.slice(0, 14);

describe('an Ethernet header', () => {
  it('is read as captured', () => {
    const view = viewOf(ARP_REQUEST_FRAME);
    expect(checkEthernet(view, BASE, BASE + 42)).toBe(ETHERNET_HEADER_BYTES);
    expect(getMacHi(view, BASE + ETHERNET_DST_OFFSET)).toBe(MAC_BROADCAST_HI);
    expect(getMacLo(view, BASE + ETHERNET_DST_OFFSET)).toBe(MAC_BROADCAST_LO);
    expect(getMacHi(view, BASE + ETHERNET_SRC_OFFSET)).toBe(0x0200);
    expect(getMacLo(view, BASE + ETHERNET_SRC_OFFSET)).toBe(0x15);
    expect(getEtherType(view, BASE)).toBe(ETHERTYPE_ARP);
  });

  it('is built on a dirty buffer', () => {
    const view = blankView(14);
    writeEthernetHeader(view, BASE, MAC_BROADCAST_HI, MAC_BROADCAST_LO, 0x0200, 0x15, ETHERTYPE_ARP);
    expectBuilt(view, toHex(HEADER));
  });

  it('equals that of a naive codec, both ways', () => {
    const dice = new Dice(894);
    for (let i = 0; i < 300; i++) {
      const [dstHi, dstLo, srcHi, srcLo] = [dice.bits(16), dice.bits(32), dice.bits(16), dice.bits(32)];
      const type = dice.bits(16);
      const naive = packBits([16, dstHi], [32, dstLo], [16, srcHi], [32, srcLo], [16, type]);
      const built = blankView(14);
      writeEthernetHeader(built, BASE, dstHi, dstLo, srcHi, srcLo, type);
      expectBuilt(built, toHex(naive));
      expect(getMacHi(built, BASE)).toBe(dstHi);
      expect(getMacLo(built, BASE)).toBe(dstLo);
      expect(getMacHi(built, BASE + 6)).toBe(srcHi);
      expect(getMacLo(built, BASE + 6)).toBe(srcLo);
      expect(getEtherType(built, BASE)).toBe(type);
      expect(isMulticastMac(dstHi)).toBe((naive[0]! & 1) === 1);
    }
  });

  it('is refused when cut off', () => {
    expectTruncationsRefused(HEADER, checkEthernet);
    expect(checkEthernet(viewOf(HEADER), BASE, BASE - 3)).toBe(WIRE_TRUNCATED);
  });

  it('has a MAC replaced alone', () => {
    const view = blankView(6);
    setMac(view, BASE, 0x9a55, 0x9a559a55);
    expectBuilt(view, '9a559a559a55');
  });
});
