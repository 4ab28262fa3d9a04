/**
 * Going to the background. Node cannot fork(2) and go on, so a launcher starts the serving process (the daemon) as a child in a session
 * of its own and waits for one byte on a pipe, which means "ready"; the end of the pipe without it means that it failed, and the
 * daemon has said why on the standard error that they share. The launcher exits 0 only after the byte, so that its exit tells callers
 * what fork and exit told them in C: the socket listens and the PID file is there.
 *
 * The launcher is the executable's front in C (src/native/front/launcher.c), which starts Node only once. This file has the daemon's
 * part, and a launcher for a bundle that was started without its front, or when the front did not know what the command line means.
 */
import type { StdioOptions } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { PasselError, reasonOf } from '../base/errors.ts';
import { loadNative } from '../sys/native.ts';
import { refuseIoUring } from './io-uring.ts';
import { noteServingPid } from './serving-pid.ts';

/** Set in the environment of the daemon by its launcher: the descriptor of its end of the pipe, and its PID if that is known outside by another. */
const DAEMON_MARK = 'PASSEL_DAEMON';
const READY_BYTE = 0;
const STDERR_FD = 2;
const FIRST_OTHER_FD = 3;

let readyFd: number | undefined;

/**
 * Whether this process was started by a launcher. Takes note of its pipe and forgets the mark, so that processes started from here
 * have neither.
 */
export function takeDaemonMark(): boolean {
  const mark = process.env[DAEMON_MARK];
  delete process.env[DAEMON_MARK];
  const [, fd, pid] = /^(\d+)(?: (\d+))?$/.exec(mark ?? '') ?? [];
  if (fd === undefined) return false;
  readyFd = Number(fd);
  if (pid !== undefined) noteServingPid(Number(pid));
  return true;
}

/**
 * Starts this program again, with the same arguments, in the background and waits until it is ready.
 * @param keepFd - a descriptor that must have the same number there; undefined: none
 * @param confined - the child will enter the sandbox
 * @returns exit status for the launcher: 0 when the daemon is ready, else the daemon's own
 * @throws PasselError PASSEL_E_DAEMON, PASSEL_E_ADDON
 */
export function launchDaemon(keepFd: number | undefined, confined: boolean): Promise<number> {
  const pipeFd = keepFd === FIRST_OTHER_FD ? FIRST_OTHER_FD + 1 : FIRST_OTHER_FD;
  const stdio: Array<'ignore' | 'inherit' | 'pipe' | number> = ['ignore', 'ignore', 'inherit'];
  while (stdio.length <= Math.max(pipeFd, keepFd ?? 0)) stdio.push('ignore');
  stdio[pipeFd] = 'pipe';
  if (keepFd !== undefined) stdio[keepFd] = keepFd;
  // Node hides its own descriptors from children, but not inherited ones with high numbers: a daemon that kept one would hold
  // open what its starter waits to see closed.
  loadNative().closeOnExecFrom(FIRST_OTHER_FD);
  // For the child, which could not be confined with a ring.
  if (confined) refuseIoUring();
  // Asked for here: the daemon, which does without, would take milliseconds to load it.
  const { spawn } = process.getBuiltinModule('node:child_process');
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: stdio as StdioOptions,
    env: { ...process.env, [DAEMON_MARK]: String(pipeFd) },
  });
  return new Promise((resolve, reject) => {
    const readiness = child.stdio[pipeFd] as Readable;
    let endedBy = 0;
    // Whoever ends the launcher before the daemon is ready wants neither of them.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP'] as const) {
      process.once(signal, () => {
        endedBy = 128 + constants.signals[signal];
        child.kill('SIGTERM');
      });
    }
    readiness.once('data', () => {
      child.unref();
      resolve(endedBy);
    });
    const fail = (reason: string, cause?: unknown): void =>
      reject(new PasselError('PASSEL_E_DAEMON', { reason }, { cause }));
    child.once('error', (error) => fail(reasonOf(error), error));
    // 'close' comes after the last byte was read.
    child.once('close', (code, signal) => {
      if (endedBy !== 0) resolve(endedBy);
      else if (code !== null && code !== 0) resolve(code);
      else fail(signal === null ? 'it exited early' : `killed by ${signal}`);
    });
  });
}

/** In the daemon: the last step of its start. */
export interface Readiness {
  /**
   * Tells the launcher that we are ready and lets go of it.
   * @returns false if the launcher is gone, which means that nobody wants us any more
   */
  report(): boolean;
}

/** In the daemon: opens what {@link Readiness.report} needs, since nothing may be opened by then, and leaves the working directory. */
export function prepareReadiness(): Readiness {
  const nullFd = openSync('/dev/null', 'w');
  process.chdir('/');
  return {
    report() {
      // Whoever waits for the end of the launcher's standard error gets it with the launcher's own end. Later output goes nowhere.
      loadNative().duplicateTo(nullFd, STDERR_FD);
      closeSync(nullFd);
      if (readyFd === undefined) return true;
      let heard = true;
      try {
        writeSync(readyFd, Uint8Array.of(READY_BYTE));
      } catch {
        heard = false;
      }
      closeSync(readyFd);
      readyFd = undefined;
      return heard;
    },
  };
}
