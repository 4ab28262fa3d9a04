/** The two helpers under test: ours, and QEMU's as the oracle. */
import type { ChildProcess } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../native-tools.ts';
import { findCommand } from '../netns/capabilities.ts';
import { waitForExit } from '../netns/process.ts';

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
