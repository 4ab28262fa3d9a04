/** What the helper is as a process: privileges of every thread, inherited sockets, the PID file. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { loadNative } from '../../../../src/sys/native.ts';
import { listenUnix } from '../../../../src/sys/unix-socket.ts';
import { READ_KEYS, REGISTER, reserveIn, reserveOut } from './commands.ts';
import { Connection } from './connection.ts';
import { HelperProcess } from './helper-process.ts';
import { createLioDisk } from './lio.ts';
import { describeReply } from './transcript.ts';

/** What one thread may do: lines of proc_pid_status(5). */
export type ThreadStatus = Record<string, string>;

/** What {@link inspectProcesses} found. */
export interface ProcessReport {
  /** By the user that the helper was told to become. */
  privileges: Record<'root' | 'nobody', { threads: ThreadStatus[]; results: string[]; end: string }>;
  activation: { result: string; end: string; socketLeft: boolean };
  /** For each set of rules, what a question about the first and the second disk gave, and a change of the first. */
  rules: Record<'allowed' | 'denied' | 'both' | 'none', string[]>;
  pidFile: {
    content: string;
    pid: number;
    mode: string;
    second: { status: number | null; words: string };
    after: string;
  };
}

const FIELDS = ['Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp'];

/** Runs `program` in the ways that the report names. */
export async function inspectProcesses(program: string): Promise<ProcessReport> {
  const disk = await createLioDisk(2);
  const fd = openSync(disk.nexuses[0]!.disk, 'r+');
  const useOnce = async (connection: Connection): Promise<string[]> => {
    const commands = [reserveOut(REGISTER, { actionKey: 1 }), reserveIn(READ_KEYS), reserveOut(REGISTER, { key: 1 })];
    const results: string[] = [];
    for (const command of commands) results.push(describeReply(command, await connection.request(command, fd)));
    return results;
  };
  const inspect = async (...options: string[]): Promise<ProcessReport['privileges']['root']> => {
    const helper = await HelperProcess.start(program, ...options);
    const connection = await helper.connect();
    // Several at once first, so that threads for requests, if it makes any, are there to be looked at.
    const others = await Promise.all(Array.from({ length: 8 }, () => helper.connect()));
    await Promise.all(others.map((other) => other.request(reserveIn(READ_KEYS), fd)));
    const results = await useOnce(connection);
    const threads = readThreads(helper.pid);
    return { threads, results, end: await helper.stop() };
  };
  const privileges = { root: await inspect(), nobody: await inspect('-u', 'nobody', '-g', 'nogroup') };
  const activation = await activate(program, async (connection) => (await useOnce(connection)).join(', '));
  closeSync(fd);
  const [one, two] = disk.nexuses.map((nexus) => nexus.disk) as [string, string];
  // 16 disks have one number, the next ones another.
  const majors = [one, two].flatMap((path) => ['--allow-device', `${readMajor(path)}:*`]);
  const rules = {
    allowed: await applyRules(program, [one, two], ['--allow-device', one]),
    denied: await applyRules(program, [one, two], ['--deny-device', one]),
    both: await applyRules(program, [one, two], [...majors, '--deny-device', two, '-u', 'nobody']),
    none: await applyRules(program, [one, two], []),
  };
  return { privileges, activation, rules, pidFile: await writePidFile(program) };
}

function readMajor(disk: string): string {
  return readFileSync(`/sys/block/${basename(disk)}/dev`, 'utf8').split(':')[0]!;
}

async function applyRules(program: string, disks: readonly [string, string], options: string[]): Promise<string[]> {
  const helper = await HelperProcess.start(program, ...options);
  const connection = await helper.connect();
  const results: string[] = [];
  const fds = disks.map((disk) => openSync(disk, 'r+'));
  const key = { actionKey: 1 };
  for (const [command, fd] of [
    [reserveIn(READ_KEYS), fds[0]!],
    [reserveIn(READ_KEYS), fds[1]!],
    [reserveOut(REGISTER, key), fds[0]!],
  ] as const) {
    results.push(describeReply(command, await connection.request(command, fd)));
  }
  await connection.request(reserveOut(REGISTER, { key: 1 }), fds[0]!);
  for (const fd of fds) closeSync(fd);
  await helper.stop();
  return results;
}

function readThreads(pid: number): ThreadStatus[] {
  return readdirSync(`/proc/${pid}/task`).map((task) => {
    const status: ThreadStatus = {};
    for (const line of readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8').split('\n')) {
      const [name, value] = line.split(':');
      if (FIELDS.includes(name!)) status[name!] = value!.trim().replaceAll('\t', ' ');
    }
    return status;
  });
}

/** As systemd starts it from a socket unit: fd 3, LISTEN_FDS, LISTEN_PID. */
async function activate(
  program: string,
  use: (connection: Connection) => Promise<string>,
): Promise<ProcessReport['activation']> {
  const path = '/run/activated.sock';
  const native = loadNative();
  const listener = listenUnix(native, path);
  const child = spawn('sh', ['-c', 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0"', program], {
    stdio: ['ignore', 'inherit', 'inherit', listener],
  });
  native.close(listener);
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(code === null ? String(signal) : `status ${code}`));
  });
  // The connection waits in the queue of the socket until the helper is up, as systemd's clients do.
  const result = await use(await Connection.open(path));
  child.kill('SIGTERM');
  const end = await ended;
  const socketLeft = existsSync(path);
  rmSync(path, { force: true });
  return { result, end, socketLeft };
}

async function writePidFile(program: string): Promise<ProcessReport['pidFile']> {
  const path = '/run/helper.pid';
  const helper = await HelperProcess.start(program, '-f', path);
  (await helper.connect()).close();
  const content = readFileSync(path, 'utf8');
  const mode = spawnSync('stat', ['-c', '%a', path], { encoding: 'utf8' }).stdout.trim();
  const second = spawnSync(program, ['-k', '/run/second.sock', '-f', path], { encoding: 'utf8', timeout: 20_000 });
  await helper.stop();
  const after = existsSync(path) ? 'left' : 'removed';
  return { content, pid: helper.pid, mode, second: { status: second.status, words: second.stderr.trim() }, after };
}
