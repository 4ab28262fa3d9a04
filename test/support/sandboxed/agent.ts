/**
 * A process that enters the sandbox as passel-passt does and then tries what its first argument names. Prints one line of JSON.
 *
 * `node agent.cjs ATTEMPT RAW_SYSCALL_ADDON SCRATCH_FOLDER inside|outside`
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { join } from 'node:path';
import { silentLogger } from '../../../src/base/logger.ts';
import { restartWithoutIoUring } from '../../../src/cli/io-uring.ts';
import { openLogger } from '../../../src/cli/logging.ts';
import { prepareSandbox, type Sandbox } from '../../../src/cli/sandbox.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { findCodeRange } from '../../../src/sys/sandbox.ts';
import { findArchitecture, type SyscallName } from '../../../src/sys/syscalls.ts';

const [attempt = '', addonPath = '', scratch = '', where] = process.argv.slice(2);
const rawCall = createRequire(__filename)(addonPath) as (...values: Array<number | Buffer>) => number;
const architecture = findArchitecture(process.arch)!;
const call = (name: SyscallName, ...values: Array<number | Buffer>): number =>
  rawCall(architecture.number(name) ?? -1, ...values);
const text = (value: string): Buffer => Buffer.from(`${value}\0`);
const answer = (value: unknown): void => {
  fs.writeSync(1, `${JSON.stringify(value)}\n`);
};
const codeOf = (step: () => unknown): string => {
  try {
    step();
    return 'possible';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
};

const AT_FDCWD = -100;
const PAGE = 4096;
const READ = 1;
const WRITE = 2;
const EXEC = 4;
const PRIVATE = 2;
const FIXED = 0x10;
const ANONYMOUS = 0x20;
const SIGCHLD = 17;

const removable = join(scratch, 'removable');
const other = join(scratch, 'other');

/** Opened before, as an executable does. */
const log = openLogger(
  'agent',
  { level: 'info', format: 'text', filePath: join(scratch, 'log'), fileMaxBytes: 2000 },
  () => {},
);
const codeRange = findCodeRange(fs.readFileSync('/proc/self/maps', 'latin1'))!;

