import { describe, expect, it } from 'vitest';
import { pseudoSumIpv6 } from '../../../src/wire/checksum.ts';
import { readDnsNameList } from '../../../src/wire/dns-name.ts';
import { getMacHi, getMacLo } from '../../../src/wire/ethernet.ts';
import { checkIcmpv6, writeIcmpv6Checksum } from '../../../src/wire/icmpv6.ts';
import { IP_PROTOCOL_ICMPV6 } from '../../../src/wire/ip-protocol.ts';
import { loadIpv6 } from '../../../src/wire/ipv6.ts';
import {
  checkNdp,
  findNdpOption,
  getNdpMtu,
  getNdpNeighborFlags,
  getNdpOptionBytes,
  getNdpPrefixFlags,
  getNdpPrefixLength,
  getNdpRouterFlags,
  getNdpRouterLifetimeSec,
  NDP_DNSSL_NAMES_OFFSET,
  NDP_LINK_ADDRESS_MAC_OFFSET,
  NDP_NA_OVERRIDE,
  NDP_NA_ROUTER,
  NDP_NA_SOLICITED,
  NDP_NEIGHBOR_BYTES,
  NDP_OPTION_DNSSL,
  NDP_OPTION_MTU,
  NDP_OPTION_PREFIX,
  NDP_OPTION_RDNSS,
  NDP_OPTION_SOURCE_LINK_ADDRESS,
  NDP_OPTION_TARGET_LINK_ADDRESS,
  NDP_PREFIX_ADDRESS_OFFSET,
  NDP_PREFIX_AUTONOMOUS,
  NDP_PREFIX_ON_LINK,
  NDP_RA_MANAGED,
  NDP_RA_OTHER,
  NDP_RDNSS_ADDRESS_OFFSET,
  NDP_ROUTER_ADVERTISEMENT_BYTES,
  NDP_ROUTER_SOLICITATION_BYTES,
  NDP_TARGET_OFFSET,
  writeNdpDnssl,
  writeNdpLinkAddress,
  writeNdpMtu,
  writeNdpNeighborAdvertisement,
  writeNdpNeighborSolicitation,
  writeNdpPrefix,
  writeNdpRdnss,
  writeNdpRouterAdvertisement,
  writeNdpRouterSolicitation,
} from '../../../src/wire/ndp.ts';
import {
  WIRE_BAD_LENGTH,
  WIRE_BAD_OPTION,
  WIRE_BAD_VERSION,
  WIRE_TRUNCATED,
  WIRE_UNSUPPORTED,
} from '../../../src/wire/status.ts';
import {
  BASE,
  blankView,
  concat,
  Dice,
  expectBuilt,
  expectTruncationsRefused,
  fromHex,
  packBits,
  toHex,
  viewOf,
  wordBytes,
} from './bytes.ts';
import {
  DAD_SOLICITATION_FRAME,
  NEIGHBOR_ADVERTISEMENT_FRAME,
  NEIGHBOR_SOLICITATION_FRAME,
  ROUTER_SOLICITATION_FRAME,
} from './golden-frames.ts';

const RS = ROUTER_SOLICITATION_FRAME.slice(54);
const NS = NEIGHBOR_SOLICITATION_FRAME.slice(54);
const NA = NEIGHBOR_ADVERTISEMENT_FRAME.slice(54);
const DAD = DAD_SOLICITATION_FRAME.slice(54);
/** Router advertisement with every option that we send, put together by hand from RFC 4861 §4 and RFC 8106 §5. */
const RA = fromHex(`
  86000000 40c00708 00000000 00000000
  03 04 40 c0 ffffffff ffffffff 00000000 fd000003 00000000 00000000 00000000
  05 01 0000 0000ffdc
  19 05 0000 00000e10 fd000003 00000000 00000000 00000053 fd000003 00000000 00000000 00000054
  1f 05 0000 00000e10 07 6578616d706c65 03 6f7267 00 04 636f7270 07 6578616d706c65 00 0000000000
  01 01 9a559a559a55`);
const WORDS = Uint32Array.of(0xfd000003, 0, 0, 0, 0xfd000003, 0, 0, 0x53, 0xfd000003, 0, 0, 0x54);

