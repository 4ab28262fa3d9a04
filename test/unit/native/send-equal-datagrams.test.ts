import { afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { DATAGRAM_META_BYTES, DATAGRAM_META_LENGTH, SOCKET_DGRAM } from '../../../src/stack/ports.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { allocateEndpoint, EFAULT, EINVAL, fillPattern, readPort, writeLoopback } from '../sys/support.ts';

const ARENA_BYTES = 2 << 20;
const native = loadNative();
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const endpoint = allocateEndpoint(arena);
const list = arena.allocate(8 * 128);
const out = arena.allocate(1 << 17);
const into = arena.allocate(128 * 2048);
const metas = arena.allocate(128 * DATAGRAM_META_BYTES);
fillPattern(arena.bytes.subarray(out, out + (1 << 17)));

const fds: number[] = [];
afterEach(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});

function connectedPair(family: number): { from: number; to: number } {
  const to = native.open(family, SOCKET_DGRAM, 0);
  const from = native.open(family, SOCKET_DGRAM, 0);
  fds.push(to, from);
  writeLoopback(arena, endpoint, family, 0);
  native.bind(to, endpoint);
  native.getName(to, endpoint);
  writeLoopback(arena, endpoint, family, readPort(arena, endpoint));
  expect(native.connect(from, endpoint)).toBe(0);
  return { from, to };
}

/** Datagrams from different places, so that they are gathered and not merely cut. */
function writeList(lengths: readonly number[]): void {
  lengths.forEach((length, i) => {
    arena.view.setUint32(list + 8 * i, out + 1500 * i, true);
    arena.view.setUint32(list + 8 * i + 4, length, true);
  });
}

describe.each([4, 6])('datagrams of one length, given to the kernel as one (IPv%i)', (family) => {
  it('arrive as they would have one by one', () => {
    const { from, to } = connectedPair(family);
    const lengths = [...Array<number>(39).fill(1200), 77];
    writeList(lengths);
    expect(native.sendEqualDatagrams(from, list, 40, 1200)).toBe(40);
    expect(native.receiveDatagrams(to, into, 2048, 2048, 64, metas)).toBe(40);
    lengths.forEach((length, i) => {
      expect(arena.view.getUint32(metas + i * DATAGRAM_META_BYTES + DATAGRAM_META_LENGTH, true)).toBe(length);
      const got = arena.bytes.subarray(into + 2048 * i, into + 2048 * i + length);
      expect(Buffer.compare(got, arena.bytes.subarray(out + 1500 * i, out + 1500 * i + length))).toBe(0);
    });
  });

  it('are refused where one is longer, or shorter without being the last', () => {
    const { from } = connectedPair(family);
    for (const lengths of [
      [100, 101, 100],
      [100, 99, 100],
    ]) {
      writeList(lengths);
      expect(native.sendEqualDatagrams(from, list, 3, 100)).toBe(EINVAL);
    }
  });

  it('are refused in impossible numbers and from outside the arena', () => {
    const { from } = connectedPair(family);
    writeList([100]);
    expect(native.sendEqualDatagrams(from, list, 0, 100)).toBe(EINVAL);
    expect(native.sendEqualDatagrams(from, list, 65, 100)).toBe(EINVAL);
    expect(native.sendEqualDatagrams(from, list, 1, 0)).toBe(EINVAL);
    expect(native.sendEqualDatagrams(from, list, 1, 65_536)).toBe(EINVAL);
    expect(native.sendEqualDatagrams(from, ARENA_BYTES - 4, 1, 100)).toBe(EFAULT);
    arena.view.setUint32(list, ARENA_BYTES - 50, true);
    expect(native.sendEqualDatagrams(from, list, 1, 100)).toBe(EFAULT);
  });
});
