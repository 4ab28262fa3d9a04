import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import { openPeerProcess } from '../../../src/sys/peer-process.ts';
import { createSocketPair } from '../../../src/sys/unix-socket.ts';
import { waitUntil } from '../../support/netns/process.ts';
import { EBADF } from '../sys/support.ts';

const native = loadNative();

it('says what an open file is, as fstat does', () => {
  const fd = openSync(join(import.meta.dirname, 'open-file.test.ts'), 'r');
  const facts = new Int32Array(5);
  expect(native.fileFacts(fd, facts)).toBe(0);
  const { mode, ino } = fstatSync(fd, { bigint: true });
  expect(facts[0]).toBe(Number(mode));
  expect((BigInt(facts[4]! >>> 0) << 32n) | BigInt(facts[3]! >>> 0)).toBe(ino);
  closeSync(fd);
  expect(native.fileFacts(fd, facts)).toBe(EBADF);
  expect(native.fileFacts(0, new Int32Array(4))).toBe(-14);
});

it('tells descriptors of one open file from others of the same file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'passel-open-file-'));
  const path = join(folder, 'f');
  const [a, b] = [openSync(path, 'w'), openSync(path, 'w')];
  const copy = native.duplicate(a, 3);
  expect(native.compareFiles(a, copy)).toBe(0);
  expect(native.compareFiles(a, b)).toBeGreaterThan(0);
  for (const fd of [a, b, copy]) closeSync(fd);
  rmSync(folder, { recursive: true });
});

it('closes aside, and says so with the token', async () => {
  const fds = new Int32Array(2);
  native.pipe(4096, fds);
  const [ours, theirs] = createSocketPair(native);
  expect(native.closeAside(theirs, fds[1]!, 77)).toBe(0);
  const bytes = Buffer.alloc(8);
  await waitUntil('the token', () => {
    try {
      return readSync(fds[0]!, bytes) === 4;
    } catch {
      return false;
    }
  });
  expect(bytes.readInt32LE(0)).toBe(77);
  // The other end of it has gone.
  expect(native.sendFds(ours, Uint8Array.of(1), 0, 1, new Int32Array(0), 0)).toBe(-32);
  for (const fd of [ours, ...fds]) closeSync(fd);
});

it('knows the process at the other end, for good', () => {
  const [a, b] = createSocketPair(native);
  const peer = openPeerProcess(native, a, process.pid);
  // Linux 6.5; before it there is nothing to know.
  if (peer !== undefined) {
    expect(peer.startTicks).toBeGreaterThan(0);
    expect(peer.name?.length).toBeGreaterThan(0);
    // Another number is not taken for the process.
    const other = openPeerProcess(native, a, process.ppid)!;
    expect(other).toMatchObject({ name: undefined, startTicks: undefined });
    for (const { pidfd } of [peer, other]) closeSync(pidfd);
  }
  for (const fd of [a, b]) closeSync(fd);
});
