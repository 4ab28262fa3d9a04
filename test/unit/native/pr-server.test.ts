/** The functions behind the helper's threads, called with what is right and what is not; the protocol is tested in test/unit/scsi. */
import { closeSync, openSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import type { PrThreads } from '../../../src/sys/native-addon.ts';
import { createSocketPair } from '../../../src/sys/unix-socket.ts';

const native = loadNative();
const EBADF = -9;
const EFAULT = -14;
const EBUSY = -16;
const EINVAL = -22;
const VERDICT_BYTES = 3 * 256 * 20;
const HEADER_BYTES = 104;

let server: PrThreads;
let ours: number;
let slot: number;
let device: number;

const numbers = new Int32Array(4 + 8 * 16);
const bytes = new Uint8Array(8 * 136);
const ended = new Int32Array(8);
const question = new Int32Array(8);
const request = new Uint8Array(16 + 8192);

const take = (): number => native.prTake(server, numbers, bytes, ended, 0);
const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
};
const send = (data: readonly number[], fds: readonly number[] = []): number =>
  native.sendFds(ours, Uint8Array.from(data), 0, data.length, Int32Array.from(fds), fds.length);
/** A request that is asked about. */
const ask = async (cdb: readonly number[]): Promise<void> => {
  expect(send([...cdb, ...Array(16 - cdb.length).fill(0)], [device])).toBe(16);
  await until(() => native.prQuestion(server, question, request) === 1);
};
const received = (): number => {
  const got = native.receiveFds(ours, new Uint8Array(16_384), 0, 16_384, new Int32Array(1), new Int32Array(3));
  return got;
};
const openFds = (): number => readdirSync('/proc/self/fd').length;

beforeEach(() => {
  device = openSync('/dev/null', 'r+');
  server = native.prCreate(4, 2, 1000, new Uint8Array(VERDICT_BYTES)) as PrThreads;
  const pair = createSocketPair(native);
  ours = pair[0];
  slot = native.prAttach(server, pair[1]);
  expect(slot).toBe(0);
  send([0, 0, 0, 0]);
});
afterEach(async () => {
  native.close(ours);
  closeSync(device);
  await until(() => native.prEnd(server) === 0);
  expect(native.prClose(server)).toBe(0);
});

