import { describe, expect, it } from 'vitest';
import {
  IP_PROTOCOL_DESTINATION_OPTIONS,
  IP_PROTOCOL_FRAGMENT,
  IP_PROTOCOL_HOP_BY_HOP,
  IP_PROTOCOL_ICMPV6,
  IP_PROTOCOL_NONE,
  IP_PROTOCOL_ROUTING,
  IP_PROTOCOL_TCP,
  IP_PROTOCOL_UDP,
} from '../../../src/wire/ip-protocol.ts';
import {
  checkIpv6,
  createIpv6Extensions,
  getIpv6FlowLabel,
  getIpv6HopLimit,
  getIpv6NextHeader,
  getIpv6PayloadLength,
  getIpv6TrafficClass,
  IPV6_DST_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_MAX_EXTENSION_HEADERS,
  IPV6_SRC_OFFSET,
  isIpv6LinkLocal,
  isIpv6Multicast,
  isIpv6Unspecified,
  loadIpv6,
  skipIpv6Extensions,
  storeIpv6,
  writeIpv6FragmentHeader,
  writeIpv6Header,
} from '../../../src/wire/ipv6.ts';
import { WIRE_BAD_OPTION, WIRE_BAD_VERSION, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from '../../../src/wire/status.ts';
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
import { LISTENER_REPORT_FRAME, PING6_FRAME } from './golden-frames.ts';

const PACKET = PING6_FRAME.slice(14);
const SRC = Uint32Array.of(0xfd000003, 0, 0, 0x15);
const DST = Uint32Array.of(0, 0xfd000003, 0, 0, 0x02);

/** The fixed header by the slow codec; addresses are 0. */
function naiveFixed(nextHeader: number, payloadLength: number): Uint8Array {
  return concat(packBits([4, 6], [28, 0], [16, payloadLength], [8, nextHeader], [8, 64]), new Uint8Array(32));
}

function packetOf(nextHeader: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const payload = concat(...parts);
  return concat(naiveFixed(nextHeader, payload.length), payload);
}

function walk(packet: Uint8Array, length = packet.length) {
  const result = createIpv6Extensions();
  const status = skipIpv6Extensions(viewOf(packet), BASE, BASE + length, result);
  expect(result.status).toBe(status);
  return { ...result, l4Offset: result.l4Offset - BASE };
}

/** An options header with the given option bytes, padded with PadN to a multiple of eight. */
function optionsHeader(next: number, ...optionBytes: readonly number[]): Uint8Array {
  const missing = (8 - ((2 + optionBytes.length) % 8)) % 8;
  const pad = missing === 0 ? [] : missing === 1 ? [0] : [1, missing - 2, ...new Array<number>(missing - 2).fill(0)];
  const all = [...optionBytes, ...pad];
  return Uint8Array.of(next, (2 + all.length) / 8 - 1, ...all);
}

function fragmentHeader(next: number, offsetBytes: number, more: number, id: number): Uint8Array {
  return packBits([8, next], [8, 0], [13, offsetBytes / 8], [2, 0], [1, more], [32, id]);
}

const routingHeader = (next: number, segmentsLeft: number): Uint8Array =>
  concat(Uint8Array.of(next, 2, 0, segmentsLeft), new Uint8Array(20));
const BODY = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9);