function buildRouterAdvertisement(view: DataView, end: number): number {
  let at = writeNdpRouterAdvertisement(view, BASE, end, 64, NDP_RA_MANAGED | NDP_RA_OTHER, 1800);
  const flags = NDP_PREFIX_ON_LINK | NDP_PREFIX_AUTONOMOUS;
  at = writeNdpPrefix(view, at, end, 64, flags, 0xffffffff, 0xffffffff, WORDS, 0);
  at = writeNdpMtu(view, at, end, 65500);
  at = writeNdpRdnss(view, at, end, 3600, WORDS, 4, 2);
  at = writeNdpDnssl(view, at, end, 3600, ['example.org', 'corp.example.']);
  return writeNdpLinkAddress(view, at, end, NDP_OPTION_SOURCE_LINK_ADDRESS, 0x9a55, 0x9a559a55);
}

describe('neighbour discovery', () => {
  it('is read as captured: solicitations and advertisements', () => {
    const rs = viewOf(RS);
    expect(checkNdp(rs, BASE, BASE + RS.length)).toBe(NDP_ROUTER_SOLICITATION_BYTES);
    const option = findNdpOption(rs, BASE + 8, BASE + RS.length, NDP_OPTION_SOURCE_LINK_ADDRESS);
    expect(option).toBe(BASE + 8);
    expect(getMacHi(rs, option + NDP_LINK_ADDRESS_MAC_OFFSET)).toBe(0x0200);
    expect(getMacLo(rs, option + NDP_LINK_ADDRESS_MAC_OFFSET)).toBe(0x15);

    const ns = viewOf(NS);
    const target = new Uint32Array(4);
    expect(checkNdp(ns, BASE, BASE + NS.length)).toBe(NDP_NEIGHBOR_BYTES);
    loadIpv6(ns, BASE + NDP_TARGET_OFFSET, target, 0);
    expect([...target]).toEqual([0xfd000003, 0, 0, 2]);

    const na = viewOf(NA);
    expect(checkNdp(na, BASE, BASE + NA.length)).toBe(24);
    expect(getNdpNeighborFlags(na, BASE)).toBe(NDP_NA_SOLICITED | NDP_NA_OVERRIDE);
    expect(findNdpOption(na, BASE + 24, BASE + NA.length, NDP_OPTION_TARGET_LINK_ADDRESS)).toBe(BASE + 24);

    // An option it has never heard of is skipped.
    expect(checkNdp(viewOf(DAD), BASE, BASE + DAD.length)).toBe(24);
    expect(findNdpOption(viewOf(DAD), BASE + 24, BASE + DAD.length, NDP_OPTION_SOURCE_LINK_ADDRESS)).toBe(0);
  });

  it('is built on a dirty buffer as Linux does', () => {
    const rs = blankView(RS.length);
    const end = BASE + RS.length;
    let at = writeNdpRouterSolicitation(rs, BASE, end);
    at = writeNdpLinkAddress(rs, at, end, NDP_OPTION_SOURCE_LINK_ADDRESS, 0x0200, 0x15);
    expect(at).toBe(end);
    const src = Uint32Array.of(0xfe800000, 0, 0x000000ff, 0xfe000015);
    const allRouters = Uint32Array.of(0xff020000, 0, 0, 2);
    writeIcmpv6Checksum(rs, BASE, RS.length, pseudoSumIpv6(src, 0, allRouters, 0, IP_PROTOCOL_ICMPV6, RS.length));
    expectBuilt(rs, toHex(RS));

    const na = blankView(NA.length);
    const peer = Uint32Array.of(0xfd000003, 0, 0, 2);
    const guest = Uint32Array.of(0xfd000003, 0, 0, 0x15);
    at = writeNdpNeighborAdvertisement(na, BASE, BASE + 32, NDP_NA_SOLICITED | NDP_NA_OVERRIDE, peer, 0);
    writeNdpLinkAddress(na, at, BASE + 32, NDP_OPTION_TARGET_LINK_ADDRESS, 0x0200, 2);
    writeIcmpv6Checksum(na, BASE, 32, pseudoSumIpv6(peer, 0, guest, 0, IP_PROTOCOL_ICMPV6, 32));
    expectBuilt(na, toHex(NA));

    const ns = blankView(NS.length);
    const group = Uint32Array.of(0xff020000, 0, 1, 0xff000002);
    at = writeNdpNeighborSolicitation(ns, BASE, BASE + 32, peer, 0);
    writeNdpLinkAddress(ns, at, BASE + 32, NDP_OPTION_SOURCE_LINK_ADDRESS, 0x0200, 0x15);
    writeIcmpv6Checksum(ns, BASE, 32, pseudoSumIpv6(guest, 0, group, 0, IP_PROTOCOL_ICMPV6, 32));
    expectBuilt(ns, toHex(NS));
  });

  it('builds a router advertisement with every option, which then reads back', () => {
    const view = blankView(RA.length);
    const end = buildRouterAdvertisement(view, BASE + RA.length);
    expect(end).toBe(BASE + RA.length);
    // The checksum is not part of these writers; the place is zero until it is filled in.
    expectBuilt(view, toHex(RA));

    writeIcmpv6Checksum(view, BASE, RA.length, 4711);
    expect(checkIcmpv6(view, BASE, end, 4711)).toBe(8);
    expect(checkNdp(view, BASE, end)).toBe(NDP_ROUTER_ADVERTISEMENT_BYTES);
    expect(getNdpRouterFlags(view, BASE)).toBe(0xc0);
    expect(getNdpRouterLifetimeSec(view, BASE)).toBe(1800);
    const find = (type: number): number => findNdpOption(view, BASE + 16, end, type);
    expect(getNdpMtu(view, find(NDP_OPTION_MTU))).toBe(65500);
    const prefix = find(NDP_OPTION_PREFIX);
    expect(getNdpPrefixLength(view, prefix)).toBe(64);
    expect(getNdpPrefixFlags(view, prefix)).toBe(0xc0);
    const words = new Uint32Array(4);
    loadIpv6(view, prefix + NDP_PREFIX_ADDRESS_OFFSET, words, 0);
    expect([...words]).toEqual([0xfd000003, 0, 0, 0]);
    const rdnss = find(NDP_OPTION_RDNSS);
    expect(getNdpOptionBytes(view, rdnss)).toBe(40);
    loadIpv6(view, rdnss + NDP_RDNSS_ADDRESS_OFFSET + 16, words, 0);
    expect([...words]).toEqual([0xfd000003, 0, 0, 0x54]);
    const dnssl = find(NDP_OPTION_DNSSL);
    const names = readDnsNameList(view, dnssl + NDP_DNSSL_NAMES_OFFSET, dnssl + getNdpOptionBytes(view, dnssl));
    expect(names).toEqual(['example.org', 'corp.example']);
  });

  it('equals a naive codec for random advertisements', () => {
    const dice = new Dice(4861);
    for (let i = 0; i < 200; i++) {
      const [hopLimit, flags, lifetime, naFlags] = [dice.bits(8), dice.bits(8), dice.bits(16), dice.bits(3) << 5];
      const [prefixLength, prefixFlags, valid, preferred] = [
        dice.between(0, 128),
        dice.bits(8),
        dice.bits(32),
        dice.bits(32),
      ];
      const [words, mtu, hi, lo] = [dice.words(8), dice.bits(32), dice.bits(16), dice.bits(32)];
      const ra = blankView(64);
      const end = BASE + 64;
      let at = writeNdpRouterAdvertisement(ra, BASE, end, hopLimit, flags, lifetime);
      at = writeNdpPrefix(ra, at, end, prefixLength, prefixFlags, valid, preferred, words, 3);
      at = writeNdpMtu(ra, at, end, mtu);
      at = writeNdpLinkAddress(ra, at, end, NDP_OPTION_SOURCE_LINK_ADDRESS, hi, lo);
      expect(at).toBe(end);
      const naiveRa = concat(
        packBits([8, 134], [24, 0], [8, hopLimit], [8, flags], [16, lifetime], [64, 0]),
        packBits([8, 3], [8, 4], [8, prefixLength], [8, prefixFlags], [32, valid], [32, preferred], [32, 0]),
        wordBytes(words, 3, 4),
        packBits([8, 5], [8, 1], [16, 0], [32, mtu], [8, 1], [8, 1], [16, hi], [32, lo]),
      );
      expectBuilt(ra, toHex(naiveRa));
      const na = blankView(24);
      writeNdpNeighborAdvertisement(na, BASE, BASE + 24, naFlags, words, 2);
      expectBuilt(na, toHex(concat(packBits([8, 136], [24, 0], [8, naFlags], [24, 0]), wordBytes(words, 2, 4))));
      expect(getNdpNeighborFlags(na, BASE) & NDP_NA_ROUTER).toBe(naFlags & 0x80);
    }
  });

  it('is refused when cut off anywhere but between options', () => {
    for (const message of [RS, NS, NA, RA]) {
      const view = viewOf(message);
      const boundaries = new Set<number>();
      const fixed = checkNdp(view, BASE, BASE + message.length);
      for (let at = fixed; at < message.length; at += message[at + 1]! * 8) boundaries.add(at);
      for (let length = 0; length < message.length; length++) {
        const status = checkNdp(view, BASE, BASE + length);
        if (boundaries.has(length)) expect(status).toBe(fixed);
        else expect(status).toBeLessThan(0);
      }
      expect(checkNdp(view, BASE, BASE + 7)).toBe(WIRE_TRUNCATED);
    }
    expectTruncationsRefused(NS.slice(0, 24), checkNdp);
  });

  it('is refused with an option of length 0, of a wrong size, or beyond the end', () => {
    const withOption = (hex: string): number => {
      const message = concat(NS.slice(0, 24), fromHex(hex));
      return checkNdp(viewOf(message), BASE, BASE + message.length);
    };
    expect(withOption('0e00000000000000')).toBe(WIRE_BAD_OPTION);
    expect(withOption('0e02000000000000')).toBe(WIRE_BAD_OPTION);
    expect(withOption('0e01000000000000')).toBe(24);
    expect(withOption(`0102${'00'.repeat(14)}`)).toBe(WIRE_BAD_OPTION);
    expect(withOption(`0502${'00'.repeat(14)}`)).toBe(WIRE_BAD_OPTION);
    expect(withOption(`0303${'00'.repeat(22)}`)).toBe(WIRE_BAD_OPTION);
    expect(withOption(`1902${'00'.repeat(14)}`)).toBe(WIRE_BAD_OPTION);
    expect(withOption(`1904${'00'.repeat(30)}`)).toBe(WIRE_BAD_OPTION);
    expect(withOption('1f01000000000000')).toBe(WIRE_BAD_OPTION);
  });

  it('is refused with a code, and other ICMPv6 messages are not taken for it', () => {
    const view = viewOf(NS);
    view.setUint8(BASE + 1, 1);
    expect(checkNdp(view, BASE, BASE + NS.length)).toBe(WIRE_BAD_VERSION);
    for (const type of [0, 128, 132, 137, 255]) {
      view.setUint8(BASE, type);
      expect(checkNdp(view, BASE, BASE + NS.length)).toBe(WIRE_UNSUPPORTED);
    }
  });

  it('builders write nothing beyond the end and pass a failure on', () => {
    for (let room = 0; room < RA.length; room++) {
      const view = blankView(RA.length);
      expect(buildRouterAdvertisement(view, BASE + room)).toBe(WIRE_BAD_LENGTH);
      for (let at = BASE + room; at < view.byteLength; at++) expect(view.getUint8(at)).toBe(0xa5);
    }
  });

  it('leaves out empty lists, and refuses lists and names that do not fit the option', () => {
    const view = blankView(8000);
    const end = view.byteLength;
    expect(writeNdpRdnss(view, BASE, end, 1, WORDS, 0, 0)).toBe(BASE);
    expect(writeNdpDnssl(view, BASE, end, 1, [])).toBe(BASE);
    expect(writeNdpRdnss(view, BASE, end, 1, new Uint32Array(512), 0, 127)).toBe(BASE + 8 + 127 * 16);
    expect(writeNdpRdnss(view, BASE, end, 1, new Uint32Array(512), 0, 128)).toBe(WIRE_BAD_LENGTH);
    const long = Array.from({ length: 20 }, (_, i) => `${'x'.repeat(60)}.${'y'.repeat(60)}.host${i}.example`);
    expect(writeNdpDnssl(view, BASE, end, 1, long)).toBe(WIRE_BAD_LENGTH);
    expect(writeNdpDnssl(view, BASE, end, 1, ['a..b'])).toBe(WIRE_BAD_OPTION);
  });
});
