import { once } from 'node:events';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { loadNative, nativePath } from '../../../src/sys/native.ts';
import type { ExecRequest } from '../../../src/sys/native-addon.ts';
import {
  becomeProgram,
  CLONE_NEWNET,
  CLONE_NEWUSER,
  decodeWaitStatus,
  findProgram,
  listEnvironment,
  startProgram,
} from '../../../src/sys/process.ts';
import { EINVAL } from './support.ts';

const native = loadNative();
const SH = findProgram('sh');

const fds: number[] = [];
afterEach(() => {
  for (const fd of fds.splice(0)) closeSync(fd);
});

/** A file in memory to collect a child's output. */
function makeSink(): number {
  const fd = native.memfdCreate('passel-output', 0);
  fds.push(fd);
  return fd;
}
const textOf = (fd: number) => readFileSync(`/proc/self/fd/${fd}`, 'utf8');

function shell(script: string, sink: number, more: Partial<ExecRequest> = {}): ExecRequest {
  return {
    file: SH,
    args: ['sh', '-c', script],
    env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
    ...more,
    fds: Int32Array.of(1, sink, ...(more.fds ?? [])),
  };
}

describe('startProgram', () => {
  it('runs a program with the arguments and environment given, and tells how it ended', async () => {
    const sink = makeSink();
    const child = startProgram(native, shell('echo "$0 $A $PPID"; exit 42', sink, { env: ['A=b c'] }));
    expect(await child.ended).toEqual({ exitStatus: 42, signalNumber: null });
    expect(textOf(sink)).toBe(`sh b c ${process.pid}\n`);
  });

  it('tells the signal that ended it', async () => {
    const child = startProgram(native, shell('kill -TERM $$', makeSink()));
    expect(await child.ended).toEqual({ exitStatus: null, signalNumber: 15 });
  });

  it('places descriptors, crossed ones too, and hands on no others', async () => {
    const sink = makeSink();
    const first = makeSink();
    const second = makeSink();
    writeSync(first, 'first');
    writeSync(second, 'second');
    native.setCloseOnExec(first, 0);
    const script = 'cat /proc/self/fd/$1 /proc/self/fd/$2; ls /proc/self/fd | sort -n | tr "\\n" " "';
    const request = {
      ...shell(script, sink, { fds: Int32Array.of(first, second, second, first) }),
      args: ['sh', '-c', script, 'sh', String(first), String(second)],
    };
    await startProgram(native, request).ended;
    // 3 is the folder that ls reads.
    expect(textOf(sink)).toBe(`secondfirst0 1 2 3 ${Math.min(first, second)} ${Math.max(first, second)} `);
  });

  it('starts with default signal actions and nothing blocked, unless asked otherwise', async () => {
    const sink = makeSink();
    await startProgram(native, shell('grep -E "Sig(Blk|Ign)" /proc/self/status', sink)).ended;
    expect(textOf(sink).match(/[0-9a-f]{16}/g)).toEqual(['0'.repeat(16), '0'.repeat(16)]);
    const other = makeSink();
    const special = { ignoredSignals: Int32Array.of(1, 13), blockedSignals: Int32Array.of(10) };
    await startProgram(native, {
      ...shell('', other, special),
      file: findProgram('grep'),
      args: ['grep', '-E', 'Sig(Blk|Ign)', '/proc/self/status'],
    }).ended;
    expect(textOf(other)).toContain('SigBlk:\t0000000000000200');
    expect(textOf(other)).toContain('SigIgn:\t0000000000001001');
  });

  it('changes directory and starts a session', async () => {
    const sink = makeSink();
    await startProgram(native, shell('pwd; cut -d" " -f1,6 /proc/$$/stat', sink, { cwd: '/usr', newSession: true }))
      .ended;
    const [directory, numbers] = textOf(sink).split('\n');
    expect(directory).toBe('/usr');
    const [pid, session] = numbers!.split(' ');
    expect(session).toBe(pid);
  });

  it('runs it in a network and user namespace of its own', async () => {
    const sink = makeSink();
    const child = startProgram(
      native,
      shell('id -u; ip -o link | wc -l; readlink /proc/self/ns/net', sink, {
        namespaces: CLONE_NEWUSER | CLONE_NEWNET,
        uidMap: `0 ${process.getuid?.()} 1`,
        gidMap: `0 ${process.getgid?.()} 1`,
      }),
    );
    expect((await child.ended).exitStatus).toBe(0);
    const [uid, links, namespace] = textOf(sink).split('\n');
    expect(uid).toBe('0');
    expect(Number(links)).toBeGreaterThanOrEqual(1);
    const { readlinkSync } = await import('node:fs');
    expect(namespace).not.toBe(readlinkSync('/proc/self/ns/net'));
  });

  it('joins the namespaces of a running program', async () => {
    const sink = makeSink();
    const holder = startProgram(native, {
      file: findProgram('sleep'),
      args: ['sleep', '30'],
      env: [],
      namespaces: CLONE_NEWUSER | CLONE_NEWNET,
      uidMap: `0 ${process.getuid?.()} 1`,
      deathSignal: 9,
    });
    try {
      const namespaces = ['user', 'net'].map((kind) => openSync(`/proc/${holder.pid}/ns/${kind}`, 'r'));
      fds.push(...namespaces);
      const script = 'readlink /proc/self/ns/user /proc/self/ns/net';
      await startProgram(native, shell(script, sink, { joins: Int32Array.from(namespaces) })).ended;
      const { readlinkSync } = await import('node:fs');
      const expected = ['user', 'net'].map((kind) => readlinkSync(`/proc/${holder.pid}/ns/${kind}`));
      expect(textOf(sink).trim().split('\n')).toEqual(expected);
    } finally {
      process.kill(holder.pid, 'SIGKILL');
      expect(await holder.ended).toEqual({ exitStatus: null, signalNumber: 9 });
    }
  });

  it('says which step failed and why', () => {
    const sink = makeSink();
    const attempt = (more: Partial<ExecRequest>) => () => startProgram(native, { ...shell('', sink), ...more });
    expect(attempt({ file: '/no/such/program' })).toThrow(
      expect.objectContaining({ code: 'ENOENT', step: 'execute', path: '/no/such/program' }),
    );
    expect(attempt({ cwd: '/no/such/place' })).toThrow(
      expect.objectContaining({ code: 'ENOENT', step: 'change directory' }),
    );
    expect(attempt({ fds: Int32Array.of(1, 9999) })).toThrow(
      expect.objectContaining({ code: 'EBADF', step: 'place descriptors' }),
    );
    expect(attempt({ joins: Int32Array.of(sink) })).toThrow(
      expect.objectContaining({ code: 'EINVAL', step: 'join namespace' }),
    );
    expect(attempt({ namespaces: CLONE_NEWUSER, uidMap: 'nonsense' })).toThrow(
      expect.objectContaining({ code: 'EINVAL', step: 'write id maps' }),
    );
  });

  it('refuses requests that are malformed', () => {
    const step = new Int32Array(1);
    const bad = (request: unknown) => native.forkExec(request as ExecRequest, step);
    expect(bad(undefined)).toBe(EINVAL);
    expect(bad({})).toBe(EINVAL);
    expect(bad({ file: SH, args: 'sh', env: [] })).toBe(EINVAL);
    expect(bad({ file: SH, args: ['sh', 1], env: [] })).toBe(EINVAL);
    expect(bad({ file: SH, args: ['sh\0'], env: [] })).toBe(EINVAL);
    expect(bad({ file: SH, args: ['sh'], env: [], fds: Int32Array.of(1) })).toBe(EINVAL);
    expect(bad({ file: SH, args: ['sh'], env: [], fds: Int32Array.of(1, -1) })).toBe(-9);
    expect(bad({ file: SH, args: ['sh'], env: [], newSession: 1 })).toBe(EINVAL);
  });

  it('leaves child processes of Node alone, and Node its children', async () => {
    const { spawn } = await import('node:child_process');
    const nodes = spawn(SH, ['-c', 'exit 3']);
    const ours = startProgram(native, shell('exit 4', makeSink()));
    const [[code], end] = await Promise.all([once(nodes, 'exit'), ours.ended]);
    expect(code).toBe(3);
    expect(end.exitStatus).toBe(4);
    expect(native.waitProcess(-1, new Int32Array(1))).toBe(EINVAL);
    expect(native.waitProcess(1, new Int32Array(1))).toBe(-10);
  });
});