/** Each answers with what came of it, by name. */
const ATTEMPTS: Readonly<Record<string, () => unknown>> = {
  files: () => ({
    read: codeOf(() => fs.readFileSync('/etc/passwd')),
    create: codeOf(() => fs.writeFileSync(join(scratch, 'new'), '')),
    list: codeOf(() => fs.readdirSync('/')),
    rename: codeOf(() => fs.renameSync(other, `${other}.new`)),
    link: codeOf(() => fs.symlinkSync(other, `${other}.new`)),
    mkdir: codeOf(() => fs.mkdirSync(join(scratch, 'folder'))),
    chmod: codeOf(() => fs.chmodSync(other, 0o777)),
    remove: codeOf(() => fs.unlinkSync(other)),
    removeAt: call('unlinkat', AT_FDCWD, text(other), 0),
    removeSealedByOtherPointer: call('unlinkat', sealedDir(), text('removable'), 0),
    removeFolder: codeOf(() => fs.rmdirSync(scratch)),
  }),
  processes: () => ({
    // Outside it would be possible, and a copy of this process on the loose.
    fork: where === 'inside' ? call('clone', SIGCHLD, 0, 0, 0, 0) : 0,
    clone3: call('clone3', Buffer.alloc(88), 88),
    signalParent: codeOf(() => process.kill(process.ppid, 0)),
    signalAll: where === 'inside' ? call('kill', -1, 0) : 0,
    signalSelf: codeOf(() => process.kill(process.pid, 0)),
    signalParentsThread: call('tgkill', process.ppid, process.ppid, 0),
    pidfd: loadNative().pidfdOpen(process.ppid),
  }),
  sockets: () => {
    const open = (family: number, type: number, protocol: number): number =>
      call('socket', family, type | 0x80000, protocol);
    const tcp = open(2, 1, 0);
    const value = Buffer.alloc(16);
    return {
      tcp4: tcp > 0,
      tcp6: open(10, 1 | 0x800, 6) > 0,
      udp4: open(2, 2, 0) > 0,
      udp6: open(10, 2, 17) > 0,
      unix: open(1, 1, 0),
      netlink: open(16, 3, 0),
      packet: open(17, 3, 0),
      alg: open(38, 5, 0),
      vsock: open(40, 1, 0),
      raw: open(2, 3, 1),
      raw6: open(10, 3, 58),
      sctp: open(2, 1, 132),
      mptcp: open(2, 1, 262),
      listen: call('listen', tcp, 1),
      noDelay: call('setsockopt', tcp, 6, 1, Buffer.from([1, 0, 0, 0]), 4),
      attachFilter: call('setsockopt', tcp, 1, 26, value, 16),
      upperProtocol: call('setsockopt', tcp, 6, 31, text('tls'), 3),
      otherLevel: call('setsockopt', tcp, 132, 1, value, 4),
      owner: call('fcntl', tcp, 8, process.ppid),
      terminalInput: call('ioctl', 0, 0x5412, value),
    };
  },
  memory: () => {
    const page = call('mmap', 0, PAGE, READ | WRITE, PRIVATE | ANONYMOUS, -1, 0);
    const code = Number(codeRange.start);
    // Inaccessible maps that have come to lie against the range since are part of it; so much of them there is not.
    const beyond = 2 ** 30;
    return {
      data: page > 0,
      readExecute: call('mmap', 0, PAGE, READ | EXEC, PRIVATE | ANONYMOUS, -1, 0),
      writeExecute: call('mmap', 0, PAGE, READ | WRITE | EXEC, PRIVATE | ANONYMOUS, -1, 0),
      makeExecutable: call('mprotect', page, PAGE, READ | EXEC),
      makeExecutableByKey: call('pkey_mprotect', page, PAGE, READ | EXEC, -1),
      // Outside it would succeed for what V8 has to write to, and end the process.
      ...(where === 'inside' && {
        makeExecutableOutOfCode: call('mprotect', code, Number(codeRange.end) - code + beyond, READ | EXEC),
        makeExecutableBeforeCode: call('mprotect', code - beyond, 2 * PAGE, READ | EXEC),
      }),
    };
  },
  sealed: () => {
    const page = sealedAddress();
    const anywhere = call('mmap', 0, PAGE, READ | WRITE, PRIVATE | ANONYMOUS, -1, 0);
    return {
      write: call('mprotect', page, PAGE, READ | WRITE),
      unmap: call('munmap', page, PAGE),
      unmapAround: call('munmap', page - 0x1_0000_0000, 0x2_0000_0000),
      unmapFromBefore: call('munmap', page - PAGE, 2 * PAGE),
      replace: call('mmap', page, PAGE, READ | WRITE, PRIVATE | ANONYMOUS | FIXED, -1, 0),
      replaceElsewhere: call('mmap', anywhere, PAGE, READ | WRITE, PRIVATE | ANONYMOUS | FIXED, -1, 0) === anywhere,
      unmapElsewhere: call('munmap', anywhere, PAGE),
      move: rawCall(process.arch === 'x64' ? 25 : 216, anywhere, PAGE, PAGE, 3, page),
      removed: removeSealed(),
    };
  },
  privileges: () => ({
    setuid: codeOf(() => process.setuid!(process.getuid!() === 0 ? 1 : 0)),
    capset: rawCall(process.arch === 'x64' ? 126 : 91, Buffer.alloc(8), Buffer.alloc(24)),
    prctl: loadNative().setDumpable(1),
    memfd: loadNative().memfdCreate('x', 1),
    ioUring: rawCall(425, 8, Buffer.alloc(120)),
    hostname: rawCall(process.arch === 'x64' ? 170 : 161, text('x'), 1),
  }),
  execve: () => call('execve', text('/bin/true'), 0, 0),
  execveat: () => call('execveat', AT_FDCWD, text('/bin/true'), 0, 0, 0),
  ptrace: () => call('ptrace', 16, process.ppid, 0, 0),
  process_vm_writev: () => call('process_vm_writev', process.ppid, 0, 0, 0, 0, 0),
  mount: () => call('mount', text('x'), text('/'), text('tmpfs'), 0, 0),
  unshare: () => call('unshare', 0x1000_0000),
  setns: () => call('setns', 0, 0),
  bpf: () => call('bpf', 0, Buffer.alloc(64), 64),
  init_module: () => call('init_module', Buffer.alloc(8), 8, text('')),
  chroot: () => call('chroot', text('/')),
  'foreign ABI': () => rawCall(0x4000_0000 + 39),
};

