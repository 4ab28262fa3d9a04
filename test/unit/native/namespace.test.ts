/** Questions to a namespace agent, whose answers the test itself lays ready: the addon waits for them in this very thread. */
import { readlinkSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { receiveWithFds } from '../../../src/sys/scm.ts';

const native = loadNative();
const SEQPACKET = 5;
const STREAM = 1;
const EPIPE = -32;
const EMFILE = -24;
const EADDRINUSE = -98;
const EFAULT = -14;
const EINVAL = -22;
const REQUEST_BYTES = 136;

function withAgent(test: (ours: number, agents: number) => void): void {
  const fds = new Int32Array(2);
  expect(native.socketPair(SEQPACKET, fds)).toBe(0);
  const [ours, agents] = [fds[0]!, fds[1]!];
  try {
    test(ours, agents);
  } finally {
    native.close(ours);
    native.close(agents);
  }
}

/** Lays an answer ready: a status and descriptors. */
function answer(agents: number, status: number, fds: readonly number[] = []): void {
  const bytes = new Uint8Array(Int32Array.of(status).buffer);
  expect(native.sendFds(agents, bytes, 0, 4, Int32Array.from(fds), fds.length)).toBe(4);
}

describe('sockets of a namespace', () => {
  it('are asked for by family, type and number, and come close-on-exec', () => {
    withAgent((ours, agents) => {
      const made = [native.open(4, STREAM, 0), native.open(4, STREAM, 0)];
      answer(agents, 2, made);
      const fds = new Int32Array(64);
      expect(native.namespaceSockets(ours, 6, STREAM, 32, fds)).toBe(2);
      for (const fd of fds.subarray(0, 2)) {
        expect(readlinkSync(`/proc/self/fd/${fd}`)).toMatch(/^socket:/);
        native.close(fd);
      }
      for (const fd of made) native.close(fd);
      const request = receiveWithFds(native, agents, 256)!;
      expect(request.bytes.length).toBe(REQUEST_BYTES);
      expect([...request.bytes.subarray(0, 4)]).toEqual([1, 6, STREAM, 32]);
    });
  });
  it('that were promised and did not come are an error', () => {
    withAgent((ours, agents) => {
      answer(agents, 2);
      expect(native.namespaceSockets(ours, 4, STREAM, 2, new Int32Array(64))).toBe(EMFILE);
    });
  });
  it('cannot be had of an agent that is gone, or says why not', () => {
    withAgent((ours, agents) => {
      answer(agents, EADDRINUSE);
      expect(native.namespaceSockets(ours, 4, STREAM, 1, new Int32Array(64))).toBe(EADDRINUSE);
      native.shutdown(agents, 2);
      expect(native.namespaceSockets(ours, 4, STREAM, 1, new Int32Array(64))).toBe(EPIPE);
    });
  });
  it('are asked for in numbers that an answer can bring', () => {
    withAgent((ours) => {
      expect(native.namespaceSockets(ours, 4, STREAM, 0, new Int32Array(64))).toBe(EINVAL);
      expect(native.namespaceSockets(ours, 4, STREAM, 65, new Int32Array(64))).toBe(EINVAL);
      expect(native.namespaceSockets(ours, 4, STREAM, 1, new Int32Array(63))).toBeLessThan(0);
    });
  });
});

describe('binding in a namespace', () => {
  const arena = createArena(4096);
  native.bindArena(arena.buffer);
  const endpoint = arena.allocate(24);
  arena.view.setUint8(endpoint, 4);
  arena.view.setUint16(endpoint + 2, 80);

  it('hands the socket and the address over', () => {
    withAgent((ours, agents) => {
      const fd = native.open(4, STREAM, 0);
      answer(agents, 0);
      native.bindArena(arena.buffer);
      expect(native.namespaceBind(ours, fd, endpoint)).toBe(0);
      native.close(fd);
      const request = receiveWithFds(native, agents, 256)!;
      expect(request.fds.length).toBe(1);
      for (const each of request.fds) native.close(each);
      // struct sockaddr_in behind kind and length: AF_INET, port 80.
      expect([...request.bytes.subarray(8, 12)]).toEqual([2, 0, 0, 80]);
    });
  });
  it('refuses what is no endpoint', () => {
    withAgent((ours) => {
      native.bindArena(arena.buffer);
      expect(native.namespaceBind(ours, 0, 4090)).toBe(EFAULT);
      expect(native.namespaceBind(ours, -1, endpoint)).toBe(-9);
    });
  });
});
