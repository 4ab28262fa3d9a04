import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../../src/base/logger.ts';
import type { RawEcho } from '../../../../src/stack/icmp/raw-echo.ts';
import { EVENT_EDGE, EVENT_IN, KIND_PING } from '../../../../src/stack/ports.ts';
import { endpointText, type FakeSocket } from '../../../support/fake-socket.ts';
import {
  concat,
  echoMessage,
  echoRequest,
  endpoint,
  GUEST_4,
  GUEST_6,
  ip,
  isIcmpChecksumRight,
  joinFragments,
  OUR_LINK_LOCAL,
  type Packet,
  pattern,
  ROUTER_4,
  ROUTER_6,
  TestStack,
  udpPacket,
} from '../udp/support.ts';
import { errorEntry, ORIGIN_ICMP, ORIGIN_ICMPV6 } from './support.ts';

const PEER_4 = '198.51.100.9';
const PEER_6 = '2001:db8:9::9';
const HOST_ID = 0x4242;

let stack: TestStack;
beforeEach(() => {
  stack = new TestStack();
});

/** What the kernel hands out for an answered request: its own identifier in it. */
function replyFrom(peer: string, seq: number, data: Uint8Array): Uint8Array {
  const type = peer.includes(':') ? 129 : 0;
  return echoMessage(peer, peer, type, HOST_ID, seq, data);
}

function ping(guest: string, peer: string, id: number, seq: number, data = pattern(56), hopLimit = 64): FakeSocket {
  stack.fromGuest(echoRequest(guest, peer, id, seq, data, { hopLimit }));
  return stack.sockets.last;
}

function answer(socket: FakeSocket, peer: string, seq: number, data = pattern(56)): Packet[] {
  socket.deliverDatagram({ source: endpoint(peer, 0), data: replyFrom(peer, seq, data) });
  stack.handleEvents();
  return stack.takePackets();
}

