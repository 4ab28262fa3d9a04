import { describe, expect, it } from 'vitest';
import { pseudoSumIpv4, pseudoSumIpv6, sumBytes, verifyChecksum } from '../../../src/wire/checksum.ts';
import { IP_PROTOCOL_UDP } from '../../../src/wire/ip-protocol.ts';
import { WIRE_BAD_LENGTH, WIRE_TRUNCATED } from '../../../src/wire/status.ts';
import {
  checkUdp,
  getUdpChecksum,
  getUdpDstPort,
  getUdpLength,
  getUdpSrcPort,
  UDP_HEADER_BYTES,
  writeUdpHeader,
} from '../../../src/wire/udp.ts';
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
} from './bytes.ts';
import { UDP_FRAME, UDP6_FRAME } from './golden-frames.ts';

const DATAGRAM = UDP_FRAME.slice(34);
const DATAGRAM6 = UDP6_FRAME.slice(54);
const PSEUDO = pseudoSumIpv4(0x0a00030f, 0x0a000302, IP_PROTOCOL_UDP, DATAGRAM.length);
const SRC6 = Uint32Array.of(0xfd000003, 0, 0, 0x15);
const DST6 = Uint32Array.of(0xfd000003, 0, 0, 0x02);

/** The payload at its place behind 8 dirty bytes. */
function dirtyHeader(datagram: Uint8Array): DataView {
  return viewOf(concat(new Uint8Array(8).fill(0xa5), datagram.slice(8)));
}

describe('a UDP header', () => {
  it('is read as captured', () => {
    const view = viewOf(DATAGRAM);
    expect(checkUdp(view, BASE, BASE + DATAGRAM.length)).toBe(UDP_HEADER_BYTES);
    expect(getUdpSrcPort(view, BASE)).toBe(55691);
    expect(getUdpDstPort(view, BASE)).toBe(7);
    expect(getUdpLength(view, BASE)).toBe(14);
    expect(getUdpChecksum(view, BASE)).toBe(0xc852);
    expect(verifyChecksum(view, BASE, DATAGRAM.length, PSEUDO)).toBe(true);
  });

  it('is built on a dirty buffer, for IPv4 and IPv6', () => {
    const view = dirtyHeader(DATAGRAM);
    writeUdpHeader(view, BASE, 55691, 7, 14, sumBytes(view, BASE + 8, 6, PSEUDO));
    expectBuilt(view, toHex(DATAGRAM));
    const view6 = dirtyHeader(DATAGRAM6);
    const pseudo6 = pseudoSumIpv6(SRC6, 0, DST6, 0, IP_PROTOCOL_UDP, 14);
    writeUdpHeader(view6, BASE, 34090, 7, 14, sumBytes(view6, BASE + 8, 6, pseudo6));
    expectBuilt(view6, toHex(DATAGRAM6));
  });

  it('equals that of a naive codec, both ways', () => {
    const dice = new Dice(768);
    for (let i = 0; i < 500; i++) {
      const [src, dst, srcPort, dstPort] = [dice.bits(32), dice.bits(32), dice.bits(16), dice.bits(16)];
      const payload = dice.bytes(dice.between(0, 40));
      const length = 8 + payload.length;
      const pseudo = packBits([32, src], [32, dst], [8, 0], [8, 17], [16, length]);
      const header = (sum: number) => packBits([16, srcPort], [16, dstPort], [16, length], [16, sum]);
      const checksum = naiveChecksum(concat(pseudo, header(0), payload)) || 0xffff;
      const view = dirtyHeader(concat(new Uint8Array(8), payload));
      const payloadSum = sumBytes(view, BASE + 8, payload.length, 0);
      writeUdpHeader(view, BASE, srcPort, dstPort, length, pseudoSumIpv4(src, dst, 17, length) + payloadSum);
      expectBuilt(view, toHex(concat(header(checksum), payload)));
      expect(checkUdp(view, BASE, BASE + length)).toBe(8);
      expect(getUdpSrcPort(view, BASE)).toBe(srcPort);
      expect(getUdpDstPort(view, BASE)).toBe(dstPort);
      expect(getUdpLength(view, BASE)).toBe(length);
      expect(getUdpChecksum(view, BASE)).toBe(checksum);
    }
  });

  it('never has a checksum of 0, which would mean that there is none', () => {
    const view = dirtyHeader(new Uint8Array(8));
    // Ports, length and this sum add up to 0xffff, whose inverse is 0.
    writeUdpHeader(view, BASE, 1, 2, 8, 0xffff - 11);
    expect(getUdpChecksum(view, BASE)).toBe(0xffff);
  });

  it('is refused when the datagram is cut off anywhere', () => {
    expectTruncationsRefused(DATAGRAM, checkUdp);
  });

  it('is refused with a length below its own or beyond the end, accepted with padding behind it', () => {
    const withLength = (length: number): number => {
      const view = viewOf(DATAGRAM);
      view.setUint16(BASE + 4, length);
      return checkUdp(view, BASE, BASE + DATAGRAM.length);
    };
    expect(withLength(0)).toBe(WIRE_BAD_LENGTH);
    expect(withLength(7)).toBe(WIRE_BAD_LENGTH);
    expect(withLength(8)).toBe(8);
    expect(withLength(13)).toBe(8);
    expect(withLength(15)).toBe(WIRE_TRUNCATED);
  });
});
