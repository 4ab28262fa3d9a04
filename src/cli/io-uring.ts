/**
 * Going without io_uring. From Node 22 on its event loop holds a ring from the start, and through a ring the kernel does what a filter
 * of system calls refuses: a process with one cannot be confined. Node does without when it cannot have one, so it is started with a
 * filter that refuses just that.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { loadNative } from '../sys/native.ts';
import { becomeProgram, listEnvironment } from '../sys/process.ts';
import { buildRefusal } from '../sys/seccomp-filter.ts';
import { findArchitecture } from '../sys/syscalls.ts';

/** In the environment of a process that was started again, so that this happens once. */
const RESTART_MARK = 'PASSEL_RESTARTED';

/** Whether this process has a ring. */
export function holdsIoUring(): boolean {
  return readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[io_uring]';
    } catch {
      // The descriptor by which the folder was read is closed again.
      return false;
    }
  });
}

/**
 * From now on this process, and those that it starts, can make no ring; one that it has goes on. Does nothing in a process that has none.
 * @returns whether a ring is there and no other can be made
 */
export function refuseIoUring(): boolean {
  const architecture = findArchitecture(process.arch);
  if (architecture === undefined || !holdsIoUring()) return false;
  return loadNative().loadFilter(buildRefusal(architecture, 'io_uring_setup')) === 0;
}

/**
 * Starts this program again in this very process when it has a ring. Returns when there is none, or it cannot be avoided: the sandbox
 * will then say what it has to do without.
 * @param keepFd - a descriptor that must have the same number there; undefined: none
 */
export function restartWithoutIoUring(keepFd: number | undefined): void {
  const { env, execPath, execArgv, argv } = process;
  const restarted = env[RESTART_MARK] === '1';
  delete env[RESTART_MARK];
  if (restarted || !refuseIoUring()) return;
  try {
    becomeProgram(loadNative(), {
      file: execPath,
      args: [execPath, ...execArgv, ...argv.slice(1)],
      env: [...listEnvironment(env), `${RESTART_MARK}=1`],
      ...(keepFd === undefined ? {} : { fds: Int32Array.of(keepFd, keepFd) }),
    });
  } catch {
    // As it was.
  }
}
