/**
 * The modules that configure a guest, behind the real dispatch, with a link in memory; and naive builders and decoders of frames that
 * share no code with `src/wire`, so that both sides cannot be wrong in the same way.
 */

import { expect } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { ArpModule } from '../../../src/stack/arp.ts';
import type { Ipv4Config, Ipv6Config, StackConfig } from '../../../src/stack/config.ts';
import type { StackContext } from '../../../src/stack/context.ts';
import { Counters } from '../../../src/stack/counters.ts';
import { DhcpModule } from '../../../src/stack/dhcp.ts';
import { Dhcpv6Module } from '../../../src/stack/dhcpv6.ts';
import { DnsModule } from '../../../src/stack/dns.ts';
import { GuestState } from '../../../src/stack/guest.ts';
import { Input } from '../../../src/stack/input.ts';
import { NdpModule } from '../../../src/stack/ndp.ts';
import type { NameServer } from '../../../src/stack/ports.ts';
import { FakeLink } from '../../support/fake-link.ts';
import { makeStackConfig } from '../../support/stack-config.ts';

export const OUR_MAC = '9a:55:9a:55:9a:55';
export const GUEST_MAC = '52:54:00:12:34:56';
export const BROADCAST_MAC = 'ff:ff:ff:ff:ff:ff';

const ipv4: Ipv4Config = {
  guestAddress: 0xc0000202,
  prefixLength: 24,
  gateway: 0xc0000201,
  resolvers: [0xc0000203, 0x08080808],
  outboundAddress: 0,
  outboundInterface: '',
};

const ipv6: Ipv6Config = {
  guestAddress: words('2001:0db8:0000:0001:0000:0000:0000:0002'),
  prefixLength: 64,
  gateway: words('fe80:0000:0000:0000:0000:0000:0000:0001'),
  ourLinkLocal: words('fe80:0000:0000:0000:9855:9aff:fe55:9a55'),
  resolvers: [words('2001:0db8:0000:0001:0000:0000:0000:0053')],
  outboundAddress: undefined,
  outboundInterface: '',
};

export interface HarnessOptions extends Omit<Partial<StackConfig>, 'ipv4' | 'ipv6'> {
  readonly ipv4?: Partial<Ipv4Config>;
  readonly ipv6?: Partial<Ipv6Config>;
}

export function createHarness(options: HarnessOptions = {}, random: () => number = () => 0.5, nameServer?: NameServer) {
  const config = makeStackConfig({ ipv4: { ...ipv4, ...options.ipv4 }, ipv6: { ...ipv6, ...options.ipv6 } }, options);
  const arena = createArena(1 << 20);
  const link = new FakeLink(arena, 1 << 18, 1 << 18);
  const counters = new Counters();
  const guest = new GuestState(config);
  const warnings: string[] = [];
  const log = { ...silentLogger, warn: (message: string) => void warnings.push(message) };
  const ctx = { arena, view: arena.view, config, link, guest, counters, log, nowMs: 0 } as unknown as StackContext;
  const passedOn: number[] = [];
  const nothing = () => {};
  const ndp = new NdpModule(ctx, random);
  const input = new Input(ctx, {
    arp: new ArpModule(ctx),
    ndp,
    dhcp: new DhcpModule(ctx),
    dhcpv6: new Dhcpv6Module(ctx),
    dns: nameServer === undefined ? undefined : new DnsModule(ctx, nameServer),
    echo: { input4: nothing, input6: nothing },
    tcp: { input: () => false, inputNext: () => false, endInput: nothing },
    udp: { input: (meta) => void passedOn.push(meta.l4Length), endInput: nothing },
    reassembly: { input4: () => -1, input6: () => -1, endInput: nothing },
  });
  const frames = new Int32Array(64);
  return {
    ctx,
    config,
    link,
    counters,
    guest,
    ndp,
    warnings,
    /** UDP datagrams that no server took, by length. */
    passedOn,
    /** Gives one frame to the stack. @returns the frames that it answers with */
    exchange(frame: Buffer): Buffer[] {
      link.pushFromGuest(frame);
      const count = link.receive(frames);
      for (let i = 0; i < count; i++) input.frame(frames[2 * i]!, frames[2 * i + 1]!);
      return this.taken();
    },
    /** The frames sent since the last call. */
    taken(): Buffer[] {
      link.flush();
      return link.sent.splice(0).map((bytes) => Buffer.from(bytes));
    },
  };
}

