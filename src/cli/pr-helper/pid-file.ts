/**
 * The PID file of the helper: locked for as long as the process lives, so that a second instance with the same file does not start, and
 * left behind at the end, as C's helper leaves it.
 */

import { constants, fstatSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';
import { EACCES, EAGAIN } from '../../base/errno.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';

const ATTEMPTS = 10;

/**
 * Opens, locks and writes. The descriptor stays open to the end, since closing it would give the lock up.
 * @param option - named in messages
 * @throws PasselError PASSEL_E_PR_PID_FILE
 */
export function writeLockedPidFile(native: NativeAddon, path: string, option: string): void {
  const fail = (reason: string, cause?: unknown): never => {
    throw new PasselError('PASSEL_E_PR_PID_FILE', { option, value: path, reason }, { cause });
  };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    let fd = -1;
    try {
      fd = openSync(path, constants.O_CREAT | constants.O_WRONLY, 0o600);
    } catch (error) {
      fail(reasonOf(error), error);
    }
    const status = native.lockFile(fd);
    if (status === EAGAIN || status === EACCES) fail('another process has locked it');
    if (status < 0) fail(`it cannot be locked (errno ${-status})`);
    // Whoever had it before may have removed it between the two calls: the lock would then be on a file that has no name.
    const there = statSync(path, { throwIfNoEntry: false });
    const { ino, dev } = fstatSync(fd);
    if (there === undefined || there.ino !== ino || there.dev !== dev) {
      native.close(fd);
      continue;
    }
    try {
      ftruncateSync(fd);
      writeSync(fd, `${process.pid}\n`);
    } catch (error) {
      fail(reasonOf(error), error);
    }
    return;
  }
  fail('it is replaced all the time');
}
