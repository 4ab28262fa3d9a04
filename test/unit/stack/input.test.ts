import { beforeEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import type { StackContext } from '../../../src/stack/context.ts';
import { Counters } from '../../../src/stack/counters.ts';
import { GuestState } from '../../../src/stack/guest.ts';
import { Input } from '../../../src/stack/input.ts';
import type { PacketMeta } from '../../../src/stack/packet-meta.ts';
import { seededRandom } from '../../support/seeded-random.ts';
import { makeStackConfig } from '../../support/stack-config.ts';

const OUR_MAC = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
const GUEST_MAC = [0x52, 0x54, 0, 1, 2, 3];
const FRAME_AT = 1024;

const config = makeStackConfig({
  ipv4: {
    guestAddress: 0xc0000202,
    prefixLength: 24,
    gateway: 0xc0000201,
    resolvers: [],
    outboundAddress: 0,
    outboundInterface: '',
  },
  ipv6: {
    guestAddress: new Uint32Array([0x20010db8, 0, 0, 2]),
    prefixLength: 64,
    gateway: new Uint32Array([0xfe800000, 0, 0, 1]),
    ourLinkLocal: new Uint32Array([0xfe800000, 0, 0, 1]),
    resolvers: [],
    outboundAddress: undefined,
    outboundInterface: '',
  },
});

/** Which module got the frame, with the fields that matter to it. */
let taken: string[];
let counters: Counters;
let guest: GuestState;
let input: Input;
let link: { hasVnetHeader: boolean };
/** What the modules were told of the last TCP or UDP packet. */
let told: Pick<PacketMeta, 'isChecksumTrusted' | 'datagramBytes'>;
const arena = createArena(64 * 1024);

function note(name: string): (meta: PacketMeta) => void {
  return (meta) => {
    taken.push(`${name} ${meta.l4Length}`);
    told = { isChecksumTrusted: meta.isChecksumTrusted, datagramBytes: meta.datagramBytes };
  };
}

beforeEach(() => {
  taken = [];
  counters = new Counters();
  guest = new GuestState(config);
  link = { hasVnetHeader: false };
  const ctx = { arena, view: arena.view, config, link, guest, counters, log: silentLogger, nowMs: 0 };
  input = new Input(ctx as unknown as StackContext, {
    arp: { input: () => void taken.push('arp') },
    ndp: { input: note('ndp') },
    dhcp: { input: () => taken.push('dhcp') > 0 },
    dhcpv6: { input: () => taken.push('dhcpv6') > 0 },
    echo: { input4: note('echo4'), input6: note('echo6') },
    tcp: { input: note('tcp') },
    udp: { input: note('udp') },
    reassembly: {
      input4: () => {
        taken.push('fragment4');
        return -1;
      },
      input6: () => {
        taken.push('fragment6');
        return -1;
      },
    },
  });
});

function ethernet(type: number, payload: number[], destination = OUR_MAC): number[] {
  return [...destination, ...GUEST_MAC, type >> 8, type & 255, ...payload];
}

function ipv4(protocol: number, payload: number[], fragment = 0, source = [192, 0, 2, 77]): number[] {
  const total = 20 + payload.length;
  const header = [0x45, 0, total >> 8, total & 255, 0, 9, fragment >> 8, fragment & 255, 64, protocol, 0, 0];
  header.push(...source, 198, 51, 100, 1);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += header[i]! * 256 + header[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  header[10] = (~sum >> 8) & 255;
  header[11] = ~sum & 255;
  return [...header, ...payload];
}

function ipv6(nextHeader: number, payload: number[]): number[] {
  const source = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
  const destination = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
  return [
    0x60,
    0,
    0,
    0,
    payload.length >> 8,
    payload.length & 255,
    nextHeader,
    64,
    ...source,
    ...destination,
    ...payload,
  ];
}

function udp(port: number): number[] {
  return [0x30, 0x39, port >> 8, port & 255, 0, 12, 0, 0, 1, 2, 3, 4];
}

function give(frame: number[]): void {
  arena.bytes.set(frame, FRAME_AT);
  input.frame(FRAME_AT, frame.length);
}

const tcpSegment = [...new Array<number>(12).fill(1), 0x50, 2, 0, 0, 0, 0, 0, 0];

describe('dispatch of the guest’s frames', () => {
  it('hands each protocol to its module', () => {
    give(ethernet(0x0806, new Array<number>(28).fill(0), [255, 255, 255, 255, 255, 255]));
    give(ethernet(0x0800, ipv4(6, tcpSegment)));
    give(ethernet(0x0800, ipv4(17, udp(53))));
    give(ethernet(0x0800, ipv4(17, udp(67))));
    give(ethernet(0x0800, ipv4(1, [8, 0, 0xf7, 0xfd, 0, 1, 0, 1])));
    give(ethernet(0x86dd, ipv6(6, tcpSegment)));
    give(ethernet(0x86dd, ipv6(17, udp(547))));
    give(ethernet(0x86dd, ipv6(58, [128, 0, 0, 0, 0, 1, 0, 1])));
    give(ethernet(0x86dd, ipv6(58, [133, 0, 0, 0, 0, 0, 0, 0])));
    expect(taken).toEqual(['arp', 'tcp 20', 'udp 12', 'dhcp', 'echo4 8', 'tcp 20', 'dhcpv6', 'echo6 8', 'ndp 8']);
  });

  it('leaves the padding of a short frame out of the packet', () => {
    give([...ethernet(0x0800, ipv4(6, tcpSegment)), 0, 0, 0, 0, 0, 0]);
    expect(taken).toEqual(['tcp 20']);
  });

  it('sends fragments to reassembly, first and later ones, of both families', () => {
    give(ethernet(0x0800, ipv4(17, udp(53), 0x2000)));
    give(ethernet(0x0800, ipv4(17, udp(53), 0x0010)));
    give(ethernet(0x86dd, ipv6(44, [17, 0, 0, 1, 0, 0, 0, 5, ...udp(53)])));
    expect(taken).toEqual(['fragment4', 'fragment4', 'fragment6']);
  });

  it('drops overheard frames and learns nothing from them', () => {
    give(ethernet(0x0800, ipv4(6, tcpSegment, 0, [192, 0, 2, 99]), [0x52, 0x54, 0, 9, 9, 9]));
    expect(taken).toEqual([]);
    expect(counters.overheard).toBe(1);
    expect(guest.ipv4[3]).toBe(0xc0000202);
  });

  it('learns the address that the guest uses', () => {
    give(ethernet(0x0800, ipv4(6, tcpSegment)));
    expect(guest.ipv4[3]).toBe(0xc000024d);
    expect(guest.macLo).toBe(0x00010203);
    give(ethernet(0x86dd, ipv6(6, tcpSegment)));
    expect([...guest.ipv6]).toEqual([0x20010db8, 0, 0, 9]);
  });

  it('tells from a virtio-net header whose checksums count, and which datagrams are several', () => {
    const plain = ethernet(0x0800, ipv4(6, tcpSegment));
    const giveBehind = (header: number[], frame: number[]): void => {
      arena.bytes.set(header, FRAME_AT - 12);
      give(frame);
    };
    const partial = [1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0];
    give(plain);
    expect(told).toEqual({ isChecksumTrusted: false, datagramBytes: 0 });
    link.hasVnetHeader = true;
    giveBehind(partial, plain);
    expect(told).toEqual({ isChecksumTrusted: true, datagramBytes: 0 });
    giveBehind([2, ...new Array<number>(11).fill(0)], plain);
    expect(told).toEqual({ isChecksumTrusted: true, datagramBytes: 0 });
    giveBehind([1, 5, 42, 0, 3, 1, 34, 0, 6, 0, 0, 0], ethernet(0x0800, ipv4(17, udp(53))));
    expect(told).toEqual({ isChecksumTrusted: true, datagramBytes: 0x103 });
    giveBehind(new Array<number>(12).fill(0), plain);
    expect(told).toEqual({ isChecksumTrusted: false, datagramBytes: 0 });
    expect(taken).toHaveLength(5);
    // A kind that nobody has offered, and a checksum outside the frame.
    giveBehind([1, 3, ...partial.slice(2)], plain);
    giveBehind([1, 0, 0, 0, 0, 0, 200, 0, 16, 0, 0, 0], plain);
    expect(taken).toHaveLength(5);
    expect(counters.badEthernet).toBe(2);
  });

  it('counts what it does not understand, and survives every truncation and any mutation', () => {
    const frames = [
      ethernet(0x0800, ipv4(6, tcpSegment)),
      ethernet(0x0800, ipv4(17, udp(53))),
      ethernet(0x86dd, ipv6(0, [6, 0, 1, 4, 0, 0, 0, 0, ...tcpSegment])),
      ethernet(0x86dd, ipv6(58, [135, 0, 0, 0, 0, 0, 0, 0])),
    ];
    for (const frame of frames) {
      for (let length = 0; length < frame.length; length++) give(frame.slice(0, length));
    }
    expect(counters.badEthernet + counters.badIpv4 + counters.badIpv6).toBeGreaterThan(100);
    const random = seededRandom(3);
    for (let i = 0; i < 20_000; i++) {
      const frame = [...frames[i % frames.length]!];
      for (let n = 0; n < 3; n++) frame[Math.floor(random() * frame.length)] = Math.floor(random() * 256);
      give(frame);
    }
    expect(counters.guestFrames).toBeGreaterThan(20_000);
  });
});