describe.each([
  ['IPv4', GUEST_4, PEER_4, 1, 0],
  ['IPv6', GUEST_6, PEER_6, 58, 129],
])('an echo request (%s)', (family, guest, peer, protocol, replyType) => {
  it('leaves by a ping socket bound to its identifier and connected to its destination', () => {
    const socket = ping(guest, peer, 77, 1);
    expect(socket.protocol).toBe(protocol);
    expect(endpointText(socket.local)).toMatch(/:77$/);
    expect(endpointText(socket.peer)).toContain(family === 'IPv4' ? PEER_4 : '2001:db8:9');
    expect(socket.watched).toEqual({ events: (EVENT_IN | EVENT_EDGE) >>> 0, kind: KIND_PING, index: 0 });
    expect(socket.sentDatagrams).toHaveLength(1);
    const { data } = socket.sentDatagrams[0]!;
    expect(data.slice(4)).toEqual(concat([0, 77, 0, 1], pattern(56)));
    // An identifier shared with another program would give it our replies.
    expect(socket.options.has('1:2')).toBe(false);
  });

  it('is answered with the identifier that the guest has chosen', () => {
    const socket = ping(guest, peer, 77, 9);
    const [reply] = answer(socket, peer, 9);
    expect(reply).toMatchObject({ source: peer, destination: guest, protocol });
    expect(reply!.payload[0]).toBe(replyType);
    expect(reply!.payload.slice(4)).toEqual(concat([0, 77, 0, 9], pattern(56)));
    expect(isIcmpChecksumRight(reply!)).toBe(true);
  });

  it('shares a session with others of its identifier and destination only', () => {
    const first = ping(guest, peer, 77, 1);
    expect(ping(guest, peer, 77, 2)).toBe(first);
    expect(ping(guest, peer, 78, 1)).not.toBe(first);
    expect(first.sentDatagrams).toHaveLength(2);
  });

  it('may be long, and so may its answer', () => {
    const socket = ping(guest, peer, 77, 1, pattern(1400));
    const reply = joinFragments(answer(socket, peer, 1, pattern(20_000)));
    expect(reply.payload.slice(8)).toEqual(pattern(20_000));
    expect(isIcmpChecksumRight(reply)).toBe(true);
  });

  it('may be empty, and odd', () => {
    const socket = ping(guest, peer, 77, 1, new Uint8Array(0));
    expect(answer(socket, peer, 1, new Uint8Array(0))).toHaveLength(1);
    const [reply] = answer(socket, peer, 2, pattern(13));
    expect(isIcmpChecksumRight(reply!)).toBe(true);
  });

  it('is not answered by somebody else, nor with something else', () => {
    const socket = ping(guest, peer, 77, 1);
    const stranger = family === 'IPv4' ? '198.51.100.10' : '2001:db8:9::10';
    socket.deliverDatagram({ source: endpoint(stranger, 0), data: replyFrom(peer, 1, pattern(5)) });
    socket.deliverDatagram({
      source: endpoint(peer, 0),
      data: echoMessage(peer, peer, family === 'IPv4' ? 8 : 128, HOST_ID, 1, pattern(5)),
    });
    socket.deliverDatagram({ source: endpoint(peer, 0), data: new Uint8Array(3) });
    stack.handleEvents();
    expect(stack.takePackets()).toEqual([]);
  });

  it('hands its TTL or hop limit on, and hears of where it ended', () => {
    const hop = family === 'IPv4' ? '203.0.113.1' : '2001:db8:ff::1';
    const socket = ping(guest, peer, 77, 3, pattern(40), 5);
    expect(socket.options.get(family === 'IPv4' ? '0:2' : '41:16')).toBe(5);
    const quoted = echoMessage(guest, peer, family === 'IPv4' ? 8 : 128, 77, 3, pattern(40));
    const sent = quoted.slice();
    sent.set([HOST_ID >> 8, HOST_ID & 255], 4);
    // What the kernel puts on the wire has a checksum of its own.
    const delta = HOST_ID - 77;
    const checksum = ((quoted[2]! << 8) | quoted[3]!) - delta;
    sent.set([((checksum + 0xffff) % 0xffff) >> 8, ((checksum + 0xffff) % 0xffff) & 255], 2);
    const entry =
      family === 'IPv4'
        ? { origin: ORIGIN_ICMP, type: 11, code: 0, offender: hop }
        : { origin: ORIGIN_ICMPV6, type: 3, code: 0, offender: hop };
    socket.errors.push(errorEntry(entry, sent));
    socket.edge = true;
    stack.handleEvents();
    const [told] = stack.takePackets();
    expect(told).toMatchObject({ source: hop, destination: guest, protocol });
    expect(told!.payload.slice(8 + (family === 'IPv4' ? 20 : 40))).toEqual(quoted);
    expect(isIcmpChecksumRight(told!)).toBe(true);
  });

  it('is forgotten 60 s after its last message', () => {
    const socket = ping(guest, peer, 77, 1);
    stack.advance(40_000);
    answer(socket, peer, 1);
    stack.advance(59_900);
    expect(stack.sockets.openCount).toBe(1);
    stack.advance(200);
    expect(stack.sockets.openCount).toBe(0);
    expect(stack.ctx.flows.count).toBe(0);
  });

  it('reaches the host by the router address', () => {
    const socket = ping(guest, family === 'IPv4' ? ROUTER_4 : ROUTER_6, 77, 1);
    const loopback = family === 'IPv4' ? '127.0.0.1' : '::1';
    expect(socket.peer).toEqual(endpoint(loopback, 0));
    const [reply] = answer(socket, loopback, 1);
    expect(reply).toMatchObject({ source: family === 'IPv4' ? ROUTER_4 : ROUTER_6, destination: guest });
  });

  it('is tried again when the first send reports an earlier one’s fate', () => {
    const socket = ping(guest, peer, 77, 1);
    const { sockets } = stack;
    const send = sockets.send.bind(sockets);
    let failures = 1;
    sockets.send = (...args) => (failures-- > 0 ? -111 : send(...args));
    ping(guest, peer, 77, 2);
    expect(socket.sentDatagrams).toHaveLength(2);
  });
});

describe('echo requests', () => {
  it('to our own link-local address are answered by the stack', () => {
    stack.fromGuest(echoRequest('fe80::2', OUR_LINK_LOCAL, 5, 6, pattern(100)));
    expect(stack.sockets.all).toHaveLength(0);
    const [reply] = stack.takePackets();
    expect(reply).toMatchObject({ source: OUR_LINK_LOCAL, destination: 'fe80::2', protocol: 58 });
    expect(reply!.payload[0]).toBe(129);
    expect(reply!.payload.slice(4)).toEqual(concat([0, 5, 0, 6], pattern(100)));
    expect(isIcmpChecksumRight(reply!)).toBe(true);
  });

  it('with a wrong ICMPv6 checksum are dropped', () => {
    const packet = echoRequest(GUEST_6, PEER_6, 5, 6, pattern(10));
    packet[packet.length - 1]! ^= 1;
    stack.fromGuest(packet);
    expect(stack.ctx.counters.badIcmp).toBe(1);
    expect(stack.sockets.all).toHaveLength(0);
  });

  it('to multicast, broadcast and loopback go nowhere', () => {
    for (const destination of ['224.0.0.1', '255.255.255.255', '127.0.0.1']) {
      stack.fromGuest(echoRequest(GUEST_4, destination, 5, 6, pattern(10)));
    }
    for (const destination of ['ff02::1', '::1']) {
      stack.fromGuest(echoRequest(GUEST_6, destination, 5, 6, pattern(10)));
    }
    expect(stack.sockets.all).toHaveLength(0);
    expect(stack.ctx.counters.echoUndeliverable).toBe(5);
  });

  it('share the flow table with UDP without mixing up', () => {
    stack.fromGuest(udpPacket(GUEST_4, 77, PEER_4, 53, pattern(3)), echoRequest(GUEST_4, PEER_4, 77, 1, pattern(3)));
    const [udp, echo] = stack.sockets.all;
    udp!.deliverDatagram({ source: endpoint(PEER_4, 53), data: pattern(4) });
    echo!.deliverDatagram({ source: endpoint(PEER_4, 0), data: replyFrom(PEER_4, 1, pattern(3)) });
    stack.handleEvents();
    expect(stack.takePackets().map((p) => p.protocol)).toEqual([17, 1]);
  });

  it('wait in their socket while the link is full', () => {
    const socket = ping(GUEST_4, PEER_4, 77, 1);
    stack.link.limitRoom(1000);
    stack.link.stalled = true;
    expect(answer(socket, PEER_4, 1)).toEqual([]);
    stack.link.stalled = false;
    stack.link.limitRoom(1 << 23);
    stack.endTurn();
    expect(stack.takePackets()).toHaveLength(1);
  });
});

