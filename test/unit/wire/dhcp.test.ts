import { describe, expect, it } from 'vitest';
import {
  checkDhcp,
  copyDhcpOption,
  DHCP_ACK,
  DHCP_BOOT_REPLY,
  DHCP_BOOT_REQUEST,
  DHCP_CLIENT_MAC_OFFSET,
  DHCP_DISCOVER,
  DHCP_FLAG_BROADCAST,
  DHCP_FQDN_E,
  DHCP_FQDN_N,
  DHCP_FQDN_O,
  DHCP_FQDN_S,
  DHCP_HEADER_BYTES,
  DHCP_MIN_MESSAGE_BYTES,
  DHCP_OPTION_CLIENT_ID,
  DHCP_OPTION_DNS,
  DHCP_OPTION_DOMAIN_SEARCH,
  DHCP_OPTION_FQDN,
  DHCP_OPTION_HOSTNAME,
  DHCP_OPTION_LEASE_TIME,
  DHCP_OPTION_MESSAGE_TYPE,
  DHCP_OPTION_MTU,
  DHCP_OPTION_PARAMETER_LIST,
  DHCP_OPTION_RAPID_COMMIT,
  DHCP_OPTION_REQUESTED_ADDRESS,
  DHCP_OPTION_SERVER_ID,
  DHCP_OPTION_SUBNET_MASK,
  findDhcpOption,
  getDhcpClientAddress,
  getDhcpFlags,
  getDhcpMaxMessageSize,
  getDhcpMessageType,
  getDhcpOp,
  getDhcpOptionAddress,
  getDhcpOptionLength,
  getDhcpRelayAddress,
  getDhcpSecs,
  getDhcpXid,
  getDhcpYourAddress,
  isDhcpEthernet,
  writeDhcpAddresses,
  writeDhcpClasslessRoutes,
  writeDhcpDomainSearch,
  writeDhcpEmpty,
  writeDhcpEnd,
  writeDhcpFqdn,
  writeDhcpHeader,
  writeDhcpText,
  writeDhcpUint8,
  writeDhcpUint16,
  writeDhcpUint32,
} from '../../../src/wire/dhcp.ts';
import { readDnsName, readDnsNameList } from '../../../src/wire/dns-name.ts';
import { getMacHi, getMacLo } from '../../../src/wire/ethernet.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from '../../../src/wire/status.ts';
import {
  BASE,
  blankView,
  concat,
  Dice,
  expectBuilt,
  expectTruncationsRefused,
  fromHex,
  hexAt,
  packBits,
  toHex,
  viewOf,
} from './bytes.ts';
import { DHCP_DISCOVER_FRAME } from './golden-frames.ts';

const DISCOVER = DHCP_DISCOVER_FRAME.slice(42);
const FIXED = DISCOVER.slice(0, DHCP_HEADER_BYTES);
const END_OF_DISCOVER = BASE + DISCOVER.length;

/** A message with the given option bytes, and names and file where the test wants them. */
function messageWith(options: string, file = '', sname = ''): Uint8Array {
  const fixed = FIXED.slice();
  fixed.set(fromHex(sname), 44);
  fixed.set(fromHex(file), 108);
  return concat(fixed, fromHex(options));
}

/** Data of an option as hex, or what the look-up returned if it found none. */
function find(message: Uint8Array, code: number): string | number {
  const view = viewOf(message);
  const data = findDhcpOption(view, BASE, BASE + message.length, code);
  return data > 0 ? hexAt(view, data, getDhcpOptionLength(view, data)) : data;
}

