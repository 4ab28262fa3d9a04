import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { EVENT_EDGE, EVENT_IN, EVENT_OUT, SOCKET_DGRAM, SOCKET_STREAM } from '../../../src/stack/ports.ts';
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
const loops: PollHandle[] = [];
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
/** Sleeps in a set of its own; `callback` gets the number of events, which lie at `events`. */
function sleepIn(set: number, callback: (count: number) => unknown): PollHandle {
  const handle = native.startEventLoop(set, events, 256, (count) => {
    callback(count);
    return 0;
  });
  if (typeof handle === 'number') throw new Error(`startEventLoop: ${handle}`);
  loops.push(handle);
  return handle;
}
/** Milliseconds that this thread has run. */
const ownCpuMs = (): number => Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

afterEach(() => {
  for (const handle of polls.splice(0)) native.stopPoll(handle);
  for (const handle of loops.splice(0)) native.stopEventLoop(handle);
  for (const fd of fds.splice(0)) native.close(fd);
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
    await expect.poll(() => Math.min(calls - 5, timers - 2), { interval: 10, timeout: 10_000 }).toBeGreaterThan(0);
    clearInterval(timer);
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
    expect(native.startPoll(0, undefined as unknown as () => number)).toBe(EINVAL);
    expect(native.stopPoll({})).toBe(EINVAL);
  });

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

