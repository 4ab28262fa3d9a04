import { describe, expect, it } from 'vitest';
import { pseudoSumIpv6, sumBytes } from '../../../src/wire/checksum.ts';
import {
  checkIcmp,
  getIcmpCode,
  getIcmpEchoId,
  getIcmpEchoSeq,
  getIcmpMtu,
  getIcmpType,
  ICMP_DEST_UNREACHABLE,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HEADER_BYTES,
  ICMP_PORT_UNREACHABLE,
  writeIcmpEcho,
  writeIcmpHeader,
} from '../../../src/wire/icmp.ts';
import {
  checkIcmpv6,
  getIcmpv6Code,
  getIcmpv6EchoId,
  getIcmpv6EchoSeq,
  getIcmpv6Mtu,
  getIcmpv6Type,
  ICMPV6_DEST_UNREACHABLE,
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  ICMPV6_HEADER_BYTES,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_PORT_UNREACHABLE,
  writeIcmpv6Checksum,
  writeIcmpv6Echo,
  writeIcmpv6Header,
} from '../../../src/wire/icmpv6.ts';
import { IP_PROTOCOL_ICMPV6 } from '../../../src/wire/ip-protocol.ts';
import { WIRE_BAD_CHECKSUM, WIRE_TRUNCATED } from '../../../src/wire/status.ts';
import {
  BASE,
  concat,
  Dice,
  expectBuilt,
  expectTruncationsRefused,
  naiveChecksum,
  packBits,
  toHex,
  viewOf,
  wordBytes,
} from './bytes.ts';
import {
  PING_FRAME,
  PING6_FRAME,
  PONG_FRAME,
  PORT_UNREACHABLE_FRAME,
  PORT_UNREACHABLE6_FRAME,
} from './golden-frames.ts';

const PING = PING_FRAME.slice(34);
const PONG = PONG_FRAME.slice(34);
const UNREACHABLE = PORT_UNREACHABLE_FRAME.slice(34);
const PING6 = PING6_FRAME.slice(54);
const UNREACHABLE6 = PORT_UNREACHABLE6_FRAME.slice(54);
const GUEST6 = Uint32Array.of(0xfd000003, 0, 0, 0x15);
const PEER6 = Uint32Array.of(0xfd000003, 0, 0, 0x02);

/** The body of a message at its place behind 8 dirty bytes. */
function dirtyHeader(message: Uint8Array): DataView {
  return viewOf(concat(new Uint8Array(8).fill(0xa5), message.slice(8)));
}

describe('an ICMP message', () => {
  it('is read as captured', () => {
    const view = viewOf(PING);
    expect(checkIcmp(view, BASE, BASE + PING.length)).toBe(ICMP_HEADER_BYTES);
    expect(getIcmpType(view, BASE)).toBe(ICMP_ECHO_REQUEST);
    expect(getIcmpCode(view, BASE)).toBe(0);
    expect(getIcmpEchoId(view, BASE)).toBe(19489);
    expect(getIcmpEchoSeq(view, BASE)).toBe(1);
    const error = viewOf(UNREACHABLE);
    expect(checkIcmp(error, BASE, BASE + UNREACHABLE.length)).toBe(8);
    expect(getIcmpType(error, BASE)).toBe(ICMP_DEST_UNREACHABLE);
    expect(getIcmpCode(error, BASE)).toBe(ICMP_PORT_UNREACHABLE);
  });

  it('is built on a dirty buffer as Linux answers', () => {
    const pong = dirtyHeader(PONG);
    writeIcmpEcho(pong, BASE, ICMP_ECHO_REPLY, 19489, 1, sumBytes(pong, BASE + 8, 5, 0));
    expectBuilt(pong, toHex(PONG));
    const error = dirtyHeader(UNREACHABLE);
    const sum = sumBytes(error, BASE + 8, UNREACHABLE.length - 8, 0);
    writeIcmpHeader(error, BASE, ICMP_DEST_UNREACHABLE, ICMP_PORT_UNREACHABLE, 0, sum);
    expectBuilt(error, toHex(UNREACHABLE));
  });

  it('equals that of a naive codec, both ways', () => {
    const dice = new Dice(792);
    for (let i = 0; i < 500; i++) {
      const [type, code, rest, body] = [dice.bits(8), dice.bits(8), dice.bits(32), dice.bytes(dice.between(0, 40))];
      const message = (sum: number) => concat(packBits([8, type], [8, code], [16, sum], [32, rest]), body);
      const naive = message(naiveChecksum(message(0)));
      const view = dirtyHeader(naive);
      writeIcmpHeader(view, BASE, type, code, i % 2 === 0 ? rest : rest | 0, sumBytes(view, BASE + 8, body.length, 0));
      expectBuilt(view, toHex(naive));
      expect(checkIcmp(view, BASE, BASE + naive.length)).toBe(8);
      expect(getIcmpType(view, BASE)).toBe(type);
      expect(getIcmpCode(view, BASE)).toBe(code);
      expect(getIcmpEchoId(view, BASE)).toBe(rest >>> 16);
      expect(getIcmpMtu(view, BASE)).toBe(rest & 0xffff);
    }
  });

  it('tells the MTU when fragmentation is needed', () => {
    const view = dirtyHeader(UNREACHABLE);
    writeIcmpHeader(view, BASE, ICMP_DEST_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, 1400, 0);
    expect(getIcmpMtu(view, BASE)).toBe(1400);
  });

  it('is refused when cut off or damaged', () => {
    expectTruncationsRefused(PING, checkIcmp);
    expect(checkIcmp(viewOf(PING), BASE, BASE + 7)).toBe(WIRE_TRUNCATED);
    const view = viewOf(PING);
    view.setUint8(BASE + 9, 0x77);
    expect(checkIcmp(view, BASE, BASE + PING.length)).toBe(WIRE_BAD_CHECKSUM);
  });
});

