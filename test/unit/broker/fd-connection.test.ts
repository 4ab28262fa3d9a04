/** Passing descriptors between programs: each has an owner, and nothing stays open of what was not expected. */
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FdConnection } from '../../../src/broker/fd-connection.ts';
import { loadNative } from '../../../src/sys/native.ts';

const native = loadNative();
const bytes = (text: string): Uint8Array => Buffer.from(text);
const countFds = (): number => readdirSync('/proc/self/fd').length;

let folder: string;
let file: number;
let here: FdConnection;
let there: FdConnection;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-connection-'));
  writeFileSync(join(folder, 'f'), '');
  file = openSync(join(folder, 'f'), 'r');
  [here, there] = FdConnection.pair(native);
});
afterEach(() => {
  here.close();
  there.close();
  closeSync(file);
  rmSync(folder, { recursive: true });
});

describe('a connection for descriptors', () => {
  it('hands on messages whole and in order, with their descriptors', async () => {
    const [a, b] = [there.receive({ fds: 0 }), here.peer];
    here.send(bytes('one'));
    here.send(bytes('two'), [file, file]);
    expect(Buffer.from((await a)!.bytes).toString()).toBe('one');
    const two = await there.receive({ fds: 2, each: { kind: 'file', access: 'read' } });
    expect(Buffer.from(two!.bytes).toString()).toBe('two');
    expect(b).toMatchObject({ pid: process.pid, uid: process.getuid!() });
    for (const fd of two!.fds) fd.close();
  });
  it.each([
    ['too few', { fds: 3 }, 'fd-count'],
    ['none wanted', { fds: 0 }, 'fd-count'],
    ['another kind', { each: { kind: 'socket' as const } }, 'fd-kind'],
    ['too little access', { each: { access: 'write' as const } }, 'fd-kind'],
    ['no room for the payload', { maxBytes: 2 }, 'truncated'],
  ])('closes all of a message that was not expected: %s', async (_what, expected, code) => {
    const before = countFds();
    here.send(bytes('two'), [file, file]);
    await expect(there.receive(expected)).rejects.toMatchObject({ name: 'BrokerError', code });
    expect(countFds()).toBe(before);
    // It goes on.
    here.send(bytes('next'));
    expect(await there.receive()).toMatchObject({ fds: [] });
  });
  it('says when the other end has gone, and when this one is closed meanwhile', async () => {
    const waiting = here.receive();
    here.close();
    expect(await waiting).toBeUndefined();
    expect(await there.receive()).toBeUndefined();
    expect(there.isOpen).toBe(false);
    expect(() => there.send(bytes('x'))).toThrow('EBADF');
  });
  it('does not take more than the other end reads', () => {
    expect(() => {
      for (let i = 0; i < 100_000; i++) here.send(bytes('x'), [file]);
    }).toThrow('EAGAIN');
  });
});
