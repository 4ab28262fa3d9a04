import { describe, expect, it } from 'vitest';
import { pseudoSumIpv4, pseudoSumIpv6, sumBytes, verifyChecksum } from '../../../src/wire/checksum.ts';
import { IP_PROTOCOL_TCP } from '../../../src/wire/ip-protocol.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION, WIRE_TRUNCATED } from '../../../src/wire/status.ts';
import {
  checkTcp,
  createTcpOptions,
  getTcpAck,
  getTcpChecksum,
  getTcpDstPort,
  getTcpFlags,
  getTcpHeaderLength,
  getTcpSeq,
  getTcpSrcPort,
  getTcpUrgent,
  getTcpWindow,
  parseTcpOptions,
  TCP_ACK,
  TCP_MAX_SYN_OPTIONS_BYTES,
  TCP_PSH,
  TCP_SYN,
  type TcpOptions,
  writeTcpHeader,
  writeTcpSackOption,
  writeTcpSynOptions,
  writeTcpTimestampOption,
} from '../../../src/wire/tcp.ts';
import {
  BASE,
  blankView,
  concat,
  Dice,
  expectBuilt,
  expectTruncationsRefused,
  fromHex,
  naiveChecksum,
  packBits,
  toHex,
  viewOf,
} from './bytes.ts';
import { TCP_DATA_FRAME, TCP_SYN_ACK_FRAME, TCP_SYN_FRAME, TCP6_SYN_FRAME } from './golden-frames.ts';

const SYN = TCP_SYN_FRAME.slice(34);
const SYN_ACK = TCP_SYN_ACK_FRAME.slice(34);
const DATA = TCP_DATA_FRAME.slice(34);
const SYN6 = TCP6_SYN_FRAME.slice(54);
const GUEST = 0x0a00030f;
const PEER = 0x0a000302;

/** A segment with these flags and option bytes, padded with end-of-list to whole words. */
function segmentWith(flags: number, options: Uint8Array): Uint8Array {
  const padded = concat(options, new Uint8Array((4 - (options.length % 4)) % 4));
  const words = 5 + padded.length / 4;
  return concat(packBits([96, 0], [4, words], [4, 0], [8, flags], [48, 0]), padded);
}

function parse(segment: Uint8Array, options = createTcpOptions()): [number, TcpOptions] {
  const view = viewOf(segment);
  const headerLength = checkTcp(view, BASE, BASE + segment.length);
  expect(headerLength).toBeGreaterThan(0);
  return [parseTcpOptions(view, BASE, headerLength, options), options];
}

const parseHex = (flags: number, hex: string) => parse(segmentWith(flags, fromHex(hex)));

