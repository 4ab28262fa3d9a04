/** A stack running in the foreground in a namespace, and what /proc says about it. */
import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { Namespace } from './netns/namespace.ts';
import { stopChild, waitForExit } from './netns/process.ts';
import type { StackCommand } from './stack-under-test.ts';

/** A running stack. */
export interface StackProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  /** All it wrote to stdout and stderr so far. */
  output(): string;
  /** Open file descriptors. */
  fdCount(): number;
  /** What the descriptors are, sorted, for the message of a failed leak check. */
  fdTargets(): string[];
  /** User and system time of all its threads, in seconds (10 ms steps). */
  cpuSeconds(): number;
  /** Resident set, bytes. */
  rssBytes(): number;
  /** The greatest resident set so far, bytes. */
  peakBytes(): number;
  /** False once it has ended. */
  running(): boolean;
  exited(): Promise<number>;
  /** SIGTERM, then SIGKILL after 3 s; resolves with the exit status. */
  stop(): Promise<number>;
}

/** Ticks of /proc/PID/stat per second: USER_HZ, 100 on every Linux that Node runs on (proc(5)). */
const TICKS_PER_SECOND = 100;

/** Starts `stack` in `namespace` with `args` after its own; `--foreground` is the caller's to give. */
export function startStack(
  namespace: Namespace,
  stack: Pick<StackCommand, 'command' | 'args'>,
  args: readonly string[],
): StackProcess {
  const child = namespace.spawn(stack.command, [...stack.args, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${stack.command} could not be started`);
  let output = '';
  const collect = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  child.stdout?.on('data', collect);
  child.stderr?.on('data', collect);
  return { child, pid, output: () => output, ...describeProcess(pid), ...lifeOf(child) };
}

/** The /proc readings of any process, such as a daemonised stack known by its PID file. */
export function describeProcess(
  pid: number,
): Pick<StackProcess, 'fdCount' | 'fdTargets' | 'cpuSeconds' | 'rssBytes' | 'peakBytes'> {
  const folder = `/proc/${pid}`;
  const readBytes = (name: string): number => {
    const status = readFileSync(`${folder}/status`, 'utf8');
    return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024;
  };
  return {
    fdCount: () => readdirSync(`${folder}/fd`).length,
    fdTargets: () =>
      readdirSync(`${folder}/fd`)
        .map((fd) => `${fd}: ${readTarget(`${folder}/fd/${fd}`)}`)
        .sort(),
    cpuSeconds: () => {
      const stat = readFileSync(`${folder}/stat`, 'utf8');
      // The command's name, in parentheses, may hold spaces.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
    },
    rssBytes: () => readBytes('VmRSS'),
    peakBytes: () => readBytes('VmHWM'),
  };
}

function lifeOf(child: ChildProcess): Pick<StackProcess, 'running' | 'exited' | 'stop'> {
  return {
    running: () => child.exitCode === null && child.signalCode === null,
    exited: () => waitForExit(child),
    stop: () => stopChild(child),
  };
}

function readTarget(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '(closed)';
  }
}
