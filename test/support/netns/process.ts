/**
 * Running a program to its end from a test: output collected, a time limit, and an error that carries what the program
 * said. Everything is ended by the pid we started, never by name.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { constants } from 'node:os';

/** How a program ended and what it wrote. `status` is the exit status, or 128 + signal number as shells report it. */
export interface RunResult {
  status: number;
  stdout: string;
  stderr: string;
}

/** Options of {@link runProcess}. */
export interface RunOptions {
  /** Working directory; the caller's by default. */
  cwd?: string;
  /** Variables added to the caller's environment. */
  env?: Record<string, string>;
  /** Written to standard input, which is then closed. */
  input?: string | Buffer;
  /** SIGKILL after this many milliseconds; 30 000 by default. */
  timeoutMs?: number;
  /** When true (the default) a status other than 0 rejects with {@link RunError}. */
  check?: boolean;
}

/** A program ended with a status other than 0, or ran out of time. */
export class RunError extends Error {
  declare readonly result: RunResult;

  constructor(commandLine: string, result: RunResult, timedOut: boolean) {
    const how = timedOut ? 'was stopped at its time limit' : `ended with status ${result.status}`;
    super(`${commandLine} ${how}\n${result.stderr}${result.stdout}`.trimEnd());
    this.name = 'RunError';
    // Not enumerable: the message shows it already.
    Object.defineProperty(this, 'result', { value: result });
  }
}

/** Exit status as a shell would show it, from the two values of Node's `exit` event. */
export function exitStatus(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

/** Runs `command` to its end and collects its output as UTF-8. */
export function runProcess(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = 30_000, check = true } = options;
  return new Promise((resolve, reject) => {
    const spawnOptions: SpawnOptions = { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...options.env } };
    if (options.cwd !== undefined) spawnOptions.cwd = options.cwd;
    const child = spawn(command, args, spawnOptions);
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
    // A program may end without reading its input; that is its business, and shows in its status.
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const result: RunResult = {
        status: exitStatus(code, signal),
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
      };
      if (check && (result.status !== 0 || timedOut)) {
        reject(new RunError([command, ...args].join(' '), result, timedOut));
      } else {
        resolve(result);
      }
    });
  });
}

/** Resolves with the exit status when `child` has ended, at once if it already has. */
export function waitForExit(child: ChildProcess): Promise<number> {
  if (child.exitCode !== null || child.signalCode !== null) {
    return Promise.resolve(exitStatus(child.exitCode, child.signalCode));
  }
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(exitStatus(code, signal)));
  });
}

/**
 * Ends a child we started: SIGTERM, then SIGKILL if it is still there after `graceMs`.
 * @returns its exit status
 */
export async function stopChild(child: ChildProcess, graceMs = 3_000): Promise<number> {
  if (child.pid === undefined) return -1;
  const ended = waitForExit(child);
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
  const status = await ended;
  clearTimeout(timer);
  return status;
}

/** Polls `condition` until it is true; rejects with `what` after `timeoutMs`. */
export async function waitUntil(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 5_000,
  intervalMs = 20,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`timed out after ${timeoutMs} ms waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
