import { isDeepStrictEqual } from 'node:util';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { endpointText, type FakeSocket } from '../../../support/fake-socket.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import {
  endpoint,
  GUEST_4,
  GUEST_6,
  ip,
  joinFragments,
  type Packet,
  parseUdp,
  pattern,
  ROUTER_4,
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

/** Whole packets, fragments put together. */
function joinAll(packets: readonly Packet[]): Packet[] {
  const whole: Packet[] = [];
  for (let i = 0; i < packets.length; i++) {
    let end = i;
    while (packets[end]?.fragment?.more === true) end++;
    whole.push(end === i ? packets[i]! : joinFragments(packets.slice(i, end + 1)));
    i = end;
  }
  return whole;
}

/** A flow that the guest has begun. */
function openFlow(on: TestStack, guest: string, peer: string, port = 4000): FakeSocket {
  on.fromGuest(udpPacket(guest, port, peer, 53, text('q')));
  return on.sockets.last;
}

describe('an answer from the host', () => {
  it.each([
    [GUEST_4, PEER_4],
    [GUEST_6, PEER_6],
  ])('reaches the guest with addresses, ports and checksum right (%s)', (guest, peer) => {
    const socket = openFlow(stack, guest, peer);
    for (const length of [0, 1, 2, 17, 18, 999, 1452]) {
      socket.deliverDatagram({ source: endpoint(peer, 53), data: pattern(length) });
    }
    stack.handleEvents();
    const got = stack.takePackets().map(parseUdp);
    expect(got.map((d) => d.data.length)).toEqual([0, 1, 2, 17, 18, 999, 1452]);
    for (const datagram of got) {
      expect(datagram).toEqual({ from: `${peer} 53`, to: `${guest} 4000`, data: pattern(datagram.data.length) });
    }
  });

  it('comes with others in one call, in order', () => {
    const socket = openFlow(stack, GUEST_4, PEER_4);
    stack.sockets.calls.clear();
    for (let i = 0; i < 50; i++) socket.deliverDatagram({ source: endpoint(PEER_4, 53), data: pattern(100, i) });
    stack.handleEvents();
    expect(stack.sockets.calls.get('receiveDatagrams')).toBe(1);
    expect(stack.takePackets().map((p) => parseUdp(p).data)).toEqual(
      Array.from({ length: 50 }, (_, i) => pattern(100, i)),
    );
  });

  it('comes from the router when the host itself has answered', () => {
    const socket = openFlow(stack, GUEST_4, ROUTER_4);
    socket.deliverDatagram({ source: endpoint('127.0.0.1', 53), data: text('a') });
    stack.handleEvents();
    expect(stack.takePackets().map(parseUdp)).toMatchObject([{ from: `${ROUTER_4} 53`, to: `${GUEST_4} 4000` }]);
  });

  it('is not taken from anybody but the peer', () => {
    const socket = openFlow(stack, GUEST_4, PEER_4);
    socket.deliverDatagram({ source: endpoint(PEER_4, 54), data: text('port') });
    socket.deliverDatagram({ source: endpoint('198.51.100.8', 53), data: text('address') });
    socket.deliverDatagram({ source: endpoint(PEER_4, 53), data: text('right') });
    stack.handleEvents();
    expect(stack.takePackets().map((p) => new TextDecoder().decode(parseUdp(p).data))).toEqual(['right']);
  });

  it.each([
    [GUEST_4, PEER_4, 1500, 1480],
    [GUEST_6, PEER_6, 1500, 1448],
    [GUEST_4, PEER_4, 576, 552],
  ])('is fragmented when it does not fit (%s, MTU %s %i)', (guest, peer, mtu, pieceBytes) => {
    const small = new TestStack({ mtu });
    const socket = openFlow(small, guest, peer);
    socket.deliverDatagram({ source: endpoint(peer, 53), data: pattern(5120) });
    socket.deliverDatagram({ source: endpoint(peer, 53), data: pattern(7) });
    small.handleEvents();
    const packets = small.takePackets();
    const pieces = Math.ceil(5128 / pieceBytes);
    expect(packets).toHaveLength(pieces + 1);
    const fragments = packets.slice(0, pieces);
    expect(fragments.every((p) => p.bytes.length <= mtu)).toBe(true);
    expect(fragments[0]!.payload).toHaveLength(pieceBytes);
    expect(parseUdp(joinFragments(fragments)).data).toEqual(pattern(5120));
    expect(parseUdp(packets[pieces]!).data).toEqual(pattern(7));
  });

  it('may be as long as UDP allows, with identifications of its own', () => {
    const socket = openFlow(stack, GUEST_4, PEER_4);
    for (let i = 0; i < 2; i++) socket.deliverDatagram({ source: endpoint(PEER_4, 53), data: pattern(65507, i) });
    stack.handleEvents();
    const packets = stack.takePackets();
    const half = packets.length / 2;
    expect(parseUdp(joinFragments(packets.slice(0, half))).data).toEqual(pattern(65507, 0));
    expect(parseUdp(joinFragments(packets.slice(half))).data).toEqual(pattern(65507, 1));
    expect(packets[0]!.fragment!.id).not.toBe(packets[half]!.fragment!.id);
  });

  it('stays in the socket while the link is full, and comes when there is room', () => {
    const socket = openFlow(stack, GUEST_4, PEER_4);
    stack.link.limitRoom(100_000);
    stack.link.stalled = true;
    for (let i = 0; i < 200; i++) socket.deliverDatagram({ source: endpoint(PEER_4, 53), data: pattern(1400, i) });
    stack.handleEvents();
    expect(socket.datagrams.length).toBeGreaterThan(100);
    expect(stack.ctx.roomQueue.isEmpty).toBe(false);
    stack.link.stalled = false;
    stack.link.limitRoom(1 << 23);
    for (let i = 0; i < 3; i++) stack.endTurn();
    expect(socket.datagrams).toHaveLength(0);
    expect(stack.takePackets().map((p) => parseUdp(p).data)).toEqual(
      Array.from({ length: 200 }, (_, i) => pattern(1400, i)),
    );
    expect(stack.ctx.counters.droppedNoRoom).toBe(0);
  });

  it('waits for the next turn behind 512 others', () => {
    const socket = openFlow(stack, GUEST_4, PEER_4);
    for (let i = 0; i < 1000; i++) socket.deliverDatagram({ source: endpoint(PEER_4, 53), data: pattern(10) });
    socket.edge = false;
    stack.udp.onHostEvent(0, 1);
    expect(socket.datagrams).toHaveLength(488);
    stack.endTurn();
    expect(socket.datagrams).toHaveLength(0);
    expect(stack.takePackets()).toHaveLength(1000);
  });

  it('is thrown away while no guest is there', () => {
    const socket = openFlow(stack, GUEST_4, PEER_4);
    stack.link.connected = false;
    for (let i = 0; i < 200; i++) socket.deliverDatagram({ source: endpoint(PEER_4, 53), data: pattern(100) });
    stack.handleEvents();
    expect(socket.datagrams).toHaveLength(0);
    stack.link.connected = true;
    stack.endTurn();
    expect(stack.takePackets()).toEqual([]);
  });
});

