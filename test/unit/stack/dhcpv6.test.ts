import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../support/seeded-random.ts';
import {
  createHarness,
  decodeNames,
  decodeUdp,
  GUEST_MAC,
  type HarnessOptions,
  ip,
  ipText,
  mac,
  OUR_MAC,
  u16,
  u32,
  udpFrame,
  words,
} from './config-harness.ts';

const SOLICIT = 1;
const ADVERTISE = 2;
const REQUEST = 3;
const CONFIRM = 4;
const RENEW = 5;
const REBIND = 6;
const REPLY = 7;
const RELEASE = 8;
const DECLINE = 9;
const INFORMATION_REQUEST = 11;

const NO_ADDRS_AVAIL = 2;
const NO_BINDING = 3;
const NOT_ON_LINK = 4;
const NO_PREFIX_AVAIL = 6;

const GUEST_LL = 'fe80:0000:0000:0000:5054:00ff:fe12:3456';
const OUR_LL = 'fe80:0000:0000:0000:9855:9aff:fe55:9a55';
const SERVERS = 'ff02:0000:0000:0000:0000:0000:0001:0002';
const LEASE = '2001:0db8:0000:0001:0000:0000:0000:0002';
const WRONG = '2001:0db8:0000:0001:0000:0000:0000:0099';
const XID = 0xa1b2c3;

function option(code: number, ...data: Buffer[]): Buffer {
  const all = Buffer.concat(data);
  return Buffer.concat([u16(code), u16(all.length), all]);
}

const clientId = option(1, Buffer.from('00010001aabbccdd', 'hex'), mac(GUEST_MAC));
const serverId = option(2, Buffer.from('00030001', 'hex'), mac(OUR_MAC));
const otherServerId = option(2, Buffer.from('00030001', 'hex'), mac(GUEST_MAC));

/** An IA_NA, with an address if one is given. */
function iaNa(iaid: number, address?: string): Buffer {
  const inner = address === undefined ? Buffer.alloc(0) : option(5, ip(address), u32(100), u32(200));
  return option(3, u32(iaid), u32(0), u32(0), inner);
}

function message(type: number, ...options: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from([type, XID >> 16, (XID >> 8) & 255, XID & 255]), ...options]);
}

function parseOptions(data: Buffer): [number, Buffer][] {
  const list: [number, Buffer][] = [];
  for (let at = 0; at < data.length; ) {
    const length = data.readUInt16BE(at + 2);
    expect(at + 4 + length).toBeLessThanOrEqual(data.length);
    list.push([data.readUInt16BE(at), data.subarray(at + 4, at + 4 + length)]);
    at += 4 + length;
  }
  return list;
}

function statusOf(options: [number, Buffer][]): number | undefined {
  return options.find(([code]) => code === 13)?.[1].readUInt16BE(0);
}

interface Association {
  readonly code: number;
  readonly iaid: number;
  readonly times: number[];
  readonly addresses: string[];
  readonly status: number | undefined;
}

function parseAssociation(code: number, data: Buffer): Association {
  const fixedBytes = code === 4 ? 4 : 12;
  const inner = parseOptions(data.subarray(fixedBytes));
  return {
    code,
    iaid: data.readUInt32BE(0),
    times: code === 4 ? [] : [data.readUInt32BE(4), data.readUInt32BE(8)],
    addresses: inner
      .filter(([c]) => c === 5)
      .map(([, d]) => `${ipText(d.subarray(0, 16))} ${d.readUInt32BE(16)}/${d.readUInt32BE(20)}`),
    status: statusOf(inner),
  };
}

function decode(frame: Buffer) {
  const datagram = decodeUdp(frame);
  expect(datagram).toMatchObject({ source: OUR_LL, fromPort: 547, toPort: 546, destinationMac: GUEST_MAC });
  const { payload } = datagram;
  expect(payload.readUIntBE(1, 3)).toBe(XID);
  const list = parseOptions(payload.subarray(4));
  const options = new Map(list);
  expect(options.get(2)!.toString('hex')).toBe(`00030001${mac(OUR_MAC).toString('hex')}`);
  return {
    type: payload[0]!,
    destination: datagram.destination,
    options,
    status: statusOf(list),
    associations: list
      .filter(([code]) => code === 3 || code === 4 || code === 25)
      .map(([code, d]) => parseAssociation(code, d)),
  };
}

/** The one reply to a message, or undefined. */
function ask(bytes: Buffer, options: HarnessOptions = {}) {
  const replies = createHarness(options).exchange(udpFrame(GUEST_LL, 546, SERVERS, 547, bytes, '33:33:00:01:00:02'));
  expect(replies.length).toBeLessThanOrEqual(1);
  return replies.length === 0 ? undefined : decode(replies[0]!);
}

