import { describe, expect, it } from 'vitest';
import {
  createHarness,
  decodeIcmpv6,
  decodeNames,
  GUEST_MAC,
  type HarnessOptions,
  icmpv6Frame,
  ip,
  ipText,
  mac,
  macText,
  OUR_MAC,
  words,
} from './config-harness.ts';

const UNSPECIFIED = '0000:0000:0000:0000:0000:0000:0000:0000';
const ALL_NODES = 'ff02:0000:0000:0000:0000:0000:0000:0001';
const ALL_ROUTERS = 'ff02:0000:0000:0000:0000:0000:0000:0002';
const GUEST_LL = 'fe80:0000:0000:0000:5054:00ff:fe12:3456';
const GUEST_GLOBAL = '2001:0db8:0000:0001:0000:0000:0000:0002';
const OUR_LL = 'fe80:0000:0000:0000:9855:9aff:fe55:9a55';
const GATEWAY = 'fe80:0000:0000:0000:0000:0000:0000:0001';
const OTHER = '2001:0db8:0000:0001:0000:0000:0000:0077';

function linkAddress(type: number): Buffer {
  return Buffer.concat([Buffer.from([type, 1]), mac(GUEST_MAC)]);
}

function routerSolicitation(from: string, options: Buffer = linkAddress(1)): Buffer {
  return icmpv6Frame(from, ALL_ROUTERS, Buffer.concat([Buffer.from([133, 0, 0, 0, 0, 0, 0, 0]), options]));
}

function neighborSolicitation(from: string, target: string, options: Buffer = Buffer.alloc(0), hopLimit = 255): Buffer {
  const solicitedNode = `ff02:0000:0000:0000:0000:0001:ff${target.slice(-7)}`;
  const message = Buffer.concat([Buffer.from([135, 0, 0, 0, 0, 0, 0, 0]), ip(target), options]);
  return icmpv6Frame(from, solicitedNode, message, '33:33:ff:00:00:01', hopLimit);
}

interface Advertisement {
  source: string;
  destination: string;
  destinationMac: string;
  flags: number;
  lifetimeSec: number;
  options: Map<number, Buffer>;
}

function decodeRouterAdvertisement(frame: Buffer): Advertisement {
  const { payload, ...packet } = decodeIcmpv6(frame);
  expect(payload[0]).toBe(134);
  expect(payload[1]).toBe(0);
  expect(payload[4]).toBe(255);
  expect(payload.subarray(8, 16)).toEqual(Buffer.alloc(8));
  expect(packet.hopLimit).toBe(255);
  const options = new Map<number, Buffer>();
  for (let at = 16; at < payload.length; at += payload[at + 1]! * 8) {
    expect(options.has(payload[at]!)).toBe(false);
    options.set(payload[at]!, payload.subarray(at, at + payload[at + 1]! * 8));
  }
  return {
    source: packet.source,
    destination: packet.destination,
    destinationMac: packet.destinationMac,
    flags: payload[5]!,
    lifetimeSec: payload.readUInt16BE(6),
    options,
  };
}

function solicit(options: HarnessOptions = {}, from = GUEST_LL): Advertisement {
  const replies = createHarness(options).exchange(
    routerSolicitation(from, from === UNSPECIFIED ? Buffer.alloc(0) : undefined),
  );
  expect(replies).toHaveLength(1);
  return decodeRouterAdvertisement(replies[0]!);
}