describe('becomeProgram', () => {
  it('keeps the pid and hands on the descriptors named', async () => {
    const sink = makeSink();
    const script = `
      const native = require(${JSON.stringify(nativePath())});
      process.on('SIGUSR1', () => {});
      const status = native.execute({ file: '/bin/sh', args: ['sh', '-c', 'echo $$ $X; cat <&7; grep SigIgn /proc/$$/status'],
        env: ['X=y', 'PATH=/usr/bin:/bin'], fds: Int32Array.of(7, require('fs').openSync('/proc/version')), ignoredSignals: Int32Array.of(2) });
      console.error('execute came back', status);`;
    const child = startProgram(native, {
      file: process.execPath,
      args: ['node', '-e', script],
      env: listEnvironment(process.env),
      fds: Int32Array.of(1, sink),
    });
    expect((await child.ended).exitStatus).toBe(0);
    const lines = textOf(sink).split('\n');
    expect(lines[0]).toBe(`${child.pid} y`);
    expect(lines[1]).toBe(readFileSync('/proc/version', 'utf8').trim());
    expect(lines[2]).toBe('SigIgn:\t0000000000000002');
  });

  it('hands on bytes as they are, and a limit of open files that is lower than what it needs itself', async () => {
    const sink = makeSink();
    const script = `
      const native = require(${JSON.stringify(nativePath())});
      native.execute({ file: '/bin/sh', args: ['sh', '-c', 'ulimit -Sn; printf "$0$X" | od -An -tx1', 'a\\xff\\xfc'], bytes: true,
        env: ['X=\\xe4', 'PATH=/usr/bin:/bin'], fileLimit: 7 });`;
    const child = startProgram(native, {
      file: process.execPath,
      args: ['node', '-e', script],
      env: listEnvironment(process.env),
      fds: Int32Array.of(1, sink),
    });
    expect((await child.ended).exitStatus).toBe(0);
    expect(textOf(sink)).toBe('7\n 61 ff fc e4\n');
  });

  it('leaves everything as it was when it fails, descriptors that Node uses among it', async () => {
    const server = createServer((socket) => socket.end('served'));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const serverFd = (server as unknown as { _handle: { fd: number } })._handle.fd;
    const other = openSync('/dev/null', 'r');
    fds.push(other);
    let interrupted = 0;
    const onSignal = () => interrupted++;
    process.on('SIGUSR2', onSignal);
    // Every number up to 20 is replaced, the event loop's own epoll set among them.
    const pairs = Array.from({ length: 17 }, (_, i) => [i + 3, other]).flat();
    const request = { file: '/no/such', args: ['x'], env: [], fds: Int32Array.of(serverFd, other, ...pairs) };
    expect(() => becomeProgram(native, request)).toThrow(expect.objectContaining({ code: 'ENOENT', step: 'execute' }));
    process.kill(process.pid, 'SIGUSR2');
    const { connect } = await import('node:net');
    const client = connect((server.address() as { port: number }).port, '127.0.0.1');
    const [data] = (await once(client, 'data')) as [Buffer];
    expect(data.toString()).toBe('served');
    expect(interrupted).toBe(1);
    process.off('SIGUSR2', onSignal);
    client.destroy();
    server.close();
  });
});

