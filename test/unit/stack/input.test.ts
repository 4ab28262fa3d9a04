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
/** Whether TCP says that a segment was the next payload of its flow. */
let isExpected: boolean;
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
  isExpected = false;
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
    tcp: {
      input(meta) {
        note('tcp')(meta);
        return isExpected;
      },
      inputNext(l4Offset, l4Length) {
        taken.push(`next ${l4Offset - frameAt} ${l4Length}`);
        return isExpected;
      },
      endInput() {},
    },
    udp: { input: note('udp'), endInput() {} },
    reassembly: {
      input4: () => {
        taken.push('fragment4');
        return -1;
      },
      input6: () => {
        taken.push('fragment6');
        return -1;
      },
      endInput() {},
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
  giveAt(FRAME_AT, frame);
}

/** Where the frame at hand lies. */
let frameAt = FRAME_AT;
function giveAt(offset: number, frame: number[]): void {
  frameAt = offset;
  arena.bytes.set(frame, offset);
  input.frame(offset, frame.length);
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

describe.each([
  { name: 'IPv4', etherType: 0x0800, packet: ipv4, at: 34, mayDiffer: [18, 19, 24, 25] },
  { name: 'IPv6', etherType: 0x86dd, packet: ipv6, at: 54, mayDiffer: [] },
])('a frame that continues the TCP flow of the one before it ($name)', ({ etherType, packet, at, mayDiffer }) => {
  const SECOND_AT = FRAME_AT + 1000;
  const makeFrame = (payloadBytes: number, port = 80): number[] => {
    const segment = [156, 64, 0, port, ...tcpSegment.slice(4), ...new Array<number>(payloadBytes).fill(7)];
    return ethernet(etherType, packet(6, segment));
  };
  /** Gives a first frame, and then another one. @returns whether that went the short way */
  const goesShort = (second: number[], first = makeFrame(20)): boolean => {
    isExpected = true;
    input.endBatch();
    giveAt(FRAME_AT, first);
    taken = [];
    giveAt(SECOND_AT, second);
    return taken.some((entry) => entry.startsWith('next'));
  };

  it('goes to its flow by the short way, of any length', () => {
    expect(goesShort(makeFrame(20))).toBe(true);
    expect(taken).toEqual([`next ${at} 40`]);
    expect(goesShort(makeFrame(1))).toBe(true);
    expect(goesShort(makeFrame(400))).toBe(true);
    expect(counters.guestFrames).toBe(6);
  });

  it('does not when any byte of its headers is another, but for what says nothing', () => {
    for (let position = 0; position < at + 4; position++) {
      for (let bit = 0; bit < 8; bit++) {
        const second = makeFrame(20);
        second[position]! ^= 1 << bit;
        expect(goesShort(second), `byte ${position}, bit ${bit}`).toBe(mayDiffer.includes(position));
      }
    }
  });

  it('does not when it is padded, cut off, or has no payload', () => {
    expect(goesShort([...makeFrame(20), 0])).toBe(false);
    expect(goesShort(makeFrame(20).slice(0, -1))).toBe(false);
    expect(goesShort(makeFrame(0))).toBe(false);
    for (let length = 0; length < at + 20; length++) {
      expect(goesShort(makeFrame(20).slice(0, length)), String(length)).toBe(false);
    }
  });

  it('does not when the one before it was not the next payload of a flow, or may be overwritten', () => {
    isExpected = false;
    giveAt(FRAME_AT, makeFrame(20));
    giveAt(SECOND_AT, makeFrame(20));
    isExpected = true;
    giveAt(FRAME_AT, makeFrame(20));
    input.endBatch();
    giveAt(SECOND_AT, makeFrame(20));
    expect(taken).toEqual(['tcp 40', 'tcp 40', 'tcp 40', 'tcp 40']);
  });

  it('gets the closer look when the flow does not take it, and so does the next one', () => {
    isExpected = true;
    giveAt(FRAME_AT, makeFrame(20));
    isExpected = false;
    giveAt(SECOND_AT, makeFrame(20));
    giveAt(SECOND_AT, makeFrame(20));
    expect(taken).toEqual(['tcp 40', `next ${at} 40`, 'tcp 40', 'tcp 40']);
  });

  it('gets the closer look behind a virtio-net header', () => {
    link.hasVnetHeader = true;
    arena.bytes.fill(0, FRAME_AT - 12, FRAME_AT);
    arena.bytes.fill(0, SECOND_AT - 12, SECOND_AT);
    expect(goesShort(makeFrame(20))).toBe(false);
    expect(taken).toEqual(['tcp 40']);
  });

  it('is compared with its own flow after a frame of another one', () => {
    isExpected = true;
    giveAt(FRAME_AT, makeFrame(20));
    giveAt(SECOND_AT, makeFrame(20, 81));
    giveAt(SECOND_AT + 500, makeFrame(20));
    giveAt(FRAME_AT, makeFrame(20));
    expect(taken).toEqual(['tcp 40', 'tcp 40', 'tcp 40', `next ${at} 40`]);
  });
});
