import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../support/seeded-random.ts';
import {
  BROADCAST_MAC,
  createHarness,
  decodeNames,
  decodeUdp,
  GUEST_MAC,
  type HarnessOptions,
  ip,
  ipText,
  mac,
  macText,
  OUR_MAC,
  udpFrame,
} from './config-harness.ts';

const DISCOVER = 1;
const OFFER = 2;
const REQUEST = 3;
const DECLINE = 4;
const ACK = 5;
const NAK = 6;
const RELEASE = 7;
const INFORM = 8;
const LEASE = '192.0.2.2';
const GATEWAY = '192.0.2.1';
const XID = 0x3903f326;

interface MessageFields {
  readonly type?: number;
  readonly ciaddr?: string;
  readonly flags?: number;
  readonly giaddr?: string;
  readonly op?: number;
  /** Options behind the type, as [code, data]. */
  readonly options?: readonly (readonly [number, Buffer])[];
  /** Bytes behind the options instead of the end mark. */
  readonly tail?: Buffer;
}

function message(fields: MessageFields): Buffer {
  const fixed = Buffer.alloc(240);
  fixed[0] = fields.op ?? 1;
  fixed[1] = 1;
  fixed[2] = 6;
  fixed.writeUInt32BE(XID, 4);
  fixed.writeUInt16BE(fields.flags ?? 0, 10);
  ip(fields.ciaddr ?? '0.0.0.0').copy(fixed, 12);
  ip(fields.giaddr ?? '0.0.0.0').copy(fixed, 24);
  mac(GUEST_MAC).copy(fixed, 28);
  fixed.writeUInt32BE(0x63825363, 236);
  const options: (readonly [number, Buffer])[] = [];
  if (fields.type !== undefined) options.push([53, Buffer.from([fields.type])]);
  options.push(...(fields.options ?? []));
  const encoded = options.map(([code, data]) => Buffer.concat([Buffer.from([code, data.length]), data]));
  return Buffer.concat([fixed, ...encoded, fields.tail ?? Buffer.from([255])]);
}

function request(fields: MessageFields): Buffer {
  const from = fields.ciaddr ?? '0.0.0.0';
  return udpFrame(from, 68, '255.255.255.255', 67, message(fields));
}

interface Reply {
  readonly type: number | undefined;
  readonly destination: string;
  readonly destinationMac: string;
  readonly ciaddr: string;
  readonly yiaddr: string;
  readonly flags: number;
  readonly giaddr: string;
  readonly options: Map<number, Buffer>;
  readonly lengthBytes: number;
}

function decode(frame: Buffer): Reply {
  const datagram = decodeUdp(frame);
  expect(datagram).toMatchObject({ source: GATEWAY, fromPort: 67, toPort: 68 });
  const { payload } = datagram;
  expect(payload.length).toBeGreaterThanOrEqual(300);
  expect(payload.subarray(0, 4).toString('hex')).toBe('02010600');
  expect(payload.readUInt32BE(4)).toBe(XID);
  expect(macText(payload.subarray(28))).toBe(GUEST_MAC);
  expect(payload.subarray(34, 236).every((byte) => byte === 0)).toBe(true);
  expect(payload.readUInt32BE(236)).toBe(0x63825363);
  const options = new Map<number, Buffer>();
  let at = 240;
  for (; payload[at] !== 255; at += 2 + payload[at + 1]!) {
    const code = payload[at]!;
    expect(code).not.toBe(0);
    const data = payload.subarray(at + 2, at + 2 + payload[at + 1]!);
    options.set(code, Buffer.concat([options.get(code) ?? Buffer.alloc(0), data]));
  }
  expect(payload.subarray(at + 1).every((byte) => byte === 0)).toBe(true);
  return {
    type: options.get(53)?.[0],
    destination: datagram.destination,
    destinationMac: datagram.destinationMac,
    ciaddr: ipText(payload.subarray(12, 16)),
    yiaddr: ipText(payload.subarray(16, 20)),
    flags: payload.readUInt16BE(10),
    giaddr: ipText(payload.subarray(24, 28)),
    options,
    lengthBytes: payload.length,
  };
}

