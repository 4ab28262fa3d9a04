/** What the tests of the addon share: endpoint records and loopback sockets. */
import { expect } from 'vitest';
import type { Arena } from '../../../src/base/arena.ts';
import {
  ENDPOINT_ADDRESS,
  ENDPOINT_BYTES,
  ENDPOINT_PORT,
  ENDPOINT_SCOPE,
  SOCKET_STREAM,
} from '../../../src/stack/ports.ts';
import type { NativeAddon } from '../../../src/sys/native-addon.ts';

export const EBADF = -9;
export const EAGAIN = -11;
export const EFAULT = -14;
export const EINVAL = -22;
export const EAFNOSUPPORT = -97;
export const EINPROGRESS = -115;
export const ECONNREFUSED = -111;

export const SOL_SOCKET = 1;
export const SO_PEEK_OFF = 42;

export function allocateEndpoint(arena: Arena): number {
  return arena.allocate(ENDPOINT_BYTES);
}

/** Writes the record of a loopback endpoint. */
export function writeLoopback(arena: Arena, offset: number, family: number, port: number): void {
  arena.bytes.fill(0, offset, offset + ENDPOINT_BYTES);
  arena.bytes[offset] = family;
  arena.view.setUint16(offset + ENDPOINT_PORT, port);
  if (family === 4) {
    arena.view.setUint32(offset + ENDPOINT_ADDRESS, 0x7f000001);
  } else {
    arena.bytes[offset + ENDPOINT_ADDRESS + 15] = 1;
  }
}

export function readPort(arena: Arena, offset: number): number {
  return arena.view.getUint16(offset + ENDPOINT_PORT);
}

/** The record as text: `4 127.0.0.1 scope 0`. */
export function showEndpoint(arena: Arena, offset: number): string {
  const family = arena.bytes[offset];
  const scope = arena.view.getUint32(offset + ENDPOINT_SCOPE, true);
  const length = family === 4 ? 4 : family === 6 ? 16 : 0;
  const at = offset + ENDPOINT_ADDRESS;
  const address = Array.from(arena.bytes.subarray(at, at + length)).join('.');
  return `${family} ${address} scope ${scope}`;
}

/** Binds to a free loopback port and leaves the socket's own record at `endpoint`. @returns the port */
export function bindLoopback(native: NativeAddon, arena: Arena, endpoint: number, fd: number, family: number): number {
  native.bindArena(arena.buffer);
  writeLoopback(arena, endpoint, family, 0);
  expect(native.bind(fd, endpoint)).toBe(0);
  expect(native.getName(fd, endpoint)).toBe(0);
  return readPort(arena, endpoint);
}

/** A connected pair of TCP sockets over loopback. */
export async function connectPair(
  native: NativeAddon,
  arena: Arena,
  endpoint: number,
  family: number,
): Promise<{ client: number; server: number }> {
  const listener = native.open(family, SOCKET_STREAM, 0);
  bindLoopback(native, arena, endpoint, listener, family);
  expect(native.listen(listener, 8)).toBe(0);
  const client = native.open(family, SOCKET_STREAM, 0);
  expect([0, EINPROGRESS]).toContain(native.connect(client, endpoint));
  let server = EAGAIN;
  for (let tries = 0; tries < 200 && server === EAGAIN; tries++) {
    server = native.accept(listener, endpoint);
    if (server === EAGAIN) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect(server).toBeGreaterThan(0);
  native.close(listener);
  return { client, server };
}

/** RFC 1071 the slow way. */
export function sumNaively(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/** Deterministic bytes that repeat with a period that no buffer size shares. */
export function fillPattern(bytes: Uint8Array, seed = 1): Uint8Array {
  let state = seed >>> 0;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Waits until `probe` gives something other than -EAGAIN. */
export async function retry(probe: () => number, timeoutMs = 2000): Promise<number> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const result = probe();
    if (result !== EAGAIN || Date.now() > end) return result;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
