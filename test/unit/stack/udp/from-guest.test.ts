import { beforeEach, describe, expect, it } from 'vitest';
import { EVENT_EDGE, EVENT_IN, KIND_UDP, OFFLOAD_CHECKSUM } from '../../../../src/stack/ports.ts';
import { ECONNREFUSED, endpointText } from '../../../support/fake-socket.ts';
import {
  endpoint,
  GUEST_4,
  GUEST_6,
  ip,
  OUR_LINK_LOCAL,
  parseUdp,
  pattern,
  ROUTER_4,
  ROUTER_6,
  TestStack,
  udpPacket,
} from './support.ts';

const PEER_4 = '198.51.100.9';
const PEER_6 = '2001:db8:9::9';
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

let stack: TestStack;
beforeEach(() => {
  stack = new TestStack();
});

describe('a datagram from the guest', () => {
  it.each([
    [GUEST_4, PEER_4, '198.51.100.9:53'],
    [GUEST_6, PEER_6, '[2001:db8:9:0:0:0:0:9]:53'],
  ])('opens a socket on the same port, connected to the peer (%s)', (guest, peer, expected) => {
    stack.fromGuest(udpPacket(guest, 4000, peer, 53, text('query')));
    const socket = stack.sockets.last;
    expect(endpointText(socket.peer)).toBe(expected);
    expect(endpointText(socket.local)).toMatch(/:4000$/);
    expect(socket.watched).toEqual({ events: (EVENT_IN | EVENT_EDGE) >>> 0, kind: KIND_UDP, index: 0 });
    expect(socket.sentDatagrams.map((d) => d.data)).toEqual([text('query')]);
  });

  it('shares its port among peers, and turns the error queue on', () => {
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')));
    expect(stack.sockets.last.options.get('1:2')).toBe(1);
    expect(stack.sockets.last.options.get('0:11')).toBe(1);
    stack.fromGuest(udpPacket(GUEST_6, 4000, PEER_6, 53, text('a')));
    expect(stack.sockets.last.options.get('41:25')).toBe(1);
    expect(stack.sockets.last.options.get('41:26')).toBe(1);
  });

  it('leaves with the others of its flow in one call', () => {
    const packets = Array.from({ length: 40 }, (_, i) => udpPacket(GUEST_4, 4000, PEER_4, 53, pattern(i + 1)));
    stack.fromGuest(...packets);
    expect(stack.sockets.calls.get('sendDatagrams')).toBe(1);
    expect(stack.sockets.last.sentDatagrams.map((d) => d.data)).toEqual(
      Array.from({ length: 40 }, (_, i) => pattern(i + 1)),
    );
  });

  it('leaves as one with others of its length, and alone where the kernel refuses that', () => {
    const packets = (length: number) =>
      Array.from({ length: 40 }, (_, i) => udpPacket(GUEST_4, 4000, PEER_4, 53, pattern(length, i)));
    const data = (length: number) => Array.from({ length: 40 }, (_, i) => pattern(length, i));
    const { sockets } = stack;
    stack.fromGuest(...packets(1000), udpPacket(GUEST_4, 4000, PEER_4, 53, text('last')));
    expect(sockets.calls.get('sendEqualDatagrams')).toBe(1);
    expect(sockets.last.sentDatagrams.map((d) => d.data)).toEqual([...data(1000), text('last')]);
    let asked = 0;
    sockets.sendEqualDatagrams = () => {
      asked++;
      return -90;
    };
    sockets.last.sentDatagrams.length = 0;
    stack.fromGuest(...packets(1400), ...packets(1200));
    expect(sockets.last.sentDatagrams.map((d) => d.data)).toEqual([...data(1400), ...data(1200)]);
    expect(asked).toBe(1);
  });

  it('that is several, uncut, leaves as one again and arrives as several', () => {
    stack = new TestStack({ offloads: OFFLOAD_CHECKSUM });
    const all = pattern(10 * 1000 + 300);
    stack.fromGuestUncut(udpPacket(GUEST_4, 4000, PEER_4, 53, all), 1000);
    expect(stack.sockets.calls.get('sendEqualDatagrams')).toBe(1);
    const sent = stack.sockets.last.sentDatagrams.map((d) => d.data);
    expect(sent.map((data) => data.length)).toEqual([...new Array<number>(10).fill(1000), 300]);
    expect(Buffer.concat(sent).equals(all)).toBe(true);
    // A single one, whatever the header says of its length.
    stack.fromGuestUncut(udpPacket(GUEST_4, 4000, PEER_4, 53, text('one')), 1000);
    expect(stack.sockets.last.sentDatagrams.at(-1)!.data).toEqual(text('one'));
  });

  it('keeps its place among flows that alternate', () => {
    stack.fromGuest(
      udpPacket(GUEST_4, 4000, PEER_4, 53, text('a1')),
      udpPacket(GUEST_4, 4001, PEER_4, 53, text('b1')),
      udpPacket(GUEST_4, 4000, PEER_4, 53, text('a2')),
      udpPacket(GUEST_4, 4000, PEER_4, 53, text('a3')),
    );
    const [a, b] = stack.sockets.all;
    expect(a!.sentDatagrams.map((d) => new TextDecoder().decode(d.data))).toEqual(['a1', 'a2', 'a3']);
    expect(b!.sentDatagrams.map((d) => new TextDecoder().decode(d.data))).toEqual(['b1']);
    expect(stack.sockets.all).toHaveLength(2);
  });

  it('may be empty', () => {
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, new Uint8Array(0)));
    expect(stack.sockets.last.sentDatagrams).toEqual([{ data: new Uint8Array(0), to: undefined, from: undefined }]);
  });

  it('ends where its own length says, before padding', () => {
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('x')));
    expect(stack.sockets.last.sentDatagrams[0]!.data).toHaveLength(1);
  });

  it('reaches the host by the router address', () => {
    stack.fromGuest(udpPacket(GUEST_4, 4000, ROUTER_4, 53, text('a')));
    expect(endpointText(stack.sockets.last.peer)).toBe('127.0.0.1:53');
    stack.fromGuest(udpPacket(GUEST_6, 4000, ROUTER_6, 53, text('a')));
    expect(endpointText(stack.sockets.last.peer)).toBe('[0:0:0:0:0:0:0:1]:53');
  });

  it('reaches a link-local peer by the host interface that was told', () => {
    stack.fromGuest(udpPacket(GUEST_6, 4000, 'fe80::77', 53, text('a')));
    expect(stack.sockets.last.peer).toEqual(endpoint('fe80::77', 53, 7));
  });

  it('reaches a resolver of the other family, and the answer comes back in the guest’s', () => {
    const other = new TestStack({ dnsHost: '2001:db8:53::53' });
    other.fromGuest(udpPacket(GUEST_4, 4000, '192.0.2.3', 53, text('q')));
    const socket = other.sockets.last;
    expect(socket.family).toBe(6);
    socket.deliverDatagram({ source: endpoint('2001:db8:53::53', 53), data: text('answer') });
    other.handleEvents();
    expect(other.takePackets().map(parseUdp)).toEqual([
      { from: '192.0.2.3 53', to: '192.0.2.2 4000', data: text('answer') },
    ]);
  });

  it('uses the outbound address and interface, except to the host itself', () => {
    const bound = new TestStack({ outbound: '203.0.113.5' });
    bound.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')));
    expect(endpointText(bound.sockets.last.local)).toBe('203.0.113.5:4000');
    expect(bound.sockets.last.options.get('1:25')).toBe('eth7');
    bound.fromGuest(udpPacket(GUEST_4, 4000, ROUTER_4, 53, text('a')));
    expect(endpointText(bound.sockets.last.local)).toBe('0.0.0.0:4000');
    expect(bound.sockets.last.options.has('1:25')).toBe(false);
  });

  it.each([
    [GUEST_4, ROUTER_4, '127.0.0.1'],
    [GUEST_6, ROUTER_6, '::1'],
  ])('does not come back as its own echo when host and guest use one port (%s)', (guest, router, loopback) => {
    const { sockets } = stack;
    const connect = sockets.connect.bind(sockets);
    sockets.connect = (fd, offset) => {
      // The kernel takes the remote's address as source, for it is the host's own.
      const socket = sockets.sockets.get(fd)!;
      const port = (socket.local[2]! << 8) | socket.local[3]!;
      socket.local = endpoint(loopback, port === 0 ? 40_000 : port);
      return connect(fd, offset);
    };
    stack.fromGuest(udpPacket(guest, 5000, router, 5000, text('a')));
    expect(endpointText(sockets.last.local)).toMatch(/:40000$/);
    expect(sockets.last.sentDatagrams).toHaveLength(1);
    expect(sockets.openCount).toBe(1);
    stack.fromGuest(udpPacket(guest, 5000, router, 5001, text('a')));
    expect(endpointText(sockets.last.local)).toMatch(/:5000$/);
  });

  it('takes any port when the guest’s own is not to be had', () => {
    const { sockets } = stack;
    sockets.bind = () => -98;
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')));
    expect(sockets.last.sentDatagrams).toHaveLength(1);
  });

  it('hands its TTL or hop limit to the socket, once per change', () => {
    const probe = (hopLimit: number) => udpPacket(GUEST_4, 4000, PEER_4, 33434, text('p'), { hopLimit });
    stack.fromGuest(probe(1), probe(1), probe(2));
    expect(stack.sockets.last.options.get('0:2')).toBe(2);
    expect(stack.sockets.calls.get('sendDatagrams')).toBe(2);
    const before = stack.sockets.calls.get('setOption');
    stack.fromGuest(probe(2));
    expect(stack.sockets.calls.get('setOption')).toBe(before);
    stack.fromGuest(udpPacket(GUEST_6, 4000, PEER_6, 33434, text('p'), { hopLimit: 3 }));
    expect(stack.sockets.last.options.get('41:16')).toBe(3);
  });

  it.each([
    ['multicast', GUEST_4, '224.0.0.251'],
    ['broadcast', GUEST_4, '255.255.255.255'],
    ['the broadcast address of its network', GUEST_4, '192.0.2.255'],
    ['loopback', GUEST_4, '127.0.0.1'],
    ['IPv6 multicast', GUEST_6, 'ff02::fb'],
    ['IPv6 loopback', GUEST_6, '::1'],
  ])('goes nowhere when it is for %s', (_what, guest, destination) => {
    stack.fromGuest(udpPacket(guest, 4000, destination, 5353, text('a')));
    expect(stack.sockets.all).toHaveLength(0);
    expect(stack.ctx.counters.udpUndeliverable).toBe(1);
    expect(stack.takePackets()).toEqual([]);
  });

  it('goes nowhere without an address or a destination port', () => {
    stack.fromGuest(
      udpPacket('0.0.0.0', 68, PEER_4, 53, text('a')),
      udpPacket('::', 68, PEER_6, 53, text('a')),
      udpPacket(GUEST_4, 4000, PEER_4, 0, text('a')),
    );
    expect(stack.sockets.all).toHaveLength(0);
    expect(stack.ctx.counters.udpUndeliverable).toBe(3);
  });

  it('is sent although an earlier one was refused', () => {
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')));
    stack.sockets.last.pendingError = ECONNREFUSED;
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('b')), udpPacket(GUEST_4, 4000, PEER_4, 53, text('c')));
    expect(stack.sockets.last.sentDatagrams.map((d) => d.data)).toEqual([text('a'), text('b'), text('c')]);
  });

  it('is dropped alone when the socket refuses it for good', () => {
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')));
    const { sockets, ctx } = stack;
    const send = sockets.sendDatagrams.bind(sockets);
    // As sendmmsg does: up to the one that fails, and that one's error when it is the first.
    sockets.sendDatagrams = (fd, list, count) => {
      let good = 0;
      while (good < count && ctx.view.getUint32(list + 8 * good + 4, true) !== 666) good++;
      return good === 0 ? -90 : send(fd, list, good);
    };
    const sizes = [10, 666, 20, 30, 666, 40];
    stack.fromGuest(...sizes.map((size) => udpPacket(GUEST_4, 4000, PEER_4, 53, pattern(size))));
    expect(sockets.last.sentDatagrams.map((d) => d.data.length)).toEqual([1, 10, 20, 30, 40]);
    expect(ctx.counters.udpDropped).toBe(2);
  });

  it('is dropped with those behind it when the socket is full', () => {
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')));
    stack.sockets.sendDatagrams = () => -11;
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('b')), udpPacket(GUEST_4, 4000, PEER_4, 53, text('c')));
    expect(stack.ctx.counters.udpDropped).toBe(2);
  });

  it('is answered with "network unreachable" when the host has no route', () => {
    stack.sockets.connect = () => -101;
    stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')), udpPacket(GUEST_6, 4000, PEER_6, 53, text('a')));
    const [v4, v6] = stack.takePackets();
    expect(v4).toMatchObject({ source: ROUTER_4, destination: GUEST_4, protocol: 1 });
    expect([...v4!.payload.slice(0, 2)]).toEqual([3, 0]);
    expect(v6).toMatchObject({ source: ROUTER_6, destination: GUEST_6, protocol: 58 });
    expect([...v6!.payload.slice(0, 2)]).toEqual([1, 0]);
    expect(stack.sockets.openCount).toBe(0);
  });

  it('is dropped, with no descriptor lost, when no flow is free', () => {
    const small = new TestStack({ capacity: 8 });
    for (let port = 1; port <= 9; port++) small.fromGuest(udpPacket(GUEST_4, 4000 + port, PEER_4, 53, text('a')));
    // Half of the table is the share of UDP.
    expect(small.sockets.openCount).toBe(4);
    expect(small.ctx.counters.flowTableFull).toBe(5);
  });

  it('finds its flow again with its own link-local address kept apart', () => {
    stack.fromGuest(udpPacket('fe80::2', 4000, PEER_6, 53, text('a')), udpPacket(GUEST_6, 4000, PEER_6, 53, text('b')));
    expect(stack.sockets.all).toHaveLength(2);
    expect(OUR_LINK_LOCAL).not.toBe(ROUTER_6);
    expect([...stack.ctx.guest.linkLocal]).toEqual([...ip('fe80::2')]);
  });
});