const lease: Association = {
  code: 3,
  iaid: 7,
  times: [0xffffffff, 0xffffffff],
  addresses: [`${LEASE} 4294967295/4294967295`],
  status: undefined,
};

function refused(code: number, iaid: number, status: number): Association {
  return { code, iaid, times: code === 4 ? [] : [0, 0], addresses: [], status };
}

describe('DHCPv6, a machine with an address of its own', () => {
  const own = '2001:0db8:0000:0001:0000:0000:0000:0042';
  const macLeases = [{ macHi: 0x5254, macLo: 0x00123456, ipv4: undefined, ipv6: words(own) }];
  it('gets that by its MAC, and is noted with it once it has it', () => {
    const harness = createHarness({ macLeases });
    const give = (bytes: Buffer) =>
      decode(harness.exchange(udpFrame(GUEST_LL, 546, SERVERS, 547, bytes, '33:33:00:01:00:02'))[0]!);
    expect(give(message(SOLICIT, clientId, iaNa(7))).associations[0]!.addresses[0]).toContain(own);
    expect(harness.guest.leased6Ms).toBeNaN();
    expect(give(message(REQUEST, clientId, serverId, iaNa(7, own))).associations[0]!.addresses[0]).toContain(own);
    expect([harness.guest.leased6Ms, [...harness.guest.leased6], harness.guest.leased6Mac]).toEqual([
      0,
      [...words(own)],
      0x5254 * 2 ** 32 + 0x00123456,
    ]);
    expect(give(message(REQUEST, clientId, serverId, iaNa(7, LEASE))).associations).toEqual([
      refused(3, 7, NOT_ON_LINK),
    ]);
  });
});

describe('DHCPv6, the life of a lease', () => {
  it('advertises the address so that the client need not wait for others, then leases it', () => {
    const advertise = ask(message(SOLICIT, clientId, iaNa(7)))!;
    expect(advertise).toMatchObject({ type: ADVERTISE, destination: GUEST_LL, associations: [lease] });
    expect(advertise.options.get(1)).toEqual(clientId.subarray(4));
    expect(advertise.options.get(7)).toEqual(Buffer.from([255]));
    const reply = ask(message(REQUEST, clientId, serverId, iaNa(7, LEASE)))!;
    expect(reply).toMatchObject({ type: REPLY, associations: [lease] });
    expect(reply.options.has(7)).toBe(false);
  });

  it('leases at once with rapid commit', () => {
    const reply = ask(message(SOLICIT, clientId, iaNa(7), option(14)))!;
    expect(reply).toMatchObject({ type: REPLY, associations: [lease] });
    expect(reply.options.get(14)).toHaveLength(0);
  });

  it('takes the address of a Solicit as a wish that need not come true', () => {
    expect(ask(message(SOLICIT, clientId, iaNa(7, WRONG)))!.associations).toEqual([lease]);
  });

  it('refuses a Request for another address', () => {
    const reply = ask(message(REQUEST, clientId, serverId, iaNa(7, WRONG)))!;
    expect(reply.associations).toEqual([refused(3, 7, NOT_ON_LINK)]);
  });

  it.each([
    ['Renew', RENEW, [clientId, serverId]],
    ['Rebind', REBIND, [clientId]],
  ])('extends the lease on %s, and moves a client with another address over', (_name, type, ids) => {
    expect(ask(message(type, ...ids, iaNa(7, LEASE)))).toMatchObject({ type: REPLY, associations: [lease] });
    const moved = ask(message(type, ...ids, iaNa(7, WRONG)))!;
    expect(moved.associations[0]!.addresses).toEqual([`${LEASE} 4294967295/4294967295`, `${WRONG} 0/0`]);
  });

  it('confirms the right address, denies any other, and says nothing to a question without one', () => {
    expect(ask(message(CONFIRM, clientId, iaNa(7, LEASE)))).toMatchObject({ type: REPLY, status: 0, associations: [] });
    expect(ask(message(CONFIRM, clientId, iaNa(7, WRONG)))).toMatchObject({ type: REPLY, status: NOT_ON_LINK });
    expect(ask(message(CONFIRM, clientId, iaNa(6, LEASE), iaNa(7, WRONG)))).toMatchObject({ status: NOT_ON_LINK });
    expect(ask(message(CONFIRM, clientId, iaNa(7)))).toBeUndefined();
  });

  it('acknowledges Release and Decline, naming what it knows nothing of', () => {
    for (const type of [RELEASE, DECLINE]) {
      const known = ask(message(type, clientId, serverId, iaNa(7, LEASE)))!;
      expect(known).toMatchObject({ type: REPLY, status: 0, associations: [] });
      const unknown = ask(message(type, clientId, serverId, iaNa(7, WRONG)))!;
      expect(unknown).toMatchObject({ status: 0, associations: [refused(3, 7, NO_BINDING)] });
    }
  });

  it('gives the one address once, and no temporary addresses or prefixes', () => {
    const iaTa = option(4, u32(8));
    const iaPd = option(25, u32(9), u32(0), u32(0));
    const advertise = ask(message(SOLICIT, clientId, iaTa, iaNa(7), iaPd, iaNa(10)))!;
    expect(advertise.associations).toEqual([
      refused(4, 8, NO_ADDRS_AVAIL),
      lease,
      refused(25, 9, NO_PREFIX_AVAIL),
      refused(3, 10, NO_ADDRS_AVAIL),
    ]);
    const renewed = ask(message(RENEW, clientId, serverId, iaTa, iaNa(7), iaPd, iaNa(10)))!;
    expect(renewed.associations).toEqual([
      refused(4, 8, NO_BINDING),
      lease,
      refused(25, 9, NO_BINDING),
      refused(3, 10, NO_BINDING),
    ]);
  });

  it('answers from our link-local address to whatever address asked', () => {
    const harness = createHarness();
    const bytes = message(INFORMATION_REQUEST);
    const [reply] = harness.exchange(udpFrame(LEASE, 546, OUR_LL, 547, bytes, OUR_MAC));
    expect(decode(reply!).destination).toBe(LEASE);
  });
});

