/** How the helper starts and what it is afterwards: privileges of every thread, the sandbox, files, and libvirt's way of starting it. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { connectPrManager } from '../../../src/scsi/client.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { listenUnix } from '../../../src/sys/unix-socket.ts';
import { buildTool, PROJECT_ROOT } from '../../support/native-tools.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runProcess, waitForExit, waitUntil } from '../../support/netns/process.ts';
import { needRawIo, RAWIO } from './need-raw-io.ts';

const HELPER = join(PROJECT_ROOT, 'dist/helpers/passel-pr-helper');

const describeSuite = await requireOrSkip(needRoot, needRawIo, needCommand('setpriv', 'util-linux'));

let folder: string;
let socket: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-pr-'));
  // Another user has to reach the socket.
  chmodSync(folder, 0o755);
  socket = join(folder, 'pr.sock');
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill('SIGKILL');
    await waitForExit(child);
  }
  rmSync(folder, { recursive: true, force: true });
});

interface Started {
  readonly child: ChildProcess;
  stderr(): string;
}

function launch(args: readonly string[], command: readonly string[] = [HELPER]): Started {
  const [program, ...words] = [...command, ...args];
  const child = spawn(program!, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let text = '';
  child.stderr!.on('data', (bytes) => {
    text += bytes;
  });
  return { child, stderr: () => text };
}

/** The start is over when the first client has been answered: the filter is loaded before. */
async function start(args: readonly string[] = [], command?: readonly string[]): Promise<Started> {
  const started = launch(['-k', socket, ...args], command);
  await waitUntil('the helper', () => started.child.exitCode !== null || answers(), 30_000);
  expect(started.stderr()).toBe('');
  return started;
}

/** One request to a device that takes none. @returns the status */
async function ask(path: string): Promise<number> {
  const client = await connectPrManager(loadNative(), path);
  const device = openSync('/dev/null', 'r+');
  try {
    return (await client.reserveIn(device, 0)).status;
  } finally {
    closeSync(device);
    client.close();
  }
}

async function answers(): Promise<boolean> {
  try {
    return (await ask(socket)) === 2;
  } catch {
    return false;
  }
}

/** What a process has open; one that it closes meanwhile, as Node's own do after a start, is left out. */
function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  });
}

/** A field of all threads: what they have in common, or all that there are. */
function threadField(pid: number, field: string): string {
  const found = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
    return new RegExp(`^${field}:[ \\t]*(.*)$`, 'm').exec(status)![1]!.trim().replaceAll('\t', ' ');
  });
  expect(found.length).toBeGreaterThan(4);
  return [...new Set(found)].join(' | ');
}

function run(args: readonly string[], command: readonly string[] = [HELPER]): { status: number; stderr: string } {
  const [program, ...words] = [...command, ...args];
  const { status, stderr } = spawnSync(program!, words, { encoding: 'utf8', timeout: 30_000 });
  return { status: status ?? -1, stderr };
}

async function end(started: Started, signal: NodeJS.Signals = 'SIGTERM'): Promise<number> {
  started.child.kill(signal);
  return waitForExit(started.child);
}

