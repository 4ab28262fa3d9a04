/** The bundled executables as their callers see them: exit statuses, messages, PID file, socket, descriptors, daemon. */
import { type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PASST_OPTIONS } from '../../../src/cli/options/passt-options.ts';

const root = resolve(import.meta.dirname, '../../..');
/** The executable itself, and the bundle that it starts: both are ways to start it. */
const FRONT = [join(root, 'dist/helpers/passel-passt')];
const BUNDLE = [process.execPath, join(root, 'dist/helpers/passel-passt.cjs')];
const PASSEL = [process.execPath, join(root, 'dist/helpers/passel.cjs')];

let folder: string;
/** Daemons that a test started, ended after it whatever happened. */
let daemons: number[];
beforeEach(() => {
  // Short, because a unix socket's path must be.
  folder = mkdtempSync(join(tmpdir(), 'pcl-'));
  daemons = [];
});
afterEach(() => {
  for (const pid of daemons) if (isRunning(pid)) process.kill(pid, 'SIGKILL');
  rmSync(folder, { recursive: true });
});

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(line: readonly string[], args: readonly string[], options: SpawnOptions = {}): Promise<Ended> {
  const [command = '', ...rest] = line;
  const child = spawn(command, [...rest, ...args], { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stdout, stderr };
}
const passt = (...args: string[]): Promise<Ended> => run(FRONT, args);

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}

async function waitForEnd(pid: number): Promise<void> {
  for (let i = 0; i < 200 && isRunning(pid); i++) await new Promise((done) => setTimeout(done, 25));
  expect(isRunning(pid)).toBe(false);
}

/** The PID in a PID file; the process is ended after the test. */
function readPid(path: string): number {
  const pid = Number(readFileSync(path, 'latin1'));
  expect(pid).toBeGreaterThan(1);
  daemons.push(pid);
  return pid;
}

describe.each([
  ['the executable', FRONT],
  ['its bundle', BUNDLE],
])('passel-passt in the background, started by %s', (_, line) => {
  const passt = (...args: string[]): Promise<Ended> => run(line, args);

  it('is ready when its launcher exits: the socket accepts, the PID file names the serving process', async () => {
    const [socket, pidFile] = [join(folder, 's'), join(folder, 'pid')];
    const { status, stdout } = await passt('--quiet', '--one-off', '--socket', socket, '--pid', pidFile);
    expect([status, stdout]).toEqual([0, '']);
    const pid = readPid(pidFile);
    expect(readFileSync(`/proc/${pid}/cmdline`, 'latin1')).toContain('passel-passt');
    const guest = connect(socket);
    await once(guest, 'connect');
    expect(isRunning(pid)).toBe(true);
    guest.end();
    await waitForEnd(pid);
  });
  it('is in a session of its own, without terminal and working directory', async () => {
    const pidFile = join(folder, 'pid');
    await passt('-q', '-s', join(folder, 's'), '-P', pidFile);
    const pid = readPid(pidFile);
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ');
    expect([stat[3], stat[4]]).toEqual([String(pid), '0']);
    // What a process of user namespaces has open is shown to root only.
    if (process.getuid?.() === 0) {
      // The file system that it is in may not be one of this process's namespace any more, so it may be called '/null'.
      const files = [0, 1, 2].map((fd) => `/proc/${pid}/fd/${fd}`);
      expect(files.map((file) => statSync(file).rdev)).toEqual(files.map(() => statSync('/dev/null').rdev));
      // Root's is the empty one of the sandbox.
      expect(readlinkSync(`/proc/${pid}/cwd`)).toMatch(/^\/$|\/passel-root-\w+ \(deleted\)$/);
    }
    process.kill(pid, 'SIGTERM');
    await waitForEnd(pid);
  });
  it('serves the socket it inherited, whatever its number, and ends with it', async () => {
    // `passel run` hands its command a connected socket as 3, and closes the other end when the command has ended: here
    // the command is the launcher, which ends when the daemon is ready.
    for (const fd of [3, 9]) {
      const pidFile = join(folder, `pid${fd}`);
      const command = `exec ${line.join(' ')} -q --fd ${fd} --pid ${pidFile} ${fd}<&3`;
      expect(await run(PASSEL, ['run', '-q', '--', 'bash', '-c', command])).toEqual({
        status: 0,
        stdout: '',
        stderr: '',
      });
      await waitForEnd(readPid(pidFile));
    }
  });
  it('tells what it gives the guest before it leaves the terminal', async () => {
    const pidFile = join(folder, 'pid');
    const { stderr } = await passt('-s', join(folder, 's'), '-P', pidFile, '-a', '192.0.2.77/24', '-4');
    readPid(pidFile);
    expect(stderr).toMatch(/IPv4 \(.*\): 192\.0\.2\.77\/24, router /);
    expect(stderr).toContain(`addr.path=${join(folder, 's')}`);
  });
});

