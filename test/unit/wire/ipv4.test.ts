import { describe, expect, it } from 'vitest';
import {
  checkIpv4,
  getIpv4Dst,
  getIpv4FlagsFragment,
  getIpv4FragmentOffset,
  getIpv4HeaderLength,
  getIpv4Id,
  getIpv4Protocol,
  getIpv4Src,
  getIpv4Tos,
  getIpv4TotalLength,
  getIpv4Ttl,
  hasIpv4MoreFragments,
  IPV4_DONT_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  isIpv4Fragment,
  isIpv4Mapped,
  storeIpv4Mapped,
  writeIpv4Header,
} from '../../../src/wire/ipv4.ts';
import { WIRE_BAD_CHECKSUM, WIRE_BAD_LENGTH, WIRE_BAD_VERSION, WIRE_TRUNCATED } from '../../../src/wire/status.ts';
import {
  BASE,
  blankView,
  concat,
  Dice,
  expectBuilt,
  expectTruncationsRefused,
  naiveChecksum,
  packBits,
  toHex,
  viewOf,
} from './bytes.ts';
import { PING_FRAGMENT_FRAME, PING_FRAME, PORT_UNREACHABLE_FRAME } from './golden-frames.ts';

const PACKET = PING_FRAME.slice(14);
const ERROR_PACKET = PORT_UNREACHABLE_FRAME.slice(14);

interface Fields {
  tos: number;
  id: number;
  flags: number;
  ttl: number;
  protocol: number;
  src: number;
  dst: number;
}

/** Header with options and payload, by the slow codec. */
function naiveIpv4(fields: Fields, options: Uint8Array, payload: Uint8Array): Uint8Array {
  const words = 5 + options.length / 4;
  const total = words * 4 + payload.length;
  const build = (checksum: number): Uint8Array =>
    concat(
      packBits(
        ...([
          [4, 4],
          [4, words],
          [8, fields.tos],
          [16, total],
          [16, fields.id],
          [16, fields.flags],
        ] as const),
        ...([
          [8, fields.ttl],
          [8, fields.protocol],
          [16, checksum],
          [32, fields.src],
          [32, fields.dst],
        ] as const),
      ),
      options,
    );
  return concat(build(naiveChecksum(build(0))), payload);
}

function randomFields(dice: Dice): Fields {
  return {
    tos: dice.bits(8),
    id: dice.bits(16),
    flags: dice.bits(16),
    ttl: dice.bits(8),
    protocol: dice.bits(8),
    src: dice.bits(32),
    dst: dice.bits(32),
  };
}

