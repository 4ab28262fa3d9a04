import { afterEach, describe, expect, it, vi } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { EVENT_EDGE, EVENT_IN, EVENT_OUT, SOCKET_DGRAM } from '../../../src/stack/ports.ts';
import { createHostSockets } from '../../../src/sys/host-sockets.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { createPoller, type Poller } from '../../../src/sys/poller.ts';
import { allocateEndpoint, bindLoopback } from './support.ts';

const native = loadNative();
const arena = createArena(1 << 20);
const endpoint = allocateEndpoint(arena);
const buffer = arena.allocate(2048);

let poller: Poller | undefined;
const fds: number[] = [];

function makePoller(): { poller: Poller; sockets: ReturnType<typeof createHostSockets> } {
  poller = createPoller(native, arena);
  return { poller, sockets: createHostSockets(native, arena, poller.fd) };
}

function makeSocket(): number {
  const fd = native.open(4, SOCKET_DGRAM, 0);
  expect(fd).toBeGreaterThan(0);
  fds.push(fd);
  bindLoopback(native, arena, endpoint, fd, 4);
  return fd;
}

/** Sends one byte from a socket to itself, so that it becomes readable. */
function poke(fd: number): void {
  expect(native.getName(fd, endpoint)).toBe(0);
  expect(native.sendTo(fd, buffer, 1, endpoint)).toBe(1);
}

/** Waits until `check` does not throw; the machine may be busy. */
const eventually = (check: () => void) => vi.waitFor(check, { timeout: 10_000, interval: 1 });
const turns = (count: number) => new Promise((resolve) => setTimeout(resolve, count));

afterEach(() => {
  poller?.close();
  poller = undefined;
  for (const fd of fds.splice(0)) native.close(fd);
});

describe('poller', () => {
  it('hands each event to the handler of its kind with its index, and ends the turn', async () => {
    const { poller, sockets } = makePoller();
    const seen: string[] = [];
    const first = makeSocket();
    const second = makeSocket();
    poller.handlers[3] = (index, events) => seen.push(`3:${index}:${events & EVENT_IN}`);
    poller.handlers[5] = (index, events) => seen.push(`5:${index}:${events & EVENT_IN}`);
    poller.onTurnEnd = () => seen.push('end');
    expect(sockets.watch(first, EVENT_IN | EVENT_EDGE, 3, 0xffffffff)).toBe(0);
    expect(sockets.watch(second, EVENT_IN | EVENT_EDGE, 5, 7)).toBe(0);
    poller.start();
    poke(first);
    poke(second);
    await eventually(() => expect(seen.filter((what) => what !== 'end')).toEqual(['3:4294967295:1', '5:7:1']));
    expect(seen.at(-1)).toBe('end');
  });

  it('goes on beside a second poller of the same thread', async () => {
    const { poller: first } = makePoller();
    const second = createPoller(native, arena);
    try {
      const seen: string[] = [];
      first.handlers[1] = () => seen.push('first');
      second.handlers[1] = () => seen.push('second');
      const fd = makeSocket();
      const other = makeSocket();
      createHostSockets(native, arena, first.fd).watch(fd, EVENT_IN | EVENT_EDGE, 1, 0);
      createHostSockets(native, arena, second.fd).watch(other, EVENT_IN | EVENT_EDGE, 1, 0);
      first.start();
      second.start();
      poke(fd);
      poke(other);
      await eventually(() => expect(seen.slice().sort()).toEqual(['first', 'second']));
      first.stop();
      poke(other);
      await eventually(() => expect(seen.length).toBe(3));
    } finally {
      second.close();
    }
  });

  it('tells an edge once although the data stays', async () => {
    const { poller, sockets } = makePoller();
    let calls = 0;
    const fd = makeSocket();
    poller.handlers[1] = () => calls++;
    sockets.watch(fd, EVENT_IN | EVENT_EDGE, 1, 0);
    poller.start();
    poke(fd);
    await eventually(() => expect(calls).toBe(1));
    await turns(5);
    expect(calls).toBe(1);
    poke(fd);
    await eventually(() => expect(calls).toBe(2));
  });

  it('lets timers run beside level-triggered events that never cease', async () => {
    const { poller, sockets } = makePoller();
    let calls = 0;
    const fd = makeSocket();
    poller.handlers[1] = () => calls++;
    sockets.watch(fd, EVENT_OUT, 1, 0);
    poller.start();
    // More than one callback takes in one go, with turns of the loop in between; a slow machine needs more of them.
    for (let waits = 0; waits < 100 && calls <= 16; waits++) await turns(20);
    expect(calls).toBeGreaterThan(16);
  });

  it('runs microtasks and nextTick that a handler queued', async () => {
    const { poller, sockets } = makePoller();
    const fd = makeSocket();
    const order: string[] = [];
    poller.handlers[1] = () => {
      process.nextTick(() => order.push('tick'));
      Promise.resolve().then(() => order.push('microtask'));
      order.push('handler');
    };
    sockets.watch(fd, EVENT_IN | EVENT_EDGE, 1, 0);
    poller.start();
    poke(fd);
    await eventually(() => expect(order).toEqual(['handler', 'tick', 'microtask']));
  });

  it('gives no events between stop and the next start, and loses none', async () => {
    const { poller, sockets } = makePoller();
    let calls = 0;
    const fd = makeSocket();
    poller.handlers[1] = () => calls++;
    sockets.watch(fd, EVENT_IN | EVENT_EDGE, 1, 0);
    poller.start();
    poller.start();
    poller.stop();
    poller.stop();
    poke(fd);
    await turns(5);
    expect(calls).toBe(0);
    poller.start();
    await eventually(() => expect(calls).toBe(1));
  });

  it('changes and ends the watch of a descriptor', () => {
    const { poller, sockets } = makePoller();
    const seen: number[] = [];
    const fd = makeSocket();
    poller.handlers[1] = (index) => seen.push(index);
    sockets.watch(fd, EVENT_IN, 1, 10);
    poke(fd);
    poller.drain();
    expect(seen.length).toBe(16);
    expect(sockets.rewatch(fd, EVENT_IN | EVENT_EDGE, 1, 11)).toBe(0);
    seen.length = 0;
    expect(poller.drain()).toBe(1);
    expect(seen).toEqual([11]);
    expect(sockets.unwatch(fd)).toBe(0);
    poke(fd);
    expect(poller.drain()).toBe(0);
    expect(sockets.unwatch(fd)).toBe(-2);
  });

  it('handles the rest of a round after a handler has thrown', async () => {
    const { poller, sockets } = makePoller();
    const seen: number[] = [];
    poller.handlers[1] = (index) => {
      seen.push(index);
      if (seen.length === 1) throw new Error('handler failed');
    };
    for (let index = 0; index < 3; index++) {
      const fd = makeSocket();
      sockets.watch(fd, EVENT_IN | EVENT_EDGE, 1, index);
      poke(fd);
    }
    expect(() => poller.drain()).toThrow('handler failed');
    expect(seen.length).toBe(1);
    await eventually(() => expect(seen.slice().sort()).toEqual([0, 1, 2]));
  });

  it('ends a turn on request', () => {
    const { poller } = makePoller();
    let ends = 0;
    poller.onTurnEnd = () => ends++;
    poller.kickTurn();
    expect(ends).toBe(1);
  });
});
