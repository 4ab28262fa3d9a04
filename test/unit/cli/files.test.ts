import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openLogger } from '../../../src/cli/logging.ts';
import type { LoggingConfig } from '../../../src/cli/network-config.ts';
import { openPidFile } from '../../../src/cli/pid-file.ts';
import { findGroup, findUser, resolveRunAs } from '../../../src/cli/run-as.ts';
import { claimSocketPath } from '../../../src/cli/socket-path.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { connectUnix, listenUnix } from '../../../src/sys/unix-socket.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-cli-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('the PID file', () => {
  it('holds the PID once written, readable by its owner only', () => {
    const path = join(folder, 'pid');
    const file = openPidFile(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    file.write(1234);
    expect(readFileSync(path, 'latin1')).toBe('1234\n');
  });
  it('goes when the start fails, unless the caller had made it', () => {
    const path = join(folder, 'pid');
    openPidFile(path).abandon();
    expect(existsSync(path)).toBe(false);
    writeFileSync(path, 'old');
    openPidFile(path).abandon();
    expect(readFileSync(path, 'latin1')).toBe('');
  });
  it('in a folder that is not there is an error that names it', () => {
    expect(() => openPidFile(join(folder, 'no/pid'))).toThrow(/--pid: cannot open '.*no\/pid': ENOENT: no such file/);
  });
});

describe('the socket path', () => {
  const listen = async (path: string) => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return server;
  };
  it('is taken as it is when nothing is there', async () => {
    expect(await claimSocketPath(join(folder, 's'))).toBe(join(folder, 's'));
  });
  it('is refused while somebody listens there', async () => {
    const server = await listen(join(folder, 's'));
    await expect(claimSocketPath(join(folder, 's'))).rejects.toThrow(/is in use by another process/);
    server.close();
  });
  it('is refused when there is something else', async () => {
    writeFileSync(join(folder, 's'), 'precious');
    await expect(claimSocketPath(join(folder, 's'))).rejects.toThrow(/something else than a socket/);
    expect(readFileSync(join(folder, 's'), 'latin1')).toBe('precious');
  });
  it('that a killed process left goes to one of several who take it over at the same time', async () => {
    const path = join(folder, 's');
    const native = loadNative();
    native.close(listenUnix(native, path));
    expect(existsSync(path)).toBe(true);
    // Each finds that nobody answers before any of them listens.
    const claims = await Promise.allSettled([1, 2, 3].map(async () => listenUnix(native, await claimSocketPath(path))));
    const taken = claims.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    expect(taken).toHaveLength(1);
    for (const each of claims) {
      if (each.status === 'rejected') expect(String(each.reason)).toMatch(/is in use by another process/);
    }
    // It is the one who can be reached.
    native.close(connectUnix(native, path));
    expect(readdirSync(folder)).toEqual(['s']);
    for (const fd of taken) native.close(fd);
  });
  it('that is too long for a unix socket is refused', async () => {
    await expect(claimSocketPath(`/tmp/${'x'.repeat(103)}`)).rejects.toThrow(/108 bytes, unix sockets allow 107/);
  });
});

describe('users', () => {
  const PASSWD = 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n';
  it('are found by name and number', () => {
    expect(findUser(PASSWD, 'nobody')).toEqual({ uid: 65534, gid: 65533 });
    expect(findUser(PASSWD, '65534')).toEqual({ uid: 65534, gid: 65533 });
    expect(findUser(PASSWD, 'who')).toBeUndefined();
    expect(findGroup('root:x:0:\nkvm:x:104:a,b\n', 'kvm')).toBe(104);
  });
  it('that do not exist are an error', () => {
    expect(() => resolveRunAs({ user: 'no-such-user', group: undefined })).toThrow(
      /--runas: cannot run as 'no-such-user': there is no such user/,
    );
    expect(() => resolveRunAs({ user: '0', group: 'no-such-group' })).toThrow(/there is no such group/);
  });
  it('given as numbers need no entry', () => {
    expect(resolveRunAs({ user: '54321', group: '12345' })).toEqual({ uid: 54321, gid: 12345 });
  });
});

describe('messages', () => {
  const config = (over: Partial<LoggingConfig>): LoggingConfig => ({
    level: 'info',
    format: 'text',
    filePath: undefined,
    fileMaxBytes: 1 << 20,
    ...over,
  });
  it('go to standard error as plain lines, levels named where they matter', () => {
    const lines: string[] = [];
    const logger = openLogger('passel-passt', config({}), (line) => lines.push(line));
    logger.info('listening');
    logger.warn('odd\u001b[31m guest\nsecond line');
    logger.debug('hidden');
    expect(lines).toEqual(['listening\n', 'warn: odd\\x1b[31m guest\n', 'warn: second line\n']);
    expect(logger.isEnabled('debug')).toBe(false);
    expect(logger.isEnabled('warn')).toBe(true);
  });
  it('can be JSON with fields', () => {
    const lines: string[] = [];
    const logger = openLogger('passel-passt', config({ format: 'json', level: 'trace' }), (line) => lines.push(line));
    logger.trace('frame', { bytes: 60 });
    expect(JSON.parse(lines[0]!)).toMatchObject({ level: 'trace', name: 'passel-passt', msg: 'frame', bytes: 60 });
  });
  it('go to a file that names the program first and stays below its size', () => {
    const path = join(folder, 'log');
    const logger = openLogger('passel-passt', config({ filePath: path, fileMaxBytes: 1000 }), () =>
      expect.unreachable(),
    );
    for (let i = 0; i < 200; i++) logger.info(`message number ${i}`);
    logger.close();
    const lines = readFileSync(path, 'latin1').split('\n');
    expect(lines[0]).toMatch(/^passel-passt \d+\.\d+\.\d+: \/.* \(\d+\)$/);
    expect(lines.at(-2)).toMatch(/^\d+\.\d{4}: message number 199$/);
    expect(statSync(path).size).toBeLessThanOrEqual(1000);
    expect(lines.slice(1, -1).every((l) => /^\d+\.\d{4}: message number \d+$/.test(l))).toBe(true);
  });
  it('to a file that cannot be opened are an error before anything else starts', () => {
    expect(() => openLogger('p', config({ filePath: join(folder, 'no/log') }), () => {})).toThrow(
      /--log-file: cannot open '.*no\/log': ENOENT/,
    );
  });
});
