import { beforeEach, describe, expect, it } from 'vitest';
import type { FakeSocket } from '../../../support/fake-socket.ts';
import {
  echoRequest,
  endpoint,
  GUEST_4,
  GUEST_6,
  ipPacket,
  isIcmpChecksumRight,
  type Packet,
  pattern,
  ROUTER_4,
  ROUTER_6,
  TestStack,
  udpMessage,
  udpPacket,
} from '../udp/support.ts';
import { type ErrorEntry, errorEntry, ORIGIN_ICMP, ORIGIN_ICMPV6, ORIGIN_LOCAL } from './support.ts';

const PEER_4 = '198.51.100.9';
const PEER_6 = '2001:db8:9::9';
const HOP_4 = '203.0.113.254';
const HOP_6 = '2001:db8:ff::1';

let stack: TestStack;
beforeEach(() => {
  stack = new TestStack();
});

function openFlow(guest: string, peer: string, data: Uint8Array, hopLimit = 64): FakeSocket {
  stack.fromGuest(udpPacket(guest, 4000, peer, 33434, data, { hopLimit }));
  return stack.sockets.last;
}

/** The host reports an error about a datagram; @returns what the guest is told. */
function report(socket: FakeSocket, entry: ErrorEntry, data: Uint8Array): Packet[] {
  socket.errors.push(errorEntry(entry, data));
  socket.edge = true;
  stack.handleEvents();
  return stack.takePackets();
}