describe('a DHCP message', () => {
  it('is read as udhcpc sends it', () => {
    const view = viewOf(DISCOVER);
    expect(checkDhcp(view, BASE, END_OF_DISCOVER)).toBe(DHCP_HEADER_BYTES);
    expect(getDhcpOp(view, BASE)).toBe(DHCP_BOOT_REQUEST);
    expect(isDhcpEthernet(view, BASE)).toBe(true);
    expect(getDhcpXid(view, BASE)).toBe(0xaf9caf31);
    expect(getDhcpSecs(view, BASE)).toBe(0);
    expect(getDhcpFlags(view, BASE)).toBe(0);
    expect(getDhcpClientAddress(view, BASE)).toBe(0);
    expect(getMacHi(view, BASE + DHCP_CLIENT_MAC_OFFSET)).toBe(0x0200);
    expect(getMacLo(view, BASE + DHCP_CLIENT_MAC_OFFSET)).toBe(0x15);
    expect(getDhcpMessageType(view, BASE, END_OF_DISCOVER)).toBe(DHCP_DISCOVER);
    expect(getDhcpMaxMessageSize(view, BASE, END_OF_DISCOVER)).toBe(576);
    expect(getDhcpOptionAddress(view, BASE, END_OF_DISCOVER, DHCP_OPTION_REQUESTED_ADDRESS)).toBe(-1);
    expect(find(DISCOVER, DHCP_OPTION_PARAMETER_LIST)).toBe('0103060c0f1a1c2a7779');
    expect(find(DISCOVER, DHCP_OPTION_CLIENT_ID)).toBe('01020000000015');
    expect(find(DISCOVER, DHCP_OPTION_FQDN)).toBe('010000626f78');
    expect(find(DISCOVER, DHCP_OPTION_RAPID_COMMIT)).toBe(0);
  });

  it('has its fixed part built on a dirty buffer, equal to a naive codec', () => {
    const dice = new Dice(2131);
    for (let i = 0; i < 100; i++) {
      const [op, xid, flags, hi, lo] = [dice.bits(8), dice.bits(32), dice.bits(16), dice.bits(16), dice.bits(32)];
      const [ciaddr, yiaddr, siaddr, giaddr] = [dice.bits(32), dice.bits(32), dice.bits(32), dice.bits(32)];
      const naive = concat(
        packBits([8, op], [8, 1], [8, 6], [8, 0], [32, xid], [16, 0], [16, flags]),
        packBits([32, ciaddr], [32, yiaddr], [32, siaddr], [32, giaddr], [16, hi], [32, lo], [80, 0]),
        new Uint8Array(192),
        fromHex('63825363'),
      );
      const view = blankView(240);
      const at = writeDhcpHeader(view, BASE, BASE + 240, op, xid, flags, ciaddr, yiaddr, siaddr, giaddr, hi, lo);
      expect(at).toBe(BASE + 240);
      expectBuilt(view, toHex(naive));
      expect(checkDhcp(view, BASE, BASE + 240)).toBe(240);
      expect(getDhcpOp(view, BASE)).toBe(op);
      expect(getDhcpXid(view, BASE)).toBe(xid);
      expect(getDhcpFlags(view, BASE)).toBe(flags);
      expect(getDhcpClientAddress(view, BASE)).toBe(ciaddr);
      expect(getDhcpYourAddress(view, BASE)).toBe(yiaddr);
      expect(getDhcpRelayAddress(view, BASE)).toBe(giaddr);
    }
  });

  it('is refused when its fixed part is cut off, without the cookie, or with an impossible hardware address', () => {
    expectTruncationsRefused(FIXED, checkDhcp);
    expect(checkDhcp(viewOf(FIXED), BASE, BASE + 239)).toBe(WIRE_TRUNCATED);
    const view = viewOf(DISCOVER);
    view.setUint8(BASE + 239, 0x64);
    expect(checkDhcp(view, BASE, END_OF_DISCOVER)).toBe(WIRE_UNSUPPORTED);
    const long = viewOf(DISCOVER);
    long.setUint8(BASE + 2, 17);
    expect(checkDhcp(long, BASE, END_OF_DISCOVER)).toBe(WIRE_BAD_LENGTH);
    long.setUint8(BASE + 2, 8);
    expect(checkDhcp(long, BASE, END_OF_DISCOVER)).toBe(240);
    expect(isDhcpEthernet(long, BASE)).toBe(false);
  });
});