describe('the threads of a reservation helper', () => {
  it('are refused numbers and tables that cannot be', () => {
    const table = new Uint8Array(VERDICT_BYTES);
    expect(native.prCreate(0, 1, 1, table)).toBe(EINVAL);
    expect(native.prCreate(4097, 1, 1, table)).toBe(EINVAL);
    expect(native.prCreate(1, 0, 1, table)).toBe(EINVAL);
    expect(native.prCreate(1, 1, 1, table.subarray(1))).toBe(EFAULT);
    expect(native.prAttach({} as PrThreads, ours)).toBe(EINVAL);
    expect(native.prAttach(server, 99_999)).toBe(EBADF);
    expect(native.prAttach(server, device)).toBeLessThan(0);
  });

  it('write nothing where there is no room for it', async () => {
    expect(native.prTake(server, numbers.subarray(0, 19), bytes, ended, 0)).toBe(EFAULT);
    expect(native.prTake(server, numbers, bytes.subarray(0, 135), ended, 0)).toBe(EFAULT);
    expect(native.prTake(server, numbers, bytes, ended.subarray(0, 1), 0)).toBe(EFAULT);
    expect(native.prQuestion(server, question, request.subarray(1))).toBe(EFAULT);
    expect(native.prQuestion(server, question.subarray(1), request)).toBeLessThan(0);
    await ask([0x5e]);
    expect(native.prPending(server, new Int32Array(7), bytes)).toBe(0);
    expect(native.prPending(server, numbers, new Uint8Array(39))).toBe(0);
    expect(native.prPending(server, numbers, bytes)).toBe(1);
    expect([numbers[0], numbers[2], numbers[3], numbers[6]]).toEqual([slot, 1, 3, 16]);
  });

  it('carry out and answer nothing that they have not asked about, and that once', async () => {
    const answer = new Uint8Array(HEADER_BYTES);
    expect(native.prRun(server, slot, 0)).toBe(EINVAL);
    expect(native.prAnswer(server, slot, answer, HEADER_BYTES)).toBe(EINVAL);
    expect(native.prAnswer(server, 64, answer, HEADER_BYTES)).toBe(EINVAL);
    expect(native.prAnswer(server, 0xffffffff, answer, HEADER_BYTES)).toBe(EINVAL);
    await ask([0x5e]);
    expect(native.prAnswer(server, slot, answer, HEADER_BYTES - 1)).toBe(EFAULT);
    expect(native.prAnswer(server, slot, answer, HEADER_BYTES + 1)).toBe(EFAULT);
    expect(native.prAnswer(server, slot, answer, HEADER_BYTES)).toBe(0);
    expect(native.prAnswer(server, slot, answer, HEADER_BYTES)).toBe(EINVAL);
    expect(native.prRun(server, slot, 0)).toBe(EINVAL);
    await until(() => received() > 0);
  });

  it('ask about each request until its device is granted, and then about changes by those who may not write', async () => {
    for (const grant of [0, 0, 1]) {
      await ask([0x5e]);
      expect([...question.subarray(0, 6)]).toEqual([slot, 0o20000, 1, 3, 2, 0]);
      expect(native.prRun(server, slot, grant)).toBe(0);
      await until(() => take() === 0 && numbers[0] === 1);
      // errno: /dev/null takes no such command.
      expect([numbers[5], numbers[13]]).toEqual([slot, 25]);
    }
    expect(send([0x5e, ...Array(15).fill(0)], [device])).toBe(16);
    await until(() => take() === 0 && numbers[0] === 1);
    expect(native.prQuestion(server, question, request)).toBe(0);
    const readOnly = openSync('/dev/null', 'r');
    expect(send([0x5f, ...Array(15).fill(0)], [readOnly])).toBe(16);
    closeSync(readOnly);
    await until(() => native.prQuestion(server, question, request) === 1);
    expect(native.prAnswer(server, slot, new Uint8Array(HEADER_BYTES), HEADER_BYTES)).toBe(0);
  });

  it('tell the end of a connection, whose slot is free then', async () => {
    const pair = createSocketPair(native);
    expect(native.prAttach(server, pair[1])).toBe(1);
    // Left unread, it would be a reset.
    expect(received()).toBe(4);
    native.close(ours);
    ours = pair[0];
    await until(() => take() === 0 && numbers[1] === 1);
    expect([...ended.subarray(0, 2)]).toEqual([0, 0]);
    const again = createSocketPair(native);
    expect(native.prAttach(server, again[1])).toBe(0);
    native.close(again[0]);
  });

  it('close what they have when they are ended, whoever is connected or waits', async () => {
    const before = openFds();
    const other = native.prCreate(4, 2, 1000, new Uint8Array(VERDICT_BYTES)) as PrThreads;
    expect(native.prClose(other)).toBe(EBUSY);
    const [idle, asked] = [createSocketPair(native), createSocketPair(native)];
    for (const [, theirs] of [idle, asked]) expect(native.prAttach(other, theirs)).toBeGreaterThanOrEqual(0);
    const cdb = Uint8Array.from({ length: 20 }, (_, i) => (i === 4 ? 0x5e : 0));
    native.sendFds(asked[0], cdb.subarray(0, 4), 0, 4, new Int32Array(1), 0);
    native.sendFds(asked[0], cdb.subarray(4), 0, 16, Int32Array.of(device), 1);
    await until(() => native.prQuestion(other, question, request) === 1);
    await until(() => native.prEnd(other) === 0);
    expect(native.prAttach(other, ours)).toBe(EBADF);
    expect(native.prTake(other, numbers, bytes, ended, 0)).toBe(EBADF);
    expect(native.prRun(other, question[0]!, 0)).toBe(EBADF);
    expect(native.prClose(other)).toBe(0);
    expect(native.prClose(other)).toBe(0);
    expect(native.prEnd(other)).toBe(0);
    for (const [mine] of [idle, asked]) native.close(mine);
    expect(openFds()).toBe(before);
  });
});
