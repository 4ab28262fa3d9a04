/** What becomes of a guest's flows when its link is lost, and who is taken for the same guest. */
import { beforeEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { createAddressMap } from '../../../src/forward/address-map.ts';
import { KIND_PING, KIND_TCP, KIND_UDP } from '../../../src/stack/ports.ts';
import { NetworkStack } from '../../../src/stack/stack.ts';
import { FakeLink } from '../../support/fake-link.ts';
import { SO_LINGER, SOL_SOCKET } from '../../support/fake-socket.ts';
import { FakeSockets } from '../../support/fake-sockets.ts';
import {
  ETHERTYPE_IPV4,
  ethernet,
  ipv4,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_ACK,
  TCP_SYN,
  tcp,
  udp,
} from '../../support/frames.ts';
import { parseSegment } from '../../support/scripted-tcp.ts';
import { makeStackConfig } from '../../support/stack-config.ts';

const GUEST = '192.0.2.2';
const REMOTE = '198.51.100.1';
const OUR_MAC = '9a:55:9a:55:9a:55';
const MAC = '52:54:00:00:00:01';
const OTHER_MAC = '52:54:00:00:00:02';
const GRACE_MS = 60_000;

let nowMs: number;
let link: FakeLink;
let sockets: FakeSockets;
let stack: NetworkStack;
let irs: number;

beforeEach(() => {
  nowMs = 1000;
  const arena = createArena(64 << 20);
  link = new FakeLink(arena);
  sockets = new FakeSockets(arena);
  const words = Uint32Array.of(0, 0, 0xffff, 0xc0000202);
  const map = {
    guest: words,
    router: Uint32Array.of(0, 0, 0xffff, 0xc0000201),
    loopbackAlias: undefined,
    guestAlias: undefined,
    dnsAlias: undefined,
    dnsHost: undefined,
  };
  stack = new NetworkStack({
    arena,
    config: makeStackConfig(
      {
        ipv4: {
          ...{ guestAddress: words[3]!, prefixLength: 24, gateway: 0xc0000201, resolvers: [] },
          ...{ outboundAddress: 0, outboundInterface: '' },
        },
        ipv6: undefined,
      },
      { reconnectGraceMs: GRACE_MS },
    ),
    link,
    sockets,
    map: createAddressMap({ ipv4: map, ipv6: undefined, linkLocalScopeId: 0 }),
    forwards: { targetOf: () => undefined, fdOf: () => -1 },
    clock: { nowMs: () => nowMs },
    log: silentLogger,
    secret: new Uint32Array([1, 2, 3, 4, 5, 6, 7, 8]),
    flowCapacity: 64,
  });
  stack.onGuestConnected();
  open();
});

function give(mac: string, protocol: number, payload: Buffer): void {
  link.pushFromGuest(ethernet(OUR_MAC, mac, ETHERTYPE_IPV4, ipv4(GUEST, REMOTE, protocol, payload)));
  stack.onLinkReadable();
  stack.endTurn();
}

const segment = (flags: number, seq: number, ack: number, sourcePort = 4000): Buffer =>
  tcp(GUEST, REMOTE, { sourcePort, destinationPort: 80, seq, ack, flags, window: 65_535 });

function turn(): void {
  sockets.deliverEvents((kind, index, events) => {
    if (kind === KIND_TCP || kind === KIND_UDP || kind === KIND_PING) stack.onFlowEvent(kind, index, events);
  });
  stack.endTurn();
}

const segments = () => link.sent.splice(0).flatMap((frame) => parseSegment(Buffer.from(frame)) ?? []);

/** A TCP connection and a UDP flow of the guest. */
function open(): void {
  give(MAC, PROTOCOL_TCP, segment(TCP_SYN, 100, 0));
  sockets.last.completeConnect();
  turn();
  irs = segments()[0]!.seq;
  give(MAC, PROTOCOL_TCP, segment(TCP_ACK, 101, irs + 1));
  give(MAC, PROTOCOL_UDP, udp(GUEST, REMOTE, 4000, 9, Buffer.from('x')));
  expect(stack.flows.count).toBe(2);
}

function lose(isSure = true): void {
  link.connected = false;
  stack.onGuestGone(isSure);
  stack.endTurn();
}

function comeBack(mac: string): void {
  link.connected = true;
  stack.onGuestConnected();
  give(mac, PROTOCOL_TCP, segment(TCP_ACK, 101, irs + 1));
}

const tcpSocket = () => sockets.all[0]!;
const isReset = (): boolean =>
  tcpSocket().state === 'closed' && tcpSocket().options.get(`${SOL_SOCKET}:${SO_LINGER}`) === 0;

describe('the flows of a guest whose link is lost', () => {
  it('are there when it is back in time', () => {
    lose();
    nowMs += GRACE_MS - 1;
    stack.endTurn();
    comeBack(MAC);
    nowMs += 10 * GRACE_MS;
    stack.endTurn();
    expect([stack.flows.isLive(0), tcpSocket().state]).toEqual([true, 'connected']);
  });
  it('end when it is not: the remote sees a reset', () => {
    lose();
    nowMs += GRACE_MS;
    stack.endTurn();
    expect([stack.flows.count, isReset(), sockets.openCount]).toEqual([0, true, 0]);
  });
  it('end when another guest has come', () => {
    lose();
    comeBack(OTHER_MAC);
    expect([stack.flows.count, isReset(), sockets.openCount]).toEqual([0, true, 0]);
    expect(stack.guest).toMatchObject({ macHi: 0x5254, macLo: 2 });
  });
  it('are left to their own timers when it was only silent', () => {
    lose(false);
    nowMs += GRACE_MS;
    stack.endTurn();
    expect([stack.flows.isLive(0), tcpSocket().state]).toEqual([true, 'connected']);
    comeBack(OTHER_MAC);
    expect(isReset()).toBe(true);
  });
  it('stay with a guest that has several MACs, whichever comes first', () => {
    give(OTHER_MAC, PROTOCOL_TCP, segment(TCP_ACK, 101, irs + 1));
    give(MAC, PROTOCOL_TCP, segment(TCP_ACK, 101, irs + 1));
    lose();
    comeBack(OTHER_MAC);
    expect([stack.flows.isLive(0), tcpSocket().state]).toEqual([true, 'connected']);
  });
  it('are sent what was lost at once, though timers have backed off', () => {
    tcpSocket().deliver('data on its way');
    turn();
    expect(segments().map(({ payload }) => payload.toString())).toEqual(['data on its way']);
    lose();
    // Retransmissions that nobody gets, each twice as late as the one before.
    for (const end = nowMs + 50_000; nowMs < end; nowMs += 100) stack.endTurn();
    expect(segments()).toEqual([]);
    link.connected = true;
    stack.onGuestConnected();
    nowMs += 10;
    stack.endTurn();
    expect(segments().map(({ payload }) => payload.toString())).toEqual(['data on its way']);
  });
  it('do not count the time without a link as silence', () => {
    tcpSocket().deliver('data on its way');
    turn();
    lose(false);
    for (const end = nowMs + 600_000; nowMs < end; nowMs += 1000) stack.endTurn();
    expect(tcpSocket().state).toBe('connected');
  });
});

describe('a guest that comes', () => {
  it('starts with the addresses that it is given, whatever the one before had', () => {
    give(MAC, PROTOCOL_UDP, udp(GUEST, REMOTE, 4000, 9, Buffer.from('x')));
    stack.guest.ipv4[3] = 0xc0000299;
    stack.guest.leased4Ms = 5;
    lose();
    link.connected = true;
    stack.onGuestConnected();
    link.pushFromGuest(ethernet('ff:ff:ff:ff:ff:ff', OTHER_MAC, 0x88b5, Buffer.alloc(50)));
    stack.onLinkReadable();
    stack.endTurn();
    expect(stack.guest.ipv4[3]).toBe(0xc0000202);
    expect(stack.guest.leased4Ms).toBeNaN();
  });
  it('is asked for a sign of life by ARP', () => {
    stack.probeGuest();
    const [frame] = link.sent.splice(0).map((bytes) => Buffer.from(bytes));
    expect([frame!.readUInt16BE(12), frame!.readUInt16BE(20), frame!.subarray(38, 42).join('.')]).toEqual([
      0x0806,
      1,
      GUEST,
    ]);
  });
});