/** The one reply to a message, or undefined. */
function ask(fields: MessageFields, options: HarnessOptions = {}): Reply | undefined {
  const replies = createHarness(options).exchange(request(fields));
  expect(replies.length).toBeLessThanOrEqual(1);
  return replies.length === 0 ? undefined : decode(replies[0]!);
}

describe('DHCP, a machine with an address of its own', () => {
  const [macHi, macLo] = [0x5254, 0x00123456];
  const macLeases = [
    { macHi, macLo: 0x00123457, ipv4: 0xc0000299, ipv6: undefined },
    { macHi, macLo, ipv4: 0xc0000242, ipv6: undefined },
  ];
  it('gets that by its MAC, and no other', () => {
    expect(ask({ type: DISCOVER }, { macLeases })!.yiaddr).toBe('192.0.2.66');
    const wanted = (address: string) => ask({ type: REQUEST, options: [[50, ip(address)]] }, { macLeases })!.type;
    expect([wanted('192.0.2.66'), wanted(LEASE)]).toEqual([ACK, NAK]);
  });
  it('gets that of its link when it has none', () => {
    expect(ask({ type: DISCOVER }, { macLeases: macLeases.slice(0, 1) })!.yiaddr).toBe(LEASE);
    const none = [{ macHi, macLo, ipv4: undefined, ipv6: undefined }];
    expect(ask({ type: DISCOVER }, { macLeases: none })!.yiaddr).toBe(LEASE);
  });
  it('is noted with what it got', () => {
    const harness = createHarness({ macLeases });
    harness.exchange(request({ type: DISCOVER }));
    expect(harness.guest.leased4Ms).toBeNaN();
    harness.exchange(request({ type: REQUEST, options: [[50, ip('192.0.2.66')]] }));
    expect([harness.guest.leased4, harness.guest.leased4Mac]).toEqual([0xc0000242, macHi * 2 ** 32 + macLo]);
    expect(harness.guest.leased4Ms).toBe(0);
  });
});