describe('findProgram and decodeWaitStatus', () => {
  it('looks in the folders of a path and says why nothing was found', () => {
    expect(findProgram('sh', '/no/such:/bin')).toBe('/bin/sh');
    expect(findProgram('/bin/sh')).toBe('/bin/sh');
    expect(() => findProgram('no-such-program')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => findProgram('')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => findProgram('passwd', '/etc')).toThrow(expect.objectContaining({ code: 'EACCES' }));
  });

  it('tells an exit status from a signal', () => {
    expect(decodeWaitStatus(0)).toEqual({ exitStatus: 0, signalNumber: null });
    expect(decodeWaitStatus(0x0100)).toEqual({ exitStatus: 1, signalNumber: null });
    expect(decodeWaitStatus(0x8b)).toEqual({ exitStatus: null, signalNumber: 11 });
  });
});

describe('privileges', () => {
  it('gives up gaining new ones, for the thread that asks', async () => {
    const worker = new Worker(
      `const native = require(${JSON.stringify(nativePath())});
       const { parentPort } = require('node:worker_threads');
       const fs = require('node:fs');
       const status = native.setNoNewPrivileges();
       parentPort.postMessage([status, /NoNewPrivs:\\s*(\\d)/.exec(fs.readFileSync('/proc/thread-self/status', 'utf8'))[1]]);`,
      { eval: true },
    );
    expect((await once(worker, 'message'))[0]).toEqual([0, '1']);
    await worker.terminate();
  });
});