describeSuite('passel-pr-helper', () => {
  it.each([
    ['root', [], '0 0 0 0', '0 0 0 0'],
    ['another user', ['-u', '4242'], '4242 4242 4242 4242', '0 0 0 0'],
    ['another user and group', ['-u', 'nobody', '-g', '4243'], '65534 65534 65534 65534', '4243 4243 4243 4243'],
  ])('as %s has CAP_SYS_RAWIO and nothing else in every thread', async (_name, args, uid, gid) => {
    const started = await start(args);
    const { pid } = started.child;
    const rawio = RAWIO.toString(16).padStart(16, '0');
    expect(threadField(pid!, 'CapPrm')).toBe(rawio);
    expect(threadField(pid!, 'CapEff')).toBe(rawio);
    for (const set of ['CapInh', 'CapBnd', 'CapAmb'])
      expect([set, threadField(pid!, set)]).toEqual([set, '0'.repeat(16)]);
    expect(threadField(pid!, 'Groups')).toBe('');
    expect(threadField(pid!, 'Uid')).toBe(uid);
    expect(threadField(pid!, 'Gid')).toBe(gid);
    expect(threadField(pid!, 'NoNewPrivs')).toBe('1');
    expect(threadField(pid!, 'Seccomp')).toBe('2');
    expect(await end(started)).toBe(0);
  });

  it('keeps groups from nobody: those of its caller are left', async () => {
    const started = await start([], ['setpriv', '--groups', '1,2,3', HELPER]);
    expect(threadField(started.child.pid!, 'Groups')).toBe('');
  });

  it('runs as an ordinary user who has CAP_SYS_RAWIO alone', async () => {
    chmodSync(folder, 0o777);
    const user = ['setpriv', '--reuid', '4242', '--regid', '4242', '--clear-groups'];
    const rights = ['--inh-caps', '-all,+sys_rawio', '--ambient-caps', '-all,+sys_rawio'];
    const started = await start([], [...user, ...rights, HELPER]);
    expect(threadField(started.child.pid!, 'CapPrm')).toBe('0000000000020000');
    expect(threadField(started.child.pid!, 'CapAmb')).toBe('0000000000000000');
  });

  it.each([
    ['an ordinary user', ['--reuid', '4242', '--regid', '4242', '--clear-groups'], [], /CAP_SYS_RAWIO is needed/],
    ['root without the capability', ['--bounding-set', '-sys_rawio'], [], /CAP_SYS_RAWIO is needed/],
    ['root that may not change users', ['--bounding-set', '-setuid'], ['-u', 'nobody'], /CAP_SETUID and CAP_SETGID/],
  ])('does not start as %s, and says why', (_name, setpriv, args, message) => {
    chmodSync(folder, 0o777);
    const { status, stderr } = run(['-k', socket, ...args], ['setpriv', ...setpriv, HELPER]);
    expect(status).toBe(1);
    expect(stderr).toMatch(message);
    expect(existsSync(socket)).toBe(false);
  });

  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
    'ends on %s with status 0 and takes its socket along',
    async (signal) => {
      const started = await start();
      expect(await end(started, signal)).toBe(0);
      expect(existsSync(socket)).toBe(false);
    },
  );

  it('does not take the socket of one that runs, nor a file of another kind', async () => {
    await start();
    expect(run(['-k', socket])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/in use by another process/),
    });
    expect(await ask(socket)).toBe(2);
    const file = join(folder, 'file');
    writeFileSync(file, 'precious');
    expect(run(['-k', file])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/something else than a socket/),
    });
    expect(readFileSync(file, 'utf8')).toBe('precious');
  });

  it('gives its socket the mode and the group that were asked for, and those of the umask otherwise', async () => {
    const started = await start(['--socket-mode', '0666', '--socket-group', '4243']);
    expect(statSync(socket)).toMatchObject({ gid: 4243 });
    expect(statSync(socket).mode & 0o777).toBe(0o666);
    await end(started);
    await start([], ['sh', '-c', 'umask 027; exec "$0" "$@"', HELPER]);
    expect(statSync(socket).mode & 0o777).toBe(0o750);
  });

  it('keeps its PID file locked: a second instance with it does not start', async () => {
    const pidFile = join(folder, 'pid');
    const started = await start(['-f', pidFile]);
    expect(readFileSync(pidFile, 'utf8')).toBe(`${started.child.pid}\n`);
    expect(statSync(pidFile).mode & 0o777).toBe(0o600);
    const other = join(folder, 'other.sock');
    expect(run(['-k', other, '-f', pidFile])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/another process has locked it/),
    });
    expect(existsSync(other)).toBe(false);
    expect(await end(started)).toBe(0);
    expect(existsSync(pidFile)).toBe(true);
  });

  it('is the process that was started, and keeps open and locked what it inherited, as libvirt wants it', async () => {
    const pidFile = join(folder, 'libvirt.pid');
    // As virCommand does: the lock is taken in the child and outlives the exec, by a descriptor of some number.
    const script = `import fcntl, os, sys
fds = [os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)]
fcntl.lockf(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
os.dup2(fds[0], 30); os.set_inheritable(fds[0], True)
os.execv(sys.argv[2], sys.argv[2:])`;
    const started = await start([], ['python3', '-c', script, pidFile, HELPER]);
    const { pid } = started.child;
    expect(openFiles(pid!).filter((path) => path === pidFile)).toHaveLength(2);
    const probe = `import fcntl, sys
try: fcntl.lockf(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: sys.exit(7)`;
    expect(spawnSync('python3', ['-c', probe, pidFile]).status).toBe(7);
    expect(readFileSync(`/proc/${pid}/cmdline`, 'latin1')).toContain(socket);
  });

  it('goes to the background: ready when the launcher has ended, in the root directory, in a session of its own', async () => {
    const pidFile = join(folder, 'pid');
    expect(run(['-d', '-k', socket, '-f', pidFile])).toEqual({ status: 0, stderr: '' });
    const pid = Number(readFileSync(pidFile, 'utf8'));
    try {
      expect(await ask(socket)).toBe(2);
      expect(readlinkSync(`/proc/${pid}/cwd`)).toBe('/');
      for (const fd of [0, 1, 2]) expect(readlinkSync(`/proc/${pid}/fd/${fd}`)).toBe('/dev/null');
      expect(readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ')[3]).toBe(String(pid));
      expect(threadField(pid, 'CapPrm')).toBe('0000000000020000');
    } finally {
      process.kill(pid, 'SIGTERM');
    }
    await waitUntil('its end', () => !existsSync(socket), 20_000);
    // What C's helper keeps to itself: a PID file that cannot be.
    expect(run(['-d', '-k', socket, '-f', join(folder, 'no/such')])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/cannot use the PID file/),
    });
    expect(existsSync(socket)).toBe(false);
  });

  it('serves a socket that was opened for it, and leaves it', async () => {
    const fd = listenUnix(loadNative(), socket);
    const activated = ['sh', '-c', 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"', HELPER];
    const child = spawn(activated[0]!, [...activated.slice(1)], { stdio: ['ignore', 'pipe', 'pipe', fd] });
    children.push(child);
    closeSync(fd);
    expect(await ask(socket)).toBe(2);
    child.kill('SIGTERM');
    expect(await waitForExit(child)).toBe(0);
    expect(existsSync(socket)).toBe(true);
  });

  it('appends a line of JSON for each request to the access log, also when it runs as another user', async () => {
    const log = join(folder, 'access.json');
    await start(['-u', 'nobody', '--access-log', log]);
    // It is written beside the answer.
    await waitUntil('the access log to be written', () => readFileSync(log, 'utf8').includes('\n'), 20_000);
    expect(JSON.parse(readFileSync(log, 'utf8').split('\n')[0]!)).toMatchObject({
      peerPid: process.pid,
      peerUid: 0,
      device: '1:3',
      path: '/dev/null',
      action: 'READ KEYS',
      status: 'CHECK CONDITION',
    });
  });

  it('has every request in the access log, also when they come faster than it is written', async () => {
    const log = join(folder, 'access.json');
    await start(['--access-log', log]);
    const { stdout } = await runProcess(buildTool('pr-load'), [socket, '/dev/null', '8', '0.5']);
    const { requests } = JSON.parse(stdout) as { requests: number };
    const lines = (): string[] => readFileSync(log, 'utf8').trimEnd().split('\n');
    // The first one asked whether it serves.
    await waitUntil('all to be written', () => lines().length >= requests + 1, 30_000);
    const entries = lines().map((line) => JSON.parse(line) as { device: string; note: string });
    expect(entries.length).toBe(requests + 1);
    expect(entries.every(({ device, note }) => device === '1:3' && note === 'errno 25')).toBe(true);
  });
});