describe('the time a flow lives', () => {
  const send = () => stack.fromGuest(udpPacket(GUEST_4, 4000, PEER_4, 53, text('a')));
  const answer = () => {
    stack.sockets.last.deliverDatagram({ source: endpoint(PEER_4, 53), data: text('b') });
    stack.handleEvents();
  };

  it('is 30 s without an answer', () => {
    send();
    stack.advance(29_900);
    expect(stack.sockets.openCount).toBe(1);
    stack.advance(200);
    expect(stack.sockets.openCount).toBe(0);
    expect(stack.ctx.flows.count).toBe(0);
  });

  it('starts anew with each datagram', () => {
    send();
    stack.advance(20_000);
    send();
    stack.advance(20_000);
    expect(stack.sockets.openCount).toBe(1);
    stack.advance(10_100);
    expect(stack.sockets.openCount).toBe(0);
  });

  it('is 120 s once both sides have spoken', () => {
    send();
    answer();
    stack.advance(119_900);
    expect(stack.sockets.openCount).toBe(1);
    stack.advance(200);
    expect(stack.sockets.openCount).toBe(0);
  });

  it('does not carry over to the next flow with the same entry', () => {
    send();
    answer();
    stack.advance(120_100);
    send();
    stack.advance(30_100);
    expect(stack.sockets.openCount).toBe(0);
  });
});
