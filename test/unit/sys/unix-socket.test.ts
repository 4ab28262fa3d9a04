import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { MAX_MESSAGE_FDS, passCredentials, receiveWithFds, sendWithFds } from '../../../src/sys/scm.ts';
import {
  connectUnix,
  createSocketPair,
  getPeerCredentials,
  listenUnix,
  UNIX_DATAGRAM,
  UNIX_SEQPACKET,
  UNIX_STREAM,
} from '../../../src/sys/unix-socket.ts';
import {
  allocateEndpoint,
  EAGAIN,
  EFAULT,
  EINVAL,
  fillPattern,
  SO_PEEK_OFF,
  SOL_SOCKET,
  sumNaively,
} from './support.ts';

const native = loadNative();
const arena = createArena(1 << 20);
native.bindArena(arena.buffer);
const endpoint = allocateEndpoint(arena);
const folder = mkdtempSync(join(tmpdir(), 'passel-unix-'));

const fds: number[] = [];
function keep(fd: number): number {
  fds.push(fd);
  return fd;
}
function makePair(type = UNIX_STREAM): [number, number] {
  const [a, b] = createSocketPair(native, type);
  return [keep(a), keep(b)];
}
/** Open descriptors of this process, the one that reading the folder takes among them, each time. */
const fdCount = () => readdirSync('/proc/self/fd').length;

afterEach(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('sockets with names', () => {
  it('listens at a path and accepts who connects, of family 0', () => {
    const path = join(folder, 'plain');
    const listener = keep(listenUnix(native, path));
    expect(statSync(path).isSocket()).toBe(true);
    const client = keep(connectUnix(native, path));
    const server = keep(native.accept(listener, endpoint));
    expect(server).toBeGreaterThan(0);
    expect(arena.bytes[endpoint]).toBe(0);
    const credentials = getPeerCredentials(native, server);
    expect(credentials).toEqual({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
    expect(native.sendBuffer(client, new Uint8Array([1, 2, 3]), 0, 3, 0)).toBe(3);
    expect(native.receive(server, 0, 10, 0)).toBe(3);
  });

  it('gives the socket file its permissions from the start', () => {
    const path = join(folder, 'private');
    const before = process.umask(0o022);
    try {
      keep(listenUnix(native, path, { mode: 0o660 }));
      expect(statSync(path).mode & 0o777).toBe(0o640);
    } finally {
      process.umask(before);
    }
  });

  it('knows abstract names and message sockets', () => {
    const name = `\0passel-test-${process.pid}`;
    keep(listenUnix(native, name, { type: UNIX_SEQPACKET, backlog: 1 }));
    expect(keep(connectUnix(native, name, UNIX_SEQPACKET))).toBeGreaterThan(0);
    expect(() => connectUnix(native, name, UNIX_STREAM)).toThrow(/EPROTOTYPE|ECONNREFUSED/);
    expect(readFileSync('/proc/net/unix', 'utf8')).toContain(`@passel-test-${process.pid}`);
  });

  it('says what is wrong with a path', () => {
    const path = join(folder, 'taken');
    keep(listenUnix(native, path));
    expect(() => listenUnix(native, path)).toThrow(expect.objectContaining({ code: 'EADDRINUSE', path }));
    expect(() => connectUnix(native, join(folder, 'nothing'))).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => connectUnix(native, `/${'x'.repeat(107)}`)).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }));
    expect(() => connectUnix(native, '')).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => connectUnix(native, 'a\0b')).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    const longest = `/${'x'.repeat(106)}`;
    expect(() => connectUnix(native, longest)).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });

  it('answers EAGAIN when the queue of a listener is full', () => {
    const path = join(folder, 'full');
    keep(listenUnix(native, path, { backlog: 0 }));
    keep(connectUnix(native, path));
    expect(() => keep(connectUnix(native, path))).toThrow(expect.objectContaining({ code: 'EAGAIN' }));
  });
});

describe('the data path on unix streams', () => {
  it('peeks with an offset and discards, as on TCP', () => {
    const [a, b] = makePair();
    const into = arena.allocate(8192);
    const sums = arena.allocate(64);
    const data = fillPattern(new Uint8Array(3000));
    expect(native.setOption(b, SOL_SOCKET, SO_PEEK_OFF, 0)).toBe(0);
    native.sendBuffer(a, data, 0, 3000, 0);
    expect(native.peekSegments(b, into, 1000, 1000, 2, 0, sums)).toBe(2000);
    expect(native.peekSegments(b, into + 2000, 1000, 1000, 2, 0, sums + 8)).toBe(1000);
    expect(arena.bytes.slice(into, into + 3000)).toEqual(data);
    expect(arena.view.getUint32(sums + 8, true)).toBe(sumNaively(data.subarray(2000)));
    expect(native.discard(b, 1500)).toBe(1500);
    expect(native.setOption(b, SOL_SOCKET, SO_PEEK_OFF, 0)).toBe(0);
    expect(native.peekSegments(b, into, 1000, 1000, 4, 0, sums)).toBe(1500);
    expect(arena.bytes.slice(into, into + 1500)).toEqual(data.slice(1500));
    expect(native.discard(b, 100_000)).toBe(1500);
    expect(native.discard(b, 1)).toBe(EAGAIN);
    native.shutdown(a, 1);
    expect(native.discard(b, 1)).toBe(0);
  });
});

