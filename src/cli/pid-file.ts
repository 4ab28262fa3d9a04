/**
 * The PID file: opened before anything is started, so that a path that cannot be written is an error the caller sees, and
 * written once the process is ready, so that who reads it can rely on the process.
 */
import { closeSync, constants, existsSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { PasselError, reasonOf } from '../base/errors.ts';

export interface PidFile {
  /** Absolute. */
  readonly path: string;
  /** Writes the PID and closes the file. */
  write(pid: number): void;
  /** Gives up: closes the file, and removes it if it was not there before. */
  abandon(remove?: (path: string) => void): void;
}

/** @throws PasselError PASSEL_E_FILE */
export function openPidFile(path: string): PidFile {
  const existed = existsSync(path);
  // The working directory may be another when it is removed.
  const absolutePath = resolve(path);
  let fd = -1;
  try {
    fd = openSync(path, constants.O_CREAT | constants.O_TRUNC | constants.O_WRONLY, 0o600);
  } catch (error) {
    throw new PasselError('PASSEL_E_FILE', { option: '--pid', value: path, reason: reasonOf(error) }, { cause: error });
  }
  const close = (): void => {
    if (fd >= 0) closeSync(fd);
    fd = -1;
  };
  return {
    path: absolutePath,
    write(pid) {
      writeSync(fd, `${pid}\n`);
      close();
    },
    abandon(remove = unlinkIfThere) {
      close();
      // Callers that made the file themselves (QEMU) also remove it themselves.
      if (!existed) remove(absolutePath);
    },
  };
}

/** Removes a file; that it is gone already, or not ours to remove, is no error. */
export function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Nothing to be done about it at this point, and nothing depends on it.
  }
}