describe('an IPv4 header', () => {
  it('is read as captured', () => {
    const view = viewOf(PACKET);
    expect(checkIpv4(view, BASE, BASE + PACKET.length)).toBe(IPV4_HEADER_BYTES);
    expect(getIpv4HeaderLength(view, BASE)).toBe(20);
    expect(getIpv4Tos(view, BASE)).toBe(0);
    expect(getIpv4TotalLength(view, BASE)).toBe(33);
    expect(getIpv4Id(view, BASE)).toBe(3869);
    expect(getIpv4FlagsFragment(view, BASE)).toBe(IPV4_DONT_FRAGMENT);
    expect(isIpv4Fragment(view, BASE)).toBe(false);
    expect(getIpv4Ttl(view, BASE)).toBe(64);
    expect(getIpv4Protocol(view, BASE)).toBe(1);
    expect(getIpv4Src(view, BASE)).toBe(0x0a00030f);
    expect(getIpv4Dst(view, BASE)).toBe(0x0a000302);
  });

  it('is read from a fragment', () => {
    const packet = PING_FRAGMENT_FRAME.slice(14);
    const view = viewOf(packet);
    expect(checkIpv4(view, BASE, BASE + packet.length)).toBe(20);
    expect(isIpv4Fragment(view, BASE)).toBe(true);
    expect(hasIpv4MoreFragments(view, BASE)).toBe(false);
    expect(getIpv4FragmentOffset(view, BASE)).toBe(1480);
  });

  it('is built on a dirty buffer', () => {
    const view = blankView(20);
    writeIpv4Header(view, BASE, 62, 27545, 0, 64, 1, 0x0a000302, 0x0a00030f, 0xc0);
    expectBuilt(view, toHex(ERROR_PACKET.slice(0, 20)));
  });

  it('equals that of a naive codec when written', () => {
    const dice = new Dice(791);
    for (let i = 0; i < 400; i++) {
      const fields = randomFields(dice);
      const payload = dice.bytes(dice.between(0, 40));
      const view = blankView(20);
      const { id, flags, ttl, protocol, src, dst, tos } = fields;
      writeIpv4Header(view, BASE, 20 + payload.length, id, flags, ttl, protocol, src, dst, tos);
      expectBuilt(view, toHex(naiveIpv4(fields, new Uint8Array(), payload).slice(0, 20)));
      writeIpv4Header(view, BASE, 20 + payload.length, id, flags, ttl, protocol, src | 0, dst | 0, tos);
      expectBuilt(view, toHex(naiveIpv4(fields, new Uint8Array(), payload).slice(0, 20)));
    }
  });

  it('is read as a naive codec wrote it, options skipped', () => {
    const dice = new Dice(792);
    for (let i = 0; i < 500; i++) {
      const fields = randomFields(dice);
      const options = dice.bytes(4 * dice.between(0, 10));
      const packet = naiveIpv4(fields, options, dice.bytes(dice.between(0, 30)));
      const view = viewOf(packet);
      expect(checkIpv4(view, BASE, BASE + packet.length)).toBe(20 + options.length);
      expect(getIpv4TotalLength(view, BASE)).toBe(packet.length);
      expect(getIpv4Tos(view, BASE)).toBe(fields.tos);
      expect(getIpv4Id(view, BASE)).toBe(fields.id);
      expect(getIpv4FlagsFragment(view, BASE)).toBe(fields.flags);
      expect(getIpv4FragmentOffset(view, BASE)).toBe((fields.flags % 8192) * 8);
      expect(hasIpv4MoreFragments(view, BASE)).toBe((fields.flags & IPV4_MORE_FRAGMENTS) !== 0);
      expect(isIpv4Fragment(view, BASE)).toBe((fields.flags & ~(0x8000 | IPV4_DONT_FRAGMENT)) !== 0);
      expect(getIpv4Ttl(view, BASE)).toBe(fields.ttl);
      expect(getIpv4Protocol(view, BASE)).toBe(fields.protocol);
      expect(getIpv4Src(view, BASE)).toBe(fields.src);
      expect(getIpv4Dst(view, BASE)).toBe(fields.dst);
    }
  });

  it('is refused when the packet is cut off anywhere', () => {
    expectTruncationsRefused(PACKET, checkIpv4);
    const withOptions = naiveIpv4(randomFields(new Dice(3)), new Dice(4).bytes(12), new Uint8Array());
    expectTruncationsRefused(withOptions, checkIpv4);
  });

  it('is accepted in a padded frame', () => {
    expect(checkIpv4(viewOf(PACKET), BASE, BASE + PACKET.length + 13)).toBe(20);
  });

  it('is refused with another version, a short header, a total length below it, or a wrong checksum', () => {
    const check = (at: number, value: number): number => {
      const view = viewOf(PACKET);
      view.setUint8(BASE + at, value);
      return checkIpv4(view, BASE, BASE + PACKET.length);
    };
    expect(check(0, 0x65)).toBe(WIRE_BAD_VERSION);
    expect(check(0, 0x44)).toBe(WIRE_BAD_LENGTH);
    expect(check(0, 0x4f)).toBe(WIRE_BAD_LENGTH);
    expect(check(3, 19)).toBe(WIRE_BAD_LENGTH);
    expect(check(2, 0x80)).toBe(WIRE_TRUNCATED);
    expect(check(8, 63)).toBe(WIRE_BAD_CHECKSUM);
  });
});

describe('a v4-mapped address', () => {
  it('is stored and recognised', () => {
    const words = new Uint32Array(6).fill(0xa5a5a5a5);
    storeIpv4Mapped(words, 1, 0xc0000201);
    expect([...words]).toEqual([0xa5a5a5a5, 0, 0, 0xffff, 0xc0000201, 0xa5a5a5a5]);
    expect(isIpv4Mapped(words, 1)).toBe(true);
    for (const at of [1, 2, 3]) {
      const changed = words.slice();
      changed[at]! ^= 0x100;
      expect(isIpv4Mapped(changed, 1)).toBe(false);
    }
  });
});
