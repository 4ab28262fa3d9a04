import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Arena, createArena } from '../../../src/base/arena.ts';
import { GuestSwitch, type SwitchPort } from '../../../src/link/switch.ts';
import { FakeLink } from '../../support/fake-link.ts';
import { waitUntil } from '../../support/netns/process.ts';

const OUR_HI = 0x9a55;
const OUR_LO = 0x9a559a55;
const ROUTER = '9a559a559a55';
const BROADCAST = 'ffffffffffff';
const MULTICAST = '333300000001';
const [ONE, TWO, THREE, STRANGER] = ['520000000001', '520000000002', '520000000003', '5200000000ff'] as const;

let arena: Arena;
let bridge: GuestSwitch;
let links: FakeLink[];
let ports: SwitchPort[];

function setUp(keptBytes = 0): void {
  arena = createArena(16 << 20);
  bridge = new GuestSwitch({ arena, ourMacHi: OUR_HI, ourMacLo: OUR_LO, keptBytes });
  links = [ONE, TWO, THREE].map(() => new FakeLink(arena));
  ports = links.map((link) => bridge.addPort(link));
}

beforeEach(() => setUp());
afterEach(() => {
  for (const port of ports) port.clear();
});

function frame(to: string, from: string, text = '', length = 60): Uint8Array {
  const bytes = new Uint8Array(Math.max(length, 14 + text.length));
  bytes.set(Buffer.from(`${to}${from}0800`, 'hex'));
  bytes.set(Buffer.from(text, 'latin1'), 14);
  return bytes;
}

/** Lets guest `i` send. @returns what its stack was given */
function send(i: number, ...frames: Uint8Array[]): Uint8Array[] {
  for (const each of frames) links[i]!.pushFromGuest(each);
  const pairs = new Int32Array(64);
  const count = ports[i]!.receive(pairs);
  return Array.from({ length: Math.max(0, count) }, (_, k) =>
    arena.bytes.slice(pairs[2 * k]!, pairs[2 * k]! + pairs[2 * k + 1]!),
  );
}

/** What has left for each guest since the last call. */
const sent = (): string[][] =>
  links.map((link) =>
    link.sent.splice(0).map((each) => Buffer.from(each.subarray(14)).toString('latin1').replaceAll('\0', '')),
  );

