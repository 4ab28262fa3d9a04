/**
 * A pasta with a guest namespace that it made, running `cat` in it until the test is done:
 *
 *     wan ── veth ── host: pasta, as an ordinary user ── tap ── guest
 *
 * The namespaces of host and wan are those of netns/host.ts and outlive a pasta: starting one takes a fraction of the time.
 */
import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type RunOptions, type RunResult, stopChild, waitForExit, waitUntil } from './netns/process.ts';
import { awaitEcho, type Guest, type PastaHost } from './pasta-host.ts';
import { pastaCommand } from './pasta-under-test.ts';
import { isDebianStack } from './stack-under-test.ts';

/** A pasta that runs. */
export interface Pasta {
  readonly child: ChildProcess;
  /** The namespace that it made. */
  readonly guest: Guest;
  /** What it wrote to stderr so far. */
  output(): string;
  /**
   * Ends the command in the guest; rejects unless pasta then ends with status 0 and leaves no process on the host.
   * Safe to call twice.
   */
  close(): Promise<void>;
}

/** Starts a pasta with `args` and a guest namespace of its own; resolves when a command runs in it. */
export async function startPasta(host: PastaHost, args: readonly string[] = ['--config-net']): Promise<Pasta> {
  const pasta = pastaCommand();
  const before = new Set(host.processes());
  const child = host.user.spawn(pasta.command, [...pasta.args, ...args, '--', ...patiently(args, ['cat'])], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const output = (): string => withoutSyslogNoise(stderr);
  try {
    await awaitEcho(child);
  } catch (error) {
    throw new Error(`${(error as Error).message}; it said:\n${output()}`);
  }
  const guest = host.adopt('guest', findCommand(child.pid as number, 'cat'));
  if (args.includes('--config-net')) {
    // A link-local address under duplicate address detection does not answer, nor ask, for the first seconds.
    const tentative = async (): Promise<string> => (await guest.sh('ip -6 addr show tentative')).stdout;
    await waitUntil('addresses to be usable', async () => (await tentative()) === '', 10_000, 100);
  }
  let closed = false;
  return {
    child,
    guest,
    output,
    close: async () => {
      if (closed) return;
      closed = true;
      child.stdin?.end();
      const timer = setTimeout(() => stopChild(child), 10_000);
      const status = await waitForExit(child);
      clearTimeout(timer);
      if (status !== 0) throw new Error(`pasta ended with status ${status}; it said:\n${output()}`);
      const left = (): number[] => host.processes().filter((process) => !before.has(process));
      await waitUntil('pasta to leave no process', () => left().length === 0, 5_000);
    },
  };
}

/** Runs `command` in a guest namespace that pasta makes with `args`, to its end. */
export async function runInPasta(
  host: PastaHost,
  args: readonly string[],
  command: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const pasta = pastaCommand();
  const line = [...pasta.args, ...args, ...(command.length > 0 ? ['--', ...patiently(args, command)] : [])];
  const result = await host.user.run(pasta.command, line, options);
  return { ...result, stderr: withoutSyslogNoise(result.stderr) };
}

/** A pasta in the background, which has joined a namespace that was there. */
export interface JoinedPasta {
  readonly pid: number;
  /** Where it wrote that. */
  readonly pidFile: string;
  /** What its launcher wrote to stderr. */
  readonly output: string;
  running(): boolean;
  /** Waits until it has ended by itself. */
  ended(timeoutMs?: number): Promise<void>;
  /** SIGTERM; rejects unless it ends and leaves no process on the host. Nothing to do when it has ended. */
  stop(): Promise<void>;
}

/**
 * Starts pasta with `args`, which name a namespace, and waits until its launcher has ended with status 0: that is when a caller
 * may rely on it. `at` is where it is started, as the ordinary user on the host by default.
 */
export async function joinPasta(
  host: PastaHost,
  args: readonly string[],
  at: Pick<Guest, 'run'> = host.user,
): Promise<JoinedPasta> {
  const pasta = pastaCommand();
  const before = new Set(host.processes());
  const pidFile = `${host.directory}/joined-${serial++}.pid`;
  const line = [...pasta.args, '--pid', pidFile, ...args];
  const { stderr } = await at.run(pasta.command, line, { timeoutMs: 15_000 });
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const running = (): boolean => readOrEmpty(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')) !== '';
  const left = (): number[] => host.processes().filter((process) => !before.has(process));
  const ended = async (timeoutMs = 10_000): Promise<void> => {
    await waitUntil('pasta to end', () => !running(), timeoutMs);
    await waitUntil('pasta to leave no process', () => left().length === 0, 5_000);
  };
  return {
    pid,
    pidFile,
    output: withoutSyslogNoise(stderr),
    running,
    ended,
    stop: async () => {
      if (running()) process.kill(pid, 'SIGTERM');
      await ended();
    },
  };
}

let serial = 0;

/** The command, which Debian's pasta may start too early, after a wait for an address. */
function patiently(args: readonly string[], command: readonly string[]): readonly string[] {
  if (!isDebianStack() || !args.includes('--config-net')) return command;
  const wait =
    'i=0; until ip -br addr show up scope global | grep -q . || [ $i = 60 ]; do sleep 0.05; i=$((i + 1)); done';
  return ['sh', '-c', `${wait}; exec "$@"`, 'sh', ...command];
}

/** Ports of a namespace with a TCP listener or an unconnected UDP socket, of either family. */
export function listeningPorts(namespace: Guest, protocol: 'tcp' | 'udp'): Set<number> {
  const ports = new Set<number>();
  for (const file of [protocol, `${protocol}6`]) {
    const lines = readOrEmpty(() => readFileSync(`/proc/${namespace.pid}/net/${file}`, 'utf8')).split('\n');
    for (const line of lines.slice(1)) {
      const [, local, , state] = line.trim().split(/\s+/);
      // States of a listener, and of a datagram socket without a peer.
      if (state === (protocol === 'tcp' ? '0A' : '07')) ports.add(Number.parseInt(local?.split(':')[1] ?? '', 16));
    }
  }
  return ports;
}

/** Debian's pasta says of each line that it could not also send it to a syslog that is not there. */
export function withoutSyslogNoise(text: string): string {
  return text.replace(/^Failed to send \d+ bytes to syslog\n/gm, '');
}

/** The descendant of `ancestor` that runs `name`: the guest's processes have other numbers inside than here. */
function findCommand(ancestor: number, name: string): number {
  const parents = new Map<number, number>();
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    const stat = readOrEmpty(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
    parents.set(pid, Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
  }
  const ownNetwork = readlinkSync(`/proc/${ancestor}/ns/net`);
  for (const pid of parents.keys()) {
    if (readOrEmpty(() => readFileSync(`/proc/${pid}/comm`, 'utf8')).trim() !== name) continue;
    if (readOrEmpty(() => readlinkSync(`/proc/${pid}/ns/net`)) === ownNetwork) continue;
    for (let up: number | undefined = pid; up !== undefined && up > 1; up = parents.get(up)) {
      if (up === ancestor) return pid;
    }
  }
  throw new Error(`no ${name} runs below process ${ancestor}`);
}

function readOrEmpty(read: () => string): string {
  try {
    return read();
  } catch {
    // It ended meanwhile.
    return '';
  }
}
