import { describe, expect, it } from 'vitest';
import {
  beginDhcpv6IaNa,
  checkDhcpv6,
  copyDhcpv6Option,
  DHCPV6_FQDN_S,
  DHCPV6_HEADER_BYTES,
  DHCPV6_IA_ADDRESS_BYTES,
  DHCPV6_IA_NA_BYTES,
  DHCPV6_INFINITE_LIFETIME_SEC,
  DHCPV6_OPTION_CLIENT_ID,
  DHCPV6_OPTION_DNS,
  DHCPV6_OPTION_ELAPSED_TIME,
  DHCPV6_OPTION_FQDN,
  DHCPV6_OPTION_IA_ADDRESS,
  DHCPV6_OPTION_IA_NA,
  DHCPV6_OPTION_INFORMATION_REFRESH_TIME,
  DHCPV6_OPTION_PREFERENCE,
  DHCPV6_OPTION_RAPID_COMMIT,
  DHCPV6_OPTION_REQUEST,
  DHCPV6_OPTION_SEARCH,
  DHCPV6_OPTION_SERVER_ID,
  DHCPV6_OPTION_STATUS_CODE,
  DHCPV6_REPLY,
  DHCPV6_SOLICIT,
  DHCPV6_STATUS_NOT_ON_LINK,
  DHCPV6_STATUS_SUCCESS,
  endDhcpv6Option,
  findDhcpv6Option,
  getDhcpv6Iaid,
  getDhcpv6OptionLength,
  getDhcpv6PreferredSec,
  getDhcpv6Status,
  getDhcpv6Type,
  getDhcpv6ValidSec,
  getDhcpv6Xid,
  isDhcpv6DuidLl,
  isDhcpv6OptionRequested,
  writeDhcpv6BootFileUrl,
  writeDhcpv6Dns,
  writeDhcpv6DuidLl,
  writeDhcpv6Empty,
  writeDhcpv6Fqdn,
  writeDhcpv6Header,
  writeDhcpv6IaAddress,
  writeDhcpv6OptionRequest,
  writeDhcpv6Search,
  writeDhcpv6Status,
  writeDhcpv6Uint8,
  writeDhcpv6Uint16,
  writeDhcpv6Uint32,
} from '../../../src/wire/dhcpv6.ts';
import { readDnsName, readDnsNameList } from '../../../src/wire/dns-name.ts';
import { loadIpv6 } from '../../../src/wire/ipv6.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from '../../../src/wire/status.ts';
import {
  BASE,
  blankView,
  concat,
  Dice,
  expectBuilt,
  fromHex,
  hexAt,
  packBits,
  toHex,
  viewOf,
  wordBytes,
} from './bytes.ts';
import { DHCPV6_SOLICIT_FRAME } from './golden-frames.ts';

const SOLICIT = DHCPV6_SOLICIT_FRAME.slice(62);
/** A reply with every option that the stack sends, put together by hand from RFC 8415 §21, RFC 3646 and RFC 4704. */
const REPLY = fromHex(`
  07 a62833
  0001 000e 00010001329daffd020000000015
  0002 000a 00030001 9a559a559a55
  0003 002e 00000015 00000000 00000000
    0005 0018 fd000003 00000000 00000000 00000015 ffffffff ffffffff
    000d 0002 0000
  000d 000a 0004 77726f6e67206c6e
  0007 0001 ff
  0008 0002 1234
  000e 0000
  0020 0004 00015180
  0017 0020 fd000003 00000000 00000000 00000053 fd000003 00000000 00000000 00000054
  0018 0012 076578616d706c65 036f7267 00 03616263 00
  0027 000e 01 03626f78 076578616d706c65 00
  0006 0004 0017 0018`);
const WORDS = Uint32Array.of(0xfd000003, 0, 0, 0x15, 0xfd000003, 0, 0, 0x53, 0xfd000003, 0, 0, 0x54);