describe('looking for a DHCP option', () => {
  it('passes padding, stops at the end, and takes the first of two', () => {
    const message = messageWith('000000 0c0161 00 0c0162 ff 3604c0000201');
    expect(find(message, DHCP_OPTION_HOSTNAME)).toBe('61');
    expect(find(message, DHCP_OPTION_SERVER_ID)).toBe(0);
  });

  it('does without an end', () => {
    expect(find(messageWith('350101'), DHCP_OPTION_MESSAGE_TYPE)).toBe('01');
    expect(find(messageWith('350101'), DHCP_OPTION_DNS)).toBe(0);
    expect(find(messageWith(''), DHCP_OPTION_DNS)).toBe(0);
    expect(find(messageWith('000000'), DHCP_OPTION_DNS)).toBe(0);
  });

  it('finds an option without data', () => {
    const message = messageWith('5000ff');
    const view = viewOf(message);
    const data = findDhcpOption(view, BASE, BASE + message.length, DHCP_OPTION_RAPID_COMMIT);
    expect(data).toBe(BASE + 242);
    expect(getDhcpOptionLength(view, data)).toBe(0);
  });

  it('finds what stands before a broken option, and reports the break for the rest', () => {
    for (const broken of ['0c', '0c05616263', '0cff']) {
      const message = messageWith(`350103${broken}`);
      expect(find(message, DHCP_OPTION_MESSAGE_TYPE)).toBe('03');
      expect(find(message, DHCP_OPTION_SERVER_ID)).toBe(WIRE_BAD_OPTION);
      expect(find(message, DHCP_OPTION_HOSTNAME)).toBe(WIRE_BAD_OPTION);
    }
  });

  it('goes on in file and sname where option 52 says so, RFC 2131 section 4.1', () => {
    const options = (overload: number): string => `350101 3401${overload.toString(16).padStart(2, '0')} ff`;
    const [file, sname] = ['000c0466696c65ff', '3604c0000201 0c0473616d65ff'];
    expect(find(messageWith(options(1), file, sname), DHCP_OPTION_HOSTNAME)).toBe('66696c65');
    expect(find(messageWith(options(1), file, sname), DHCP_OPTION_SERVER_ID)).toBe(0);
    expect(find(messageWith(options(2), file, sname), DHCP_OPTION_HOSTNAME)).toBe('73616d65');
    expect(find(messageWith(options(3), file, sname), DHCP_OPTION_HOSTNAME)).toBe('66696c65');
    expect(find(messageWith(options(3), file, sname), DHCP_OPTION_SERVER_ID)).toBe('c0000201');
    expect(find(messageWith(options(0), file, sname), DHCP_OPTION_HOSTNAME)).toBe(0);
    expect(find(messageWith('3402010300ff', file, sname), DHCP_OPTION_HOSTNAME)).toBe(0);
  });

  it('does not run out of file and sname', () => {
    const full = `${'00'.repeat(125)}0c0561`;
    expect(find(messageWith('340101ff', full), DHCP_OPTION_HOSTNAME)).toBe(WIRE_BAD_OPTION);
    expect(find(messageWith('340101ff', full), DHCP_OPTION_SERVER_ID)).toBe(WIRE_BAD_OPTION);
    expect(find(messageWith('340102ff', '', '00'.repeat(64)), DHCP_OPTION_SERVER_ID)).toBe(0);
  });

  it('takes typed options only in their size', () => {
    const read = (options: string) => {
      const message = messageWith(options);
      const view = viewOf(message);
      const end = BASE + message.length;
      return {
        type: getDhcpMessageType(view, BASE, end),
        server: getDhcpOptionAddress(view, BASE, end, DHCP_OPTION_SERVER_ID),
        size: getDhcpMaxMessageSize(view, BASE, end),
      };
    };
    expect(read('350103 3604ffffffff 390205dc ff')).toEqual({ type: 3, server: 0xffffffff, size: 1500 });
    expect(read('3500 360301020 0 3901ff ff'.replaceAll(' ', ''))).toEqual({ type: 0, server: -1, size: 576 });
    expect(read('35020103 3605c000020100 39020040 ff')).toEqual({ type: 0, server: -1, size: 576 });
    expect(read('ff')).toEqual({ type: 0, server: -1, size: 576 });
  });
});

