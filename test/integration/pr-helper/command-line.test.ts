/** Options, messages, files, users, signals, activation: the same cases on ours and on QEMU's, and a table of what is not the same. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/sys/native.ts';
import { listenUnix } from '../../../src/sys/unix-socket.ts';
import { needCommand, needRoot, requireOrSkip } from '../../support/netns/capabilities.ts';
import { type RunResult, runProcess, waitForExit, waitUntil } from '../../support/netns/process.ts';
import { type HelperProcess, PROGRAMS, type ProgramName, watchHelper } from '../../support/pr-helper/programs.ts';
import { answers, startHelper } from '../../support/pr-helper/start.ts';
import { Wire } from '../../support/pr-helper/wire.ts';
import { needRawIo } from './need-raw-io.ts';

const describeSuite = await requireOrSkip(
  needRoot,
  needRawIo,
  needCommand('qemu-pr-helper', 'qemu-system-common'),
  needCommand('setpriv', 'util-linux'),
);
const PATIENCE_MS = 20_000;

let folder: string;
let socket: string;
const children: ChildProcess[] = [];
const fds: number[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-pr-'));
  // Other users have to reach what is in it.
  chmodSync(folder, 0o777);
  socket = join(folder, 'pr.sock');
});
afterEach(async () => {
  for (const fd of fds.splice(0)) closeSync(fd);
  for (const child of children.splice(0)) {
    child.kill('SIGKILL');
    await waitForExit(child);
  }
  rmSync(folder, { recursive: true, force: true });
});

async function start(
  name: ProgramName,
  args: readonly string[] = [],
  command?: readonly string[],
): Promise<HelperProcess> {
  const helper = await startHelper(name, socket, args, command);
  children.push(helper.child);
  return helper;
}

/** To its end, which has to come by itself. */
function run(name: ProgramName, args: readonly string[], command: readonly string[] = []): Promise<RunResult> {
  const [program, ...words] = [...command, PROGRAMS[name], ...args];
  return runProcess(program!, words, { check: false });
}

/** With what systemd sets, and a descriptor as number 3. @param pid - a shell word; `$$` stays the pid of the helper */
function activate(
  name: ProgramName,
  args: readonly string[],
  pid: string,
  count: string,
  fd: number | 'ignore',
): HelperProcess {
  const script = `LISTEN_PID=${pid} LISTEN_FDS=${count} exec "$0" "$@"`;
  const child = spawn('sh', ['-c', script, PROGRAMS[name], ...args], { stdio: ['ignore', 'ignore', 'pipe', fd] });
  children.push(child);
  return watchHelper(child, socket);
}

function listen(): number {
  const fd = listenUnix(loadNative(), socket);
  fds.push(fd);
  return fd;
}

interface Refused {
  readonly name: string;
  /** `%` stands for the folder of the test. */
  readonly args: readonly string[];
  readonly says: RegExp;
}

