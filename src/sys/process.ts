/**
 * Starting programs where Node's child_process cannot: in other namespaces, with any descriptor at any number, or in place of this
 * process.
 */
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import { checkStatus, createSystemError } from './errors.ts';
import type { ExecRequest, NativeAddon, PollHandle } from './native-addon.ts';

export const CLONE_NEWNS = 0x0002_0000;
export const CLONE_NEWUTS = 0x0400_0000;
export const CLONE_NEWIPC = 0x0800_0000;
export const CLONE_NEWUSER = 0x1000_0000;
export const CLONE_NEWPID = 0x2000_0000;
export const CLONE_NEWNET = 0x4000_0000;

/** What a child was about when it failed, by the number that the addon gives. */
export const EXEC_STEPS = [
  'none',
  'fork',
  'join namespace',
  'make user namespace',
  'write id maps',
  'make namespaces',
  'place descriptors',
  'change directory',
  'execute',
] as const;

export type ExecStep = (typeof EXEC_STEPS)[number];

/** A program could not be started. */
export interface ExecError extends NodeJS.ErrnoException {
  readonly step: ExecStep;
}

/** How a child ended: one of the two is null, as in Node's `exit` event. */
export interface ChildEnd {
  readonly exitStatus: number | null;
  readonly signalNumber: number | null;
}

export interface Child {
  readonly pid: number;
  /** Resolves when the child has ended and been waited for; its pid may mean another process from then on. */
  readonly ended: Promise<ChildEnd>;
}

/**
 * Starts a program with {@link ExecRequest}'s powers. The child is watched through Node's loop, which it keeps alive.
 * @throws ExecError
 */
export function startProgram(native: NativeAddon, request: ExecRequest): Child {
  const step = new Int32Array(1);
  const pid = native.forkExec(request, step);
  if (pid < 0) {
    const error = createSystemError('exec', pid, request.file);
    throw Object.assign(error, { step: EXEC_STEPS[step[0]!] ?? 'none' }) satisfies ExecError;
  }
  return { pid, ended: waitForEnd(native, pid) };
}

/** The two halves of a wait status (wait(2)). */
export function decodeWaitStatus(status: number): ChildEnd {
  const signalNumber = status & 0x7f;
  if (signalNumber !== 0) return { exitStatus: null, signalNumber };
  return { exitStatus: (status >> 8) & 0xff, signalNumber: null };
}

async function waitForEnd(native: NativeAddon, pid: number): Promise<ChildEnd> {
  const fd = checkStatus(native.pidfdOpen(pid), 'pidfd_open');
  let poll: PollHandle | undefined;
  try {
    await new Promise<void>((resolve) => {
      const handle = native.startPoll(fd, resolve);
      if (typeof handle === 'number') throw createSystemError('uv_poll_start', handle);
      poll = handle;
    });
    const status = new Int32Array(1);
    checkStatus(native.waitProcess(pid, status), 'waitpid');
    return decodeWaitStatus(status[0]!);
  } finally {
    if (poll !== undefined) native.stopPoll(poll);
    native.close(fd);
  }
}

/**
 * Becomes a program: the same pid, and this process is gone. Terminal modes that Node changed are the caller's to restore first.
 * @throws ExecError; everything is as before then
 */
export function becomeProgram(native: NativeAddon, request: ExecRequest): never {
  const status = native.execute(request);
  throw Object.assign(createSystemError('execve', status, request.file), {
    step: 'execute' as const,
  }) satisfies ExecError;
}

/** `NAME=value` strings of an environment; names without a value are left out. */
export function listEnvironment(env: NodeJS.ProcessEnv): string[] {
  return Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}

/**
 * Finds a command as execvp(3) does: as it is when it holds a slash, else in the folders of `path`.
 * @returns the program's path
 * @throws ENOENT, or EACCES when only files that may not be executed were found
 */
export function findProgram(
  command: string,
  path: string = process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
): string {
  const candidates = command.includes('/') ? [command] : path.split(':').map((folder) => join(folder || '.', command));
  let found = false;
  for (const candidate of command === '' ? [] : candidates) {
    try {
      if (!statSync(candidate).isFile()) continue;
      found = true;
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not here, or not for us: the next folder may have it.
    }
  }
  throw createSystemError('execve', found ? -13 : -2, command);
}