describe('DHCPv6 options', () => {
  it('tell resolvers and search list, also to a client that wants nothing else', () => {
    const options = { searchDomains: ['example.com', 'lab.example.org'] };
    for (const bytes of [
      message(INFORMATION_REQUEST),
      message(INFORMATION_REQUEST, clientId, serverId),
      message(SOLICIT, clientId, iaNa(7)),
      message(CONFIRM, clientId, iaNa(7, LEASE)),
    ]) {
      const reply = ask(bytes, options)!;
      expect(ipText(reply.options.get(23)!)).toBe('2001:0db8:0000:0001:0000:0000:0000:0053');
      expect(decodeNames(reply.options.get(24)!)).toEqual(options.searchDomains);
    }
  });

  it('are left out where they are switched off', () => {
    const off = { advertiseDns: false, advertiseSearch: false, searchDomains: ['example.com'] };
    const reply = ask(message(INFORMATION_REQUEST), off)!;
    expect([...reply.options.keys()]).toEqual([2]);
  });

  it('stay within the smallest MTU, without the list that does not fit', () => {
    const searchDomains = Array.from({ length: 60 }, (_, i) => `a-rather-long-name-${i}.example.com`);
    const resolvers = Array.from({ length: 10 }, (_, i) => words(`2001:0db8:0000:0000:0000:0000:0000:00${i + 10}`));
    const reply = ask(message(SOLICIT, clientId, iaNa(7)), { searchDomains, ipv6: { resolvers } })!;
    expect(reply.options.get(23)).toHaveLength(160);
    expect(reply.options.has(24)).toBe(false);
    expect(reply.associations).toEqual([lease]);
  });

  it('name the client that asks for its name, and tell that DNS stays as it is', () => {
    const named = { fqdn: 'vm1.example.com' };
    const wire = Buffer.from('\x03vm1\x07example\x03com\x00', 'latin1');
    const reply = (extra: Buffer) => ask(message(SOLICIT, clientId, iaNa(7), extra), named)!.options.get(39);
    expect(reply(option(6, u16(23)))).toBeUndefined();
    expect(reply(option(6, u16(23), u16(39)))).toEqual(Buffer.concat([Buffer.from([4]), wire]));
    expect(reply(option(39, Buffer.from([1, 0])))).toEqual(Buffer.concat([Buffer.from([6]), wire]));
    expect(ask(message(SOLICIT, clientId, iaNa(7), option(6, u16(39))))!.options.has(39)).toBe(false);
  });
});

describe('DHCPv6, for a machine that boots from the network', () => {
  const url = 'tftp://[fec0::2]/pxelinux.0';
  const reply = (type: number, boot: string, ...codes: number[]) =>
    ask(message(type, clientId, option(6, ...codes.map(u16))), { boot: { fileName: '', serverName: '', url: boot } })!;
  it('tells where the file is, if it is asked', () => {
    for (const type of [SOLICIT, INFORMATION_REQUEST]) {
      expect(reply(type, url, 23, 59, 60).options.get(59)?.toString('latin1')).toBe(url);
      expect(reply(type, url, 23).options.has(59)).toBe(false);
      expect(reply(type, '', 59).options.has(59)).toBe(false);
    }
  });
});