/** Status 1 and a message that names the culprit, with either program. */
const REFUSED: readonly Refused[] = [
  {
    name: 'a long option that there is none of',
    args: ['--bogus'],
    says: /(unrecognized|unknown) option '--bogus'\n.*Try .*--help' for more/s,
  },
  { name: 'a short option that there is none of', args: ['-z'], says: /option.*'-?z'\n.*Try .*--help' for more/s },
  { name: 'the same in a bundle', args: ['-qz'], says: /option.*'-?z'/ },
  { name: 'a short option without its value', args: ['-k'], says: /'-?k'/ },
  { name: 'a long option without its value', args: ['--socket'], says: /'--socket' (requires|needs)/ },
  { name: 'a value that is not wanted', args: ['--daemon=1'], says: /'--daemon' (doesn't allow|takes no)/ },
  { name: 'an abbreviation of two options', args: ['--ver'], says: /'--ver' is ambiguous.*--version/ },
  { name: 'a relative socket', args: ['-k', 'here.sock'], says: /absolute/ },
  { name: 'an empty socket', args: ['-k', ''], says: /absolute/ },
  { name: 'a socket of 109 bytes', args: ['-k', `/tmp/${'x'.repeat(104)}`], says: /(less than 108|at most 107) bytes/ },
  { name: 'a socket in no folder', args: ['-k', '%/no/pr.sock'], says: /no\/pr\.sock.*(No such file|ENOENT)/ },
  { name: 'a PID file in no folder', args: ['-k', '%/pr.sock', '-f', '%/no/pid'], says: /no\/pid.*no such file/i },
  { name: 'a user that there is none of', args: ['-k', '%/pr.sock', '-u', 'no-such-user'], says: /no-such-user/ },
  { name: 'a group that there is none of', args: ['-k', '%/pr.sock', '-g', 'no-such-group'], says: /no-such-group/ },
  { name: 'a user that is less than 0', args: ['-k', '%/pr.sock', '-u', '-1'], says: /'-1'/ },
  { name: 'a user that is half a number', args: ['-k', '%/pr.sock', '-u', '12345x'], says: /'12345x'/ },
];

/** Status 0, and text on stdout that begins so. */
const SHOWN: readonly { name: string; args: readonly string[]; ours: RegExp; c: RegExp }[] = [
  { name: '-h', args: ['-h'], ours: /^Usage: .*--pidfile/s, c: /^Usage: .*--pidfile/s },
  { name: '--help', args: ['--help'], ours: /^Usage: .*--socket/s, c: /^Usage: .*--socket/s },
  { name: '-V', args: ['-V'], ours: /^passel-pr-helper \d/, c: /qemu-pr-helper \d/ },
  { name: 'an abbreviation', args: ['--vers'], ours: /^passel-pr-helper \d/, c: /qemu-pr-helper \d/ },
  { name: 'a bundle', args: ['-qvV'], ours: /^passel-pr-helper \d/, c: /qemu-pr-helper \d/ },
  {
    name: 'behind an abbreviation with a value',
    args: ['--so', '/x', '--pid=/y', '-V'],
    ours: /^passel-pr/,
    c: /qemu-pr-helper/,
  },
  { name: '-T help', args: ['-T', 'help'], ours: /^$/, c: /^qcrypto/m },
];

describeSuite('a command line', () => {
  describe.each<ProgramName>(['ours', 'c'])('of %s', (name) => {
    it.each(REFUSED)('is refused: $name', async ({ args, says }) => {
      const { status, stderr, stdout } = await run(
        name,
        args.map((word) => word.replace('%', folder)),
      );
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
      expect(stderr).toMatch(says);
      expect(stderr).toContain(name === 'ours' ? 'passel-pr-helper: ' : 'qemu-pr-helper: ');
    });

    it.each(SHOWN)('shows: $name', async ({ args, ...expected }) => {
      const { status, stdout, stderr } = await run(name, args);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(stdout).toMatch(expected[name]);
    });

    it.each([
      ['operands', ['one', 'two']],
      ['all that is said less and more', ['-qv', '--verb', '--quiet']],
      ['trace events that there are none of', ['-T', 'no_such_event', '-q']],
    ])('serves with %s', async (_what, args) => {
      const helper = await start(name, args);
      expect(await helper.end()).toBe(0);
    });

    it.each([
      [0o022, 0o755],
      [0o000, 0o777],
      [0o077, 0o700],
    ])('with umask %o makes a socket of mode %o', async (mask, mode) => {
      await start(name, [], ['sh', '-c', `umask ${mask.toString(8)}; exec "$0" "$@"`]);
      expect(statSync(socket).mode & 0o777).toBe(mode);
    });

    it('takes the place of a socket that nobody serves any more', async () => {
      const killed = await start(name);
      expect(await killed.end('SIGKILL')).toBe(137);
      expect(existsSync(socket)).toBe(true);
      const next = await start(name);
      expect(await next.end()).toBe(0);
      expect(existsSync(socket)).toBe(false);
    });

    it('writes a PID file for its own eyes, locks it, and leaves it', async () => {
      const pidFile = join(folder, 'pid');
      writeFileSync(pidFile, 'what was here before, and is longer\n');
      const helper = await start(name, ['-f', pidFile]);
      expect(readFileSync(pidFile, 'utf8')).toBe(`${helper.pid}\n`);
      const other = await run(name, ['-k', join(folder, 'other.sock'), '-f', pidFile]);
      expect(other.status).toBe(1);
      expect(other.stderr).toMatch(/lock/);
      expect(readFileSync(pidFile, 'utf8')).toBe(`${helper.pid}\n`);
      expect(await helper.end()).toBe(0);
      expect(readFileSync(pidFile, 'utf8')).toBe(`${helper.pid}\n`);
      const next = await start(name, ['-f', join(folder, 'new')]);
      expect(statSync(join(folder, 'new')).mode & 0o777).toBe(0o600);
      expect(await next.end()).toBe(0);
    });

    it('goes to the background with its socket there already', async () => {
      const pidFile = join(folder, 'pid');
      const { status, stderr } = await run(name, ['-d', '-k', socket, '-f', pidFile]);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(existsSync(socket)).toBe(true);
      await waitUntil('an answer', () => answers(socket), PATIENCE_MS);
      await waitUntil('the PID file', () => readFileSync(pidFile, 'utf8').endsWith('\n'), PATIENCE_MS);
      process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGTERM');
      await waitUntil('its end', () => !existsSync(socket), PATIENCE_MS);
    });

    it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('ends on %s with clients idle and half way', async (signal) => {
      const helper = await start(name);
      const idle = await Wire.open(socket);
      const half = await Wire.open(socket);
      half.send({ bytes: Buffer.from([0x5e, 0]) });
      expect(await helper.end(signal)).toBe(0);
      expect(await idle.receive(1)).toBe(undefined);
      expect(await half.receive(1)).toBe(undefined);
      for (const wire of [idle, half]) wire.close();
      expect(existsSync(socket)).toBe(false);
    });

    it('does not end on SIGPIPE', async () => {
      const helper = await start(name);
      helper.child.kill('SIGPIPE');
      expect(await answers(socket)).toBe(true);
      expect(await helper.end()).toBe(0);
    });

    it('becomes another user, with one capability and no groups', async () => {
      const helper = await start(name, ['-u', 'nobody', '-g', '4243'], ['setpriv', '--groups', '1,2']);
      const status = readFileSync(`/proc/${helper.pid}/status`, 'latin1');
      expect(status).toMatch(/^Uid:\t65534\t65534\t65534\t65534$/m);
      expect(status).toMatch(/^Gid:\t4243\t4243\t4243\t4243$/m);
      expect(status).toMatch(/^Groups:\s*$/m);
      expect(status).toMatch(/^CapPrm:\t0000000000020000$/m);
      expect(status).toMatch(/^CapEff:\t0000000000020000$/m);
      expect(status).toMatch(/^CapBnd:\t0000000000000000$/m);
      expect(await helper.end()).toBe(0);
    });

    it('does not start as an ordinary user, and says why', async () => {
      const user = ['setpriv', '--reuid', '4242', '--regid', '4242', '--clear-groups'];
      const { status, stderr } = await run(name, ['-k', socket], user);
      expect(status).toBe(1);
      expect(stderr).toMatch(/drop privileges/);
    });

    it('serves a socket that was opened for it, and leaves it', async () => {
      const helper = activate(name, [], '$$', '1', listen());
      await waitUntil('an answer', () => answers(socket), PATIENCE_MS);
      expect(await helper.end()).toBe(0);
      expect(existsSync(socket)).toBe(true);
    });

    it.each([
      ['another process is meant', '1', '1'],
      ['no process is meant', '', '1'],
      ['no sockets are', '$$', '0'],
      ['what is no number', '$$', 'x'],
    ])('listens by itself when %s', async (_what, pid, count) => {
      const helper = activate(name, ['-k', socket], pid, count, 'ignore');
      await waitUntil(`an answer: ${helper.stderr()}`, () => answers(socket), PATIENCE_MS);
      expect(await helper.end()).toBe(0);
      expect(existsSync(socket)).toBe(false);
    });

    it('takes no socket of its own beside one that was opened for it', async () => {
      const helper = activate(name, ['-k', join(folder, 'own')], '$$', '1', listen());
      expect(await waitForExit(helper.child)).toBe(1);
      await waitUntil('what it says', () => /socket.*activation/is.test(helper.stderr()), PATIENCE_MS);
      expect(existsSync(join(folder, 'own'))).toBe(false);
    });

    it.each([
      ['a file', '1'],
      ['two sockets', '2'],
    ])('refuses to be started with %s', async (what, count) => {
      let fd: number;
      if (what === 'a file') {
        fd = openSync('/dev/null', 'r+');
        fds.push(fd);
      } else fd = listen();
      const helper = activate(name, [], '$$', count, fd);
      expect(await waitForExit(helper.child)).toBe(1);
      await waitUntil('what it says', () => /activation|LISTEN_FDS/i.test(helper.stderr()), PATIENCE_MS);
    });
  });
});

interface Different {
  readonly name: string;
  readonly why: string;
  act(name: ProgramName): Promise<unknown>;
  readonly ours: unknown;
  readonly c: unknown;
}

/** A second helper on the path of the first: its end, or that it serves. */
async function startSecond(name: ProgramName): Promise<string> {
  // An inode that was freed may be used again at once: its time tells.
  const identify = (): string => {
    const found = statSync(socket, { bigint: true, throwIfNoEntry: false });
    return found === undefined ? 'none' : `${found.ino} ${found.ctimeNs} ${found.isSocket()}`;
  };
  const before = identify();
  const isOther = (): boolean => existsSync(socket) && identify() !== before;
  const child = spawn(PROGRAMS[name], ['-k', socket], { stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(child);
  await waitUntil('the second to take over or to end', () => child.exitCode !== null || isOther(), PATIENCE_MS);
  return child.exitCode === null ? 'takes its place' : `ends with ${child.exitCode}`;
}

const DIFFERENT: readonly Different[] = [
  {
    name: 'a socket that is served',
    why: 'guests of the first would lose their reservations without a word',
    async act(name) {
      await start(name);
      return startSecond(name);
    },
    ours: 'ends with 1',
    c: 'takes its place',
  },
  {
    name: 'a file at the path of the socket',
    why: 'a mistyped path must not delete what is there',
    async act(name) {
      writeFileSync(socket, 'precious');
      return startSecond(name);
    },
    ours: 'ends with 1',
    c: 'takes its place',
  },
  {
    name: 'a PID file that cannot be, in the background',
    why: 'whoever starts a daemon learns whether it runs',
    act: async (name) => (await run(name, ['-d', '-k', socket, '-f', join(folder, 'no/pid')])).status,
    ours: 1,
    c: 0,
  },
  {
    name: 'the socket of a helper that became another user',
    why: 'both leave it and say so; ours in the words of the system call',
    async act(name) {
      const helper = await start(name, ['-u', '4242']);
      chmodSync(folder, 0o755);
      const status = await helper.end();
      return `${status}: ${helper.stderr().replaceAll(folder, '').trim()}`;
    },
    ours: expect.stringMatching(/^0: .*the socket stays behind: EACCES/),
    c: expect.stringMatching(/^0: .*Failed to unlink socket \/pr\.sock: Permission denied/),
  },
  {
    name: 'the socket of such a helper in a directory of root',
    why: 'what an end leaves behind looks like a helper that serves',
    async act(name) {
      chmodSync(folder, 0o755);
      const helper = await start(name, ['-u', '4242']);
      const status = await helper.end();
      return `${status}: ${existsSync(socket) ? 'left' : 'removed'}${helper.stderr() === '' ? '' : ' with a message'}`;
    },
    ours: '0: removed',
    c: '0: left with a message',
  },
  {
    name: 'a socket of 108 bytes',
    why: 'its name would have no terminating zero, which most programs cannot connect to',
    async act(name) {
      const path = join(folder, 'x'.repeat(107 - folder.length));
      rmSync(path, { force: true });
      const child = spawn(PROGRAMS[name], ['-k', path], { stdio: ['ignore', 'ignore', 'pipe'] });
      children.push(child);
      await waitUntil('a socket, or an end', () => child.exitCode !== null || existsSync(path), PATIENCE_MS);
      return child.exitCode === null ? 'listens' : `ends with ${child.exitCode}`;
    },
    ours: 'ends with 1',
    c: 'listens',
  },
  {
    name: 'an ordinary user with CAP_SYS_RAWIO alone',
    why: 'it has all that is needed',
    async act(name) {
      const user = ['setpriv', '--reuid', '4242', '--regid', '4242', '--clear-groups'];
      const rights = ['--inh-caps', '-all,+sys_rawio', '--ambient-caps', '-all,+sys_rawio'];
      return start(name, [], [...user, ...rights]).then(
        () => 'serves',
        () => 'ends',
      );
    },
    ours: 'serves',
    c: 'ends',
  },
  {
    name: 'no_new_privs and a filter of system calls',
    why: 'a process with CAP_SYS_RAWIO should be able to do nothing else',
    async act(name) {
      const { pid } = await start(name);
      const status = readFileSync(`/proc/${pid}/status`, 'latin1');
      return [/^NoNewPrivs:\t(.*)$/m, /^Seccomp:\t(.*)$/m].map((field) => field.exec(status)![1]);
    },
    ours: ['1', '2'],
    c: ['0', '0'],
  },
  {
    name: 'options of ours',
    why: 'they are extensions',
    act: async (name) => (await run(name, ['--socket-mode', '0660', '--allow-device', '8:*', '-V'])).status,
    ours: 0,
    c: 1,
  },
];

describeSuite('the two helpers differ in', () => {
  it.each(DIFFERENT)('$name: $why', async ({ act, ours, c }) => {
    expect(await act('c')).toEqual(c);
    for (const child of children.splice(0)) {
      child.kill('SIGKILL');
      await waitForExit(child);
    }
    rmSync(socket, { force: true });
    chmodSync(folder, 0o777);
    expect(await act('ours')).toEqual(ours);
  });
});