/** Writes REPLY. `view` holds SOLICIT at `request`, since the client id is copied from it. */
function buildReply(view: DataView, request: number, start: number, end: number): number {
  const clientId = findDhcpv6Option(view, request + 4, request + SOLICIT.length, DHCPV6_OPTION_CLIENT_ID);
  let at = writeDhcpv6Header(view, start, end, DHCPV6_REPLY, getDhcpv6Xid(view, request));
  at = copyDhcpv6Option(view, at, end, DHCPV6_OPTION_CLIENT_ID, clientId);
  at = writeDhcpv6DuidLl(view, at, end, DHCPV6_OPTION_SERVER_ID, 0x9a55, 0x9a559a55);
  const ia = at;
  at = beginDhcpv6IaNa(view, at, end, 0x15, 0, 0);
  at = writeDhcpv6IaAddress(view, at, end, WORDS, 0, DHCPV6_INFINITE_LIFETIME_SEC, DHCPV6_INFINITE_LIFETIME_SEC);
  at = writeDhcpv6Status(view, at, end, DHCPV6_STATUS_SUCCESS, '');
  at = endDhcpv6Option(view, ia, at);
  at = writeDhcpv6Status(view, at, end, DHCPV6_STATUS_NOT_ON_LINK, 'wrong ln');
  at = writeDhcpv6Uint8(view, at, end, DHCPV6_OPTION_PREFERENCE, 255);
  at = writeDhcpv6Uint16(view, at, end, DHCPV6_OPTION_ELAPSED_TIME, 0x1234);
  at = writeDhcpv6Empty(view, at, end, DHCPV6_OPTION_RAPID_COMMIT);
  at = writeDhcpv6Uint32(view, at, end, DHCPV6_OPTION_INFORMATION_REFRESH_TIME, 86400);
  at = writeDhcpv6Dns(view, at, end, WORDS, 4, 2);
  at = writeDhcpv6Search(view, at, end, ['example.org', 'abc']);
  at = writeDhcpv6Fqdn(view, at, end, DHCPV6_FQDN_S, 'box.example');
  return writeDhcpv6OptionRequest(view, at, end, [DHCPV6_OPTION_DNS, DHCPV6_OPTION_SEARCH]);
}