describe('DHCP, the life of a lease', () => {
  it('offers the address to a discovering client and acknowledges the request for it', () => {
    const offer = ask({ type: DISCOVER })!;
    expect(offer).toMatchObject({ type: OFFER, yiaddr: LEASE, ciaddr: '0.0.0.0' });
    expect(offer).toMatchObject({ destination: LEASE, destinationMac: GUEST_MAC });
    const ack = ask({
      type: REQUEST,
      options: [
        [50, ip(offer.yiaddr)],
        [54, offer.options.get(54)!],
      ],
    })!;
    expect(ack).toMatchObject({ type: ACK, yiaddr: LEASE, ciaddr: '0.0.0.0', destination: LEASE });
    expect(ipText(ack.options.get(54)!)).toBe(GATEWAY);
    expect(ack.options.get(51)!.toString('hex')).toBe('ffffffff');
  });

  it('acknowledges at once with rapid commit, and says so in answers to a discovery only', () => {
    const rapid = ask({ type: DISCOVER, options: [[80, Buffer.alloc(0)]] })!;
    expect(rapid).toMatchObject({ type: ACK, yiaddr: LEASE });
    expect(rapid.options.get(80)).toHaveLength(0);
    const plain = ask({
      type: REQUEST,
      options: [
        [50, ip(LEASE)],
        [80, Buffer.alloc(0)],
      ],
    })!;
    expect(plain.type).toBe(ACK);
    expect(plain.options.has(80)).toBe(false);
  });

  it('ignores a request that is for another server', () => {
    const options = [
      [50, ip('10.0.0.7')],
      [54, ip('10.0.0.1')],
    ] as const;
    expect(ask({ type: REQUEST, options })).toBeUndefined();
  });

  it('confirms the remembered address after a reboot and refuses any other', () => {
    expect(ask({ type: REQUEST, options: [[50, ip(LEASE)]] })).toMatchObject({ type: ACK, yiaddr: LEASE });
    const nak = ask({ type: REQUEST, options: [[50, ip('10.0.0.7')]] })!;
    expect(nak).toMatchObject({ type: NAK, yiaddr: '0.0.0.0', ciaddr: '0.0.0.0' });
    expect(nak).toMatchObject({ destination: '255.255.255.255', destinationMac: BROADCAST_MAC });
    expect([...nak.options.keys()].sort()).toEqual([53, 54, 56]);
  });

  it('renews and rebinds the address in use, by unicast, and refuses any other', () => {
    const harness = createHarness();
    const renewal = message({ type: REQUEST, ciaddr: LEASE });
    const [frame] = harness.exchange(udpFrame(LEASE, 68, GATEWAY, 67, renewal, OUR_MAC));
    expect(decode(frame!)).toMatchObject({
      type: ACK,
      yiaddr: LEASE,
      ciaddr: LEASE,
      destination: LEASE,
      destinationMac: GUEST_MAC,
    });
    expect(ask({ type: REQUEST, ciaddr: LEASE })).toMatchObject({ type: ACK, yiaddr: LEASE, destination: LEASE });
    expect(ask({ type: REQUEST, ciaddr: '192.0.2.9' })).toMatchObject({
      type: NAK,
      destination: '255.255.255.255',
      destinationMac: BROADCAST_MAC,
    });
  });

  it('acknowledges a request that names no address', () => {
    expect(ask({ type: REQUEST })).toMatchObject({ type: ACK, yiaddr: LEASE });
  });

  it('tells a client with an address of its own everything but a lease', () => {
    const reply = ask({ type: INFORM, ciaddr: '192.0.2.200' })!;
    expect(reply).toMatchObject({ type: ACK, yiaddr: '0.0.0.0', ciaddr: '192.0.2.200', destination: '192.0.2.200' });
    expect(reply.options.has(51)).toBe(false);
    expect(reply.options.has(6)).toBe(true);
  });

  it('does not answer a release or a decline, but warns of the latter once in a while', () => {
    const harness = createHarness();
    expect(harness.exchange(request({ type: RELEASE, ciaddr: LEASE }))).toEqual([]);
    expect(harness.warnings).toEqual([]);
    expect(harness.exchange(request({ type: DECLINE, options: [[50, ip(LEASE)]] }))).toEqual([]);
    expect(harness.exchange(request({ type: DECLINE, options: [[50, ip(LEASE)]] }))).toEqual([]);
    expect(harness.warnings).toHaveLength(1);
    expect(harness.counters.badDhcp).toBe(0);
  });

  it('answers BOOTP in its 300 bytes, without what only DHCP knows', () => {
    const reply = ask({}, { searchDomains: ['a-long-domain-name.example.com', 'another-long-one.example.org'] })!;
    expect(reply).toMatchObject({ type: undefined, yiaddr: LEASE, lengthBytes: 300 });
    for (const code of [51, 53, 54]) expect(reply.options.has(code)).toBe(false);
    for (const code of [1, 3, 6]) expect(reply.options.has(code)).toBe(true);
  });
});

describe('DHCP, where answers go', () => {
  it('is broadcast for a client that asks for it', () => {
    const reply = ask({ type: DISCOVER, flags: 0x8000 });
    expect(reply).toMatchObject({ destination: '255.255.255.255', destinationMac: BROADCAST_MAC, flags: 0x8000 });
  });

  it('does not follow a relay, but copies its address', () => {
    expect(ask({ type: DISCOVER, giaddr: '10.9.9.9' })).toMatchObject({ destination: LEASE, giaddr: '10.9.9.9' });
  });

  it('repeats the client identifier', () => {
    const id = Buffer.from('0152540012345', 'latin1');
    for (const type of [DISCOVER, REQUEST]) {
      expect(ask({ type, options: [[61, id]] })!.options.get(61)).toEqual(id);
    }
    expect(
      ask({
        type: REQUEST,
        options: [
          [50, ip('10.0.0.7')],
          [61, id],
        ],
      })!.options.get(61),
    ).toEqual(id);
  });
});

