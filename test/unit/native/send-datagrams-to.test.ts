import { afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { DATAGRAM_META_BYTES, ENDPOINT_ADDRESS, ENDPOINT_BYTES, SOCKET_DGRAM } from '../../../src/stack/ports.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { allocateEndpoint, EFAULT, fillPattern, readPort, showEndpoint, writeLoopback } from '../sys/support.ts';

const EAFNOSUPPORT = -97;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

const native = loadNative();
const ARENA_BYTES = 1 << 20;
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const remote = allocateEndpoint(arena);
const local = allocateEndpoint(arena);
const list = arena.allocate(64);
const out = arena.allocate(4096);
const into = arena.allocate(16 * 2048);
const metas = arena.allocate(16 * DATAGRAM_META_BYTES);
fillPattern(arena.bytes.subarray(out, out + 4096));

const fds: number[] = [];
afterEach(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});

/** A socket of `family` bound to every address, IPv6 for both families. */
function openWildcard(family: number): { fd: number; port: number } {
  const fd = native.open(family, SOCKET_DGRAM, 0);
  fds.push(fd);
  if (family === 6) native.setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  arena.bytes.fill(0, remote, remote + ENDPOINT_BYTES);
  arena.bytes[remote] = family;
  expect(native.bind(fd, remote)).toBe(0);
  expect(native.getName(fd, remote)).toBe(0);
  return { fd, port: readPort(arena, remote) };
}

function openReceiver(family: number): { fd: number; port: number } {
  const fd = native.open(family, SOCKET_DGRAM, 0);
  fds.push(fd);
  writeLoopback(arena, remote, family, 0);
  expect(native.bind(fd, remote)).toBe(0);
  native.getName(fd, remote);
  return { fd, port: readPort(arena, remote) };
}

function writeList(lengths: readonly number[]): void {
  lengths.forEach((length, i) => {
    arena.view.setUint32(list + 8 * i, out, true);
    arena.view.setUint32(list + 8 * i + 4, length, true);
  });
}

describe('datagrams from a socket that is not connected', () => {
  for (const family of [4, 6]) {
    it(`leave from the local address asked for, in order (IPv4 on an IPv${family} socket)`, () => {
      const server = openWildcard(family);
      const client = openReceiver(4);
      writeLoopback(arena, remote, 4, client.port);
      writeLoopback(arena, local, 4, 0);
      arena.view.setUint32(local + ENDPOINT_ADDRESS, 0x7f000005);
      writeList([10, 0, 1000]);
      expect(native.sendDatagramsTo(server.fd, list, 3, remote, local)).toBe(3);
      expect(native.receiveDatagrams(client.fd, into, 2048, 2048, 16, metas)).toBe(3);
      expect(showEndpoint(arena, metas)).toBe('4 127.0.0.5 scope 0');
      expect(readPort(arena, metas)).toBe(server.port);
      expect(arena.bytes.slice(into + 4096, into + 5096)).toEqual(arena.bytes.slice(out, out + 1000));
    });
  }

  it('go to IPv6 too, from the address asked for', () => {
    const server = openWildcard(6);
    const client = openReceiver(6);
    writeLoopback(arena, remote, 6, client.port);
    writeLoopback(arena, local, 6, 0);
    writeList([5]);
    expect(native.sendDatagramsTo(server.fd, list, 1, remote, local)).toBe(1);
    expect(native.receiveDatagrams(client.fd, into, 2048, 2048, 16, metas)).toBe(1);
    expect(readPort(arena, metas)).toBe(server.port);
  });

  it('leave the address to the kernel when the local record is empty', () => {
    const server = openWildcard(4);
    const client = openReceiver(4);
    writeLoopback(arena, remote, 4, client.port);
    arena.bytes.fill(0, local, local + ENDPOINT_BYTES);
    writeList([5]);
    expect(native.sendDatagramsTo(server.fd, list, 1, remote, local)).toBe(1);
    expect(native.receiveDatagrams(client.fd, into, 2048, 2048, 16, metas)).toBe(1);
    expect(showEndpoint(arena, metas)).toBe('4 127.0.0.1 scope 0');
  });

  it('are refused without a destination, and when a record lies outside the arena', () => {
    const server = openWildcard(4);
    arena.bytes.fill(0, remote, remote + ENDPOINT_BYTES);
    expect(native.sendDatagramsTo(server.fd, list, 1, remote, local)).toBe(EAFNOSUPPORT);
    expect(native.sendDatagramsTo(server.fd, list, 1, ARENA_BYTES - 8, local)).toBe(EFAULT);
    expect(native.sendDatagramsTo(server.fd, list, 1, remote, ARENA_BYTES - 8)).toBe(EFAULT);
    expect(native.sendDatagramsTo(server.fd, ARENA_BYTES - 4, 1, remote, local)).toBe(EFAULT);
  });
});
