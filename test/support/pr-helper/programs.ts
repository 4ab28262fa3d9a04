/** The two helpers under test, started the same way: ours, and QEMU's as the oracle. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../native-tools.ts';
import { findCommand } from '../netns/capabilities.ts';
import { waitForExit, waitUntil } from '../netns/process.ts';
import { reserveIn, Wire } from './wire.ts';

export type ProgramName = 'ours' | 'c';

export const PROGRAMS: Readonly<Record<ProgramName, string>> = {
  ours: join(PROJECT_ROOT, 'dist/helpers/passel-pr-helper'),
  c: findCommand('qemu-pr-helper') || '/usr/bin/qemu-pr-helper',
};

export interface HelperProcess {
  readonly pid: number;
  readonly socket: string;
  readonly child: ChildProcess;
  stderr(): string;
  fdCount(): number;
  /** @returns the exit status, 128 and the signal when it was killed */
  end(signal?: NodeJS.Signals): Promise<number>;
}

/** Starts it on `socket` and waits until it has answered a client. @param command - what to start it with */
export async function startHelper(
  name: ProgramName,
  socket: string,
  args: readonly string[] = [],
  command: readonly string[] = [],
): Promise<HelperProcess> {
  const [program, ...words] = [...command, PROGRAMS[name], '-k', socket, ...args];
  const helper = watchHelper(spawn(program!, words, { stdio: ['ignore', 'ignore', 'pipe'] }), socket);
  await waitUntil(`${name} to answer`, () => helper.child.exitCode !== null || answers(socket), 30_000);
  if (helper.child.exitCode !== null) throw new Error(`${name} ended: ${helper.stderr()}`);
  return helper;
}

/** A process that was started with stderr as a pipe. */
export function watchHelper(child: ChildProcess, socket: string): HelperProcess {
  let text = '';
  child.stderr!.on('data', (bytes) => {
    text += bytes;
  });
  return {
    child,
    socket,
    pid: child.pid!,
    stderr: () => text,
    fdCount: () => readdirSync(`/proc/${child.pid}/fd`).length,
    end(signal = 'SIGTERM') {
      const ended = waitForExit(child);
      child.kill(signal);
      return ended;
    },
  };
}

/** A request about a device that takes none was answered. */
export async function answers(socket: string): Promise<boolean> {
  let wire: Wire;
  try {
    wire = await Wire.open(socket);
  } catch {
    return false;
  }
  const device = openSync('/dev/null', 'r+');
  try {
    wire.send({ bytes: reserveIn(), fds: 1 }, device);
    return (await wire.answer()) === '2 b/0/6 0';
  } finally {
    closeSync(device);
    wire.close();
  }
}