describe('router advertisements', () => {
  it('answer a solicitation at once, to its sender', () => {
    const answer = solicit();
    expect(answer).toMatchObject({ source: GATEWAY, destination: GUEST_LL, destinationMac: GUEST_MAC });
    expect(answer.lifetimeSec).toBe(65535);
    expect(answer.flags).toBe(0x80);
  });

  it('go to all nodes when the sender has no address yet', () => {
    const answer = solicit({}, UNSPECIFIED);
    expect(answer).toMatchObject({ destination: ALL_NODES, destinationMac: '33:33:00:00:00:01' });
  });

  it("announce the /64 of the guest's address, on link, for ever", () => {
    const prefix = solicit().options.get(3)!;
    expect(prefix.subarray(0, 16).toString('hex')).toBe(`030440c0${'ff'.repeat(8)}00000000`);
    expect(ipText(prefix.subarray(16))).toBe('2001:0db8:0000:0001:0000:0000:0000:0000');
  });

  it('announce MTU, resolvers, search list and our MAC', () => {
    const { options } = solicit({ mtu: 65520, searchDomains: ['example.com', 'lab.example.org.'] });
    expect(options.get(5)!.toString('hex')).toBe('050100000000fff0');
    expect(options.get(25)!.toString('hex')).toBe(
      `19030000ffffffff${ip('2001:0db8:0000:0001:0000:0000:0000:0053').toString('hex')}`,
    );
    const search = options.get(31)!;
    expect(search.subarray(2, 8).toString('hex')).toBe('0000ffffffff');
    expect(decodeNames(search.subarray(8))).toEqual(['example.com', 'lab.example.org']);
    expect(options.get(1)!.subarray(0, 2).toString('hex')).toBe('0101');
    expect(macText(options.get(1)!.subarray(2))).toBe(OUR_MAC);
  });

  it('leave out what is switched off or has no meaning', () => {
    const { options, flags } = solicit({
      advertiseMtu: false,
      advertiseDns: false,
      advertiseSearch: false,
      searchDomains: ['example.com'],
      dhcpv6: false,
    });
    expect([...options.keys()].sort()).toEqual([1, 3]);
    expect(flags).toBe(0);
    expect(solicit({ mtu: 1279 }).options.has(5)).toBe(false);
    expect(solicit({ searchDomains: ['a..b'] }).options.has(31)).toBe(false);
  });

  it('stay within the smallest MTU, without the list that does not fit', () => {
    const searchDomains = Array.from({ length: 60 }, (_, i) => `a-rather-long-name-${i}.example.com`);
    const { options } = solicit({ searchDomains, mtu: 65520 });
    expect(options.has(31)).toBe(false);
    expect(options.has(25)).toBe(true);
  });

  it('come from our link-local address when the gateway has none', () => {
    expect(solicit({ ipv6: { gateway: words(OTHER) } }).source).toBe(OUR_LL);
  });

  it('are not sent with --no-ra or --no-ndp', () => {
    for (const options of [{ routerAdvertisements: false }, { ndp: false }]) {
      const harness = createHarness(options);
      expect(harness.exchange(routerSolicitation(GUEST_LL))).toEqual([]);
      harness.ndp.onGuestConnected();
      expect(harness.ndp.nextDueMs()).toBe(Number.POSITIVE_INFINITY);
    }
  });

  it('come unasked: three soon after a guest is connected and seen, then every few minutes', () => {
    const harness = createHarness();
    const { ndp, ctx } = harness;
    expect(ndp.nextDueMs()).toBe(Number.POSITIVE_INFINITY);
    ctx.nowMs = 1000;
    ndp.onGuestConnected();
    const pass = (): { afterMs: number; sent: Buffer[] } => {
      const afterMs = ndp.nextDueMs() - ctx.nowMs;
      ctx.nowMs = ndp.nextDueMs() - 1;
      ndp.advance(ctx.nowMs);
      expect(harness.taken()).toEqual([]);
      ctx.nowMs++;
      ndp.advance(ctx.nowMs);
      return { afterMs, sent: harness.taken() };
    };
    // Nobody there yet: nothing is sent, and the first three are still to come.
    for (let i = 0; i < 5; i++) expect(pass()).toEqual({ afterMs: 9500, sent: [] });
    harness.exchange(neighborSolicitation(GUEST_LL, OTHER));
    for (let i = 0; i < 3; i++) {
      const { afterMs, sent } = pass();
      expect(afterMs).toBe(9500);
      expect(sent.map(decodeRouterAdvertisement)).toMatchObject([
        { destination: ALL_NODES, destinationMac: '33:33:00:00:00:01' },
      ]);
    }
    for (let i = 0; i < 3; i++) {
      const { afterMs, sent } = pass();
      expect(afterMs).toBe(399_000);
      expect(sent).toHaveLength(1);
    }
    harness.link.connected = false;
    ctx.nowMs = ndp.nextDueMs();
    ndp.advance(ctx.nowMs);
    expect(ndp.nextDueMs()).toBe(Number.POSITIVE_INFINITY);
  });

  it('keep within the bounds of RFC 4861 at both ends of chance', () => {
    for (const [chance, first, later] of [
      [0, 3_000, 198_000],
      [0.999999, 16_000, 600_000],
    ] as const) {
      const harness = createHarness({}, () => chance);
      const { ndp, ctx } = harness;
      harness.exchange(neighborSolicitation(GUEST_LL, OTHER));
      ndp.onGuestConnected();
      for (let i = 0; i < 4; i++) {
        const afterMs = ndp.nextDueMs() - ctx.nowMs;
        expect(Math.round(afterMs / 1000) * 1000).toBe(i < 3 ? first : later);
        ctx.nowMs = ndp.nextDueMs();
        ndp.advance(ctx.nowMs);
      }
    }
  });
});