describe('an ICMPv6 message', () => {
  const pseudo = (length: number, src = GUEST6, dst = PEER6) =>
    pseudoSumIpv6(src, 0, dst, 0, IP_PROTOCOL_ICMPV6, length);
  const check = (view: DataView, offset: number, end: number) => checkIcmpv6(view, offset, end, pseudo(end - offset));

  it('is read as captured', () => {
    const view = viewOf(PING6);
    expect(check(view, BASE, BASE + PING6.length)).toBe(ICMPV6_HEADER_BYTES);
    expect(getIcmpv6Type(view, BASE)).toBe(ICMPV6_ECHO_REQUEST);
    expect(getIcmpv6Code(view, BASE)).toBe(0);
    expect(getIcmpv6EchoId(view, BASE)).toBe(19490);
    expect(getIcmpv6EchoSeq(view, BASE)).toBe(1);
  });

  it('is built on a dirty buffer as Linux does', () => {
    const echo = dirtyHeader(PING6);
    writeIcmpv6Echo(echo, BASE, ICMPV6_ECHO_REQUEST, 19490, 1, sumBytes(echo, BASE + 8, 5, pseudo(13)));
    expectBuilt(echo, toHex(PING6));
    const error = dirtyHeader(UNREACHABLE6);
    const length = UNREACHABLE6.length;
    const sum = sumBytes(error, BASE + 8, length - 8, pseudo(length, PEER6, GUEST6));
    writeIcmpv6Header(error, BASE, ICMPV6_DEST_UNREACHABLE, ICMPV6_PORT_UNREACHABLE, 0, sum);
    expectBuilt(error, toHex(UNREACHABLE6));
  });

  it('equals that of a naive codec, both ways, and has its checksum filled in late', () => {
    const dice = new Dice(4443);
    for (let i = 0; i < 500; i++) {
      const [type, code, rest, body] = [dice.bits(8), dice.bits(8), dice.bits(32), dice.bytes(dice.between(0, 40))];
      const words = dice.words(8);
      const length = 8 + body.length;
      const message = (sum: number) => concat(packBits([8, type], [8, code], [16, sum], [32, rest]), body);
      const pseudoBytes = concat(wordBytes(words), packBits([32, length], [24, 0], [8, 58]));
      const naive = message(naiveChecksum(concat(pseudoBytes, message(0))));
      const pseudoSum = pseudoSumIpv6(words, 0, words, 4, IP_PROTOCOL_ICMPV6, length);
      const view = dirtyHeader(naive);
      writeIcmpv6Header(view, BASE, type, code, rest, sumBytes(view, BASE + 8, body.length, pseudoSum));
      expectBuilt(view, toHex(naive));
      expect(checkIcmpv6(view, BASE, BASE + length, pseudoSum)).toBe(8);
      expect(getIcmpv6Mtu(view, BASE)).toBe(rest);
      view.setUint16(BASE + 2, 0xa5a5);
      writeIcmpv6Checksum(view, BASE, length, pseudoSum);
      expectBuilt(view, toHex(naive));
    }
  });

  it('tells the MTU when a packet is too big', () => {
    const view = dirtyHeader(UNREACHABLE6);
    writeIcmpv6Header(view, BASE, ICMPV6_PACKET_TOO_BIG, 0, 1400, 0);
    expect(getIcmpv6Mtu(view, BASE)).toBe(1400);
  });

  it('is refused when cut off, damaged, or sent between other addresses', () => {
    expectTruncationsRefused(PING6, check);
    expect(check(viewOf(PING6), BASE, BASE + 7)).toBe(WIRE_TRUNCATED);
    const view = viewOf(PING6);
    expect(checkIcmpv6(view, BASE, BASE + 13, pseudo(13) + 1)).toBe(WIRE_BAD_CHECKSUM);
    view.setUint8(BASE, ICMPV6_ECHO_REPLY);
    expect(check(view, BASE, BASE + PING6.length)).toBe(WIRE_BAD_CHECKSUM);
  });
});
