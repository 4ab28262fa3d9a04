import { describe, expect, it } from 'vitest';
import {
  BROADCAST_MAC,
  createHarness,
  ethernet,
  GUEST_MAC,
  ip,
  mac,
  macText,
  OUR_MAC,
  u16,
  u32,
  words,
} from './config-harness.ts';

function arp(operation: number, senderIp: string, targetIp: string, targetMac = '00:00:00:00:00:00'): Buffer {
  return ethernet(
    BROADCAST_MAC,
    GUEST_MAC,
    0x0806,
    Buffer.concat([
      u32(0x00010800),
      u16(0x0604),
      u16(operation),
      mac(GUEST_MAC),
      ip(senderIp),
      mac(targetMac),
      ip(targetIp),
    ]),
  );
}

/** The address that a reply to a request for `target` says is ours, or undefined without a reply. */
function ask(harness: ReturnType<typeof createHarness>, sender: string, target: string): string | undefined {
  const replies = harness.exchange(arp(1, sender, target));
  if (replies.length === 0) return undefined;
  expect(replies).toHaveLength(1);
  const reply = replies[0]!;
  expect(reply).toHaveLength(60);
  expect(macText(reply)).toBe(GUEST_MAC);
  expect(macText(reply.subarray(6))).toBe(OUR_MAC);
  expect(reply.subarray(12, 22).toString('hex')).toBe('08060001080006040002');
  expect(macText(reply.subarray(22))).toBe(OUR_MAC);
  expect(macText(reply.subarray(32))).toBe(GUEST_MAC);
  expect([...reply.subarray(38, 42)].join('.')).toBe(sender);
  expect(reply.subarray(42).every((byte) => byte === 0)).toBe(true);
  return [...reply.subarray(28, 32)].join('.');
}

describe('ARP', () => {
  it.each(['192.0.2.1', '192.0.2.77', '198.51.100.1', '169.254.1.1', '0.0.0.1'])('says that %s is here', (target) => {
    expect(ask(createHarness(), '192.0.2.2', target)).toBe(target);
  });

  it("does not claim the guest's own addresses, leased or observed", () => {
    const harness = createHarness();
    expect(ask(harness, '192.0.2.9', '192.0.2.2')).toBeUndefined();
    expect(ask(harness, '192.0.2.9', '192.0.2.10')).toBe('192.0.2.10');
    harness.exchange(arp(1, '192.0.2.10', '192.0.2.1'));
    expect(ask(harness, '0.0.0.0', '192.0.2.10')).toBeUndefined();
  });

  it('lets a probe find every address free but that of the gateway', () => {
    const harness = createHarness();
    expect(ask(harness, '0.0.0.0', '192.0.2.2')).toBeUndefined();
    expect(ask(harness, '0.0.0.0', '192.0.2.50')).toBeUndefined();
    expect(ask(harness, '0.0.0.0', '192.0.2.1')).toBe('192.0.2.1');
  });

  it('does not answer announcements and replies, but learns from them', () => {
    const harness = createHarness();
    expect(harness.exchange(arp(1, '192.0.2.44', '192.0.2.44'))).toEqual([]);
    expect(harness.guest.ipv4[3]).toBe(0xc000022c);
    expect(harness.guest.macHi).toBe(0x5254);
    expect(harness.guest.macLo).toBe(0x00123456);
    expect(harness.exchange(arp(2, '192.0.2.45', '192.0.2.1', OUR_MAC))).toEqual([]);
    expect(harness.guest.ipv4[3]).toBe(0xc000022d);
  });

  it('does not take our own address or none for that of the guest', () => {
    const harness = createHarness();
    harness.exchange(arp(1, '192.0.2.1', '192.0.2.1'));
    harness.exchange(arp(1, '0.0.0.0', '192.0.2.9'));
    expect(harness.guest.ipv4[3]).toBe(0xc0000202);
    expect(ask(harness, '192.0.2.2', '192.0.2.1')).toBe('192.0.2.1');
  });

  it("answers qrap's question whether a passt is here", () => {
    expect(ask(createHarness(), '0.0.0.0', '0.0.0.0')).toBe('0.0.0.0');
    expect(createHarness().exchange(arp(2, '0.0.0.0', '0.0.0.0'))).toEqual([]);
  });

  it('counts and drops what is cut off or about other things', () => {
    const harness = createHarness();
    const whole = arp(1, '192.0.2.2', '192.0.2.1');
    for (let length = 14; length < whole.length; length++)
      expect(harness.exchange(whole.subarray(0, length))).toEqual([]);
    expect(harness.counters.badEthernet).toBe(28);
    const other = Buffer.from(whole);
    other[14] = 9;
    expect(harness.exchange(other)).toEqual([]);
    expect(harness.counters.unknownProtocol).toBe(1);
  });

  it('counts a reply that finds no room', () => {
    const harness = createHarness();
    harness.link.limitRoom(63);
    expect(ask(harness, '192.0.2.2', '192.0.2.1')).toBeUndefined();
    expect(harness.counters.droppedNoRoom).toBe(1);
    harness.link.limitRoom(64);
    expect(ask(harness, '192.0.2.2', '192.0.2.1')).toBe('192.0.2.1');
  });

  it('leaves the addresses of other guests on the link to them, and answers for ours and for all beyond it', () => {
    const own = [words('0000:0000:0000:0000:0000:ffff:c000:0203')];
    const harness = createHarness({ ownAddresses: own });
    for (const ours of ['192.0.2.1', '192.0.2.3', '198.51.100.1']) expect(ask(harness, '192.0.2.2', ours)).toBe(ours);
    for (const theirs of ['192.0.2.4', '192.0.2.77', '192.0.2.255']) {
      expect(ask(harness, '192.0.2.2', theirs)).toBeUndefined();
    }
    expect(ask(createHarness({ ownAddresses: own, ipv4: { prefixLength: 30 } }), '192.0.2.2', '192.0.2.4')).toBe(
      '192.0.2.4',
    );
  });
});
