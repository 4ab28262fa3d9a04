import { closeSync, openSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import type { SgPool } from '../../../src/sys/native-addon.ts';
import { createSgQueue, describeFile, SG_DXFER_FROM_DEVICE, SG_DXFER_TO_DEVICE } from '../../../src/sys/sg.ts';

const native = loadNative();
const EINVAL = -22;
const EFAULT = -14;
const ENOTTY = 25;

let device: number;
beforeEach(() => {
  device = openSync('/dev/null', 'r+');
});
afterEach(() => closeSync(device));

const queueOf = (threads: number) =>
  createSgQueue(native, { threads, senseOffset: 8, dataOffset: 104, bufferBytes: 104 + 8192 });
const request = (fd: number) => ({
  fd,
  bytes: new Uint8Array(40),
  cdbBytes: 16,
  transferBytes: 24,
  direction: SG_DXFER_TO_DEVICE,
  timeoutMs: 1000,
});

describe('SCSI commands', () => {
  it.each([1, 4])('are all carried out, by %i threads, and told once each', async (threads) => {
    const queue = queueOf(threads);
    const errors: number[] = [];
    await new Promise<void>((resolve) => {
      for (let i = 0; i < 500; i++) {
        queue.submit(request(device), (result) => {
          errors.push(result.errno);
          if (errors.length === 500) resolve();
        });
      }
      expect(queue.pending).toBe(500);
    });
    expect(errors.every((errno) => errno === ENOTTY)).toBe(true);
    expect(queue.pending).toBe(0);
    queue.close();
  });
  it('leave zeros where the device wrote no sense', async () => {
    const queue = queueOf(1);
    queue.buffer.fill(0xa5);
    await new Promise<void>((resolve) => queue.submit(request(device), () => resolve()));
    expect(queue.buffer.subarray(8, 104).every((byte) => byte === 0)).toBe(true);
    expect(queue.buffer[104]).toBe(0xa5);
    queue.close();
  });
  it('on a descriptor that is not open say so', async () => {
    const queue = queueOf(1);
    const errno = await new Promise<number>((resolve) => queue.submit(request(99_999), (r) => resolve(r.errno)));
    expect(errno).toBe(9);
    queue.close();
  });
  it('are refused when their bytes are not there, or their numbers cannot be', () => {
    const pool = native.sgCreate(1) as SgPool;
    const submit = (bytes: number, cdb: number, transfer: number, direction: number): number =>
      native.sgSubmit(pool, 0, device, new Uint8Array(bytes), cdb, transfer, direction, 1);
    expect(submit(39, 16, 24, SG_DXFER_TO_DEVICE)).toBe(EFAULT);
    expect(submit(15, 16, 24, SG_DXFER_FROM_DEVICE)).toBe(EFAULT);
    expect(submit(40, 0, 24, SG_DXFER_TO_DEVICE)).toBe(EINVAL);
    expect(submit(40, 33, 0, SG_DXFER_FROM_DEVICE)).toBe(EINVAL);
    expect(submit(40, 16, 65537, SG_DXFER_FROM_DEVICE)).toBe(EINVAL);
    expect(submit(40, 16, 24, 5)).toBe(EINVAL);
    expect(native.sgCreate(0)).toBe(EINVAL);
    expect(native.sgSubmit({} as SgPool, 0, device, new Uint8Array(16), 16, 0, -1, 1)).toBe(EINVAL);
    expect(native.sgTake(pool, new Int32Array(8), new Uint8Array(96), 1, 0)).toBe(EFAULT);
    expect(native.sgTake(pool, new Int32Array(7), new Uint8Array(96), 0, 0)).toBeLessThan(0);
    expect(native.sgTake(pool, new Int32Array(8), new Uint8Array(96), 0, 96)).toBe(0);
  });
  it('go on behind the back of a queue that is closed', async () => {
    const queue = queueOf(2);
    let told = 0;
    for (let i = 0; i < 50; i++) queue.submit(request(device), () => told++);
    queue.close();
    const other = queueOf(1);
    await new Promise<void>((resolve) => other.submit(request(device), () => resolve()));
    expect(told).toBe(0);
    other.close();
  });
});

describe('an open file', () => {
  it.each([
    ['/dev/null', 'r', 'character', false],
    ['/dev/null', 'r+', 'character', true],
    ['/dev/null', 'w', 'character', true],
    ['/etc/passwd', 'r', 'other', false],
  ])('%s opened with %s is %s, writable: %s', (path, flags, kind, isWritable) => {
    const fd = openSync(path, flags);
    expect(describeFile(native, fd)).toMatchObject({ kind, isWritable });
    if (kind === 'character') expect(describeFile(native, fd)).toMatchObject({ major: 1, minor: 3 });
    closeSync(fd);
  });
  it('by its path alone cannot be written to', () => {
    const fd = openSync('/dev/null', 0o10000000 | 2);
    expect(describeFile(native, fd)).toMatchObject({ kind: 'character', isWritable: false });
    closeSync(fd);
  });
  it('that is not there is an error', () => {
    expect(() => describeFile(native, 99_999)).toThrow(/EBADF/);
  });
});
