/**
 * Network namespaces for tests.
 *
 * A namespace lives as long as a small process in it, the holder: `unshare … sh`, which waits on a pipe from us.
 * No name under /run/netns, no root needed (an ordinary user gets one user namespace that owns all of them), and when the
 * test runner dies, even by SIGKILL, the pipe closes, the holder ends what still runs inside and the kernel frees everything.
 *
 * Every namespace has its own mount namespace too, so that a test can put its own file over /etc/resolv.conf.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import type { Socket } from 'node:net';
import { type RunOptions, type RunResult, runProcess, stopChild, waitForExit } from './process.ts';

export { type RunOptions, type RunResult, stopChild, waitForExit, waitUntil } from './process.ts';

/** A network (and mount) namespace that exists until {@link Namespace.close}. */
export interface Namespace {
  /** For messages only; the kernel does not know it. */
  readonly name: string;
  /** The holder's pid: `/proc/PID/ns/net` is the namespace. */
  readonly pid: number;
  /** Command and arguments that run `args` inside, for spawning by other means. */
  enter(command: string, args: readonly string[], cwd?: string): [string, string[]];
  /** Runs a program inside to its end. */
  run(command: string, args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Runs a shell script inside to its end. */
  sh(script: string, options?: RunOptions): Promise<RunResult>;
  /** Starts a program inside; it is ended by {@link Namespace.close} at the latest. The child's pid is the program's. */
  spawn(command: string, args: readonly string[], options?: SpawnOptions): ChildProcess;
  /** Pids of all processes in this network namespace except the holder: what a test left behind. */
  processes(): number[];
  /** Ends what still runs inside, and the namespace. */
  close(): Promise<void>;
}

interface Holder {
  child: ChildProcess;
  pid: number;
}

const IS_ROOT = process.getuid?.() === 0;

let userHolder: Promise<Holder> | undefined;

/** Starts `command`, which must print a line once it is in its namespaces and then wait for its stdin to close. */
function startHolder(command: string, args: string[]): Promise<Holder> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.on('error', reject);
    child.once('exit', () => reject(new Error(`a namespace could not be created: ${stderr.trim()}`)));
    child.stdout.once('data', () => {
      child.removeAllListeners('exit');
      // The runner may finish while a holder waits; the closing pipe ends the holder.
      child.unref();
      for (const pipe of [child.stdin, child.stdout, child.stderr]) (pipe as unknown as Socket).unref();
      resolve({ child, pid: child.pid as number });
    });
  });
}

/** The user namespace that owns every namespace of an ordinary user, so that a veth can join two of them. */
function getUserHolder(): Promise<Holder> {
  userHolder ??= startHolder('unshare', ['-U', '-r', '--', 'sh', '-c', 'echo ready; exec cat']);
  return userHolder;
}

async function getUserPrefix(): Promise<string[]> {
  if (IS_ROOT) return [];
  const holder = await getUserHolder();
  return ['nsenter', '-t', String(holder.pid), '-U', '--preserve-credentials', '--'];
}

/** In the holder, when our end of its pipe closes without {@link Namespace.close}: the runner died, others must not stay. */
const END_THE_REST = `while read -r line; do :; done
own=$(readlink /proc/self/ns/net)
for pid in $(ls -l /proc/[0-9]*/ns/net 2> /dev/null | grep -F "$own" | sed 's#.*/proc/\\([0-9]*\\)/ns/net.*#\\1#'); do
  [ $pid = $$ ] || kill -9 $pid 2> /dev/null
done`;

/** Creates an empty namespace with loopback up. Duplicate address detection is off: a test's addresses work at once. */
export async function createNamespace(name: string): Promise<Namespace> {
  const prefix = await getUserPrefix();
  const script = [
    'ip link set lo up',
    'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad',
    'echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad',
    'echo ready',
    END_THE_REST,
  ].join('\n');
  const line = [...prefix, 'unshare', '-n', '-m', '--', 'sh', '-c', script];
  const holder = await startHolder(line[0] as string, line.slice(1));
  const netId = readlinkSync(`/proc/${holder.pid}/ns/net`);
  const children = new Set<ChildProcess>();

  const enter = (command: string, args: readonly string[], cwd = process.cwd()): [string, string[]] => {
    const options = ['-t', String(holder.pid), '-n', '-m', `--wd=${cwd}`];
    if (!IS_ROOT) options.push('-U', '--preserve-credentials');
    return ['nsenter', [...options, '--', command, ...args]];
  };
  const run = (command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> => {
    const [program, programArgs] = enter(command, args, options.cwd);
    return runProcess(program, programArgs, options);
  };
  const processes = (): number[] => listProcesses().filter((pid) => pid !== holder.pid && readNetId(pid) === netId);

  return {
    name,
    pid: holder.pid,
    enter,
    run,
    sh: (shellScript, options) => run('sh', ['-e', '-c', shellScript], options),
    spawn(command, args, options = {}) {
      const [program, programArgs] = enter(command, args, options.cwd?.toString());
      const child = spawn(program, programArgs, options);
      children.add(child);
      child.once('exit', () => children.delete(child));
      return child;
    },
    processes,
    async close() {
      await Promise.all([...children].map((child) => stopChild(child)));
      for (const pid of processes()) killQuietly(pid);
      holder.child.ref();
      holder.child.kill('SIGKILL');
      await waitForExit(holder.child);
    },
  };
}

function listProcesses(): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid > 0);
}

function readNetId(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    // Gone meanwhile, or not ours to look at.
    return '';
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

/** One end of a veth pair. */
export interface VethEnd {
  /** Interface name, at most 15 characters. */
  name: string;
  /** Addresses with prefix length, IPv4 and IPv6 mixed. */
  addresses?: readonly string[];
  /** Link-layer address. */
  mac?: string;
  /** MTU in bytes; the kernel's default, 1500, when absent. */
  mtu?: number;
}

/** Joins two namespaces by a veth pair, sets addresses, brings both ends up. */
export async function linkVeth(a: Namespace, b: Namespace, ends: { a: VethEnd; b: VethEnd }): Promise<void> {
  await a.sh(`ip link add ${ends.a.name} type veth peer name ${ends.b.name} netns ${b.pid}`);
  await Promise.all([configureLink(a, ends.a), configureLink(b, ends.b)]);
}

/** Sets addresses, MAC and MTU of an existing interface and brings it up. */
export async function configureLink(namespace: Namespace, end: VethEnd): Promise<void> {
  const lines: string[] = [];
  if (end.mac !== undefined) lines.push(`ip link set ${end.name} address ${end.mac}`);
  if (end.mtu !== undefined) lines.push(`ip link set ${end.name} mtu ${end.mtu}`);
  for (const address of end.addresses ?? []) {
    lines.push(`ip addr add ${address} dev ${end.name}${address.includes(':') ? ' nodad' : ''}`);
  }
  lines.push(`ip link set ${end.name} up`);
  await namespace.sh(lines.join('\n'));
}
