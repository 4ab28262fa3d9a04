import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import { EAGAIN, EBADF, EINVAL } from '../sys/support.ts';

const native = loadNative();
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;

function flagsOf(fd: number): number {
  return Number.parseInt(/flags:\s*([0-7]+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8);
}

describe('descriptor flags and duplicates', () => {
  it('sets and clears close-on-exec and non-blocking', () => {
    const fd = openSync('/dev/null', 'r');
    expect(flagsOf(fd) & O_CLOEXEC).toBe(O_CLOEXEC);
    expect(native.setCloseOnExec(fd, 0)).toBe(0);
    expect(flagsOf(fd) & O_CLOEXEC).toBe(0);
    expect(native.setCloseOnExec(fd, 1)).toBe(0);
    expect(flagsOf(fd) & O_CLOEXEC).toBe(O_CLOEXEC);
    expect(native.setNonBlocking(fd, 1)).toBe(0);
    expect(flagsOf(fd) & O_NONBLOCK).toBe(O_NONBLOCK);
    expect(native.setNonBlocking(fd, 0)).toBe(0);
    expect(flagsOf(fd) & O_NONBLOCK).toBe(0);
    closeSync(fd);
    expect(native.setCloseOnExec(fd, 1)).toBe(EBADF);
    expect(native.setNonBlocking(fd, 1)).toBe(EBADF);
  });

  it('duplicates above a number and onto one, both close-on-exec', () => {
    const fd = openSync('/dev/null', 'r');
    const high = native.duplicate(fd, 400);
    expect(high).toBeGreaterThanOrEqual(400);
    expect(flagsOf(high) & O_CLOEXEC).toBe(O_CLOEXEC);
    expect(native.duplicateTo(fd, high + 1)).toBe(high + 1);
    expect(flagsOf(high + 1) & O_CLOEXEC).toBe(O_CLOEXEC);
    expect(native.duplicateTo(fd, fd)).toBe(EINVAL);
    expect(native.setCloseOnExec(high + 1, 0)).toBe(0);
    expect(native.closeOnExecFrom(high)).toBe(0);
    expect(flagsOf(high + 1) & O_CLOEXEC).toBe(O_CLOEXEC);
    for (const open of [fd, high, high + 1]) closeSync(open);
  });

  it('knows and changes the limit on their number', () => {
    const soft = native.getFileLimit(0);
    const hard = native.getFileLimit(1);
    expect(soft).toBeGreaterThan(0);
    expect(hard).toBeGreaterThanOrEqual(soft);
    expect(native.setFileLimit(soft - 1)).toBe(0);
    expect(native.getFileLimit(0)).toBe(soft - 1);
    expect(native.getFileLimit(1)).toBe(hard);
    expect(native.setFileLimit(soft)).toBe(0);
  });
});

describe('counters', () => {
  it('adds up and resets an eventfd', () => {
    const fd = native.eventfdCreate(3);
    expect(native.counterWrite(fd, 0xffffffff)).toBe(0);
    expect(native.counterRead(fd)).toBe(0x1_0000_0002);
    expect(native.counterRead(fd)).toBe(EAGAIN);
    closeSync(fd);
  });

  it('fires a timer once or repeatedly, and stops it', async () => {
    const fd = native.timerfdCreate();
    expect(native.timerfdSet(fd, 1000, 1000)).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 15));
    expect(native.counterRead(fd)).toBeGreaterThan(3);
    expect(native.timerfdSet(fd, 0, 0)).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(native.counterRead(fd)).toBe(EAGAIN);
    expect(native.timerfdSet(fd, 1, 0)).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(native.counterRead(fd)).toBe(1);
    closeSync(fd);
  });
});

describe('shared memory', () => {
  it('maps a file that others may change, and keeps it mapped after the descriptor is closed', () => {
    const fd = native.memfdCreate('passel-test', 8192);
    const whole = native.mapFd(fd, 0, 8192) as ArrayBuffer;
    const second = native.mapFd(fd, 4096, 4096) as ArrayBuffer;
    expect(whole.byteLength).toBe(8192);
    writeSync(fd, new Uint8Array([7]), 0, 1, 4100);
    closeSync(fd);
    expect(new Uint8Array(whole)[4100]).toBe(7);
    new Uint8Array(whole)[4101] = 9;
    expect(new Uint8Array(second)[5]).toBe(9);
  });

  it('cannot be cut once it is sealed', () => {
    const fd = native.memfdCreate('passel-sealed', 4096);
    expect(native.addSeals(fd, 1 | 2 | 4)).toBe(0);
    expect(native.addSeals(fd, 8)).toBe(-1);
    closeSync(fd);
  });

  it('refuses what cannot be mapped', () => {
    const fd = native.memfdCreate('passel-test', 4096);
    expect(native.mapFd(fd, 1, 10)).toBe(EINVAL);
    expect(native.mapFd(fd, 0, 0)).toBe(EINVAL);
    expect(native.mapFd(fd, -4096, 4096)).toBe(EINVAL);
    closeSync(fd);
    expect(native.mapFd(fd, 0, 4096)).toBe(EBADF);
    expect(native.memfdCreate('x'.repeat(250), 1)).toBe(-36);
    expect(native.memfdCreate('x', -1)).toBe(EINVAL);
  });

  it('is the arena when bound, and gives the range checks its length', () => {
    const fd = native.memfdCreate('passel-arena', 4096);
    const buffer = native.mapFd(fd, 0, 4096) as ArrayBuffer;
    closeSync(fd);
    expect(native.bindArena(buffer)).toBe(0);
    expect(native.sum(0, 4096, 5)).toBe(5);
    expect(native.sum(1, 4096, 0)).toBe(-14);
  });
});