describe('a TCP header', () => {
  it('is read as captured', () => {
    const view = viewOf(DATA);
    expect(checkTcp(view, BASE, BASE + DATA.length)).toBe(32);
    expect(getTcpHeaderLength(view, BASE)).toBe(32);
    expect(getTcpSrcPort(view, BASE)).toBe(39768);
    expect(getTcpDstPort(view, BASE)).toBe(9998);
    expect(getTcpSeq(view, BASE)).toBe(2164036747);
    expect(getTcpAck(view, BASE)).toBe(895084649);
    expect(getTcpFlags(view, BASE)).toBe(TCP_ACK | TCP_PSH);
    expect(getTcpWindow(view, BASE)).toBe(63);
    expect(getTcpChecksum(view, BASE)).toBe(0xb906);
    expect(getTcpUrgent(view, BASE)).toBe(0);
    expect(verifyChecksum(view, BASE, DATA.length, pseudoSumIpv4(GUEST, PEER, 6, DATA.length))).toBe(true);
  });

  it('is built on a dirty buffer with its options, for IPv4 and IPv6', () => {
    const view = blankView(40);
    const bytes = writeTcpSynOptions(view, BASE + 20, 1460, 10, true, true, 673853329, 3980862659);
    const pseudo = pseudoSumIpv4(PEER, GUEST, IP_PROTOCOL_TCP, 20 + bytes);
    writeTcpHeader(view, BASE, 9998, 39768, 895084648, 2164036747, 20 + bytes, TCP_SYN | TCP_ACK, 65160, pseudo);
    expectBuilt(view, toHex(SYN_ACK));

    const view6 = blankView(40);
    writeTcpSynOptions(view6, BASE + 20, 1440, 10, true, true, 0xbb030c26, 0);
    const src = Uint32Array.of(0xfd000003, 0, 0, 0x15);
    const dst = Uint32Array.of(0xfd000003, 0, 0, 0x02);
    const pseudo6 = pseudoSumIpv6(src, 0, dst, 0, IP_PROTOCOL_TCP, 40);
    writeTcpHeader(view6, BASE, 44756, 9997, 2035242114, 0, 40, TCP_SYN, 64800, pseudo6);
    expectBuilt(view6, toHex(SYN6));
  });

  it('is built in front of payload that stands there already', () => {
    const view = viewOf(concat(new Uint8Array(32).fill(0xa5), DATA.slice(32)));
    const bytes = writeTcpTimestampOption(view, BASE + 20, 3980862664, 673853329);
    const sum = sumBytes(view, BASE + 32, 6, pseudoSumIpv4(GUEST, PEER, IP_PROTOCOL_TCP, DATA.length));
    writeTcpHeader(view, BASE, 39768, 9998, 2164036747, 895084649, 20 + bytes, TCP_ACK | TCP_PSH, 63, sum);
    expectBuilt(view, toHex(DATA));
  });

  it('equals that of a naive codec, both ways', () => {
    const dice = new Dice(9293);
    for (let i = 0; i < 400; i++) {
      const [src, dst, srcPort, dstPort] = [dice.bits(32), dice.bits(32), dice.bits(16), dice.bits(16)];
      const [seq, ack, flags, window] = [dice.bits(32), dice.bits(32), dice.bits(8), dice.bits(16)];
      const options = dice.bytes(4 * dice.between(0, 10));
      const payload = dice.bytes(dice.between(0, 33));
      const headerLength = 20 + options.length;
      const length = headerLength + payload.length;
      const pseudo = packBits([32, src], [32, dst], [8, 0], [8, 6], [16, length]);
      const header = (sum: number): Uint8Array =>
        concat(
          packBits([16, srcPort], [16, dstPort], [32, seq], [32, ack], [4, headerLength / 4], [4, 0], [8, flags]),
          packBits([16, window], [16, sum], [16, 0]),
          options,
        );
      const checksum = naiveChecksum(concat(pseudo, header(0), payload));

      const view = viewOf(concat(new Uint8Array(20).fill(0xa5), options, payload));
      const sum = sumBytes(view, BASE + headerLength, payload.length, pseudoSumIpv4(src, dst, 6, length));
      // Sequence numbers may come from int32 arithmetic.
      const [anySeq, anyAck] = i % 2 === 0 ? [seq, ack] : [seq | 0, ack | 0];
      writeTcpHeader(view, BASE, srcPort, dstPort, anySeq, anyAck, headerLength, flags, window, sum);
      expectBuilt(view, toHex(concat(header(checksum), payload)));
      expect(checkTcp(view, BASE, BASE + length)).toBe(headerLength);
      expect(getTcpSrcPort(view, BASE)).toBe(srcPort);
      expect(getTcpDstPort(view, BASE)).toBe(dstPort);
      expect(getTcpSeq(view, BASE)).toBe(seq);
      expect(getTcpAck(view, BASE)).toBe(ack);
      expect(getTcpFlags(view, BASE)).toBe(flags);
      expect(getTcpWindow(view, BASE)).toBe(window);
    }
  });

  it('is refused when cut off', () => {
    expectTruncationsRefused(SYN, checkTcp);
    expectTruncationsRefused(DATA.slice(0, 32), checkTcp);
  });

  it('is refused with a data offset below 5 or beyond the end', () => {
    const view = viewOf(SYN);
    view.setUint8(BASE + 12, 0x40);
    expect(checkTcp(view, BASE, BASE + SYN.length)).toBe(WIRE_BAD_LENGTH);
    view.setUint8(BASE + 12, 0xb0);
    expect(checkTcp(view, BASE, BASE + SYN.length)).toBe(WIRE_TRUNCATED);
  });
});

