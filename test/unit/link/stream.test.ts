import { describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { createStreamLink, type StreamLinkOptions } from '../../../src/link/stream.ts';
import { EVENT_HUP, EVENT_IN, EVENT_OUT, EVENT_RDHUP, KIND_LINK, LINK_IDLE } from '../../../src/stack/ports.ts';
import { createFakeStream } from './fake-stream.ts';

const FD = 7;

function setUp(options: Partial<StreamLinkOptions> = {}) {
  const arena = createArena(8 << 20);
  const fake = createFakeStream(arena);
  const link = createStreamLink({ arena, sockets: fake.sockets, ...options });
  const gone: [string, number][] = [];
  let rooms = 0;
  link.onGone = (reason, error) => gone.push([reason, error]);
  link.onRoom = () => rooms++;
  expect(link.attach(FD)).toBe(0);
  const frames = new Int32Array(64);
  return {
    arena,
    fake,
    link,
    gone,
    frames,
    rooms: () => rooms,
    /** Takes everything that can be received, as byte arrays. */
    pull() {
      const got: number[][] = [];
      for (;;) {
        const count = link.receive(frames);
        if (count <= 0) return { got, result: count };
        for (let i = 0; i < count; i++) {
          const at = frames[2 * i]!;
          got.push(Array.from(arena.bytes.subarray(at, at + frames[2 * i + 1]!)));
        }
      }
    },
    /** Queues one frame of `length` bytes, all of them `value`. */
    queue(length: number, value: number): boolean {
      const start = link.reserve(length + 4);
      if (start < 0) return false;
      arena.bytes.fill(value, start + 4, start + 4 + length);
      link.commit(start + 4, length);
      return true;
    },
  };
}

function frame(length: number, value: number): number[] {
  return [length >>> 24, (length >>> 16) & 255, (length >>> 8) & 255, length & 255, ...Array(length).fill(value)];
}

describe('stream link, from the guest', () => {
  it('gives out all complete frames of one receive and keeps the cut one for the next', () => {
    const { fake, pull } = setUp();
    const third = frame(60, 3);
    fake.inbound = [...frame(14, 1), ...frame(20, 2), ...third.slice(0, 30)];
    expect(pull()).toEqual({ got: [Array(14).fill(1), Array(20).fill(2)], result: LINK_IDLE });
    fake.inbound = third.slice(30);
    expect(pull()).toEqual({ got: [Array(60).fill(3)], result: LINK_IDLE });
  });

  it('asks the socket once per event when a receive did not fill the region', () => {
    const { fake, pull } = setUp();
    fake.inbound = frame(60, 1);
    pull();
    expect(fake.receives).toBe(1);
  });

  it('goes on receiving while the region is filled to the brim', () => {
    const { fake, pull } = setUp({ receiveBytes: 65_539 });
    const all = Array.from({ length: 100 }, (_, i) => frame(1514, i)).flat();
    fake.inbound = [...all];
    const { got } = pull();
    expect(got.map((f) => f[0])).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect(fake.receives).toBe(Math.ceil(all.length / 65_539));
  });

  it('leaves frames that do not fit the result for the next call, without a system call', () => {
    const { fake, link } = setUp();
    fake.inbound = [...frame(14, 1), ...frame(14, 2), ...frame(14, 3)];
    const pair = new Int32Array(4);
    expect(link.receive(pair)).toBe(2);
    expect(link.receive(pair)).toBe(1);
    expect(link.receive(pair)).toBe(LINK_IDLE);
    expect(fake.receives).toBe(1);
  });

  it('finds the end of the stream although the last receive emptied the socket', () => {
    const { fake, link, pull, gone } = setUp();
    fake.inbound = frame(60, 1);
    fake.ended = true;
    expect(link.onHostEvent(EVENT_IN | EVENT_RDHUP | EVENT_HUP)).toBe(true);
    expect(pull()).toEqual({ got: [Array(60).fill(1)], result: -104 });
    expect(gone).toEqual([['closed', 0]]);
    expect(fake.closed).toEqual([FD]);
    expect(link.connected).toBe(false);
  });

  it.each([0, 1, 13, 65_536, 0xffffffff])(
    'drops a guest that announces a frame of %d bytes, after the good ones before it',
    (bad) => {
      const { fake, link, pull, gone } = setUp();
      fake.inbound = [...frame(60, 1), bad >>> 24, (bad >>> 16) & 255, (bad >>> 8) & 255, bad & 255];
      expect(pull()).toEqual({ got: [Array(60).fill(1)], result: -74 });
      expect(gone).toEqual([['bad-length', -74]]);
      expect(link.connected).toBe(false);
      expect(pull()).toEqual({ got: [], result: LINK_IDLE });
    },
  );

  it('takes the largest frame in a region that holds just one', () => {
    const { fake, pull } = setUp({ receiveBytes: 65_539 });
    fake.inbound = frame(65_535, 9);
    expect(pull().got.map((f) => f.length)).toEqual([65_535]);
  });

  it('drops the guest on an error of the socket', () => {
    const { fake, pull, gone } = setUp();
    fake.failure = -5;
    expect(pull().result).toBe(-5);
    expect(gone).toEqual([['error', -5]]);
  });
});

describe('stream link, to the guest', () => {
  it('sends nothing before the flush, and everything with one call', () => {
    const { fake, link, queue } = setUp();
    queue(60, 1);
    queue(14, 2);
    expect(fake.sends).toBe(0);
    expect(link.flush()).toBe(0);
    expect(fake.sends).toBe(1);
    expect(fake.outbound).toEqual([...frame(60, 1), ...frame(14, 2)]);
    expect(link.flush()).toBe(0);
    expect(fake.sends).toBe(1);
  });

  it('keeps what the socket did not take, in order, and sends it when there is room', () => {
    const { fake, link, queue, rooms } = setUp();
    fake.capacity = 50;
    queue(60, 1);
    queue(60, 2);
    expect(link.flush()).toBe(78);
    queue(60, 3);
    expect(link.flush()).toBe(142);
    expect(fake.sends).toBe(1);
    fake.capacity = Number.POSITIVE_INFINITY;
    expect(link.onHostEvent(EVENT_OUT)).toBe(false);
    expect(fake.outbound).toEqual([...frame(60, 1), ...frame(60, 2), ...frame(60, 3)]);
    expect(rooms()).toBe(1);
  });

  it('refuses room when full and says when there is some again', () => {
    const { fake, link, queue, rooms } = setUp({ sendBytes: 70_000 });
    fake.capacity = 0;
    let queued = 0;
    while (queue(1514, queued & 255)) queued++;
    expect(queued).toBe(Math.floor(70_000 / 1518));
    expect(link.roomBytes()).toBeLessThan(1518);
    link.flush();
    fake.capacity = 10_000;
    link.onHostEvent(EVENT_OUT);
    expect(rooms()).toBe(0);
    fake.capacity = 40_000;
    link.onHostEvent(EVENT_OUT);
    // 50 000 of 69 828 bytes are out: moving the rest to the front pays.
    expect(rooms()).toBe(1);
    expect(link.roomBytes()).toBe(70_000 - (queued * 1518 - 50_000));
    expect(queue(1514, 0xee)).toBe(true);
    fake.capacity = Number.POSITIVE_INFINITY;
    link.onHostEvent(EVENT_OUT);
    const expected = Array.from({ length: queued }, (_, i) => frame(1514, i & 255)).flat();
    expect(fake.outbound).toEqual([...expected, ...frame(1514, 0xee)]);
    expect(link.roomBytes()).toBe(70_000);
  });

  it('refuses what can never fit and grants what it says it has', () => {
    const { link } = setUp({ sendBytes: 70_000 });
    expect(link.roomBytes()).toBe(70_000);
    expect(link.reserve(70_001)).toBe(-1);
    expect(link.reserve(70_000)).toBeGreaterThan(0);
  });

  it('does not let a frame out that would break the stream', () => {
    const { link } = setUp();
    const start = link.reserve(70_000);
    expect(() => link.commit(start + 4, 0)).toThrow(RangeError);
    expect(() => link.commit(start + 4, 13)).toThrow(RangeError);
    expect(() => link.commit(start + 4, 65_536)).toThrow(RangeError);
    expect(() => link.commit(start + 5, 60)).toThrow(RangeError);
  });

  it('drops the guest when the peer does not take anything any more', () => {
    const { fake, link, queue, gone } = setUp();
    queue(60, 1);
    fake.failure = -32;
    expect(link.flush()).toBe(-32);
    expect(gone).toEqual([['closed', -32]]);
    expect(link.reserve(64)).toBe(-1);
    expect(link.roomBytes()).toBe(0);
    link.commit(100, 60);
    expect(link.flush()).toBe(0);
  });

  it('tries again in the next turn when the kernel is short of memory', () => {
    const { fake, link, queue } = setUp();
    queue(60, 1);
    fake.failure = -105;
    expect(link.flush()).toBe(64);
    expect(link.flush()).toBe(0);
    expect(fake.outbound).toEqual(frame(60, 1));
  });
});

describe('stream link, being told of room', () => {
  const watchedEvents = (fake: ReturnType<typeof createFakeStream>) => fake.watched.map(({ events }) => events);

  it('asks for it with the first short send, and no more once it is told of room that nobody waits for', () => {
    const { fake, link, queue } = setUp();
    queue(60, 1);
    link.flush();
    expect(watchedEvents(fake)).toEqual([0x80002001]);
    fake.capacity = 10;
    queue(60, 2);
    link.flush();
    expect(watchedEvents(fake)).toEqual([0x80002001, 0x80002005]);
    fake.capacity = 20;
    link.onHostEvent(EVENT_OUT);
    fake.capacity = Number.POSITIVE_INFINITY;
    link.onHostEvent(EVENT_OUT);
    expect(link.flush()).toBe(0);
    expect(watchedEvents(fake)).toEqual([0x80002001, 0x80002005]);
    link.onHostEvent(EVENT_OUT);
    expect(watchedEvents(fake)).toEqual([0x80002001, 0x80002005, 0x80002001]);
    expect(fake.outbound).toEqual([...frame(60, 1), ...frame(60, 2)]);
  });

  it('asks for it again with the next guest', () => {
    const { fake, link, queue } = setUp();
    fake.capacity = 10;
    queue(60, 1);
    link.flush();
    link.detach();
    link.attach(FD + 1);
    fake.capacity = 10;
    queue(60, 2);
    link.flush();
    expect(fake.watched.slice(2)).toEqual([
      { fd: FD + 1, events: 0x80002001, kind: KIND_LINK, index: 0 },
      { fd: FD + 1, events: 0x80002005, kind: KIND_LINK, index: 0 },
    ]);
  });
});

describe('stream link, attaching', () => {
  it('watches the socket edge-triggered, and asks for large buffers', () => {
    const { fake } = setUp({ index: 3 });
    expect(fake.watched).toEqual([{ fd: FD, events: 0x80002001, kind: KIND_LINK, index: 3 }]);
    expect(fake.options).toEqual([
      { level: 1, name: 7, value: 16 << 20 },
      { level: 1, name: 32, value: 4 << 20 },
      { level: 1, name: 8, value: 16 << 20 },
      { level: 1, name: 33, value: 4 << 20 },
    ]);
  });

  it('starts afresh with the next guest: nothing of the last one is sent or parsed', () => {
    const { fake, link, queue, pull, gone } = setUp();
    fake.inbound = frame(60, 1).slice(0, 20);
    pull();
    fake.capacity = 10;
    queue(60, 1);
    link.flush();
    link.detach();
    expect(gone).toEqual([['detached', 0]]);
    fake.capacity = Number.POSITIVE_INFINITY;
    fake.outbound = [];
    expect(link.attach(FD + 1)).toBe(0);
    fake.inbound = frame(14, 2);
    expect(pull().got).toEqual([Array(14).fill(2)]);
    queue(14, 3);
    expect(link.flush()).toBe(0);
    expect(fake.outbound).toEqual(frame(14, 3));
  });

  it('closes a socket that cannot be watched', () => {
    const { fake, link } = setUp();
    link.detach();
    fake.watchResult = -12;
    expect(link.attach(9)).toBe(-12);
    expect(fake.closed).toEqual([FD, 9]);
    expect(link.connected).toBe(false);
  });

  it('allows a callback to attach the next guest at once', () => {
    const { fake, link, pull } = setUp();
    link.onGone = () => link.attach(8);
    fake.ended = true;
    expect(pull().result).toBe(-104);
    expect(link.connected).toBe(true);
    fake.ended = false;
    fake.inbound = frame(14, 1);
    expect(pull().got).toEqual([Array(14).fill(1)]);
  });
});
