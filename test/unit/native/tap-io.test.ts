/** Many frames per call, over a pair of SEQPACKET sockets, which keep frames apart as a tap does. */
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { createSocketPair } from '../../../src/sys/unix-socket.ts';
import { EAGAIN, EFAULT, EINVAL, fillPattern } from '../sys/support.ts';

const SOCK_SEQPACKET = 5;
const SLOT = 2048;
const HEADER = 12;

const native = loadNative();
const arena = createArena(256 * 1024);
native.bindArena(arena.buffer);
const fds = new Set<number>();
let ours: number;
let theirs: number;

beforeEach(() => {
  [ours, theirs] = createSocketPair(native, SOCK_SEQPACKET);
  for (const fd of [ours, theirs]) {
    native.setNonBlocking(fd, 1);
    fds.add(fd);
  }
  fillPattern(arena.bytes);
});
afterAll(() => {
  for (const fd of fds) native.close(fd);
});

function sendRaw(length: number): Uint8Array {
  const at = 128 * 1024 + length;
  expect(native.send(theirs, at, length, 0)).toBe(length);
  return arena.bytes.slice(at, at + length);
}

describe('reading frames', () => {
  it('takes all that are there, each at a multiple of 64 behind the one before', () => {
    const sent = [60 + HEADER, 14 + HEADER, 500].map(sendRaw);
    const frames = new Int32Array(20);
    expect(native.tunRead(ours, 4096, 16_384, SLOT, HEADER, frames)).toBe(3);
    expect(Array.from(frames.subarray(0, 6))).toEqual([
      4096 + HEADER,
      60,
      4096 + 128 + HEADER,
      14,
      4096 + 192 + HEADER,
      500 - HEADER,
    ]);
    for (const [i, bytes] of sent.entries()) {
      const at = frames[2 * i]! - HEADER;
      expect(arena.bytes.slice(at, at + bytes.length)).toEqual(bytes);
    }
    expect(native.tunRead(ours, 4096, 16_384, SLOT, HEADER, frames)).toBe(EAGAIN);
  });

  it('stops when the list is full, and when there is no room for a slot', () => {
    for (let i = 0; i < 5; i++) sendRaw(100);
    expect(native.tunRead(ours, 0, 16_384, SLOT, 0, new Int32Array(5))).toBe(2);
    expect(native.tunRead(ours, 0, SLOT + 128, SLOT, 0, new Int32Array(20))).toBe(2);
    expect(native.tunRead(ours, 0, SLOT, SLOT, 0, new Int32Array(20))).toBe(1);
    expect(native.tunRead(ours, 0, SLOT, SLOT, 0, new Int32Array(20))).toBe(EAGAIN);
  });

  it('drops what is cut off or has no Ethernet header', () => {
    for (const length of [SLOT + 10, 13 + HEADER, SLOT, 100]) sendRaw(length);
    const frames = new Int32Array(20);
    expect(native.tunRead(ours, 0, 16_384, SLOT, HEADER, frames)).toBe(1);
    expect(frames[1]).toBe(100 - HEADER);
  });

  it('gives the frames before the end, and then the end', () => {
    sendRaw(100);
    native.close(theirs);
    fds.delete(theirs);
    expect(native.tunRead(ours, 0, 16_384, SLOT, 0, new Int32Array(20))).toBe(1);
    expect(native.tunRead(ours, 0, 16_384, SLOT, 0, new Int32Array(20))).toBe(0);
  });

  it('refuses ranges outside the arena and slots that hold no frame', () => {
    const frames = new Int32Array(8);
    expect(native.tunRead(ours, 250 * 1024, 16_384, SLOT, 0, frames)).toBe(EFAULT);
    expect(native.tunRead(ours, 0, 16_384, 12, 12, frames)).toBe(EINVAL);
    expect(native.tunRead(ours, 0, 16_384, SLOT, 0, new Uint8Array(8) as unknown as Int32Array)).toBe(EINVAL);
  });
});

describe('writing frames', () => {
  function lay(at: number, length: number): number {
    arena.view.setUint32(at, length, true);
    return at + 4 + HEADER + length;
  }

  it('sends each with its header as one, and tells the bytes that are done', () => {
    const end = lay(lay(lay(1000, 60), 1514), 14);
    expect(native.tunWrite(ours, 1000, end - 1000, HEADER)).toBe(end - 1000);
    let at = 1000;
    for (const length of [60, 1514, 14]) {
      const expected = arena.bytes.slice(at + 4, at + 4 + HEADER + length);
      expect(native.receive(theirs, 64_000, 4000, 0)).toBe(HEADER + length);
      expect(arena.bytes.slice(64_000, 64_000 + HEADER + length)).toEqual(expected);
      at += 4 + HEADER + length;
    }
    expect(native.receive(theirs, 64_000, 4000, 0)).toBe(EAGAIN);
  });

  it('stops where nothing more is taken, and says so when that is the first frame', () => {
    let end = 0;
    while (end < 120_000) end = lay(end, 1500);
    let done = 0;
    for (let sent = 1; sent > 0; ) {
      sent = native.tunWrite(ours, 0, end, HEADER);
      if (sent > 0) done = sent;
      else expect(sent).toBe(EAGAIN);
    }
    expect(done % (4 + HEADER + 1500)).toBe(0);
  });

  it('refuses lengths that leave the range, behind those that do not', () => {
    const first = lay(1000, 60);
    arena.view.setUint32(first, 0xffff_fff0, true);
    expect(native.tunWrite(ours, 1000, first - 1000 + 100, HEADER)).toBe(first - 1000);
    expect(native.tunWrite(ours, first, 100, HEADER)).toBe(EINVAL);
    expect(native.tunWrite(ours, first, 3, HEADER)).toBe(EINVAL);
    expect(native.tunWrite(ours, 256 * 1024 - 4, 5, HEADER)).toBe(EFAULT);
  });
});