describe('DHCP options', () => {
  it('describe the network', () => {
    const { options } = ask({ type: DISCOVER }, { hostname: 'vm1', fqdn: 'vm1.example.com', mtu: 65520 })!;
    const hex = (code: number) => options.get(code)?.toString('hex');
    expect(hex(1)).toBe('ffffff00');
    expect(ipText(options.get(3)!)).toBe(GATEWAY);
    expect(hex(6)).toBe('c000020308080808');
    expect(options.get(12)!.toString()).toBe('vm1');
    expect(hex(26)).toBe('fff0');
    expect(options.has(121)).toBe(false);
    expect(options.has(119)).toBe(false);
  });

  it('give routes when the gateway is not on the subnet', () => {
    const options = { ipv4: { gateway: 0xc0000201, guestAddress: 0xc6336405, prefixLength: 32 } };
    const routes = ask({ type: DISCOVER }, options)!.options.get(121)!;
    expect(routes.toString('hex')).toBe('20c00002010000000000c0000201');
  });

  it('give the search list compressed, split when one option cannot hold it', () => {
    const few = ['eng.example.com', 'marketing.example.com.'];
    const one = ask({ type: DISCOVER }, { searchDomains: few })!.options.get(119)!;
    expect(decodeNames(one)).toEqual(['eng.example.com', 'marketing.example.com']);
    expect(one.length).toBeLessThan(few.join().length + 2);
    const many = Array.from({ length: 30 }, (_, i) => `department-number-${i}.example.com`);
    const large: readonly (readonly [number, Buffer])[] = [[57, Buffer.from([1500 >> 8, 1500 & 255])]];
    const long = ask({ type: DISCOVER, options: large }, { searchDomains: many })!.options.get(119)!;
    expect(long.length).toBeGreaterThan(255);
    expect(decodeNames(long)).toEqual(many);
  });

  it('are left out where they are switched off', () => {
    const off = { advertiseDns: false, advertiseSearch: false, advertiseMtu: false, searchDomains: ['example.com'] };
    const { options } = ask({ type: DISCOVER }, off)!;
    expect([...options.keys()].sort((a, b) => a - b)).toEqual([1, 3, 51, 53, 54]);
  });

  it('stay within what the client takes: 576 bytes unless it says more', () => {
    const searchDomains = Array.from({ length: 40 }, (_, i) => `department-number-${i}.example.com`);
    const small = ask({ type: DISCOVER }, { searchDomains, mtu: 65520 })!;
    expect(small.lengthBytes).toBeLessThanOrEqual(548);
    expect(small.options.has(119)).toBe(false);
    expect(small.options.has(6)).toBe(true);
    const size = [[57, Buffer.from([0xff, 0xff])]] as const;
    const big = ask({ type: DISCOVER, options: size }, { searchDomains, mtu: 65520 })!;
    expect(big.lengthBytes).toBeLessThanOrEqual(1472);
    expect(decodeNames(big.options.get(119)!)).toEqual(searchDomains);
    const tiny = ask({ type: DISCOVER, options: [[57, Buffer.from([0, 1])]] }, { mtu: 68 })!;
    expect(tiny.options.has(6)).toBe(true);
  });

  it('tell what to boot, from where, and the domain', () => {
    const options = { boot: { fileName: '/boot/file', serverName: 'boot.example', url: '' }, domainName: 'a.example' };
    const [frame] = createHarness(options).exchange(request({ type: DISCOVER }));
    const { payload } = decodeUdp(frame!);
    expect(ipText(payload.subarray(20, 24))).toBe(GATEWAY);
    expect(payload.toString('latin1', 108, 236)).toBe('/boot/file'.padEnd(128, '\0'));
    const text = payload.toString('latin1', 240);
    expect(text).toContain(`\x42\x0cboot.example`);
    expect(text).toContain('\x0f\x09a.example');
    const [nak] = createHarness(options).exchange(request({ type: REQUEST, options: [[50, ip('192.0.2.77')]] }));
    expect(
      decodeUdp(nak!)
        .payload.subarray(34, 236)
        .every((byte) => byte === 0),
    ).toBe(true);
  });
  it('send as many resolvers as fit', () => {
    const resolvers = Array.from({ length: 100 }, (_, i) => 0x0a000000 + i);
    const { options } = ask({ type: DISCOVER }, { ipv4: { resolvers } })!;
    const count = options.get(6)!.length / 4;
    expect(count).toBeGreaterThan(50);
    expect(count).toBeLessThanOrEqual(63);
  });

  it('name the client in the encoding it used, and tell that DNS stays as it is', () => {
    const wire = Buffer.from('\x03vm1\x07example\x03com\x00', 'latin1');
    const answer = (options: MessageFields['options']) =>
      ask(options === undefined ? { type: DISCOVER } : { type: DISCOVER, options }, {
        fqdn: 'vm1.example.com',
      })!.options.get(81)!;
    expect(answer(undefined)).toEqual(Buffer.concat([Buffer.from([0x0c, 0xff, 0xff]), wire]));
    expect(answer([[81, Buffer.from([0x05, 0, 0])]])).toEqual(Buffer.concat([Buffer.from([0x0e, 0xff, 0xff]), wire]));
    expect(answer([[81, Buffer.from([0x00, 0, 0])]])).toEqual(
      Buffer.concat([Buffer.from([0x08, 0xff, 0xff]), Buffer.from('vm1.example.com')]),
    );
  });
});