describe.each([
  ['the executable', FRONT],
  ['its bundle', BUNDLE],
])('passel-passt that cannot start, by %s', (_, line) => {
  const passt = (...args: string[]): Promise<Ended> => run(line, args);

  const cases: [args: string[], message: RegExp][] = [
    [['--bogus'], /^passel-passt: unknown option '--bogus'\n$/],
    [['-t'], /^passel-passt: option '-t' needs a value: SPEC\n$/],
    [['-t', '22-'], /^passel-passt: -t: '22-': '22-' is not a port or a range of ports: expected .*\n$/],
    [['-t', 'auto'], /^passel-passt: -t: 'auto' is not valid: expected ports: .*\n$/],
    [['-m', '5'], /^passel-passt: -m: '5' is not valid: expected 0, or 68 to 65520 bytes\n$/],
    [['-i', 'nope0'], /^passel-passt: -i: no network interface is called 'nope0'\n$/],
    [['--fd', '77'], /^passel-passt: --fd: descriptor 77 cannot be used: EBADF: bad file descriptor\n$/],
    [['--fd', '0'], /^passel-passt: --fd: descriptor 0 cannot be used: it is not a socket\n$/],
    [
      ['-P', '/nowhere/pid'],
      /^passel-passt: --pid: cannot open '\/nowhere\/pid': ENOENT: no such file or directory\n$/,
    ],
    [['-l', '/nowhere/log'], /^passel-passt: --log-file: cannot open '\/nowhere\/log': ENOENT/],
    [['-s', '/nowhere/s'], /^passel-passt: --socket: cannot listen on '\/nowhere\/s': ENOENT/],
    [['--vhost-user'], /^passel-passt: --vhost-user is not supported by this version: .*\n$/],
    [['--runas', 'no-such-user'], /^passel-passt: --runas: cannot run as 'no-such-user': there is no such user\n$/],
    [['operand'], /^passel-passt: unexpected argument 'operand': expected options only\n$/],
  ];
  it.each(cases)('%j: one line that says why, status 1, nothing left', async (args, message) => {
    const [socket, pidFile] = [join(folder, 's'), join(folder, 'pid')];
    const rest = args.some((arg) => /^(-P|-s|--fd)$/.test(arg)) ? [] : ['-s', socket, '-P', pidFile];
    const { status, stdout, stderr } = await passt('-q', ...rest, ...args);
    expect(stderr).toMatch(message);
    expect([status, stdout]).toEqual([1, '']);
    expect(readdirSync(folder)).toEqual([]);
  });
  it('because a port is taken leaves neither socket nor PID file', async () => {
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as import('node:net').AddressInfo;
    const { status, stderr } = await passt(
      '-q',
      '-s',
      join(folder, 's'),
      '-P',
      join(folder, 'p'),
      '-t',
      `127.0.0.1/${port}`,
    );
    server.close();
    expect(stderr).toBe(
      `passel-passt: --tcp-ports: cannot listen on 127.0.0.1:${port}/tcp: EADDRINUSE: address already in use\n`,
    );
    expect(status).toBe(1);
    expect(readdirSync(folder)).toEqual([]);
  });
  it('because its socket is in use leaves the other one alone', async () => {
    const server = createServer();
    await new Promise<void>((done) => server.listen(join(folder, 's'), done));
    const { status, stderr } = await passt('-s', join(folder, 's'));
    expect([status, stderr]).toEqual([
      1,
      `passel-passt: --socket: '${join(folder, 's')}' is in use by another process\n`,
    ]);
    expect(existsSync(join(folder, 's'))).toBe(true);
    server.close();
  });
});