/** Asynchronous ones, and those that end the process. */
const LIVES: Readonly<Record<string, () => Promise<unknown> | undefined>> = {
  spawn: () =>
    new Promise((resolve) => {
      try {
        spawn('/bin/true').on('error', (error: NodeJS.ErrnoException) => resolve(error.code));
      } catch (error) {
        resolve((error as NodeJS.ErrnoException).code);
      }
    }),
  life: async () => {
    const timer = await new Promise((resolve) => setTimeout(resolve, 20, 'timer'));
    const signal = await new Promise((resolve) => {
      process.once('SIGUSR2', resolve);
      process.kill(process.pid, 'SIGUSR2');
    });
    process.kill(process.pid, 'SIGUSR1');
    const pooled = await new Promise((resolve) => fs.fstat(1, (error) => resolve(error === null)));
    const refused = await new Promise((resolve) =>
      connect({ port: 1, host: '127.0.0.1' }).on('error', (error: NodeJS.ErrnoException) => resolve(error.code)),
    );
    for (let i = 0; i < 200; i++) log.info(`line ${i} of a log that is longer than its file may be`);
    const bytes = randomBytes(100_000).length;
    const date = new Date(0).toLocaleString('en-GB', { timeZone: 'UTC' });
    return { timer, signal, pooled, refused, bytes, date, garbage: collectGarbage(1500) };
  },
  exit: () => process.exit(42),
  crash: () => {
    throw new Error('as expected');
  },
  abort: () => process.abort(),
};

/** @returns the file's link count afterwards, which an fd from before shows */
function removeSealed(): number {
  box?.remove(removable);
  return fs.fstatSync(removableFd).nlink;
}

/** Objects of all sizes and functions that get hot, so that V8 moves, frees, compiles and throws code away. */
function collectGarbage(forMs: number): boolean {
  const end = performance.now() + forMs;
  let kept: unknown[] = [];
  // So many that their code fills several of V8's units.
  const functions: unknown[] = [];
  let sum = 0;
  for (let round = 0; performance.now() < end; round++) {
    const hot = new Function('n', `let s=${round}; for (let i = 0; i < n; i++) s = (s * 31 + i) | 0; return s`) as (
      n: number,
    ) => number;
    sum += hot(20_000);
    functions.push(hot);
    if (functions.length > 3000) functions.length = 0;
    kept.push(
      new Uint8Array(1 << (round % 22)),
      Array.from({ length: 500 }, (_, i) => ({ i, text: `${round}:${i}` })),
    );
    if (/(\d+)-(?<x>[a-z]*)/.test(`${sum}-${'abc'.repeat(round % 50)}`) && round % 64 === 0) kept = [];
  }
  return Number.isInteger(sum);
}

/** Where the addon puts the first name that may still be removed. */
function sealedAddress(): number {
  return 0x5000_0000_0000;
}

/** The descriptor by which the sandbox holds the folder of the removable file. */
function sealedDir(): number {
  for (let fd = 3; fd < 64; fd++) {
    try {
      if (fs.fstatSync(fd).ino === scratchInode) return fd;
    } catch {
      // Not open.
    }
  }
  return -1;
}

async function main(): Promise<void> {
  // Waiting for a signal alone keeps no process alive.
  const alive = setInterval(() => {}, 1000);
  fs.writeFileSync(removable, '');
  fs.writeFileSync(other, '');
  removableFd = fs.openSync(removable, 'r');
  if (where === 'inside') {
    restartWithoutIoUring(undefined);
    box = await prepareSandbox({ removable: [removable], changesUser: false, mayListen: false, log: silentLogger });
    box.enter();
  }
  const result = await (ATTEMPTS[attempt] ?? LIVES[attempt])?.();
  answer(result ?? null);
  log.close();
  clearInterval(alive);
}

let box: Sandbox | undefined;
let removableFd = -1;
const scratchInode = fs.statSync(scratch).ino;
void main();