describe('DHCPv6, input that is not as it should be', () => {
  it('ignores what is for another server', () => {
    const harness = createHarness();
    for (const type of [REQUEST, RENEW, RELEASE, DECLINE]) {
      const bytes = message(type, clientId, otherServerId, iaNa(7, LEASE));
      expect(harness.exchange(udpFrame(GUEST_LL, 546, SERVERS, 547, bytes, '33:33:00:01:00:02'))).toEqual([]);
    }
    const bytes = message(INFORMATION_REQUEST, otherServerId);
    expect(harness.exchange(udpFrame(GUEST_LL, 546, SERVERS, 547, bytes, '33:33:00:01:00:02'))).toEqual([]);
    expect(harness.counters.badDhcp).toBe(0);
  });

  it.each([
    ['a Solicit without client id', message(SOLICIT, iaNa(7))],
    ['a Solicit with server id', message(SOLICIT, clientId, serverId, iaNa(7))],
    ['a Request without server id', message(REQUEST, clientId, iaNa(7))],
    ['a Confirm with server id', message(CONFIRM, clientId, serverId, iaNa(7, LEASE))],
    ['a Rebind with server id', message(REBIND, clientId, serverId, iaNa(7))],
    ['a Renew without client id', message(RENEW, serverId, iaNa(7))],
    ['an Information-request with an association', message(INFORMATION_REQUEST, iaNa(7))],
    ['a message that only servers send', message(REPLY, clientId, serverId)],
    ['a message of a relay', message(12, clientId)],
    ['an option that is cut off', message(SOLICIT, clientId, Buffer.from([0, 3, 0, 12, 0, 0]))],
    ['an association that is too short', message(SOLICIT, clientId, option(3, u32(7)))],
  ])('drops %s', (_name, bytes) => {
    const harness = createHarness();
    expect(harness.exchange(udpFrame(GUEST_LL, 546, SERVERS, 547, bytes, '33:33:00:01:00:02'))).toEqual([]);
    expect(harness.counters.badDhcp).toBe(1);
    expect(harness.warnings).toHaveLength(1);
  });

  it('drops a wrong checksum', () => {
    const harness = createHarness();
    const frame = udpFrame(GUEST_LL, 546, SERVERS, 547, message(SOLICIT, clientId, iaNa(7)), '33:33:00:01:00:02');
    frame[frame.length - 1]! ^= 1;
    expect(harness.exchange(frame)).toEqual([]);
    expect(harness.counters.badDhcp).toBe(1);
  });

  it('lets datagrams to a server elsewhere pass on', () => {
    const harness = createHarness();
    const bytes = message(SOLICIT, clientId, iaNa(7));
    const elsewhere = '2606:4700:4700:0000:0000:0000:0000:1111';
    expect(harness.exchange(udpFrame(LEASE, 546, elsewhere, 547, bytes, OUR_MAC))).toEqual([]);
    expect(harness.passedOn).toHaveLength(1);
  });

  it('answers well-formed or not at all, whatever bytes come', () => {
    const random = seededRandom(547);
    const harness = createHarness({ fqdn: 'vm1.example.com', searchDomains: ['example.com'] });
    const types = [SOLICIT, REQUEST, CONFIRM, RENEW, REBIND, RELEASE, DECLINE];
    let answered = 0;
    for (let round = 0; round < 3000; round++) {
      const type = types[Math.floor(random() * types.length)]!;
      const ids = type === REQUEST || type === RENEW || type > REBIND ? [clientId, serverId] : [clientId];
      let bytes = message(type, ...ids, iaNa(7, LEASE), option(4, u32(1)), option(6, u16(39)), option(14));
      for (let i = Math.floor(random() * 4); i > 0; i--) {
        bytes[4 + Math.floor(random() * (bytes.length - 4))] = Math.floor(random() * 256);
      }
      if (random() < 0.2) bytes = bytes.subarray(0, 4 + Math.floor(random() * (bytes.length - 4)));
      const [reply] = harness.exchange(udpFrame(GUEST_LL, 546, SERVERS, 547, bytes, '33:33:00:01:00:02'));
      if (reply === undefined) continue;
      decode(reply);
      answered++;
    }
    expect(answered).toBeGreaterThan(500);
    expect(harness.warnings.length).toBeLessThanOrEqual(3);
  });

  it('bounds the answer to a message full of associations', () => {
    const many = Array.from({ length: 80 }, (_, i) => iaNa(i));
    const reply = ask(message(SOLICIT, clientId, ...many))!;
    expect(reply.associations).toHaveLength(8);
    expect(reply.associations[0]!.addresses).toHaveLength(1);
  });
});
