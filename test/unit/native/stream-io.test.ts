import { afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { SHUT_WRITE } from '../../../src/stack/ports.ts';
import { loadNative } from '../../../src/sys/native.ts';
import {
  allocateEndpoint,
  connectPair,
  EAGAIN,
  EFAULT,
  EINVAL,
  fillPattern,
  retry,
  SO_PEEK_OFF,
  SOL_SOCKET,
  sumNaively,
} from '../sys/support.ts';

const native = loadNative();
const ARENA_BYTES = 8 << 20;
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const endpoint = allocateEndpoint(arena);
const out = arena.allocate(1 << 20);
const into = arena.allocate(4 << 20);
const list = arena.allocate(8 * 4096);
const sums = arena.allocate(4 * 4096);
fillPattern(arena.bytes.subarray(out, out + (1 << 20)));

const SO_RCVBUF = 8;

const fds: number[] = [];
async function makePair(family = 4): Promise<{ client: number; server: number }> {
  const pair = await connectPair(native, arena, endpoint, family);
  fds.push(pair.client, pair.server);
  return pair;
}
afterEach(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});

const sent = (from: number, length: number) => arena.bytes.slice(out + from, out + from + length);
const got = (from: number, length: number) => arena.bytes.slice(into + from, into + from + length);

/** Waits until `bytes` lie in the receive queue of `fd`. */
async function waitQueued(fd: number, bytes: number): Promise<void> {
  const MSG_PEEK = 2;
  const scratch = into + (3 << 20);
  for (let tries = 0; tries < 1000; tries++) {
    const before = native.getOption(fd, SOL_SOCKET, SO_PEEK_OFF);
    if (native.receive(fd, scratch, 1 << 20, MSG_PEEK) >= bytes) {
      if (before >= 0) native.setOption(fd, SOL_SOCKET, SO_PEEK_OFF, before);
      return;
    }
    if (before >= 0) native.setOption(fd, SOL_SOCKET, SO_PEEK_OFF, before);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new Error(`fewer than ${bytes} bytes arrived`);
}

describe('receive and send', () => {
  it('carries bytes both ways, from the arena and from other buffers', async () => {
    for (const family of [4, 6]) {
      const { client, server } = await makePair(family);
      expect(native.send(client, out + 3, 1000, 0)).toBe(1000);
      expect(await retry(() => native.receive(server, into, 5000, 0))).toBe(1000);
      expect(got(0, 1000)).toEqual(sent(3, 1000));
      const spill = fillPattern(new Uint8Array(70), 9);
      expect(native.sendBuffer(server, spill, 20, 50, 0)).toBe(50);
      expect(await retry(() => native.receive(client, into, 5000, 0))).toBe(50);
      expect(got(0, 50)).toEqual(spill.slice(20));
    }
  });

  it('answers EAGAIN when there is nothing to read and when nothing more is taken', async () => {
    const { client, server } = await makePair();
    expect(native.receive(server, into, 10, 0)).toBe(EAGAIN);
    let total = 0;
    for (;;) {
      const status = native.send(client, out, 1 << 20, 0);
      if (status < 0) {
        expect(status).toBe(EAGAIN);
        break;
      }
      total += status;
    }
    expect(total).toBeGreaterThan(1000);
  });

  it('answers EPIPE without a signal when the peer is gone', async () => {
    const { client, server } = await makePair();
    expect(native.shutdown(client, SHUT_WRITE)).toBe(0);
    expect(native.send(client, out, 1, 0)).toBe(-32);
    expect(native.sendBuffer(client, new Uint8Array(1), 0, 1, 0)).toBe(-32);
    native.close(server);
  });

  it('refuses ranges outside the arena or buffer', async () => {
    const { client } = await makePair();
    for (const [offset, length] of [
      [ARENA_BYTES, 1],
      [ARENA_BYTES - 1, 2],
      [0, ARENA_BYTES + 1],
      [0xffffffff, 0xffffffff],
    ] as const) {
      expect(native.send(client, offset, length, 0)).toBe(EFAULT);
      expect(native.receive(client, offset, length, 0)).toBe(EFAULT);
    }
    const spill = new Uint8Array(8);
    expect(native.sendBuffer(client, spill, 0, 9, 0)).toBe(EFAULT);
    expect(native.sendBuffer(client, spill, 9, 0, 0)).toBe(EFAULT);
    expect(native.sendBuffer(client, spill, 0xffffffff, 2, 0)).toBe(EFAULT);
  });
});

describe('sendSegments', () => {
  function writeList(segments: readonly (readonly [number, number])[]): void {
    segments.forEach(([offset, length], i) => {
      arena.view.setUint32(list + 8 * i, offset, true);
      arena.view.setUint32(list + 8 * i + 4, length, true);
    });
  }

  it('sends scattered segments as one stream', async () => {
    const { client, server } = await makePair();
    writeList([
      [out + 100, 10],
      [out, 5],
      [out + 50, 0],
      [out + 7, 21],
    ]);
    expect(native.sendSegments(client, list, 4, 0)).toBe(36);
    await waitQueued(server, 36);
    expect(native.receive(server, into, 100, 0)).toBe(36);
    expect(got(0, 36)).toEqual(new Uint8Array([...sent(100, 10), ...sent(0, 5), ...sent(7, 21)]));
  });

  it('sends more segments than one system call takes', async () => {
    const { client, server } = await makePair();
    writeList(Array.from({ length: 2500 }, (_, i) => [out + i * 13, 13] as const));
    expect(native.sendSegments(client, list, 2500, 0)).toBe(32_500);
    await waitQueued(server, 32_500);
    expect(native.receive(server, into, 40_000, 0)).toBe(32_500);
    expect(got(0, 32_500)).toEqual(sent(0, 32_500));
  });

  it('stops at a short send, which may end inside a segment', async () => {
    const { client } = await makePair();
    writeList(Array.from({ length: 4000 }, () => [out, 60_000] as const));
    const total = native.sendSegments(client, list, 4000, 0);
    expect(total).toBeGreaterThan(0);
    expect(total).toBeLessThan(4000 * 60_000);
    expect(native.sendSegments(client, list, 4000, 0)).toBe(EAGAIN);
  });

  it('sends nothing of a list with a segment outside the arena', async () => {
    const { client, server } = await makePair();
    writeList([
      [out, 10],
      [ARENA_BYTES - 1, 2],
    ]);
    expect(native.sendSegments(client, list, 2, 0)).toBe(EFAULT);
    expect(native.sendSegments(client, ARENA_BYTES - 8, 2, 0)).toBe(EFAULT);
    expect(native.sendSegments(client, list, 0xffffffff, 0)).toBe(EFAULT);
    expect(native.receive(server, into, 10, 0)).toBe(EAGAIN);
    expect(native.sendSegments(client, list, 0, 0)).toBe(0);
  });
});

describe('peekSegments', () => {
  function checkSums(firstByte: number, total: number, segment: number): void {
    for (let i = 0; i * segment < total; i++) {
      const length = Math.min(segment, total - i * segment);
      expect(arena.view.getUint32(sums + 4 * i, true)).toBe(sumNaively(sent(firstByte + i * segment, length)));
    }
  }

  for (const family of [4, 6]) {
    it(`scatters queued data, sums each segment and goes on where it ended (IPv${family})`, async () => {
      const { client, server } = await makePair(family);
      expect(native.setOption(server, SOL_SOCKET, SO_PEEK_OFF, 0)).toBe(0);
      expect(native.send(client, out, 5000, 0)).toBe(5000);
      await waitQueued(server, 5000);
      arena.bytes.fill(0xee, into, into + 10_000);
      arena.view.setUint32(sums + 8, 0xdeadbeef, true);
      expect(native.peekSegments(server, into, 1500, 1001, 2, 0, sums)).toBe(2002);
      expect(got(0, 1001)).toEqual(sent(0, 1001));
      expect(got(1500, 1001)).toEqual(sent(1001, 1001));
      expect(got(1001, 499)).toEqual(new Uint8Array(499).fill(0xee));
      checkSums(0, 2002, 1001);
      expect(arena.view.getUint32(sums + 8, true)).toBe(0xdeadbeef);
      // The rest: two full segments and a part; sums of untouched segments stay as they were.
      arena.view.setUint32(sums + 12, 0xdeadbeef, true);
      expect(native.peekSegments(server, into, 1500, 1001, 20, 0, sums)).toBe(2998);
      checkSums(2002, 2998, 1001);
      expect(arena.view.getUint32(sums + 12, true)).toBe(0xdeadbeef);
      expect(native.peekSegments(server, into, 1500, 1001, 20, 0, sums)).toBe(EAGAIN);
    });

    it(`peeks the same bytes again after the offset is set back, and drops what is acknowledged (IPv${family})`, async () => {
      const { client, server } = await makePair(family);
      expect(native.setOption(server, SOL_SOCKET, SO_PEEK_OFF, 0)).toBe(0);
      native.send(client, out, 3000, 0);
      await waitQueued(server, 3000);
      expect(native.peekSegments(server, into, 1000, 1000, 4, 0, sums)).toBe(3000);
      // 1200 acknowledged: the kernel moves the peek offset with the queue.
      expect(native.discard(server, 1200)).toBe(1200);
      expect(native.getOption(server, SOL_SOCKET, SO_PEEK_OFF)).toBe(1800);
      expect(native.setOption(server, SOL_SOCKET, SO_PEEK_OFF, 0)).toBe(0);
      expect(native.peekSegments(server, into, 1000, 1000, 4, 0, sums)).toBe(1800);
      expect(got(0, 1800)).toEqual(sent(1200, 1800));
      checkSums(1200, 1800, 1000);
      expect(native.discard(server, 5000)).toBe(1800);
      expect(native.discard(server, 1)).toBe(EAGAIN);
    });
  }

  it('tells the end of the stream only when all before it has been peeked', async () => {
    const { client, server } = await makePair();
    native.setOption(server, SOL_SOCKET, SO_PEEK_OFF, 0);
    native.send(client, out, 100, 0);
    native.shutdown(client, SHUT_WRITE);
    await waitQueued(server, 100);
    expect(native.peekSegments(server, into, 64, 64, 8, 0, sums)).toBe(100);
    expect(await retry(() => native.peekSegments(server, into, 64, 64, 8, 0, sums))).toBe(0);
  });

  it('fills more segments than one system call takes', async () => {
    const { client, server } = await makePair();
    native.setOption(server, SOL_SOCKET, SO_PEEK_OFF, 0);
    native.send(client, out, 30_000, 0);
    await waitQueued(server, 30_000);
    expect(native.peekSegments(server, into, 32, 10, 3000, 0, sums)).toBe(30_000);
    for (const i of [0, 1, 1023, 1024, 2047, 2048, 2999]) expect(got(i * 32, 10)).toEqual(sent(i * 10, 10));
    checkSums(0, 30_000, 10);
  });

  it('does not repeat bytes when the socket has no peek offset, and skips as asked', async () => {
    const { client, server } = await makePair();
    expect(native.setOption(server, SOL_SOCKET, SO_RCVBUF, 1 << 20)).toBe(0);
    expect(native.send(client, out, 200_000, 0)).toBe(200_000);
    await waitQueued(server, 200_000);
    expect(native.peekSegments(server, into, 16, 10, 3000, 0, sums)).toBe(10_240);
    checkSums(0, 10_240, 10);
    expect(native.peekSegments(server, into, 1000, 1000, 4, 150_001, sums)).toBe(4000);
    expect(got(0, 4000)).toEqual(sent(150_001, 4000));
    checkSums(150_001, 4000, 1000);
    expect(native.peekSegments(server, into, 1000, 1000, 4, 199_999, sums)).toBe(1);
    expect(native.peekSegments(server, into, 1000, 1000, 4, 200_000, sums)).toBe(EAGAIN);
    expect(native.peekSegments(server, into, 1000, 1000, 4, 300_000, sums)).toBe(EAGAIN);
  });

  it('refuses segments or sums outside the arena, and counts of none', async () => {
    const { server } = await makePair();
    expect(native.peekSegments(server, ARENA_BYTES - 1000, 500, 501, 2, 0, sums)).toBe(EFAULT);
    expect(native.peekSegments(server, ARENA_BYTES - 1000, 500, 500, 2, 0, sums)).toBe(EAGAIN);
    expect(native.peekSegments(server, 0, 0xffffffff, 1, 0xffffffff, 0, sums)).toBe(EFAULT);
    expect(native.peekSegments(server, into, 500, 500, 2, 0, ARENA_BYTES - 7)).toBe(EFAULT);
    expect(native.peekSegments(server, into, 500, 500, 0, 0, sums)).toBe(EINVAL);
    expect(native.peekSegments(server, into, 500, 0, 1, 0, sums)).toBe(EINVAL);
    expect(native.peekSegments(server, into, 500, 500, 1, 0xffffffff, sums)).toBe(EINVAL);
  });
});