describe('a switch', () => {
  it('gives the stack what is for us, and nobody else', () => {
    expect(send(0, frame(ROUTER, ONE, 'up'))).toEqual([frame(ROUTER, ONE, 'up')]);
    expect(sent()).toEqual([[], [], []]);
    expect(ports[0]!.counters).toEqual({ forwarded: 0, forwardedBytes: 0, dropped: 0, spoofed: 0 });
  });

  it('gives group frames to the stack and to all others', () => {
    expect(send(0, frame(BROADCAST, ONE, 'all'), frame(MULTICAST, ONE, 'group'))).toHaveLength(2);
    expect(sent()).toEqual([[], ['all', 'group'], ['all', 'group']]);
  });

  it('floods what it does not know, and sends to one port what it has learned', () => {
    expect(send(0, frame(TWO, ONE, 'where'))).toEqual([]);
    expect(sent()).toEqual([[], ['where'], ['where']]);
    send(1, frame(ONE, TWO, 'here'));
    expect(sent()).toEqual([['here'], [], []]);
    expect(send(0, frame(TWO, ONE, 'there'))).toEqual([]);
    expect(sent()).toEqual([[], ['there'], []]);
    expect(ports[0]!.counters.forwarded).toBe(2);
  });

  it('keeps the order and the bytes of what is for several, in one batch per port', () => {
    send(1, frame(ROUTER, TWO));
    const kept = send(
      0,
      frame(TWO, ONE, 'a'),
      frame(ROUTER, ONE, 'b'),
      frame(BROADCAST, ONE, 'c'),
      frame(TWO, ONE, 'd', 1514),
    );
    expect(kept).toEqual([frame(ROUTER, ONE, 'b'), frame(BROADCAST, ONE, 'c')]);
    expect(links[1]!.flushes).toBe(1);
    expect(links[1]!.sent[2]).toEqual(frame(TWO, ONE, 'd', 1514));
    expect(sent()).toEqual([[], ['a', 'c', 'd'], ['c']]);
  });

  it('does not send back what comes from where it is for', () => {
    send(0, frame(ROUTER, ONE), frame(ROUTER, STRANGER));
    expect(send(0, frame(STRANGER, ONE, 'neighbour'))).toEqual([]);
    expect(sent()).toEqual([[], [], []]);
  });

  it('follows a MAC that moves, back and forth', () => {
    for (const i of [0, 1, 0, 1]) {
      send(i, frame(ROUTER, STRANGER));
      send(2, frame(STRANGER, THREE, 'x'));
      expect(sent().map((each) => each.length)).toEqual([0, 1, 2].map((port) => (port === i ? 1 : 0)));
    }
  });

  it('forgets the MACs of a guest that has gone', () => {
    send(1, frame(ROUTER, TWO));
    ports[1]!.clear();
    expect(bridge.portOf(0x5200, 2)).toBeUndefined();
    send(0, frame(TWO, ONE, 'x'));
    expect(sent()).toEqual([[], ['x'], ['x']]);
    send(1, frame(ROUTER, TWO));
    expect(bridge.portOf(0x5200, 2)).toBe(ports[1]);
  });

  it('begins a full table anew, and still learns', () => {
    send(1, frame(ROUTER, TWO));
    for (let i = 0; i < 4100; i++) send(0, frame(ROUTER, `5400${i.toString(16).padStart(8, '0')}`));
    expect(bridge.portOf(0x5200, 2)).toBeUndefined();
    send(1, frame(ROUTER, TWO));
    expect(bridge.portOf(0x5200, 2)).toBe(ports[1]);
  });

  it('lets nobody be us, nor learns a group address', () => {
    expect(send(0, frame(ROUTER, ROUTER), frame(BROADCAST, ROUTER, 'I am the router'))).toEqual([]);
    expect(sent()).toEqual([[], [], []]);
    expect(ports[0]!.counters.spoofed).toBe(2);
    send(0, frame(ROUTER, MULTICAST));
    expect(bridge.portOf(0x3333, 1)).toBeUndefined();
  });

  it('leaves out a guest that is not there', () => {
    links[1]!.connected = false;
    send(0, frame(BROADCAST, ONE, 'x'));
    expect(sent()).toEqual([[], [], ['x']]);
    expect(ports[1]!.counters.dropped).toBe(0);
  });

  it('keeps part of the room for the stack, and counts what it drops', () => {
    setUp((1 << 20) - 3000);
    send(0, frame(TWO, ONE, 'a', 1500), frame(TWO, ONE, 'b', 1500));
    expect(sent()[1]).toEqual(['a']);
    expect(ports[1]!.counters.dropped).toBe(1);
    expect(ports[1]!.reserve(1 << 19)).toBeGreaterThan(0);
  });

  it('drops a frame that the other link cannot carry', () => {
    const small = Object.assign(new FakeLink(arena), { maxFrameBytes: 1514 });
    const port = bridge.addPort(small);
    send(0, frame(BROADCAST, ONE, 'long', 9000));
    expect([small.sent.length, port.counters.dropped]).toEqual([0, 1]);
  });

  it('passes on frames of the stack to its own guest alone', () => {
    const start = ports[2]!.reserve(4 + 60);
    arena.bytes.set(frame(BROADCAST, ROUTER, 'down'), start + 4);
    ports[2]!.commit(start + 4, 60);
    expect(ports[2]!.flush()).toBe(0);
    expect(sent()).toEqual([[], [], ['down']]);
  });

  it('gives others their turn when two guests talk to each other only, and then goes on', async () => {
    send(1, frame(ROUTER, TWO));
    let more = 0;
    ports[0]!.onMore = () => more++;
    // One receive gives as many frames as the caller has room for: here, one.
    for (let i = 0; i < 6; i++) links[0]!.pushFromGuest(frame(TWO, ONE, `${i}`));
    const pairs = new Int32Array(2);
    expect(ports[0]!.receive(pairs)).toBe(0);
    expect(sent()[1]).toEqual(['0', '1', '2', '3']);
    await waitUntil('the rest to be asked for', () => more === 1);
    expect(ports[0]!.receive(pairs)).toBe(0);
    expect(sent()[1]).toEqual(['4', '5']);
  });

  it('does not take a link with virtio-net headers', () => {
    expect(() => bridge.addPort(new FakeLink(arena, 1 << 20, 1 << 20, 2))).toThrow(/virtio-net/);
  });
});

describe('a port whose link is put into another wrapping', () => {
  it('sends by the new one, and leaves of its room what is asked for', () => {
    const replaced = new FakeLink(arena);
    ports[1]!.useLink(replaced);
    send(0, frame(BROADCAST, ONE, 'a'));
    expect([links[1]!.sent.length, replaced.sent.length]).toEqual([0, 1]);
    ports[1]!.useLink(replaced, replaced.roomBytes());
    send(0, frame(BROADCAST, ONE, 'b'));
    expect([replaced.sent.length, ports[1]!.counters.dropped]).toEqual([1, 1]);
    ports[1]!.useLink(links[1]!);
    send(0, frame(BROADCAST, ONE, 'c'));
    expect([links[1]!.sent.length, replaced.sent.length]).toEqual([1, 1]);
  });
});
