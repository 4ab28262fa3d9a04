import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { EVENT_IN, EVENT_OUT, SOCKET_DGRAM, SOCKET_STREAM } from '../../../src/stack/ports.ts';
import { loadNative, nativePath } from '../../../src/sys/native.ts';
import { EPOLL_ADD, EPOLL_DELETE, EPOLL_MODIFY, type PollHandle } from '../../../src/sys/native-addon.ts';
import { allocateEndpoint, bindLoopback, EBADF, EFAULT, EINVAL } from '../sys/support.ts';

const native = loadNative();
const ARENA_BYTES = 1 << 16;
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const endpoint = allocateEndpoint(arena);
const events = arena.allocate(12 * 300);

const fds: number[] = [];
const polls: PollHandle[] = [];
function keep(fd: number): number {
  expect(fd).toBeGreaterThanOrEqual(0);
  fds.push(fd);
  return fd;
}
function makeReadable(): number {
  const fd = keep(native.open(4, SOCKET_DGRAM, 0));
  bindLoopback(native, arena, endpoint, fd, 4);
  expect(native.sendTo(fd, 0, 1, endpoint)).toBe(1);
  return fd;
}
function poll(fd: number, callback: () => void): PollHandle {
  const handle = native.startPoll(fd, callback);
  if (typeof handle === 'number') throw new Error(`startPoll: ${handle}`);
  polls.push(handle);
  return handle;
}
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

afterEach(() => {
  for (const handle of polls.splice(0)) native.stopPoll(handle);
  for (const fd of fds.splice(0)) native.close(fd);
});

describe('epoll', () => {
  it('gives back the whole of kind and index', () => {
    const set = keep(native.epollCreate());
    const fd = makeReadable();
    expect(native.epollControl(set, EPOLL_ADD, fd, EVENT_IN, 0xffffffff, 0xfffffffe)).toBe(0);
    expect(native.epollWait(set, events, 300, 0)).toBe(1);
    expect(arena.view.getUint32(events, true)).toBe(EVENT_IN);
    expect(arena.view.getUint32(events + 4, true)).toBe(0xffffffff);
    expect(arena.view.getUint32(events + 8, true)).toBe(0xfffffffe);
    expect(native.epollControl(set, EPOLL_MODIFY, fd, EVENT_OUT, 1, 2)).toBe(0);
    expect(native.epollWait(set, events, 300, 0)).toBe(1);
    expect(arena.view.getUint32(events, true)).toBe(EVENT_OUT);
    expect(native.epollControl(set, EPOLL_DELETE, fd, 0, 0, 0)).toBe(0);
    expect(native.epollWait(set, events, 300, 0)).toBe(0);
  });

  it('gives no more events than asked for', () => {
    const set = keep(native.epollCreate());
    for (let i = 0; i < 3; i++) native.epollControl(set, EPOLL_ADD, makeReadable(), EVENT_IN, 1, i);
    expect(native.epollWait(set, events, 2, 0)).toBe(2);
  });

  it('waits for as long as told', () => {
    const set = keep(native.epollCreate());
    const start = performance.now();
    expect(native.epollWait(set, events, 1, 20)).toBe(0);
    expect(performance.now() - start).toBeGreaterThan(18);
  });

  it('refuses what is no set, no room and no arena', () => {
    const set = keep(native.epollCreate());
    expect(native.epollWait(99_999, events, 1, 0)).toBe(EBADF);
    expect(native.epollWait(set, events, 0, 0)).toBe(EINVAL);
    expect(native.epollWait(set, ARENA_BYTES - 11, 1, 0)).toBe(EFAULT);
    expect(native.epollControl(set, EPOLL_ADD, 99_999, EVENT_IN, 0, 0)).toBe(EBADF);
    expect(native.epollControl(keep(native.open(4, SOCKET_STREAM, 0)), EPOLL_ADD, 0, 0, 0, 0)).toBe(EINVAL);
  });
});

describe('startPoll', () => {
  it('calls back while the descriptor is readable, between timers', async () => {
    let calls = 0;
    let timers = 0;
    const timer = setInterval(() => timers++, 1);
    poll(makeReadable(), () => calls++);
    await pause(30);
    clearInterval(timer);
    expect(calls).toBeGreaterThan(5);
    expect(timers).toBeGreaterThan(2);
  });

  it('stops from inside the callback, and twice', async () => {
    let calls = 0;
    const handle = poll(makeReadable(), () => {
      calls++;
      native.stopPoll(handle);
    });
    await pause(10);
    expect(calls).toBe(1);
    expect(native.stopPoll(handle)).toBe(0);
    expect(native.refPoll(handle)).toBe(0);
    expect(native.unrefPoll(handle)).toBe(0);
  });

  it('refuses descriptors that cannot be polled and callbacks that are none', () => {
    expect(native.startPoll(99_999, () => {})).toBe(EBADF);
    expect(native.startPoll(0, undefined as unknown as () => void)).toBe(EINVAL);
    expect(native.stopPoll({})).toBe(EINVAL);
  });

  /** Runs `body` with the addon in a thread of its own, whose end is not announced to the poll. */
  async function runWorker(body: string): Promise<{ code: number; messages: unknown[] }> {
    const source = `
      const { parentPort } = require('node:worker_threads');
      const native = require(${JSON.stringify(nativePath())});
      native.bindArena(new ArrayBuffer(4096));
      const fd = native.open(4, 2, 0);
      new Uint8Array(0);
      ${body}`;
    const worker = new Worker(source, { eval: true });
    const messages: unknown[] = [];
    worker.on('message', (message) => messages.push(message));
    const [code] = (await once(worker, 'exit')) as [number];
    return { code, messages };
  }

  it('goes on after an exception that the process survives', async () => {
    const { code, messages } = await runWorker(`
      let calls = 0;
      const set = native.epollCreate();
      native.epollControl(set, 1, fd, 4, 0, 0);
      process.on('uncaughtException', (error) => parentPort.postMessage(error.message));
      const handle = native.startPoll(set, () => {
        if (++calls === 1) throw new Error('first');
        native.stopPoll(handle);
        parentPort.postMessage(calls);
      });`);
    expect(messages).toEqual(['first', 2]);
    expect(code).toBe(0);
  });

  it('ends with its thread while it runs', async () => {
    const { code } = await runWorker(`
      const set = native.epollCreate();
      native.epollControl(set, 1, fd, 4, 0, 0);
      let calls = 0;
      native.startPoll(set, () => { if (++calls === 3) process.exit(7); });`);
    expect(code).toBe(7);
  });

  it('lets the thread end when it is not referenced', async () => {
    const { code } = await runWorker(`native.unrefPoll(native.startPoll(native.epollCreate(), () => {}));`);
    expect(code).toBe(0);
  });
});