describe('building a DHCP message', () => {
  /** An acknowledgement with every option that the stack sends. @returns the offset behind it, or a status */
  function buildAck(view: DataView, end: number): number {
    const [ip, router] = [0x0a00030f, 0x0a000302];
    let at = writeDhcpHeader(view, BASE, end, DHCP_BOOT_REPLY, 7, DHCP_FLAG_BROADCAST, 0, ip, router, 0, 0x0200, 0x15);
    at = writeDhcpUint8(view, at, end, DHCP_OPTION_MESSAGE_TYPE, DHCP_ACK);
    at = writeDhcpUint32(view, at, end, DHCP_OPTION_SERVER_ID, router);
    at = writeDhcpUint32(view, at, end, DHCP_OPTION_LEASE_TIME, 0xffffffff);
    at = writeDhcpUint32(view, at, end, DHCP_OPTION_SUBNET_MASK, 0xffffff00);
    at = writeDhcpAddresses(view, at, end, DHCP_OPTION_DNS, Uint32Array.of(0x01010101, 0x09090909), 2);
    at = writeDhcpText(view, at, end, DHCP_OPTION_HOSTNAME, 'box');
    at = writeDhcpUint16(view, at, end, DHCP_OPTION_MTU, 65520);
    at = writeDhcpEmpty(view, at, end, DHCP_OPTION_RAPID_COMMIT);
    at = writeDhcpFqdn(view, at, end, DHCP_FQDN_S | DHCP_FQDN_O | DHCP_FQDN_E, 'box.example');
    at = writeDhcpDomainSearch(view, at, end, ['eng.apple.com', 'marketing.apple.com']);
    at = writeDhcpClasslessRoutes(view, at, end, Uint32Array.of(router, 32, 0, 0, 0, router), 2);
    return writeDhcpEnd(view, BASE, at, end);
  }

  const OPTIONS = `
    350105 36040a000302 3304ffffffff 0104ffffff00 06080101010109090909 0c03626f78 1a02fff0 5000
    5110 07ffff 03626f78 076578616d706c65 00
    771b 03656e67 056170706c65 03636f6d 00 096d61726b6574696e67 c004
    790e 20 0a000302 00000000 00 0a000302 ff`;

  it('writes every option as its RFC has it, on a dirty buffer', () => {
    const view = blankView(500);
    const end = buildAck(view, BASE + 500);
    expect(end).toBe(BASE + 240 + fromHex(OPTIONS).length);
    expect(hexAt(view, BASE + 240, end - BASE - 240)).toBe(toHex(fromHex(OPTIONS)));
    expect(view.getUint8(end)).toBe(0xa5);
    expect(getDhcpMessageType(view, BASE, end)).toBe(DHCP_ACK);
  });

  it('writes nothing beyond the end and passes a failure on', () => {
    const whole = 240 + fromHex(OPTIONS).length;
    for (let room = 0; room < whole; room++) {
      const view = blankView(whole);
      expect(buildAck(view, BASE + room), `${room}`).toBe(WIRE_BAD_LENGTH);
      for (let at = BASE + room; at < view.byteLength; at++) expect(view.getUint8(at)).toBe(0xa5);
    }
  });

  it('pads a short message to 300 bytes, and fails without room for that', () => {
    const view = blankView(400);
    const start = writeDhcpHeader(view, BASE, BASE + 400, 2, 1, 0, 0, 0, 0, 0, 0, 0);
    const end = writeDhcpEnd(view, BASE, start, BASE + 400);
    expect(end).toBe(BASE + DHCP_MIN_MESSAGE_BYTES);
    expect(hexAt(view, BASE + 240, 60)).toBe(`ff${'00'.repeat(59)}`);
    expect(view.getUint8(end)).toBe(0xa5);
    expect(writeDhcpEnd(view, BASE, start, BASE + 299)).toBe(WIRE_BAD_LENGTH);
  });

  it('gives routes as the examples of RFC 3442', () => {
    const build = (...routes: readonly number[]): string => {
      const view = blankView(200);
      const end = writeDhcpClasslessRoutes(view, BASE, BASE + 200, Uint32Array.from(routes), routes.length / 3);
      return hexAt(view, BASE, end - BASE);
    };
    // Descriptors of RFC 3442, behind code and length, each with gateway 10.0.0.1.
    const gateway = 0x0a000001;
    const tail = '0a000001';
    expect(build(0, 0, gateway)).toBe(`790500${tail}`);
    expect(build(0x0a000000, 8, gateway)).toBe(`7906080a${tail}`);
    expect(build(0x0a000000, 24, gateway)).toBe(`7908180a0000${tail}`);
    expect(build(0x0a110000, 16, gateway)).toBe(`7907100a11${tail}`);
    expect(build(0x0a1b8100, 24, gateway)).toBe(`7908180a1b81${tail}`);
    expect(build(0x0a229e80, 25, gateway)).toBe(`7909190a229e80${tail}`);
    expect(build(0x0a0000ff, 32, gateway)).toBe(`7909200a0000ff${tail}`);
    expect(build()).toBe('');
  });

  it('splits a search list longer than an option over several, RFC 3396', () => {
    const names = Array.from({ length: 16 }, (_, i) => `${'n'.repeat(50)}${i}.zone${i}.example`);
    const view = blankView(3000);
    const end = writeDhcpDomainSearch(view, BASE, view.byteLength, names);
    let joined = '';
    let pieces = 0;
    for (let at = BASE; at < end; at += 2 + view.getUint8(at + 1)) {
      expect(view.getUint8(at)).toBe(DHCP_OPTION_DOMAIN_SEARCH);
      joined += hexAt(view, at + 2, view.getUint8(at + 1));
      pieces++;
    }
    expect(pieces).toBeGreaterThan(3);
    const list = viewOf(fromHex(joined));
    expect(readDnsNameList(list, BASE, BASE + joined.length / 2)).toEqual(names);
    expect(view.getUint8(end)).toBe(0xa5);
    for (let room = end - BASE - 2 * pieces; room < end - BASE; room++) {
      expect(writeDhcpDomainSearch(blankView(3000), BASE, BASE + room, names)).toBe(WIRE_BAD_LENGTH);
    }
  });

  it('leaves out empty lists', () => {
    const view = blankView(10);
    expect(writeDhcpDomainSearch(view, BASE, BASE + 10, [])).toBe(BASE);
    expect(writeDhcpAddresses(view, BASE, BASE + 10, DHCP_OPTION_DNS, new Uint32Array(), 0)).toBe(BASE);
  });

  it('gives a name in wire form or ASCII, as the client sent it', () => {
    const view = blankView(100);
    const wire = writeDhcpFqdn(view, BASE, BASE + 100, DHCP_FQDN_E | DHCP_FQDN_N, 'box.example.org');
    expect(readDnsName(view, BASE + 5, wire)).toBe('box.example.org');
    expect(hexAt(view, BASE, 5)).toBe('51140cffff');
    const ascii = writeDhcpFqdn(view, BASE, BASE + 100, DHCP_FQDN_S, 'box');
    expect(hexAt(view, BASE, ascii - BASE)).toBe('5106 01ffff 626f78'.replaceAll(' ', ''));
  });

  it('copies an option of the request', () => {
    const view = viewOf(DISCOVER);
    const source = findDhcpOption(view, BASE, END_OF_DISCOVER, DHCP_OPTION_CLIENT_ID);
    const end = copyDhcpOption(view, END_OF_DISCOVER, END_OF_DISCOVER + 9, DHCP_OPTION_CLIENT_ID, source);
    expect(hexAt(view, END_OF_DISCOVER, end - END_OF_DISCOVER)).toBe('3d0701020000000015');
    expect(copyDhcpOption(view, END_OF_DISCOVER, END_OF_DISCOVER + 8, 61, source)).toBe(WIRE_BAD_LENGTH);
  });

  it('refuses text that is not ASCII, names that are none, and data longer than an option', () => {
    const view = blankView(2000);
    const end = view.byteLength;
    expect(writeDhcpText(view, BASE, end, DHCP_OPTION_HOSTNAME, 'b\u00fcx')).toBe(WIRE_BAD_OPTION);
    expect(writeDhcpText(view, BASE, end, DHCP_OPTION_HOSTNAME, 'a\nb')).toBe(WIRE_BAD_OPTION);
    expect(writeDhcpText(view, BASE, end, DHCP_OPTION_HOSTNAME, 'x'.repeat(256))).toBe(WIRE_BAD_LENGTH);
    expect(writeDhcpText(view, BASE, end, DHCP_OPTION_HOSTNAME, 'x'.repeat(255))).toBe(BASE + 257);
    expect(writeDhcpAddresses(view, BASE, end, DHCP_OPTION_DNS, new Uint32Array(64), 64)).toBe(WIRE_BAD_LENGTH);
    expect(writeDhcpFqdn(view, BASE, end, DHCP_FQDN_E, 'a..b')).toBe(WIRE_BAD_OPTION);
    expect(writeDhcpFqdn(view, BASE, end, 0, 'b\u00fcx')).toBe(WIRE_BAD_OPTION);
    expect(writeDhcpFqdn(view, BASE, end, 0, 'x'.repeat(253))).toBe(WIRE_BAD_LENGTH);
    expect(writeDhcpDomainSearch(view, BASE, end, ['a..b'])).toBe(WIRE_BAD_OPTION);
    expect(writeDhcpClasslessRoutes(view, BASE, end, new Uint32Array(180), 52)).toBe(WIRE_BAD_LENGTH);
  });
});