describe('TCP options', () => {
  it('of a captured SYN are read', () => {
    const [status, options] = parse(SYN);
    expect(status).toBe(0);
    expect(options).toMatchObject({
      mss: 1460,
      windowScale: 10,
      sackPermitted: true,
      hasTimestamp: true,
      sackCount: 0,
    });
    expect(options).toMatchObject({ tsVal: 3980862659, tsEcr: 0 });
  });

  it('of captured data are read, and nothing is left from the SYN before', () => {
    const [, record] = parse(SYN);
    const [status, options] = parse(DATA, record);
    expect(status).toBe(0);
    expect(options).toMatchObject({ mss: 0, windowScale: -1, sackPermitted: false, hasTimestamp: true });
    expect(options).toMatchObject({ tsVal: 3980862664, tsEcr: 673853329 });
    expect(parse(segmentWith(TCP_ACK, fromHex('0101050a0000000100000002')), record)[1].sackCount).toBe(1);
    const none = segmentWith(TCP_ACK, new Uint8Array());
    expect(parse(none, record)[1]).toMatchObject({ hasTimestamp: false, sackCount: 0 });
  });

  it('are read behind NOPs, in any order, up to the end of the list', () => {
    const [status, options] = parseHex(TCP_SYN, '01 030307 0402 01 080a00000001ffffffff 020405b4 00 02ff');
    expect(status).toBe(0);
    expect(options).toMatchObject({ mss: 1460, windowScale: 7, sackPermitted: true, tsVal: 1, tsEcr: 0xffffffff });
  });

  it('that belong to a SYN are ignored elsewhere', () => {
    const [status, options] = parseHex(TCP_ACK, '020405b4 030307 0402');
    expect(status).toBe(0);
    expect(options).toMatchObject({ mss: 0, windowScale: -1, sackPermitted: false });
  });

  it('carry SACK blocks, beside timestamps and alone', () => {
    const [, three] = parseHex(
      TCP_ACK,
      '0101080a0000000100000002 0101051a 00000010 00000020 00000030 00000040 fffffff0 00000005',
    );
    expect(three).toMatchObject({ hasTimestamp: true, sackCount: 3 });
    expect([...three.sackBlocks.subarray(0, 6)]).toEqual([16, 32, 48, 64, 0xfffffff0, 5]);
    const [, four] = parseHex(TCP_ACK, `0101 0522 ${'0000000a0000000b'.repeat(4)}`);
    expect(four.sackCount).toBe(4);
    expect([...four.sackBlocks]).toEqual([10, 11, 10, 11, 10, 11, 10, 11]);
  });

  it('clamp the window scale to 14, RFC 7323 section 2.3', () => {
    expect(parseHex(TCP_SYN, '030e0f')[1].windowScale).toBe(-1);
    expect(parseHex(TCP_SYN, '03030f')[1].windowScale).toBe(14);
    expect(parseHex(TCP_SYN, '0303ff')[1].windowScale).toBe(14);
    expect(parseHex(TCP_SYN, '030300')[1].windowScale).toBe(0);
  });

  it('of unknown kinds are skipped', () => {
    const [status, options] = parseHex(TCP_SYN, 'fd06aabbccdd 2204 0102 020405b4');
    expect(status).toBe(0);
    expect(options.mss).toBe(1460);
  });

  it.each([
    ['a length of 0', '02040100 05000000'],
    ['a length of 1', '02040100 fd010000'],
    ['a length beyond the header', '02040100 0101fd03'],
    ['a kind without a length', '02040100 010101 02'],
    ['an MSS of three bytes', '02040100 020301'],
    ['a window scale of four bytes', '02040100 03040101'],
    ['a SACK-permitted of three bytes', '02040100 040300'],
    ['a SACK without blocks', '02040100 0502'],
    ['a SACK with half a block', '02040100 0506 00000001'],
    ['timestamps of eight bytes', '02040100 0808 000000000000'],
  ])('with %s are refused; what stood before is kept', (_, hex) => {
    // End-of-list padding would hide a cut, so the options are made to end with the header.
    const bytes = fromHex(hex);
    const padded =
      bytes.length % 4 === 0 ? bytes : concat(Uint8Array.of(...new Array(4 - (bytes.length % 4)).fill(1)), bytes);
    const [status, options] = parse(segmentWith(TCP_SYN, padded));
    expect(status).toBe(WIRE_BAD_OPTION);
    expect(options.mss).toBe(256);
  });

  it('of a SYN are written so that they read back, in every combination', () => {
    const dice = new Dice(7323);
    for (let mask = 0; mask < 64; mask++) {
      const [mss, tsVal, tsEcr] = [dice.between(1, 65535), dice.bits(32), dice.bits(32)];
      const windowScale = (mask & 1) === 0 ? -1 : dice.between(0, 14);
      const [sack, timestamps] = [(mask & 2) !== 0, (mask & 4) !== 0];
      const view = blankView(60);
      const bytes = writeTcpSynOptions(view, BASE + 20, mss, windowScale, sack, timestamps, tsVal, tsEcr);
      expect(bytes % 4).toBe(0);
      expect(bytes).toBeLessThanOrEqual(TCP_MAX_SYN_OPTIONS_BYTES);
      expect(view.getUint8(BASE + 20 + bytes)).toBe(0xa5);
      writeTcpHeader(view, BASE, 1, 2, 3, 4, 20 + bytes, TCP_SYN, 5, 0);
      const options = createTcpOptions();
      expect(parseTcpOptions(view, BASE, checkTcp(view, BASE, BASE + 60), options)).toBe(0);
      expect(options).toMatchObject({ mss, windowScale, sackPermitted: sack, hasTimestamp: timestamps });
      if (timestamps) expect(options).toMatchObject({ tsVal, tsEcr });
    }
  });

  it('with SACK blocks are written so that they read back', () => {
    const dice = new Dice(2018);
    for (let count = 1; count <= 4; count++) {
      const blocks = dice.words(8);
      const view = blankView(60);
      const bytes = writeTcpSackOption(view, BASE + 20, blocks, count);
      expect(bytes).toBe(4 + 8 * count);
      expect(view.getUint8(BASE + 20 + bytes)).toBe(0xa5);
      writeTcpHeader(view, BASE, 1, 2, 3, 4, 20 + bytes, TCP_ACK, 5, 0);
      const options = createTcpOptions();
      expect(parseTcpOptions(view, BASE, 20 + bytes, options)).toBe(0);
      expect(options.sackCount).toBe(count);
      expect(options.sackBlocks.subarray(0, 2 * count)).toEqual(blocks.subarray(0, 2 * count));
    }
  });
});