describe('passing descriptors', () => {
  const hello = new Uint8Array([104, 105]);

  for (const type of [UNIX_STREAM, UNIX_SEQPACKET, UNIX_DATAGRAM]) {
    it(`hands on open files that work at the other end (type ${type})`, () => {
      const [a, b] = makePair(type);
      const [c, d] = makePair();
      expect(sendWithFds(native, a, hello, [c, d])).toBe(true);
      const message = receiveWithFds(native, b, 100)!;
      expect(message.bytes).toEqual(hello);
      expect(message.fds.length).toBe(2);
      expect(message.credentials).toBeUndefined();
      const [c2, d2] = message.fds.map(keep) as [number, number];
      expect(native.sendBuffer(c2, hello, 0, 2, 0)).toBe(2);
      expect(native.receive(d, 0, 10, 0)).toBe(2);
      expect(d2).not.toBe(d);
      for (const fd of message.fds) {
        expect(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).toMatch(/flags:\s*02\d{6}/);
      }
      expect(receiveWithFds(native, b, 100)).toBeUndefined();
    });
  }

  it('tells a message without descriptors, and the end of the stream', () => {
    const [a, b] = makePair();
    sendWithFds(native, a, hello, []);
    expect(receiveWithFds(native, b, 100)!.fds).toEqual([]);
    native.shutdown(a, 1);
    expect(receiveWithFds(native, b, 100)!.bytes.length).toBe(0);
  });

  it('carries as many as the kernel allows, and refuses more', () => {
    const [a, b] = makePair();
    const many = new Array<number>(MAX_MESSAGE_FDS).fill(a);
    expect(sendWithFds(native, a, hello, many)).toBe(true);
    const message = receiveWithFds(native, b, 2)!;
    expect(message.fds.length).toBe(MAX_MESSAGE_FDS);
    message.fds.map(keep);
    expect(() => sendWithFds(native, a, hello, [...many, a])).toThrow(RangeError);
    expect(native.sendFds(a, hello, 0, 2, new Int32Array(300), 254)).toBe(EINVAL);
  });

  it('closes all descriptors of a message that brings more than there is room for', () => {
    const [a, b] = makePair();
    const before = fdCount();
    sendWithFds(native, a, hello, [a, b, a]);
    expect(() => receiveWithFds(native, b, 100, 2)).toThrow(expect.objectContaining({ code: 'EMSGSIZE' }));
    expect(fdCount()).toBe(before);
    sendWithFds(native, a, hello, [a]);
    expect(() => receiveWithFds(native, b, 100, 0)).toThrow(expect.objectContaining({ code: 'EMSGSIZE' }));
    expect(fdCount()).toBe(before);
  });

  it('closes all descriptors of a message whose payload was cut', () => {
    const [a, b] = makePair(UNIX_SEQPACKET);
    const before = fdCount();
    sendWithFds(native, a, new Uint8Array(50), [a, b]);
    expect(() => receiveWithFds(native, b, 10)).toThrow(expect.objectContaining({ code: 'EMSGSIZE' }));
    expect(fdCount()).toBe(before);
  });

  it('closes what came when the limit on descriptors cuts the rest off', () => {
    const [a, b] = makePair();
    const before = fdCount();
    const limit = native.getFileLimit(0);
    sendWithFds(native, a, hello, new Array<number>(20).fill(a));
    const probe = openSync('/dev/null', 'r');
    closeSync(probe);
    expect(native.setFileLimit(probe + 5)).toBe(0);
    try {
      expect(() => receiveWithFds(native, b, 100)).toThrow(expect.objectContaining({ code: 'EMSGSIZE' }));
    } finally {
      expect(native.setFileLimit(limit)).toBe(0);
    }
    expect(fdCount()).toBe(before);
  });

  it('brings the credentials of the sender when asked to', () => {
    const [a, b] = makePair(UNIX_SEQPACKET);
    passCredentials(native, b);
    sendWithFds(native, a, hello, [a]);
    const message = receiveWithFds(native, b, 100)!;
    message.fds.map(keep);
    expect(message.credentials).toEqual({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  });

  it('refuses descriptors without payload, bad ranges, closed descriptors and the wrong arrays', () => {
    const [a, b] = makePair();
    const fd1 = Int32Array.of(a);
    expect(() => sendWithFds(native, a, new Uint8Array(0), [a])).toThrow(RangeError);
    expect(native.sendFds(a, hello, 0, 0, fd1, 1)).toBe(EINVAL);
    expect(native.sendFds(a, hello, 1, 2, fd1, 1)).toBe(EFAULT);
    expect(native.sendFds(a, hello, 0, 2, fd1, 2)).toBe(EFAULT);
    expect(native.sendFds(a, hello, 0, 2, [a] as unknown as Int32Array, 1)).toBe(EINVAL);
    expect(() => sendWithFds(native, a, hello, [99_999])).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(native.receiveFds(b, hello, 1, 2, new Int32Array(3), new Int32Array(3))).toBe(EFAULT);
    expect(native.receiveFds(b, hello, 0, 2, new Int32Array(0), new Int32Array(3))).toBe(EFAULT);
    expect(native.receiveFds(b, hello, 0, 2, new Int32Array(3), new Int32Array(2))).toBe(EFAULT);
    expect(native.socketPair(UNIX_STREAM, new Int32Array(1))).toBe(EFAULT);
  });
});