/** Flags and destination of the advertisement that answers a solicitation for `target`; undefined without one. */
function ask(harness: ReturnType<typeof createHarness>, from: string, target: string) {
  const replies = harness.exchange(neighborSolicitation(from, target));
  if (replies.length === 0) return undefined;
  expect(replies).toHaveLength(1);
  const packet = decodeIcmpv6(replies[0]!);
  const { payload } = packet;
  expect(payload).toHaveLength(32);
  expect(payload.subarray(0, 2).toString('hex')).toBe('8800');
  expect(ipText(payload.subarray(8, 24))).toBe(target);
  expect(payload.subarray(24).toString('hex')).toBe(`0201${mac(OUR_MAC).toString('hex')}`);
  expect(packet).toMatchObject({ source: OUR_LL, hopLimit: 255 });
  return { flags: payload.readUInt32BE(4), destination: packet.destination, destinationMac: packet.destinationMac };
}

describe('neighbour solicitations', () => {
  it.each([OUR_LL, GATEWAY, OTHER, '2606:4700:4700:0000:0000:0000:0000:1111'])(
    'learn that %s is here, a router',
    (target) => {
      expect(ask(createHarness(), GUEST_LL, target)).toEqual({
        flags: 0xe0000000,
        destination: GUEST_LL,
        destinationMac: GUEST_MAC,
      });
    },
  );

  it("get no answer for the guest's own addresses, leased or observed", () => {
    const harness = createHarness();
    expect(ask(harness, GUEST_LL, GUEST_GLOBAL)).toBeUndefined();
    expect(ask(harness, OTHER, GUEST_LL)).toBeUndefined();
    expect(ask(harness, GUEST_GLOBAL, OTHER)).toEqual(expect.anything());
    expect(ask(harness, OTHER, OTHER)).toBeUndefined();
    expect(ask(harness, GUEST_LL, OTHER)).toBeUndefined();
  });

  it('find every address free but ours, which is defended before all nodes', () => {
    const harness = createHarness();
    for (const free of [GUEST_LL, GUEST_GLOBAL, OTHER]) expect(ask(harness, UNSPECIFIED, free)).toBeUndefined();
    for (const taken of [OUR_LL, GATEWAY]) {
      expect(ask(harness, UNSPECIFIED, taken)).toEqual({
        flags: 0xa0000000,
        destination: ALL_NODES,
        destinationMac: '33:33:00:00:00:01',
      });
    }
  });

  it('are left to other guests on the link, but for what is ours and what is beyond it', () => {
    const dns = '2001:0db8:0000:0001:0000:0000:0000:0053';
    const harness = createHarness({ ownAddresses: [words(dns)] });
    const far = '2606:4700:4700:0000:0000:0000:0000:1111';
    for (const ours of [OUR_LL, GATEWAY, dns, far]) expect(ask(harness, GUEST_LL, ours)).toEqual(expect.anything());
    const theirLinkLocal = 'fe80:0000:0000:0000:5054:00ff:fe00:0002';
    for (const theirs of [OTHER, theirLinkLocal]) expect(ask(harness, GUEST_LL, theirs)).toBeUndefined();
  });

  it('teach which addresses the guest uses', () => {
    const harness = createHarness();
    ask(harness, GUEST_LL, GATEWAY);
    ask(harness, OTHER, GATEWAY);
    expect(harness.guest.linkLocal).toEqual(words(GUEST_LL));
    expect(harness.guest.ipv6).toEqual(words(OTHER));
  });
});

describe('malformed neighbour discovery', () => {
  it('is counted, dropped and logged once in a while', () => {
    const harness = createHarness();
    const bad = [
      neighborSolicitation(GUEST_LL, GATEWAY, Buffer.alloc(0), 254),
      neighborSolicitation(GUEST_LL, GATEWAY, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])),
      neighborSolicitation(GUEST_LL, GATEWAY, Buffer.from([1, 2, 0, 0, 0, 0, 0, 0])),
      neighborSolicitation(GUEST_LL, ALL_NODES),
      neighborSolicitation(UNSPECIFIED, OUR_LL, linkAddress(1)),
      routerSolicitation(UNSPECIFIED),
    ];
    const wrongSum = Buffer.from(neighborSolicitation(GUEST_LL, GATEWAY));
    wrongSum[57]! ^= 1;
    bad.push(wrongSum);
    for (const frame of bad) expect(harness.exchange(frame)).toEqual([]);
    expect(harness.counters.badIcmp).toBe(bad.length);
    expect(harness.warnings).toHaveLength(1);
  });

  it('survives every truncation', () => {
    const harness = createHarness();
    const message = Buffer.concat([Buffer.from([135, 0, 0, 0, 0, 0, 0, 0]), ip(GATEWAY), linkAddress(1)]);
    for (let length = 8; length < message.length; length++) {
      const whole = length === 24;
      const replies = harness.exchange(icmpv6Frame(GUEST_LL, GATEWAY, message.subarray(0, length)));
      expect(replies).toHaveLength(whole ? 1 : 0);
    }
  });
});