// -------------------------------------------------------------------------------------------------------------- builders

export function words(full: string): Uint32Array {
  const groups = full.split(':').map((g) => Number.parseInt(g, 16));
  return Uint32Array.from({ length: 4 }, (_, i) => groups[2 * i]! * 65536 + groups[2 * i + 1]!);
}

export function mac(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

/** Dotted decimal or full-length hexadecimal groups. */
export function ip(text: string): Buffer {
  return text.includes(':') ? Buffer.from(text.replaceAll(':', ''), 'hex') : Buffer.from(text.split('.').map(Number));
}

export function u16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 255]);
}

export function u32(value: number): Buffer {
  return Buffer.from([(value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]);
}

/** The Internet checksum, byte by byte. */
export function naiveChecksum(...parts: Buffer[]): number {
  const all = Buffer.concat(parts);
  let sum = 0;
  for (let i = 0; i < all.length; i++) {
    sum += i % 2 === 0 ? all[i]! * 256 : all[i]!;
    if (sum > 0xffff) sum = (sum % 0x10000) + 1;
  }
  return 0xffff - sum;
}

export function ethernet(destination: string, source: string, type: number, payload: Buffer): Buffer {
  return Buffer.concat([mac(destination), mac(source), u16(type), payload]);
}

/** A UDP datagram in IPv4 or IPv6, by the form of the addresses, in an Ethernet frame from the guest. */
export function udpFrame(
  from: string,
  fromPort: number,
  to: string,
  toPort: number,
  payload: Buffer,
  destinationMac = BROADCAST_MAC,
): Buffer {
  const length = 8 + payload.length;
  const head = Buffer.concat([u16(fromPort), u16(toPort), u16(length)]);
  const pseudo = Buffer.concat([ip(from), ip(to), u32(17), u32(length)]);
  const sum = naiveChecksum(pseudo, head, Buffer.alloc(2), payload);
  const udp = Buffer.concat([head, u16(sum === 0 ? 0xffff : sum), payload]);
  if (from.includes(':')) return ipv6Frame(from, to, 17, udp, destinationMac);
  return ipv4Frame(from, to, 17, udp, destinationMac);
}

export function ipv4Frame(from: string, to: string, protocol: number, payload: Buffer, destinationMac: string): Buffer {
  const header = Buffer.concat([
    Buffer.from([0x45, 0]),
    u16(20 + payload.length),
    Buffer.from([0, 0, 0, 0, 64, protocol, 0, 0]),
    ip(from),
    ip(to),
  ]);
  header.writeUInt16BE(naiveChecksum(header), 10);
  return ethernet(destinationMac, GUEST_MAC, 0x0800, Buffer.concat([header, payload]));
}

export function ipv6Frame(
  from: string,
  to: string,
  protocol: number,
  payload: Buffer,
  destinationMac: string,
  hopLimit = 255,
): Buffer {
  const header = Buffer.concat([
    Buffer.from([0x60, 0, 0, 0]),
    u16(payload.length),
    Buffer.from([protocol, hopLimit]),
    ip(from),
    ip(to),
  ]);
  return ethernet(destinationMac, GUEST_MAC, 0x86dd, Buffer.concat([header, payload]));
}

/** An ICMPv6 message with its checksum filled in, in a frame. */
export function icmpv6Frame(
  from: string,
  to: string,
  message: Buffer,
  destinationMac = '33:33:00:00:00:02',
  hopLimit = 255,
) {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(0, 2);
  copy.writeUInt16BE(naiveChecksum(ip(from), ip(to), u32(copy.length), u32(58), copy), 2);
  return ipv6Frame(from, to, 58, copy, destinationMac, hopLimit);
}

// -------------------------------------------------------------------------------------------------------------- decoders

export function macText(bytes: Buffer): string {
  return [...bytes.subarray(0, 6)].map((b) => b.toString(16).padStart(2, '0')).join(':');
}

export function ipText(bytes: Buffer): string {
  if (bytes.length === 4) return [...bytes].join('.');
  return (bytes.toString('hex').match(/.{4}/g) ?? []).join(':');
}

export interface DecodedPacket {
  readonly destinationMac: string;
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly hopLimit: number;
  readonly payload: Buffer;
}

/** Takes a frame of ours apart, with every length and checksum proved. */
export function decodeIp(frame: Buffer): DecodedPacket {
  expect(frame.length).toBeGreaterThanOrEqual(60);
  expect(macText(frame.subarray(6))).toBe(OUR_MAC);
  const l3 = frame.subarray(14);
  if (frame.readUInt16BE(12) === 0x0800) {
    expect(l3[0]).toBe(0x45);
    expect(naiveChecksum(l3.subarray(0, 20))).toBe(0);
    const total = l3.readUInt16BE(2);
    expect(l3.length).toBe(Math.max(total, 46));
    return {
      destinationMac: macText(frame),
      source: ipText(l3.subarray(12, 16)),
      destination: ipText(l3.subarray(16, 20)),
      protocol: l3[9]!,
      hopLimit: l3[8]!,
      payload: l3.subarray(20, total),
    };
  }
  expect(frame.readUInt16BE(12)).toBe(0x86dd);
  expect(l3[0]! >> 4).toBe(6);
  const length = l3.readUInt16BE(4);
  expect(l3.length).toBe(Math.max(40 + length, 46));
  return {
    destinationMac: macText(frame),
    source: ipText(l3.subarray(8, 24)),
    destination: ipText(l3.subarray(24, 40)),
    protocol: l3[6]!,
    hopLimit: l3[7]!,
    payload: l3.subarray(40, 40 + length),
  };
}

/** @returns ports and payload of the UDP datagram in one of our frames */
export function decodeUdp(frame: Buffer) {
  const packet = decodeIp(frame);
  expect(packet.protocol).toBe(17);
  const { payload } = packet;
  expect(payload.readUInt16BE(4)).toBe(payload.length);
  expect(payload.readUInt16BE(6)).not.toBe(0);
  const pseudo = Buffer.concat([ip(packet.source), ip(packet.destination), u32(17), u32(payload.length)]);
  expect(naiveChecksum(pseudo, payload)).toBe(0);
  return {
    ...packet,
    fromPort: payload.readUInt16BE(0),
    toPort: payload.readUInt16BE(2),
    payload: payload.subarray(8),
  };
}

/** @returns the ICMPv6 message in one of our frames */
export function decodeIcmpv6(frame: Buffer): DecodedPacket {
  const packet = decodeIp(frame);
  expect(packet.protocol).toBe(58);
  const { payload } = packet;
  expect(naiveChecksum(ip(packet.source), ip(packet.destination), u32(payload.length), u32(58), payload)).toBe(0);
  return packet;
}

/** Names in DNS wire form, compressed or not, up to the end of `data`. */
export function decodeNames(data: Buffer): string[] {
  const names: string[] = [];
  const readAt = (start: number): { labels: string[]; end: number } => {
    const labels: string[] = [];
    let at = start;
    for (;;) {
      const length = data[at]!;
      if (length === 0) return { labels, end: at + 1 };
      if (length >= 192) {
        const rest = readAt(data.readUInt16BE(at) & 0x3fff);
        return { labels: [...labels, ...rest.labels], end: at + 2 };
      }
      labels.push(data.subarray(at + 1, at + 1 + length).toString('latin1'));
      at += 1 + length;
    }
  };
  for (let at = 0; at < data.length; ) {
    const { labels, end } = readAt(at);
    if (labels.length > 0) names.push(labels.join('.'));
    at = end;
  }
  return names;
}