describe('an IPv6 header', () => {
  it('is read as captured', () => {
    const view = viewOf(PACKET);
    const words = new Uint32Array(8);
    expect(checkIpv6(view, BASE, BASE + PACKET.length)).toBe(IPV6_HEADER_BYTES);
    expect(getIpv6TrafficClass(view, BASE)).toBe(0);
    expect(getIpv6FlowLabel(view, BASE)).toBe(0x29706);
    expect(getIpv6PayloadLength(view, BASE)).toBe(13);
    expect(getIpv6NextHeader(view, BASE)).toBe(IP_PROTOCOL_ICMPV6);
    expect(getIpv6HopLimit(view, BASE)).toBe(64);
    loadIpv6(view, BASE + IPV6_SRC_OFFSET, words, 0);
    loadIpv6(view, BASE + IPV6_DST_OFFSET, words, 4);
    expect([...words]).toEqual([0xfd000003, 0, 0, 0x15, 0xfd000003, 0, 0, 0x02]);
  });

  it('is built on a dirty buffer', () => {
    const view = blankView(40);
    writeIpv6Header(view, BASE, 13, IP_PROTOCOL_ICMPV6, 64, SRC, 0, DST, 1, 0, 0x29706);
    expectBuilt(view, toHex(PACKET.slice(0, 40)));
  });

  it('equals that of a naive codec, both ways', () => {
    const dice = new Dice(8200);
    for (let i = 0; i < 500; i++) {
      const [trafficClass, flowLabel, length] = [dice.bits(8), dice.bits(20), dice.between(0, 60)];
      const [next, hopLimit, src, dst] = [dice.bits(8), dice.bits(8), dice.words(6), dice.words(9)];
      const naive = concat(
        packBits([4, 6], [8, trafficClass], [20, flowLabel], [16, length], [8, next], [8, hopLimit]),
        wordBytes(src, 2, 4),
        wordBytes(dst, 5, 4),
      );
      const view = blankView(40);
      writeIpv6Header(view, BASE, length, next, hopLimit, src, 2, dst, 5, trafficClass, flowLabel);
      expectBuilt(view, toHex(naive));
      expect(checkIpv6(view, BASE, BASE + 40 + length)).toBe(40);
      expect(getIpv6TrafficClass(view, BASE)).toBe(trafficClass);
      expect(getIpv6FlowLabel(view, BASE)).toBe(flowLabel);
      expect(getIpv6PayloadLength(view, BASE)).toBe(length);
      expect(getIpv6NextHeader(view, BASE)).toBe(next);
      expect(getIpv6HopLimit(view, BASE)).toBe(hopLimit);
      const words = new Uint32Array(6);
      loadIpv6(view, BASE + IPV6_DST_OFFSET, words, 1);
      expect(wordBytes(words, 1, 4)).toEqual(wordBytes(dst, 5, 4));
    }
  });

  it('is refused when the packet is cut off anywhere, and with another version', () => {
    expectTruncationsRefused(PACKET, checkIpv6);
    const view = viewOf(PACKET);
    view.setUint8(BASE, 0x45);
    expect(checkIpv6(view, BASE, BASE + PACKET.length)).toBe(WIRE_BAD_VERSION);
  });

  it('has an address stored alone', () => {
    const view = blankView(16);
    storeIpv6(view, BASE, DST, 1);
    expectBuilt(view, 'fd000003000000000000000000000002');
  });
});

describe('kinds of IPv6 addresses', () => {
  const kindOf = (...words: readonly number[]): string => {
    const array = Uint32Array.of(0xa5a5a5a5, ...words);
    return [
      isIpv6Multicast(array, 1) ? 'multicast' : '',
      isIpv6LinkLocal(array, 1) ? 'link-local' : '',
      isIpv6Unspecified(array, 1) ? 'unspecified' : '',
    ].join('');
  };

  it('are told apart', () => {
    expect(kindOf(0xff020000, 0, 0, 1)).toBe('multicast');
    expect(kindOf(0xfeffffff, 0, 0, 1)).toBe('');
    expect(kindOf(0xfe800000, 0, 0, 1)).toBe('link-local');
    expect(kindOf(0xfebfffff, 0, 0, 1)).toBe('link-local');
    expect(kindOf(0xfec00000, 0, 0, 1)).toBe('');
    expect(kindOf(0xfe7fffff, 0, 0, 1)).toBe('');
    expect(kindOf(0, 0, 0, 0)).toBe('unspecified');
    expect(kindOf(0, 0, 0, 1)).toBe('');
    expect(kindOf(0, 0x80000000, 0, 0)).toBe('');
  });
});

