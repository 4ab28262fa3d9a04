/** The child that connects for us: what it does, what it keeps, and when it ends. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { CONNECTOR_PENDING, type Connector, startConnector } from '../../../src/sys/connector.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { listenUnix, UNIX_DATAGRAM } from '../../../src/sys/unix-socket.ts';
import { waitUntil } from '../../support/netns/process.ts';

const ENOENT = -2;
const ECONNREFUSED = -111;
const EFAULT = -14;
const EINVAL = -22;
const ENAMETOOLONG = -36;
const native = loadNative();
native.bindArena(createArena(1 << 16).buffer);
const folder = mkdtempSync(join(tmpdir(), 'passel-connector-'));
const open: number[] = [];
let connector: Connector | undefined;

afterEach(() => {
  connector?.close();
  connector = undefined;
  for (const fd of open.splice(0)) native.close(fd);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const keep = (fd: number): number => {
  open.push(fd);
  return fd;
};

async function ask(): Promise<number> {
  expect(connector!.ask()).toBe(0);
  let answer = CONNECTOR_PENDING;
  await waitUntil('an answer', () => {
    answer = connector!.takeAnswer();
    return answer !== CONNECTOR_PENDING;
  });
  return answer;
}

describe('a connector of streams', () => {
  it('gives a connected socket each time somebody listens, and says why there is none', async () => {
    const path = join(folder, 'stream');
    connector = startConnector(native, path);
    expect(await ask()).toBe(ENOENT);
    const listener = listenUnix(native, path);
    for (let i = 0; i < 3; i++) {
      const fd = keep(await ask());
      const peer = keep(native.unixAccept(listener));
      expect(native.unixName(fd, 1)).toBe(path);
      expect(native.sendFds(fd, Uint8Array.of(i), 0, 1, new Int32Array(1), 0)).toBe(1);
      const got = new Uint8Array(1);
      expect(native.receiveFds(peer, got, 0, 1, new Int32Array(2), new Int32Array(3))).toBe(1);
      expect(got[0]).toBe(i);
    }
    native.close(listener);
    expect(await ask()).toBe(ECONNREFUSED);
  });
  it('knows abstract names', async () => {
    const name = `\0passel-connector-${process.pid}`;
    const listener = keep(listenUnix(native, name));
    connector = startConnector(native, name);
    keep(await ask());
    keep(native.unixAccept(listener));
  });
  it('has no descriptors but its own end, no privileges, and ends when ours is closed', async () => {
    connector = startConnector(native, join(folder, 'none'));
    await ask();
    const { pid } = connector;
    const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    expect(fds).toHaveLength(1);
    expect(fds[0]).toMatch(/^socket:/);
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    expect(status).toMatch(/^Name:\s+passel-connect$/m);
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    const dacOverride = 2n;
    for (const set of ['CapInh', 'CapPrm', 'CapEff']) {
      const value = BigInt(`0x${new RegExp(`^${set}:\\s+(\\w+)`, 'm').exec(status)![1]}`);
      expect([set, value & ~dacOverride]).toEqual([set, 0n]);
    }
    connector.close();
    await waitUntil('it to end', () => {
      native.waitProcess(pid, new Int32Array(1));
      return !existsSync(`/proc/${pid}`);
    });
  });
  it('refuses names that no socket has', () => {
    const out = new Int32Array(2);
    expect(native.startConnector('', -1, out)).toBe(EINVAL);
    expect(native.startConnector('x'.repeat(108), -1, out)).toBe(ENAMETOOLONG);
    expect(native.startConnector('/a', -1, new Int32Array(1))).toBe(EFAULT);
  });
});

describe('a connector of datagrams', () => {
  it('connects our socket to whoever has the name now', async () => {
    const path = join(folder, 'datagram');
    const ours = keep(native.open(1, UNIX_DATAGRAM, 0));
    connector = startConnector(native, path, ours);
    expect(await ask()).toBe(ENOENT);
    for (let i = 0; i < 2; i++) {
      const theirs = native.open(1, UNIX_DATAGRAM, 0);
      expect(native.unixBind(theirs, path, -1)).toBe(0);
      expect(await ask()).toBe(0);
      expect(native.sendFds(ours, Uint8Array.of(i, i), 0, 2, new Int32Array(1), 0)).toBe(2);
      const got = new Uint8Array(4);
      expect(native.receiveFds(theirs, got, 0, 4, new Int32Array(2), new Int32Array(3))).toBe(2);
      native.close(theirs);
      rmSync(path);
    }
    expect(native.sendFds(ours, Uint8Array.of(1), 0, 1, new Int32Array(1), 0)).toBe(ECONNREFUSED);
  });
});