describe('passel-passt in the foreground', () => {
  it('takes over a stale socket, and ends with status 0 and without socket on SIGTERM', async () => {
    // As a user who may not remove files of root, a daemon started by root leaves its socket; this one stays who it is.
    const socket = join(folder, 's');
    const first = spawn(FRONT[0]!, ['-f', '-q', '-s', socket]);
    await waitForPath(socket);
    first.kill('SIGKILL');
    await once(first, 'exit');
    expect(existsSync(socket)).toBe(true);

    const log = join(folder, 'log');
    const second = spawn(FRONT[0]!, [
      ...['-f', '-s', socket, '--runas', String(process.getuid?.()), '-l', log, '-P', join(folder, 'pid')],
    ]);
    await waitForPath(join(folder, 'pid'), (text) => text.endsWith('\n'));
    second.kill('SIGTERM');
    const [status] = (await once(second, 'exit')) as [number | null];
    expect(status).toBe(0);
    expect(existsSync(socket)).toBe(false);
    const lines = readFileSync(log, 'latin1').split('\n');
    expect(lines[0]).toMatch(/^passel-passt \d+\.\d+\.\d+: .*passel-passt\.cjs \(\d+\)$/);
    expect(lines.at(-2)).toMatch(/^\d+\.\d{4}: SIGTERM: stopping$/);
  });
});

async function waitForPath(path: string, isComplete?: (text: string) => boolean): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (existsSync(path) && (isComplete === undefined || isComplete(readFileSync(path, 'latin1')))) return;
    await new Promise((done) => setTimeout(done, 25));
  }
  throw new Error(`${path} did not appear`);
}

describe('questions that only want an answer', () => {
  it('are answered on standard output with status 0', async () => {
    expect(await passt('--version')).toMatchObject({ status: 0, stdout: 'passel-passt 0.1.0\n' });
    expect(JSON.parse((await passt('--print-capabilities')).stdout)).toEqual({ type: 'net' });
    const { stdout } = await passt('--help');
    expect(stdout).toMatch(/^Usage: passel-passt \[OPTION\]/);
    expect(stdout.replace(/\s+/g, ' '), 'words are whole').toContain(PASST_OPTIONS.netdev.help.replace(/\s+/g, ' '));
    expect(stdout).toMatch(/^ {6}--one-off, -1 +Exit/m);
    expect((await run(PASSEL, ['--version'])).stdout).toBe('passel 0.1.0\n');
    expect((await run(PASSEL, [])).stdout).toMatch(/passel demo/);
    expect((await run(PASSEL, ['run', '--help'])).stdout).toMatch(/^Usage: passel run \[OPTION\]/);
  });
});

describe('passel', () => {
  it.each([
    [
      ['fly'],
      "passel: unknown command 'fly': expected run, demo, ctl, doctor, install-links, netdev-args, passt, pr-helper, qrap\n",
    ],
    [
      ['run', '-s', '/tmp/x', '--', 'true'],
      'passel: -s (--socket) is not supported by this version: passel run connects the machine itself\n',
    ],
    [['run', '--', 'qemu-system-x86_64', '-daemonize'], 'passel: -daemonize and passel run exclude each other\n'],
  ])('%j is refused', async (args, message) => {
    expect(await run(PASSEL, args)).toEqual({ status: 1, stdout: '', stderr: message });
  });
  it('run says that a command cannot be executed', async () => {
    writeFileSync(join(folder, 'text'), 'no program');
    expect((await run(PASSEL, ['run', '--', join(folder, 'text')])).status).toBe(126);
  });
  it('run adds the card that was asked for', async () => {
    const fake = join(folder, 'qemu-system-x86_64');
    symlinkSync('/bin/echo', fake);
    const { stdout } = await run(PASSEL, ['run', '--nic', 'e1000', '--', fake, '-m', '1G']);
    expect(stdout).toBe(
      '-m 1G -netdev stream,id=passel0,server=off,addr.type=fd,addr.str=3 -device e1000,netdev=passel0\n',
    );
  });
});