describe('where ping sockets are refused', () => {
  function refuse(on: TestStack): void {
    on.sockets.openResult = -13;
  }

  it('the host itself still answers, others do not, and the log says so once', () => {
    const lines: string[] = [];
    stack = new TestStack({ log: { ...silentLogger, warn: (line) => lines.push(line) } });
    refuse(stack);
    for (let i = 0; i < 3; i++) stack.fromGuest(echoRequest(GUEST_4, PEER_4, 1, i, pattern(10)));
    expect(stack.takePackets()).toEqual([]);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('ping_group_range');
    stack.fromGuest(echoRequest(GUEST_4, ROUTER_4, 1, 9, pattern(10)));
    const [reply] = stack.takePackets();
    expect(reply).toMatchObject({ source: ROUTER_4, destination: GUEST_4 });
    expect(reply!.payload.slice(4)).toEqual(concat([0, 1, 0, 9], pattern(10)));
    expect(stack.ctx.flows.count).toBe(0);
  });

  it('a raw socket takes their place, its identifiers kept apart', () => {
    const sent: { family: number; message: Uint8Array; destination: number[]; hopLimit: number }[] = [];
    const raw: RawEcho = {
      open: () => true,
      send: (family, message, destination, _scope, hopLimit) =>
        void sent.push({ family, message: message.slice(), destination: [...destination], hopLimit }),
      onMessage: undefined,
    };
    stack = new TestStack({ raw });
    refuse(stack);
    stack.fromGuest(
      echoRequest(GUEST_4, PEER_4, 77, 1, pattern(10), { hopLimit: 9 }),
      echoRequest(GUEST_4, '198.51.100.10', 77, 2, pattern(10)),
      echoRequest(GUEST_6, PEER_6, 80, 3, pattern(10)),
    );
    expect(sent.map((s) => (s.message[4]! << 8) | s.message[5]!)).toEqual([77, 78, 80]);
    expect(sent.map((s) => s.family)).toEqual([4, 4, 6]);
    expect(sent[0]).toMatchObject({ destination: [...ip(PEER_4)], hopLimit: 9 });
    expect(sent[1]!.message).toEqual(echoMessage(GUEST_4, PEER_4, 8, 78, 2, pattern(10)));

    raw.onMessage?.(4, ip('198.51.100.10'), echoMessage(PEER_4, GUEST_4, 0, 78, 2, pattern(10)));
    raw.onMessage?.(4, ip(PEER_4), echoMessage(PEER_4, GUEST_4, 0, 78, 2, pattern(10)));
    raw.onMessage?.(4, ip(PEER_4), echoMessage(PEER_4, GUEST_4, 0, 99, 2, pattern(10)));
    raw.onMessage?.(4, ip(PEER_4), new Uint8Array(4));
    stack.endTurn();
    const packets = stack.takePackets();
    expect(packets).toHaveLength(1);
    expect(packets[0]).toMatchObject({ source: '198.51.100.10', destination: GUEST_4 });
    expect(packets[0]!.payload.slice(4)).toEqual(concat([0, 77, 0, 2], pattern(10)));
    expect(isIcmpChecksumRight(packets[0]!)).toBe(true);

    stack.advance(60_100);
    expect(stack.ctx.flows.count).toBe(0);
    raw.onMessage?.(6, ip(PEER_6), echoMessage(PEER_6, GUEST_6, 129, 80, 3, pattern(10)));
    stack.endTurn();
    expect(stack.takePackets()).toEqual([]);
  });
});
