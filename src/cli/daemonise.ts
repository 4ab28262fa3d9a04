/**
 * Going to the background. Node cannot fork(2) and go on, so the process that was started (the launcher) starts a detached
 * copy of itself (the daemon) and waits: text that the daemon writes to its standard error is passed on, a zero byte means
 * "ready", and the end of the stream without it means that it failed. The launcher exits 0 only after the zero byte, so that
 * its exit tells callers what fork and exit told them in C: the socket listens and the PID file is there.
 */
import { type StdioOptions, spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { PasselError, reasonOf } from '../base/errors.ts';
import { loadNative } from '../sys/native.ts';
import { refuseIoUring } from './io-uring.ts';
import { writeStderr } from './stderr.ts';

/** Set in the environment of the daemon by its launcher. */
const DAEMON_MARK = 'PASSEL_DAEMON';
const READY_BYTE = 0;
const STDERR_FD = 2;
const FIRST_OTHER_FD = 3;

/** Whether this process was started by {@link launchDaemon}. Forgets it, so that processes started from here are not marked. */
export function takeDaemonMark(): boolean {
  const marked = process.env[DAEMON_MARK] === '1';
  delete process.env[DAEMON_MARK];
  return marked;
}

/**
 * Starts this program again, with the same arguments, in the background and waits until it is ready.
 * @param keepFd - a descriptor that must have the same number there; undefined: none
 * @param confined - the child will enter the sandbox
 * @returns exit status for the launcher: 0 when the daemon is ready, else the daemon's own
 * @throws PasselError PASSEL_E_DAEMON, PASSEL_E_ADDON
 */
export function launchDaemon(keepFd: number | undefined, confined: boolean): Promise<number> {
  const stdio: Array<'ignore' | 'pipe' | number> = ['ignore', 'ignore', 'pipe'];
  if (keepFd !== undefined) {
    while (stdio.length <= keepFd) stdio.push('ignore');
    stdio[keepFd] = keepFd;
  }
  // Node hides its own descriptors from children, but not inherited ones with high numbers: a daemon that kept one would hold
  // open what its starter waits to see closed.
  loadNative().closeOnExecFrom(FIRST_OTHER_FD);
  // For the child, which could not be confined with a ring.
  if (confined) refuseIoUring();
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio: stdio as StdioOptions,
    env: { ...process.env, [DAEMON_MARK]: '1' },
  });
  return new Promise((resolve, reject) => {
    let ready = false;
    // Whoever ends the launcher before the daemon is ready wants neither of them.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP'] as const) {
      process.once(signal, () => {
        child.kill('SIGTERM');
        resolve(128 + constants.signals[signal]);
      });
    }
    child.stderr!.on('data', (bytes: Buffer) => {
      const end = bytes.indexOf(READY_BYTE);
      if (end !== 0) writeStderr(bytes.toString('utf8', 0, end < 0 ? bytes.length : end));
      if (end < 0) return;
      ready = true;
      child.unref();
      resolve(0);
    });
    child.once('error', (error) =>
      reject(new PasselError('PASSEL_E_DAEMON', { reason: reasonOf(error) }, { cause: error })),
    );
    // 'close' comes after the last of its output was read.
    child.once('close', (code, signal) => {
      if (ready) return;
      if (code !== null && code !== 0) resolve(code);
      else
        reject(
          new PasselError('PASSEL_E_DAEMON', { reason: signal === null ? 'it exited early' : `killed by ${signal}` }),
        );
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
      let heard = true;
      try {
        writeSync(STDERR_FD, Uint8Array.of(READY_BYTE));
      } catch {
        heard = false;
      }
      // Later output of Node itself must go nowhere.
      loadNative().duplicateTo(nullFd, STDERR_FD);
      closeSync(nullFd);
      return heard;
    },
  };
}