describe('DHCP, input that is not as it should be', () => {
  it('finds options behind padding and without an end mark, and none behind one', () => {
    const padded = message({ tail: Buffer.from([0, 0, 53, 1, DISCOVER, 0]) });
    const [frame] = createHarness().exchange(udpFrame('0.0.0.0', 68, '255.255.255.255', 67, padded));
    expect(decode(frame!).type).toBe(OFFER);
    const hidden = message({ tail: Buffer.from([255, 53, 1, DISCOVER]) });
    const [bootp] = createHarness().exchange(udpFrame('0.0.0.0', 68, '255.255.255.255', 67, hidden));
    expect(decode(bootp!).type).toBeUndefined();
  });

  it('drops a broken option list', () => {
    for (const tail of [Buffer.from([50]), Buffer.from([50, 4, 1, 2]), Buffer.from([53])]) {
      const harness = createHarness();
      expect(harness.exchange(request({ type: REQUEST, tail }))).toEqual([]);
      expect(harness.counters.badDhcp).toBe(1);
      expect(harness.warnings).toHaveLength(1);
    }
  });

  it('survives every truncation and says so once', () => {
    const harness = createHarness();
    const whole = message({ type: DISCOVER, options: [[55, Buffer.from([1, 3, 6])]] });
    for (let length = 0; length < 243; length++) {
      if (length === 240) continue;
      const frame = udpFrame('0.0.0.0', 68, '255.255.255.255', 67, whole.subarray(0, length));
      expect(harness.exchange(frame)).toEqual([]);
    }
    expect(harness.counters.badDhcp).toBe(242);
    expect(harness.warnings).toHaveLength(1);
  });

  it('drops other hardware and unknown message types', () => {
    const harness = createHarness();
    const infiniband = message({ type: DISCOVER });
    infiniband[1] = 32;
    expect(harness.exchange(udpFrame('0.0.0.0', 68, '255.255.255.255', 67, infiniband))).toEqual([]);
    for (const type of [0, OFFER, ACK, NAK, 99]) expect(harness.exchange(request({ type }))).toEqual([]);
    expect(harness.exchange(request({ options: [[53, Buffer.from([DISCOVER, 0])]] }))).toEqual([]);
    expect(harness.counters.badDhcp).toBe(7);
  });

  it('lets the reply of a server in the guest pass on as a datagram', () => {
    const harness = createHarness();
    expect(harness.exchange(request({ type: OFFER, op: 2 }))).toEqual([]);
    expect(harness.passedOn).toHaveLength(1);
    expect(harness.counters.badDhcp).toBe(0);
  });

  it('answers well-formed or not at all, whatever bytes come', () => {
    const random = seededRandom(67);
    const harness = createHarness({ fqdn: 'vm1.example.com', searchDomains: ['example.com'] });
    for (let round = 0; round < 3000; round++) {
      const bytes = message({
        type: 1 + Math.floor(random() * 8),
        options: [
          [50, ip(LEASE)],
          [61, Buffer.alloc(7, 1)],
          [57, Buffer.from([2, 64])],
          [81, Buffer.from([0, 0, 0])],
        ],
      });
      const flips = 1 + Math.floor(random() * 4);
      for (let i = 0; i < flips; i++) {
        // The fields that decode() proves stay as they are: the server has to repeat them.
        const at = 236 + Math.floor(random() * (bytes.length - 236));
        bytes[at] = Math.floor(random() * 256);
      }
      const [reply] = harness.exchange(udpFrame('0.0.0.0', 68, '255.255.255.255', 67, bytes));
      if (reply !== undefined) decode(reply);
    }
    expect(harness.warnings.length).toBeLessThanOrEqual(3);
  });
});