describe('startEventLoop', () => {
  /** What Node's own loop is for, each once; resolves when all have had their turn. */
  async function useNode(): Promise<string[]> {
    const done: string[] = [];
    await new Promise((resolve) => setTimeout(resolve, 3));
    done.push('timer');
    await new Promise((resolve) => setImmediate(resolve));
    done.push('immediate');
    await new Promise<void>((resolve) => process.nextTick(resolve));
    done.push('tick');
    await stat('/');
    done.push('thread');
    const server = createServer((socket) => socket.pipe(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = createConnection((server.address() as { port: number }).port, '127.0.0.1');
    client.write('x');
    await once(client, 'data');
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
    done.push('socket');
    const signal = new Promise((resolve) => process.once('SIGWINCH', resolve));
    process.kill(process.pid, 'SIGWINCH');
    await signal;
    done.push('signal');
    return done;
  }
  const ALL = ['timer', 'immediate', 'tick', 'thread', 'socket', 'signal'];

  it('lets Node have its turns while no event comes', async () => {
    const set = keep(native.epollCreate());
    let calls = 0;
    sleepIn(set, () => calls++);
    expect(await useNode()).toEqual(ALL);
    expect(calls).toBe(0);
  });

  it('lets Node have its turns while events never cease', async () => {
    const set = keep(native.epollCreate());
    native.epollControl(set, EPOLL_ADD, makeReadable(), EVENT_IN, 1, 7);
    let calls = 0;
    const indices = new Set<number>();
    sleepIn(set, (count) => {
      calls++;
      for (let i = 0; i < count; i++) {
        const at = events + 12 * i;
        if (arena.view.getUint32(at + 4, true) === 1) indices.add(arena.view.getUint32(at + 8, true));
      }
    });
    expect(await useNode()).toEqual(ALL);
    expect(calls).toBeGreaterThan(20);
    expect([...indices]).toEqual([7]);
  });

  it('stops from inside the callback, and twice, and then Node sleeps by itself', async () => {
    const set = keep(native.epollCreate());
    native.epollControl(set, EPOLL_ADD, makeReadable(), EVENT_IN, 1, 0);
    let calls = 0;
    const handle = sleepIn(set, () => {
      calls++;
      native.stopEventLoop(handle);
    });
    await pause(10);
    expect(calls).toBe(1);
    expect(native.stopEventLoop(handle)).toBe(0);
    const before = ownCpuMs();
    await pause(200);
    expect(ownCpuMs() - before).toBeLessThan(150);
    // Node's loop was taken out of the set.
    expect(native.epollWait(set, events, 2, 0)).toBe(1);
  });

  it('uses no processor time while nothing happens', async () => {
    sleepIn(keep(native.epollCreate()), () => {});
    const before = ownCpuMs();
    await pause(200);
    expect(ownCpuMs() - before).toBeLessThan(150);
  });

  /**
   * Sends a byte `bytes` times, every 60 ms, to a loop whose callback has it look for events for `busyUs`. In a thread of its own,
   * since Node's own events end that as well, and one that knows of nothing else has none.
   * @returns CPU milliseconds of the thread from one byte to the next
   */
  async function measureLooking(bytes: number, busyUs: number): Promise<number[]> {
    const pair = new Int32Array(2);
    expect(native.socketPair(SOCKET_STREAM, pair)).toBe(0);
    const [near, far] = [keep(pair[0]!), keep(pair[1]!)];
    const done = runWorker(`
      const schedstat = require('node:fs').openSync('/proc/thread-self/schedstat');
      const text = Buffer.alloc(64);
      const ownCpuMs = () => {
        require('node:fs').readSync(schedstat, text, 0, 64, 0);
        return Number(text.toString().split(' ')[0]) / 1e6;
      };
      const set = native.epollCreate();
      native.epollControl(set, ${EPOLL_ADD}, fd, ${EVENT_OUT}, 1, 0);
      const times = [];
      let calls = 0;
      const handle = native.startEventLoop(set, 0, 8, () => {
        // Not the first calls: the thread's start keeps Node busy.
        if (++calls < 1000) return 0;
        if (calls === 1000) {
          native.epollControl(set, ${EPOLL_DELETE}, fd, 0, 0, 0);
          native.epollControl(set, ${EPOLL_ADD}, ${near}, ${(EVENT_IN | EVENT_EDGE) >>> 0}, 1, 1);
          parentPort.postMessage('ready');
        } else if (times.push(ownCpuMs()) === ${bytes}) {
          parentPort.postMessage(times.slice(1).map((time, i) => time - times[i]));
          native.epollControl(set, ${EPOLL_DELETE}, ${near}, 0, 0, 0);
          native.stopEventLoop(handle);
        }
        return ${busyUs};
      });`);
    const timer = setInterval(() => native.send(far, 0, 1, 0), 60);
    const { messages } = await done;
    clearInterval(timer);
    return messages[1] as number[];
  }

  it('looks for events instead of sleeping for as long as the callback says', async () => {
    // Others may have had the processor for most of that time.
    expect(Math.max(...(await measureLooking(3, 10_000_000)))).toBeGreaterThan(10);
    expect(Math.min(...(await measureLooking(3, 0)))).toBeLessThan(10);
  });

  it('sleeps at once when looking was in vain some times in a row', async () => {
    const times = await measureLooking(12, 15_000);
    expect(Math.max(...times.slice(0, 4))).toBeGreaterThan(5);
    expect(Math.max(...times.slice(6))).toBeLessThan(5);
  });

  it('refuses a second one, what is no set, no room and callbacks that are none', () => {
    const set = keep(native.epollCreate());
    expect(native.startEventLoop(99_999, events, 256, () => 0)).toBe(EBADF);
    expect(native.startEventLoop(set, events, 0, () => 0)).toBe(EINVAL);
    expect(native.startEventLoop(set, ARENA_BYTES - 11, 1, () => 0)).toBe(EFAULT);
    expect(native.startEventLoop(set, events, 1, undefined as unknown as () => number)).toBe(EINVAL);
    expect(native.stopEventLoop({})).toBe(EINVAL);
    sleepIn(set, () => {});
    expect(native.startEventLoop(keep(native.epollCreate()), events, 1, () => 0)).toBe(-16);
    native.stopEventLoop(loops.pop()!);
    sleepIn(set, () => {});
  });

  it('goes on after an exception that the process survives', async () => {
    const { code, messages } = await runWorker(`
      let calls = 0;
      const set = native.epollCreate();
      native.epollControl(set, 1, fd, 4, 1, 0);
      const errors = [];
      process.on('uncaughtException', (error) => errors.push(error.message));
      const handle = native.startEventLoop(set, 0, 8, () => {
        // Not the first calls: the thread's start keeps Node busy.
        if (++calls === 1000) throw new Error('once');
        if (calls <= 1000) return;
        native.stopEventLoop(handle);
        parentPort.postMessage(errors);
      });`);
    expect(messages).toEqual([['once']]);
    expect(code).toBe(0);
  });

  it('ends with its thread while it runs', async () => {
    const { code } = await runWorker(`
      const set = native.epollCreate();
      native.epollControl(set, 1, fd, 4, 1, 0);
      let calls = 0;
      native.startEventLoop(set, 0, 8, () => { if (++calls === 3) process.exit(7); });`);
    expect(code).toBe(7);
  });

  it('goes on after it was stopped and continued, which ends a wait with nothing to do', async () => {
    const child = spawn(process.execPath, [
      '-e',
      `const native = require(${JSON.stringify(nativePath())});
      native.bindArena(new ArrayBuffer(4096));
      const set = native.epollCreate();
      native.epollControl(set, 1, 0, 1, 1, 0);
      const handle = native.startEventLoop(set, 0, 8, () => {
        native.stopEventLoop(handle);
        require('node:fs').writeSync(1, 'event');
      });
      require('node:fs').writeSync(1, 'asleep');`,
    ]);
    try {
      child.stdout.setEncoding('utf8');
      expect(await once(child.stdout, 'data')).toEqual(['asleep']);
      child.kill('SIGSTOP');
      child.kill('SIGCONT');
      // Not before the loop has gone to sleep again, which nothing tells.
      await pause(50);
      child.stdin.write('x');
      expect(await once(child.stdout, 'data')).toEqual(['event']);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('ends with its thread while it sleeps', async () => {
    const worker = new Worker(
      `const native = require(${JSON.stringify(nativePath())});
      native.bindArena(new ArrayBuffer(4096));
      native.startEventLoop(native.epollCreate(), 0, 8, () => {});
      require('node:worker_threads').parentPort.postMessage('asleep');`,
      { eval: true },
    );
    await once(worker, 'message');
    expect(await worker.terminate()).toBe(1);
  });
});