describe('an error that the host hears of', () => {
  it('comes to an IPv4 guest byte for byte as a router would have sent it', () => {
    const data = pattern(4);
    const socket = openFlow(GUEST_4, PEER_4, data, 1);
    const [packet] = report(socket, { origin: ORIGIN_ICMP, type: 11, code: 0, offender: HOP_4 }, data);
    expect(packet).toMatchObject({ source: HOP_4, destination: GUEST_4, protocol: 1 });
    const golden = [
      // time exceeded in transit, checksum, unused
      '0b00e15c00000000',
      // IPv4, 32 bytes, "don't fragment", TTL 1, UDP
      '450000200000400001118d8ec0000202c6336409',
      // UDP and its data
      '0fa0829a000c34d207264564',
    ];
    expect(Buffer.from(packet!.payload).toString('hex')).toBe(golden.join(''));
    expect(isIcmpChecksumRight(packet!)).toBe(true);
  });

  it('comes to an IPv6 guest with its whole packet in it', () => {
    const data = pattern(12);
    const socket = openFlow(GUEST_6, PEER_6, data, 2);
    const [packet] = report(socket, { origin: ORIGIN_ICMPV6, type: 3, code: 0, offender: HOP_6 }, data);
    expect(packet).toMatchObject({ source: HOP_6, destination: GUEST_6, protocol: 58 });
    expect([...packet!.payload.slice(0, 2)]).toEqual([3, 0]);
    expect([...packet!.payload.slice(4, 8)]).toEqual([0, 0, 0, 0]);
    expect(packet!.payload.slice(8)).toEqual(udpPacket(GUEST_6, 4000, PEER_6, 33434, data, { hopLimit: 2 }));
    expect(isIcmpChecksumRight(packet!)).toBe(true);
  });

  it.each<[string, string, string, ErrorEntry, number[], string]>([
    ['a closed port', GUEST_4, PEER_4, { origin: ORIGIN_ICMP, type: 3, code: 3, offender: PEER_4 }, [3, 3], PEER_4],
    ['a host', GUEST_4, PEER_4, { origin: ORIGIN_ICMP, type: 3, code: 1, offender: HOP_4 }, [3, 1], HOP_4],
    ['a filter', GUEST_4, PEER_4, { origin: ORIGIN_ICMP, type: 3, code: 13, offender: HOP_4 }, [3, 13], HOP_4],
    ['a closed port', GUEST_6, PEER_6, { origin: ORIGIN_ICMPV6, type: 1, code: 4, offender: PEER_6 }, [1, 4], PEER_6],
    ['a missing route', GUEST_6, PEER_6, { origin: ORIGIN_ICMPV6, type: 1, code: 0, offender: HOP_6 }, [1, 0], HOP_6],
    ['the host’s own lack of a route', GUEST_4, PEER_4, { origin: ORIGIN_LOCAL, errno: 101 }, [3, 0], ROUTER_4],
    ['the host’s own neighbour search', GUEST_6, PEER_6, { origin: ORIGIN_LOCAL, errno: 113 }, [1, 3], ROUTER_6],
  ])('tells of %s (%s)', (_what, guest, peer, entry, typeAndCode, source) => {
    const socket = openFlow(guest, peer, pattern(10));
    const [packet] = report(socket, entry, pattern(10));
    expect([...packet!.payload.slice(0, 2)]).toEqual(typeAndCode);
    expect(packet).toMatchObject({ source, destination: guest });
    expect(isIcmpChecksumRight(packet!)).toBe(true);
  });

  it('tells the MTU of a path', () => {
    const [v4] = report(
      openFlow(GUEST_4, PEER_4, pattern(10)),
      { origin: ORIGIN_ICMP, errno: 90, type: 3, code: 4, info: 1400, offender: HOP_4 },
      pattern(10),
    );
    expect([...v4!.payload.slice(0, 2), ...v4!.payload.slice(4, 8)]).toEqual([3, 4, 0, 0, 5, 0x78]);
    const [v6] = report(
      openFlow(GUEST_6, PEER_6, pattern(10)),
      { origin: ORIGIN_ICMPV6, errno: 90, type: 2, code: 0, info: 1400, offender: HOP_6 },
      pattern(10),
    );
    expect([...v6!.payload.slice(0, 2), ...v6!.payload.slice(4, 8)]).toEqual([2, 0, 0, 0, 5, 0x78]);
  });

  it('names the router where the host’s loopback has answered', () => {
    const socket = openFlow(GUEST_4, ROUTER_4, pattern(3));
    const entry = { origin: ORIGIN_ICMP, type: 3, code: 3, offender: '127.0.0.1' };
    const [packet] = report(socket, entry, pattern(3));
    expect(packet).toMatchObject({ source: ROUTER_4, destination: GUEST_4 });
    // The quoted destination is the one that the guest used.
    expect([...packet!.payload.slice(24, 28)]).toEqual([192, 0, 2, 1]);
  });

  it('does not show the guest its own address as the one who complains', () => {
    const socket = openFlow(GUEST_4, PEER_4, pattern(3));
    const entry = { origin: ORIGIN_ICMP, type: 3, code: 1, offender: GUEST_4 };
    expect(report(socket, entry, pattern(3))[0]).toMatchObject({ source: ROUTER_4 });
  });

  it('is quoted with the length that was sent, though only a part is known', () => {
    const socket = openFlow(GUEST_4, PEER_4, pattern(1000));
    const entry = { origin: ORIGIN_ICMP, type: 3, code: 3, offender: PEER_4 };
    const [packet] = report(socket, entry, pattern(1000).slice(0, 20));
    expect(packet!.payload).toHaveLength(8 + 20 + 8 + 20);
    const quote = new DataView(packet!.payload.buffer, packet!.payload.byteOffset + 8);
    expect(quote.getUint16(2)).toBe(1028);
    expect(quote.getUint16(24)).toBe(1008);
    expect(quote.getUint16(26)).toBe(0);
  });

  it.each([
    [GUEST_4, PEER_4, ORIGIN_ICMP, 3, 576],
    [GUEST_6, PEER_6, ORIGIN_ICMPV6, 1, 1280],
  ])('is quoted as far as its RFC allows (%s)', (guest, peer, origin, type, mostBytes) => {
    const socket = openFlow(guest, peer, pattern(1400));
    const [packet] = report(socket, { origin, type, code: 3, offender: peer }, pattern(1400));
    expect(packet!.bytes).toHaveLength(mostBytes);
    expect(isIcmpChecksumRight(packet!)).toBe(true);
  });

  it('is translated when the host’s socket has the other family', () => {
    stack = new TestStack({ dnsHost: '2001:db8:53::53' });
    stack.fromGuest(udpPacket(GUEST_4, 4000, '192.0.2.3', 53, pattern(5)));
    const socket = stack.sockets.last;
    const offender = '2001:db8:53::53';
    const [refused] = report(socket, { origin: ORIGIN_ICMPV6, type: 1, code: 4, offender }, pattern(5));
    expect(refused).toMatchObject({ source: '192.0.2.3', destination: GUEST_4, protocol: 1 });
    expect([...refused!.payload.slice(0, 2)]).toEqual([3, 3]);
    const tooBig = { origin: ORIGIN_ICMPV6, errno: 90, type: 2, info: 1300, offender: HOP_6 };
    const [packet] = report(socket, tooBig, pattern(5));
    expect(packet).toMatchObject({ source: ROUTER_4 });
    expect([...packet!.payload.slice(0, 2), ...packet!.payload.slice(6, 8)]).toEqual([3, 4, 5, 0]);
  });

  it('is not passed on when it is nothing a guest could act on', () => {
    const socket = openFlow(GUEST_4, PEER_4, pattern(5));
    expect(report(socket, { origin: ORIGIN_ICMP, type: 4, code: 0, offender: HOP_4 }, pattern(5))).toEqual([]);
    expect(report(socket, { origin: ORIGIN_ICMP, type: 12, code: 0, offender: HOP_4 }, pattern(5))).toEqual([]);
    expect(report(socket, { origin: 4, type: 3, code: 3 }, pattern(5))).toEqual([]);
    expect(report(socket, { origin: ORIGIN_LOCAL, errno: 12 }, pattern(5))).toEqual([]);
  });

  it('does not end the flow, nor keep back what has come after it', () => {
    const socket = openFlow(GUEST_4, PEER_4, pattern(5));
    socket.pendingError = 111;
    socket.deliverDatagram({ source: endpoint(PEER_4, 33434), data: pattern(9) });
    const packets = report(socket, { origin: ORIGIN_ICMP, type: 3, code: 3, offender: PEER_4 }, pattern(5));
    expect(packets.map((p) => p.protocol)).toEqual([1, 17]);
    expect(stack.ctx.flows.count).toBe(1);
  });

  it('about an answer of the guest finds its way back through the forwarded port', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({ source: endpoint(PEER_4, 777), data: pattern(3) });
    stack.handleEvents();
    stack.fromGuest(udpPacket(GUEST_4, 5000, PEER_4, 777, pattern(6)));
    stack.takePackets();
    const entry = { origin: ORIGIN_ICMP, type: 3, code: 3, offender: PEER_4 } as const;
    const [packet] = report(listener, { ...entry, destination: [PEER_4, 777] }, pattern(6));
    expect(packet).toMatchObject({ source: PEER_4, destination: GUEST_4, protocol: 1 });
    expect(packet!.payload.slice(28)).toEqual(udpMessage(GUEST_4, 5000, PEER_4, 777, pattern(6)));
    expect(report(listener, { ...entry, destination: [PEER_4, 778] }, pattern(6))).toEqual([]);
  });

  it('is one of at most 50 at once and 1000 a second', () => {
    const socket = openFlow(GUEST_4, PEER_4, pattern(5));
    const entry = { origin: ORIGIN_ICMP, type: 3, code: 3, offender: PEER_4 };
    const flood = (): number => {
      for (let i = 0; i < 80; i++) socket.errors.push(errorEntry(entry, pattern(5)));
      socket.edge = true;
      stack.handleEvents();
      return stack.takePackets().length;
    };
    expect(flood()).toBe(50);
    expect(stack.ctx.counters.icmpErrorsSuppressed).toBe(30);
    stack.ctx.nowMs += 10;
    expect(flood()).toBe(10);
    stack.ctx.nowMs += 5000;
    expect(flood()).toBe(50);
  });
});

describe('an error of our own', () => {
  it('quotes the packet as it came, and is not sent about ICMP that is no request', () => {
    stack.sockets.connect = () => -113;
    const packet = echoRequest(GUEST_4, PEER_4, 7, 1, pattern(20));
    stack.fromGuest(packet);
    const [told] = stack.takePackets();
    expect(told!.payload.slice(8)).toEqual(packet);
    expect([...told!.payload.slice(0, 2)]).toEqual([3, 1]);
    stack.fromGuest(ipPacket(GUEST_4, PEER_4, 1, told!.payload));
    expect(stack.takePackets()).toEqual([]);
  });
});