describe('a DHCPv6 message', () => {
  it('is read as dhclient sends it', () => {
    const view = viewOf(SOLICIT);
    const end = BASE + SOLICIT.length;
    expect(checkDhcpv6(view, BASE, end)).toBe(DHCPV6_HEADER_BYTES);
    expect(getDhcpv6Type(view, BASE)).toBe(DHCPV6_SOLICIT);
    expect(getDhcpv6Xid(view, BASE)).toBe(0xa62833);
    const find = (code: number): number => findDhcpv6Option(view, BASE + 4, end, code);
    const clientId = find(DHCPV6_OPTION_CLIENT_ID);
    expect(hexAt(view, clientId, getDhcpv6OptionLength(view, clientId))).toBe('00010001329daffd020000000015');
    const request = find(DHCPV6_OPTION_REQUEST);
    expect([23, 24, 39, 31].map((code) => isDhcpv6OptionRequested(view, request, code))).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect(isDhcpv6OptionRequested(view, request, 32)).toBe(false);
    const ia = find(DHCPV6_OPTION_IA_NA);
    expect(getDhcpv6Iaid(view, ia)).toBe(0x15);
    expect(findDhcpv6Option(view, ia + DHCPV6_IA_NA_BYTES, ia + 12, DHCPV6_OPTION_IA_ADDRESS)).toBe(0);
    expect(find(DHCPV6_OPTION_SERVER_ID)).toBe(0);
  });

  it('is built on a dirty buffer with every option, and reads back', () => {
    const view = viewOf(concat(new Uint8Array(REPLY.length).fill(0xa5), new Uint8Array(9).fill(0xa5), SOLICIT));
    const request = BASE + REPLY.length + 9;
    const end = buildReply(view, request, BASE, BASE + REPLY.length);
    expect(end).toBe(BASE + REPLY.length);
    expect(hexAt(view, BASE, REPLY.length)).toBe(toHex(REPLY));
    expect(hexAt(view, 0, BASE)).toBe('a5'.repeat(BASE));
    expect(hexAt(view, end, 9)).toBe('a5'.repeat(9));

    expect(checkDhcpv6(view, BASE, end)).toBe(4);
    const find = (code: number): number => findDhcpv6Option(view, BASE + 4, end, code);
    expect(isDhcpv6DuidLl(view, find(DHCPV6_OPTION_SERVER_ID), 0x9a55, 0x9a559a55)).toBe(true);
    expect(isDhcpv6DuidLl(view, find(DHCPV6_OPTION_SERVER_ID), 0x9a55, 0x9a559a56)).toBe(false);
    expect(isDhcpv6DuidLl(view, find(DHCPV6_OPTION_CLIENT_ID), 0x0200, 0x15)).toBe(false);
    const ia = find(DHCPV6_OPTION_IA_NA);
    const iaEnd = ia + getDhcpv6OptionLength(view, ia);
    const address = findDhcpv6Option(view, ia + DHCPV6_IA_NA_BYTES, iaEnd, DHCPV6_OPTION_IA_ADDRESS);
    const words = new Uint32Array(4);
    loadIpv6(view, address, words, 0);
    expect([...words]).toEqual([0xfd000003, 0, 0, 0x15]);
    expect(getDhcpv6PreferredSec(view, address)).toBe(0xffffffff);
    expect(getDhcpv6ValidSec(view, address)).toBe(0xffffffff);
    expect(getDhcpv6OptionLength(view, address)).toBe(DHCPV6_IA_ADDRESS_BYTES);
    const inner = findDhcpv6Option(view, ia + DHCPV6_IA_NA_BYTES, iaEnd, DHCPV6_OPTION_STATUS_CODE);
    expect(getDhcpv6Status(view, inner)).toBe(DHCPV6_STATUS_SUCCESS);
    expect(getDhcpv6Status(view, find(DHCPV6_OPTION_STATUS_CODE))).toBe(DHCPV6_STATUS_NOT_ON_LINK);
    const search = find(DHCPV6_OPTION_SEARCH);
    expect(readDnsNameList(view, search, search + getDhcpv6OptionLength(view, search))).toEqual(['example.org', 'abc']);
    const fqdn = find(DHCPV6_OPTION_FQDN);
    expect(readDnsName(view, fqdn + 1, fqdn + getDhcpv6OptionLength(view, fqdn))).toBe('box.example');
  });

  it('equals a naive codec for random addresses', () => {
    const dice = new Dice(8415);
    for (let i = 0; i < 200; i++) {
      const [type, xid, iaid, t1, t2] = [dice.bits(8), dice.bits(24), dice.bits(32), dice.bits(32), dice.bits(32)];
      const [words, preferred, valid] = [dice.words(6), dice.bits(32), dice.bits(32)];
      const naive = concat(
        packBits([8, type], [24, xid], [16, 3], [16, 40], [32, iaid], [32, t1], [32, t2], [16, 5], [16, 24]),
        wordBytes(words, 2, 4),
        packBits([32, preferred], [32, valid]),
      );
      const view = blankView(naive.length);
      const end = BASE + naive.length;
      const ia = writeDhcpv6Header(view, BASE, end, type, xid);
      let at = beginDhcpv6IaNa(view, ia, end, iaid, t1, t2);
      at = writeDhcpv6IaAddress(view, at, end, words, 2, preferred, valid);
      expect(endDhcpv6Option(view, ia, at)).toBe(end);
      expectBuilt(view, toHex(naive));
      expect(getDhcpv6Type(view, BASE)).toBe(type);
      expect(getDhcpv6Xid(view, BASE)).toBe(xid);
    }
  });

  it('is refused when cut off anywhere but between options', () => {
    for (const message of [SOLICIT, REPLY]) {
      const view = viewOf(message);
      const boundaries = new Set<number>();
      for (let at = 4; at < message.length; at += 4 + message[at + 2]! * 256 + message[at + 3]!) boundaries.add(at);
      for (let length = 0; length < message.length; length++) {
        const status = checkDhcpv6(view, BASE, BASE + length);
        if (boundaries.has(length)) expect(status).toBe(4);
        else expect(status).toBe(length < 4 ? WIRE_TRUNCATED : WIRE_BAD_OPTION);
      }
      expect(checkDhcpv6(view, BASE, BASE + message.length)).toBe(4);
    }
  });

  it.each([
    ['a client id of two bytes', '0001 0002 0001'],
    ['a client id of 131 bytes', `0001 0083 ${'00'.repeat(131)}`],
    ['an IA_NA of eleven bytes', `0003 000b ${'00'.repeat(11)}`],
    ['an IA_TA of three bytes', '0004 0003 000000'],
    ['an address of 23 bytes', `0005 0017 ${'00'.repeat(23)}`],
    ['an odd option request', '0006 0003 001700'],
    ['an elapsed time of one byte', '0008 0001 00'],
    ['a status of one byte', '000d 0001 00'],
    ['a rapid commit with data', '000e 0001 00'],
    ['resolvers of fifteen bytes', `0017 000f ${'00'.repeat(15)}`],
    ['an IA_PD of eleven bytes', `0019 000b ${'00'.repeat(11)}`],
    ['a prefix of 24 bytes', `001a 0018 ${'00'.repeat(24)}`],
    ['a name without flags', '0027 0000'],
    ['an option inside that leaves its container', `0003 0010 ${'00'.repeat(12)} 000d0002 0000`],
    ['an option inside that is cut off', `0003 000e ${'00'.repeat(12)} 000d`],
  ])('is refused with %s', (_, options) => {
    const message = concat(SOLICIT, fromHex(options));
    expect(checkDhcpv6(viewOf(message), BASE, BASE + message.length)).toBe(WIRE_BAD_OPTION);
  });

  it('is refused when options are nested without sense', () => {
    // Each association is all that the one around it has inside.
    const nest = (depth: number): Uint8Array => {
      const view = new DataView(new ArrayBuffer(16 * depth));
      for (let i = 0; i < depth; i++) {
        view.setUint16(16 * i, DHCPV6_OPTION_IA_NA);
        view.setUint16(16 * i + 2, 16 * (depth - i) - 4);
      }
      return new Uint8Array(view.buffer);
    };
    const check = (depth: number): number => {
      const message = concat(fromHex('01a62833'), nest(depth));
      return checkDhcpv6(viewOf(message), BASE, BASE + message.length);
    };
    expect(check(2)).toBe(4);
    expect(check(3)).toBe(WIRE_BAD_OPTION);
    expect(check(3000)).toBe(WIRE_BAD_OPTION);
  });

  it('of a relay is not understood', () => {
    for (const type of [12, 13]) {
      const view = viewOf(SOLICIT);
      view.setUint8(BASE, type);
      expect(checkDhcpv6(view, BASE, BASE + SOLICIT.length)).toBe(WIRE_UNSUPPORTED);
    }
  });

  it('has the second of two associations found behind the first', () => {
    const ia = (id: number) => packBits([16, 3], [16, 12], [32, id], [64, 0]);
    const message = concat(fromHex('01a62833'), ia(1), fromHex('000e0000'), ia(2));
    const view = viewOf(message);
    const end = BASE + message.length;
    const first = findDhcpv6Option(view, BASE + 4, end, DHCPV6_OPTION_IA_NA);
    const second = findDhcpv6Option(view, first + getDhcpv6OptionLength(view, first), end, DHCPV6_OPTION_IA_NA);
    expect([first, second].map((data) => getDhcpv6Iaid(view, data))).toEqual([1, 2]);
    expect(findDhcpv6Option(view, second + 12, end, DHCPV6_OPTION_IA_NA)).toBe(0);
  });

  it('is not built beyond the end, and a failure is passed on', () => {
    for (let room = 0; room < REPLY.length; room++) {
      const view = viewOf(concat(SOLICIT, new Uint8Array(REPLY.length).fill(0xa5)));
      const start = BASE + SOLICIT.length;
      expect(buildReply(view, BASE, start, start + room)).toBe(WIRE_BAD_LENGTH);
      for (let at = start + room; at < view.byteLength; at++) expect(view.getUint8(at)).toBe(0xa5);
    }
  });

  it('leaves out empty lists and refuses impossible names', () => {
    const view = blankView(50);
    const end = BASE + 50;
    expect(writeDhcpv6Dns(view, BASE, end, WORDS, 0, 0)).toBe(BASE);
    expect(writeDhcpv6Search(view, BASE, end, [])).toBe(BASE);
    const url = writeDhcpv6BootFileUrl(view, BASE, end, 'tftp://a/b');
    expect(url).toBe(BASE + 14);
    expect(Buffer.from(view.buffer, BASE, 14).toString('latin1')).toBe('\0\x3b\0\x0atftp://a/b');
    expect(writeDhcpv6BootFileUrl(view, BASE, BASE + 13, 'tftp://a/b')).toBeLessThan(0);
    expect(writeDhcpv6Search(view, BASE, end, ['a..b'])).toBe(WIRE_BAD_OPTION);
    expect(writeDhcpv6Fqdn(view, BASE, end, 0, 'a..b')).toBe(WIRE_BAD_OPTION);
  });
});