describe('the walk over IPv6 extension headers', () => {
  it('finds the upper layer directly behind the header', () => {
    expect(walk(PACKET)).toEqual({
      status: 0,
      protocol: IP_PROTOCOL_ICMPV6,
      l4Offset: 40,
      fragmentHeaderOffset: 0,
      fragmentOffset: 0,
      moreFragments: false,
      fragmentId: 0,
    });
  });

  it('passes the router alert of a captured listener report', () => {
    expect(walk(LISTENER_REPORT_FRAME.slice(14))).toMatchObject({
      status: 0,
      protocol: IP_PROTOCOL_ICMPV6,
      l4Offset: 48,
    });
  });

  it('passes hop-by-hop, destination, used-up routing and atomic fragment headers', () => {
    const packet = packetOf(
      IP_PROTOCOL_HOP_BY_HOP,
      optionsHeader(IP_PROTOCOL_DESTINATION_OPTIONS, 0, 0, 0x1e, 3, 1, 2, 3),
      optionsHeader(IP_PROTOCOL_ROUTING),
      routingHeader(IP_PROTOCOL_FRAGMENT, 0),
      fragmentHeader(IP_PROTOCOL_UDP, 0, 0, 99),
      BODY,
    );
    const l4Offset = packet.length - BODY.length;
    expect(walk(packet)).toMatchObject({ status: 0, protocol: IP_PROTOCOL_UDP, l4Offset, fragmentHeaderOffset: 0 });
  });

  it('ends at a fragment, whatever its piece begins with', () => {
    const dice = new Dice(44);
    for (let i = 0; i < 200; i++) {
      const [offset, more, id, next] = [dice.bits(13) * 8, dice.bits(1), dice.bits(32), dice.bits(8)];
      if (offset === 0 && more === 0) continue;
      const packet = packetOf(
        IP_PROTOCOL_DESTINATION_OPTIONS,
        optionsHeader(IP_PROTOCOL_FRAGMENT),
        fragmentHeader(next, offset, more, id),
        BODY,
      );
      expect(walk(packet)).toEqual({
        status: 0,
        protocol: next,
        l4Offset: 56,
        fragmentHeaderOffset: BASE + 48,
        fragmentOffset: offset,
        moreFragments: more === 1,
        fragmentId: id,
      });
    }
  });

  it('forgets the fragment that the record held before', () => {
    const result = createIpv6Extensions();
    const fragment = packetOf(IP_PROTOCOL_FRAGMENT, fragmentHeader(IP_PROTOCOL_UDP, 8, 1, 7), BODY);
    skipIpv6Extensions(viewOf(fragment), BASE, BASE + fragment.length, result);
    skipIpv6Extensions(viewOf(PACKET), BASE, BASE + PACKET.length, result);
    expect(result).toMatchObject({ fragmentHeaderOffset: 0, fragmentOffset: 0, moreFragments: false, fragmentId: 0 });
  });

  it('ends at "nothing follows" and at protocols it does not know', () => {
    expect(walk(packetOf(IP_PROTOCOL_NONE))).toMatchObject({ status: 0, protocol: IP_PROTOCOL_NONE, l4Offset: 40 });
    for (const protocol of [50, 51, 132, 255]) {
      expect(walk(packetOf(protocol, BODY))).toMatchObject({ status: 0, protocol, l4Offset: 40 });
    }
  });

  it('refuses headers cut off anywhere', () => {
    const packet = packetOf(
      IP_PROTOCOL_HOP_BY_HOP,
      optionsHeader(IP_PROTOCOL_ROUTING, 0x1e, 7, 1, 2, 3, 4, 5, 6, 7),
      routingHeader(IP_PROTOCOL_FRAGMENT, 0),
      fragmentHeader(IP_PROTOCOL_TCP, 16, 0, 1),
    );
    for (let length = 40; length < packet.length; length++) {
      expect(walk(packet, length).status, `${length} bytes`).toBe(WIRE_TRUNCATED);
    }
    expect(walk(packet).status).toBe(0);
  });

  it('refuses a last header cut off anywhere, though nothing would follow it', () => {
    for (const header of [
      optionsHeader(IP_PROTOCOL_NONE, 0x1e, 12, ...new Array<number>(12)),
      routingHeader(IP_PROTOCOL_NONE, 0),
    ]) {
      const first = header.length === 24 ? IP_PROTOCOL_ROUTING : IP_PROTOCOL_DESTINATION_OPTIONS;
      const packet = packetOf(first, header);
      for (let length = 40; length < packet.length; length++) {
        expect(walk(packet, length).status, `${length} bytes`).toBe(WIRE_TRUNCATED);
      }
      expect(walk(packet)).toMatchObject({ status: 0, protocol: IP_PROTOCOL_NONE, l4Offset: packet.length });
    }
  });

  it('refuses options that do not end with their header', () => {
    const overlong = fromHex('1100 01050000 0000');
    const lengthMissing = fromHex('1100 01030000001e');
    for (const header of [overlong, lengthMissing]) {
      expect(walk(packetOf(IP_PROTOCOL_DESTINATION_OPTIONS, header, BODY)).status).toBe(WIRE_BAD_OPTION);
    }
  });

  it('refuses unknown options unless they say that they may be skipped, RFC 8200 section 4.2', () => {
    for (const [type, status] of [
      [0x1e, 0],
      [0x5e, WIRE_UNSUPPORTED],
      [0x9e, WIRE_UNSUPPORTED],
      [0xde, WIRE_UNSUPPORTED],
    ] as const) {
      const header = optionsHeader(IP_PROTOCOL_UDP, type, 0);
      expect(walk(packetOf(IP_PROTOCOL_DESTINATION_OPTIONS, header, BODY)).status).toBe(status);
    }
  });

  it('refuses a routing header with segments left', () => {
    expect(walk(packetOf(IP_PROTOCOL_ROUTING, routingHeader(IP_PROTOCOL_UDP, 1), BODY)).status).toBe(WIRE_UNSUPPORTED);
  });

  it('refuses hop-by-hop options anywhere but first', () => {
    const packet = packetOf(
      IP_PROTOCOL_DESTINATION_OPTIONS,
      optionsHeader(IP_PROTOCOL_HOP_BY_HOP),
      optionsHeader(IP_PROTOCOL_UDP),
      BODY,
    );
    expect(walk(packet).status).toBe(WIRE_BAD_OPTION);
  });

  it('walks no further than a few headers', () => {
    const chain = (count: number): Uint8Array => {
      const headers = Array.from({ length: count }, (_, i) =>
        optionsHeader(i === count - 1 ? IP_PROTOCOL_UDP : IP_PROTOCOL_DESTINATION_OPTIONS),
      );
      return packetOf(IP_PROTOCOL_DESTINATION_OPTIONS, ...headers, BODY);
    };
    expect(walk(chain(IPV6_MAX_EXTENSION_HEADERS)).status).toBe(0);
    expect(walk(chain(IPV6_MAX_EXTENSION_HEADERS + 1)).status).toBe(WIRE_BAD_OPTION);
  });
});

describe('an IPv6 fragment header', () => {
  it('is built on a dirty buffer as a naive codec does, and found again', () => {
    const dice = new Dice(6946);
    for (let i = 0; i < 200; i++) {
      const [offset, more, id] = [dice.between(1, 8191) * 8, dice.bits(1), dice.bits(32)];
      const view = blankView(8);
      writeIpv6FragmentHeader(view, BASE, IP_PROTOCOL_UDP, offset, more === 1, id);
      expectBuilt(view, toHex(fragmentHeader(IP_PROTOCOL_UDP, offset, more, id)));
    }
  });
});
