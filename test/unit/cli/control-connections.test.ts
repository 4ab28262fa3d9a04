/** Connections of a control socket that takes descriptors: what comes with them, and what becomes of those that send nothing. */
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import type { OwnedFd } from '../../../src/base/owned-fd.ts';
import { type ControlServer, openControlServer } from '../../../src/cli/control/server.ts';
import { createClient } from '../../../src/cli/ctl/client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { sendWithFds } from '../../../src/sys/scm.ts';
import { connectUnix, listenUnix } from '../../../src/sys/unix-socket.ts';
import { waitUntil } from '../../support/netns/process.ts';

const native = loadNative();
let folder: string;
let path: string;
let file: string;
let server: ControlServer | undefined;
/** What requests were answered with: what each descriptor is. */
let taken: number[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-connections-'));
  path = join(folder, 'control');
  file = join(folder, 'file');
  writeFileSync(file, 'x');
  taken = [];
});
afterEach(() => {
  server?.close();
  server = undefined;
  for (const fd of taken) closeSync(fd);
  rmSync(folder, { recursive: true });
});

async function serve(requestTimeoutMs = 5000): Promise<void> {
  const answer = async (method: string, target: string, body: string, fds: readonly OwnedFd[] = []) => {
    if (target === '/take') for (const fd of fds) taken.push(fd.take());
    return { status: 200, body: { method, target, body, fds: fds.length } };
  };
  server = await openControlServer(listenUnix(native, path), answer, silentLogger, native, requestTimeoutMs);
}

/** Descriptors of this process that lead to the file. */
function countOpen(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === file;
    } catch {
      return false;
    }
  }).length;
}

function isClosed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.on('error', () => {});
    socket.once('close', () => resolve());
    socket.resume();
  });
}

describe('a control socket that takes descriptors', () => {
  it('answers requests without any, one after the other on a connection too', async () => {
    await serve();
    const ask = createClient(path);
    expect(await ask('GET', '/a')).toEqual({ method: 'GET', target: '/a', body: '', fds: 0 });
    expect(await ask('POST', '/b', { c: 1 })).toMatchObject({ body: '{"c":1}', fds: 0 });
    const socket = connect({ path });
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.write('GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n');
    await waitUntil('both answers', () => text.includes('"/1"') && text.includes('"/2"'));
    socket.write('GET /3 HTTP/1.1\r\nHost: x\r\n\r\n');
    await waitUntil('the third answer', () => text.includes('"/3"'));
    socket.destroy();
  });

  it('takes a request of any length, in pieces or not', async () => {
    await serve();
    const body = 'y'.repeat(16_000);
    expect(await createClient(path)('POST', '/long', body)).toMatchObject({ body: JSON.stringify(body) });
    const text = await new Promise<string>((resolve, reject) => {
      const asked = request({ socketPath: path, method: 'POST', path: '/pieces' }, (response) => {
        let all = '';
        response.on('data', (chunk: Buffer) => {
          all += chunk.toString();
        });
        response.on('end', () => resolve(all));
      });
      asked.on('error', reject);
      asked.flushHeaders();
      setImmediate(() => {
        asked.write('a');
        setImmediate(() => asked.end('b'));
      });
    });
    expect(JSON.parse(text)).toMatchObject({ body: 'ab' });
  });

  it('gives the descriptor that comes first to the first request, who may keep it', async () => {
    await serve();
    const fd = openSync(file, 'r');
    expect(await createClient(path)('POST', '/take', { d: 1 }, fd)).toMatchObject({ body: '{"d":1}', fds: 1 });
    closeSync(fd);
    expect(taken).toHaveLength(1);
    expect(fstatSync(taken[0]!).ino).toBe(fstatSync(openAgain()).ino);
  });

  it('closes descriptors that nobody wants: of a request, of none, and too many', async () => {
    await serve();
    const fd = openSync(file, 'r');
    await createClient(path)('POST', '/leave', {}, fd);
    const send = (bytes: string, count: number): number => {
      const connection = connectUnix(native, path);
      sendWithFds(native, connection, Buffer.from(bytes), Array<number>(count).fill(fd));
      return connection;
    };
    const waiting = [send('\r\n', 1), send('\r\n', 2)];
    await waitUntil('descriptors that wait for a request', () => countOpen() === 4);
    const refused = [send('no HTTP at all\r\n\r\n', 2), send('\r\n', 9)];
    for (const connection of waiting) native.close(connection);
    await waitUntil('all but our own to be closed', () => countOpen() === 1);
    for (const connection of refused) native.close(connection);
    closeSync(fd);
  });

  it('ends connections that send nothing, or no whole request, in time', async () => {
    await serve(200);
    const silent = connect({ path });
    const half = connect({ path });
    half.write('GET / HTTP/1.1\r\nHo');
    const slow = connect({ path });
    slow.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc');
    await Promise.all([silent, half, slow].map(isClosed));
    expect(await createClient(path)('GET', '/still')).toMatchObject({ target: '/still' });
  });

  it('has 64 connections at a time, silent ones too, and others when these have gone', async () => {
    await serve();
    const sockets: Socket[] = [];
    for (let i = 0; i < 64; i++) {
      const socket = connect({ path });
      socket.on('error', () => {});
      await new Promise((resolve) => socket.once('connect', resolve));
      sockets.push(socket);
    }
    await expect(createClient(path)('GET', '/one-too-many')).rejects.toThrow();
    for (const socket of sockets) socket.destroy();
    await expect
      .poll(() => createClient(path)('GET', '/again').catch(() => undefined), { timeout: 5000 })
      .toMatchObject({ target: '/again' });
  });

  it('leaves nothing open when it is closed', async () => {
    await serve();
    const silent = connect({ path });
    const busy = connect({ path });
    busy.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await new Promise((resolve) => busy.once('data', resolve));
    server!.close();
    server = undefined;
    await Promise.all([silent, busy].map(isClosed));
  });
});

/** The file once more, to be closed with the others. */
function openAgain(): number {
  const fd = openSync(file, 'r');
  taken.push(fd);
  return fd;
}