describe('a forwarded port', () => {
  it.each([
    ['203.0.113.4', '198.51.100.1', GUEST_4],
    ['2001:db8:f::4', '2001:db8:e::1', GUEST_6],
  ])('shows the guest who sends, and answers from the address that was written to (%s)', (remote, local, guest) => {
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({ source: endpoint(remote, 777), local: endpoint(local, 0, 3), data: text('hello') });
    stack.handleEvents();
    expect(stack.takePackets().map(parseUdp)).toEqual([
      { from: `${remote} 777`, to: `${guest} 5000`, data: text('hello') },
    ]);
    stack.fromGuest(
      udpPacket(guest, 5000, remote, 777, text('one')),
      udpPacket(guest, 5000, remote, 777, text('two'), { hopLimit: 3 }),
      udpPacket(guest, 5000, remote, 777, text('three'), { hopLimit: 3 }),
    );
    expect(stack.sockets.openCount).toBe(1);
    expect(listener.sentDatagrams.map((d) => new TextDecoder().decode(d.data))).toEqual(['one', 'two', 'three']);
    for (const { to, from } of listener.sentDatagrams) {
      expect(to).toEqual(endpoint(remote, 777));
      // No interface: the route decides.
      expect(from).toEqual(endpoint(local, 0));
    }
  });

  it('keeps remotes apart, in runs of mixed families', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    const senders = ['203.0.113.4', '203.0.113.4', '2001:db8:f::4', '203.0.113.5', '2001:db8:f::5', '2001:db8:f::5'];
    senders.forEach((sender, i) => {
      listener.deliverDatagram({ source: endpoint(sender, 700), data: pattern(10 + i) });
    });
    stack.handleEvents();
    const got = stack.takePackets().map(parseUdp);
    expect(got.map((d) => d.from)).toEqual(senders.map((sender) => `${sender} 700`));
    expect(got.map((d) => d.data.length)).toEqual([10, 11, 12, 13, 14, 15]);
    expect(stack.ctx.flows.count).toBe(4);
  });

  it('shows the host itself as the router, and remembers which loopback address it was', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({
      source: endpoint('127.0.0.7', 900),
      local: endpoint('127.0.0.9', 0, 1),
      data: text('x'),
    });
    stack.handleEvents();
    expect(stack.takePackets().map(parseUdp)).toMatchObject([{ from: `${ROUTER_4} 900`, to: `${GUEST_4} 5000` }]);
    stack.fromGuest(udpPacket(GUEST_4, 5000, ROUTER_4, 900, text('y')));
    expect(endpointText(listener.sentDatagrams[0]!.to!)).toBe('127.0.0.7:900');
    expect(endpointText(listener.sentDatagrams[0]!.from!)).toBe('127.0.0.9:0');
  });

  it('answers link-local remotes by the interface they came from', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({
      source: endpoint('fe80::abcd', 900, 4),
      local: endpoint('fe80::1234', 0, 4),
      data: text('x'),
    });
    stack.handleEvents();
    stack.fromGuest(udpPacket(GUEST_6, 5000, 'fe80::abcd', 900, text('y')));
    expect(listener.sentDatagrams[0]).toMatchObject({
      to: endpoint('fe80::abcd', 900, 4),
      from: endpoint('fe80::1234', 0, 4),
    });
  });

  it('lets the kernel choose the source of answers to what came by multicast', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({ source: endpoint(PEER_4, 900), local: endpoint('224.0.0.9', 0, 4), data: text('x') });
    stack.handleEvents();
    stack.fromGuest(udpPacket(GUEST_4, 5000, PEER_4, 900, text('y')));
    expect(listener.sentDatagrams[0]!.from![0]).toBe(0);
  });

  it('leads to the address that its rule names, and only for its family', () => {
    const listener = stack.addListener({ guestPort: 5000, guestAddress: ip('192.0.2.77') });
    listener.deliverDatagram({ source: endpoint(PEER_6, 900), data: text('six') });
    listener.deliverDatagram({ source: endpoint(PEER_4, 900), data: text('four') });
    stack.handleEvents();
    expect(stack.takePackets().map(parseUdp)).toEqual([
      { from: `${PEER_4} 900`, to: '192.0.2.77 5000', data: text('four') },
    ]);
  });

  it('leads to the address at which the guest was seen last', () => {
    stack.fromGuest(udpPacket('192.0.2.99', 1, PEER_4, 53, text('a')));
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({ source: endpoint(PEER_4, 900), data: text('four') });
    stack.handleEvents();
    expect(stack.takePackets().map(parseUdp)).toMatchObject([{ to: '192.0.2.99 5000' }]);
  });

  it('gets what others sent to it while the guest’s own socket for that port was not yet connected', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    const { sockets } = stack;
    const connect = sockets.connect.bind(sockets);
    sockets.connect = (fd, offset) => {
      sockets.last.deliverDatagram({ source: endpoint('203.0.113.4', 900), data: text('stranger') });
      sockets.last.deliverDatagram({ source: endpoint(PEER_4, 53), data: text('peer') });
      return connect(fd, offset);
    };
    stack.fromGuest(udpPacket(GUEST_4, 5000, PEER_4, 53, text('q')));
    expect(stack.takePackets().map(parseUdp)).toEqual([
      { from: `${PEER_4} 53`, to: `${GUEST_4} 5000`, data: text('peer') },
      { from: '203.0.113.4 900', to: `${GUEST_4} 5000`, data: text('stranger') },
    ]);
    stack.fromGuest(udpPacket(GUEST_4, 5000, '203.0.113.4', 900, text('answer')));
    expect(listener.sentDatagrams.map((d) => d.data)).toEqual([text('answer')]);
  });

  it('takes over a flow that the guest has begun', () => {
    const own = openFlow(stack, GUEST_4, PEER_4, 5000);
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({ source: endpoint(PEER_4, 53), local: endpoint('198.51.100.1', 0), data: text('x') });
    stack.handleEvents();
    stack.fromGuest(udpPacket(GUEST_4, 5000, PEER_4, 53, text('y')));
    expect(own.sentDatagrams).toHaveLength(1);
    expect(listener.sentDatagrams).toHaveLength(1);
    expect(stack.ctx.flows.count).toBe(1);
  });

  it('is left alone by the poller while the link is full, and read again when there is room', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    stack.link.limitRoom(100_000);
    stack.link.stalled = true;
    for (let i = 0; i < 300; i++) {
      listener.deliverDatagram({ source: endpoint(PEER_4, 1000 + (i % 3)), data: pattern(1400, i) });
    }
    for (let i = 0; i < 20; i++) {
      stack.handleEvents();
      listener.edge = true;
    }
    expect(listener.watched?.events).toBe(0);
    expect(listener.datagrams.length).toBeGreaterThan(100);
    stack.link.stalled = false;
    stack.link.limitRoom(1 << 23);
    stack.endTurn();
    stack.endTurn();
    for (let i = 0; i < 20; i++) {
      listener.edge = true;
      stack.handleEvents();
    }
    expect(listener.datagrams).toHaveLength(0);
    expect(stack.takePackets().map((p) => parseUdp(p).data)).toEqual(
      Array.from({ length: 300 }, (_, i) => pattern(1400, i)),
    );
  });

  it('throws away what comes while no guest is there', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    stack.link.connected = false;
    for (let i = 0; i < 100; i++) listener.deliverDatagram({ source: endpoint(PEER_4, 1000), data: pattern(10) });
    stack.handleEvents();
    expect(listener.datagrams).toHaveLength(0);
    expect(stack.ctx.flows.count).toBe(0);
  });

  it('is received where its frame goes once others were as long', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    const moves = vi.spyOn(stack.ctx.arena.bytes, 'copyWithin');
    for (let batch = 0; batch < 3; batch++) {
      moves.mockClear();
      for (let i = 0; i < 20; i++) {
        listener.deliverDatagram({ source: endpoint(PEER_4, 1000 + (i % 3)), data: pattern(1001, i) });
      }
      stack.handleEvents();
      if (stack.ctx.link.offloads === 0) expect(moves).toHaveBeenCalledTimes(batch === 0 ? 20 : 0);
      expect(stack.takePackets().map(parseUdp)).toEqual(
        Array.from({ length: 20 }, (_, i) => ({
          from: `${PEER_4} ${1000 + (i % 3)}`,
          to: `${GUEST_4} 5000`,
          data: pattern(1001, i),
        })),
      );
    }
  });

  it('arrives whole whatever was expected: other lengths, families, remotes that are not let in', () => {
    const random = seededRandom(7);
    const small = new TestStack({ capacity: 64 });
    const listener = small.addListener({ guestPort: 5000 });
    const lengths = [60, 61, 999, 1000, 1452, 1453, 1473, 20, 0, 9000];
    for (let batch = 0; batch < 600; batch++) {
      // Mostly as the last one was, so that something is expected, and then not.
      const usual = lengths[Math.floor(batch / 4) % lengths.length]!;
      const isIpv6 = batch % 9 >= 5;
      const expected: unknown[] = [];
      const count = 1 + Math.floor(random() * 12);
      for (let i = 0; i < count; i++) {
        const isOdd = batch % 3 === 2 && random() < 0.3;
        const length = isOdd ? lengths[Math.floor(random() * lengths.length)]! : usual;
        const isOther = isOdd && random() < 0.5;
        const peer = isIpv6 !== isOther ? PEER_6 : PEER_4;
        const guest = isIpv6 !== isOther ? GUEST_6 : GUEST_4;
        // Half of the table is for flows like these: some of the later ones find no place.
        const port = 1000 + Math.floor(random() * 25);
        const data = pattern(length, batch + i);
        listener.deliverDatagram({ source: endpoint(peer, port), data });
        expected.push({ from: `${peer} ${port}`, to: `${guest} 5000`, data });
      }
      const before = small.ctx.counters.flowTableFull;
      small.handleEvents();
      const got = joinAll(small.takePackets()).map(parseUdp);
      const lost = small.ctx.counters.flowTableFull - before;
      // What is lost is counted once for all that follow each other from one remote.
      if (lost === 0) expect(got).toHaveLength(count);
      let at = 0;
      for (const datagram of got) {
        while (at < expected.length && !isDeepStrictEqual(datagram, expected[at])) at++;
        expect(at++, `datagram of batch ${batch}`).toBeLessThan(expected.length);
      }
    }
    expect(small.ctx.counters.flowTableFull).toBeGreaterThan(0);
    if (small.ctx.link.offloads === 0) {
      expect(small.sockets.calls.get('receiveSplitDatagrams')).toBeGreaterThan(100);
    }
    expect(small.sockets.calls.get('receiveDatagrams')).toBeGreaterThan(100);
  });

  it('cannot fill the flow table from outside', () => {
    const small = new TestStack({ capacity: 16 });
    const listener = small.addListener({ guestPort: 5000 });
    for (let i = 0; i < 30; i++) listener.deliverDatagram({ source: endpoint(PEER_4, 1000 + i), data: pattern(10) });
    small.handleEvents();
    expect(small.ctx.flows.count).toBe(8);
    expect(small.ctx.counters.flowTableFull).toBe(22);
    expect(small.takePackets()).toHaveLength(8);
  });

  it('that is gone lets the guest’s next datagram begin a flow of its own', () => {
    const listener = stack.addListener({ guestPort: 5000 });
    listener.deliverDatagram({ source: endpoint(PEER_4, 900), data: text('x') });
    stack.handleEvents();
    stack.listenerFds[0] = -1;
    stack.targets[0] = undefined;
    stack.fromGuest(udpPacket(GUEST_4, 5000, PEER_4, 900, text('y')));
    expect(listener.sentDatagrams).toHaveLength(0);
    expect(endpointText(stack.sockets.last.peer)).toBe(`${PEER_4}:900`);
    expect(stack.sockets.last.sentDatagrams.map((d) => d.data)).toEqual([text('y')]);
  });
});
