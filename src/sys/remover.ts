/**
 * Removing sockets after the right to has been given up: by a small process (src/native/remover) that was started while it was there, and that
 * can do nothing else. It ends with this process.
 */

import { closeSync, constants, existsSync, openSync, readSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { EPIPE } from '../base/errno.ts';
import { nativePath } from './native.ts';
import type { NativeAddon } from './native-addon.ts';
import { createSocketPair } from './unix-socket.ts';

const O_PATH = 0o10000000;

export interface Remover {
  /** @param index - of the path that {@link startRemover} was given. @returns 0 or -errno; -EPIPE: the process is gone */
  remove(index: number): number;
  /** Ends the process. */
  close(): void;
}

/**
 * Starts it with the rights that this process has now.
 * @param paths - of sockets, 4 at most; their directories are held, whatever becomes of their names
 * @throws Error when it cannot be started
 */
export function startRemover(native: NativeAddon, paths: readonly string[]): Remover {
  const [ours, theirs] = createSocketPair(native);
  const fds = [theirs];
  try {
    native.setNonBlocking(ours, 0);
    native.setNonBlocking(theirs, 0);
    for (const path of paths) fds.push(openSync(dirname(path), O_PATH | constants.O_DIRECTORY));
    const stdio = ['ignore', 'ignore', 'ignore', ...fds] as const;
    // Not loaded by programs that have nothing to remove.
    const { spawnSync } = process.getBuiltinModule('node:child_process');
    const { status, error } = spawnSync(
      findProgram(),
      paths.map((path) => basename(path)),
      {
        stdio: [...stdio],
        env: {},
        cwd: '/',
      },
    );
    if (error !== undefined) throw error;
    if (status !== 0) throw new Error(`remover ended with status ${status}`);
  } catch (error) {
    closeSync(ours);
    throw error;
  } finally {
    for (const fd of fds) closeSync(fd);
  }
  return {
    remove(index) {
      const answer = new Uint8Array(1);
      try {
        writeSync(ours, Uint8Array.of(index));
        return readSync(ours, answer) === 1 ? -answer[0]! : EPIPE;
      } catch {
        return EPIPE;
      }
    },
    close: () => closeSync(ours),
  };
}

function findProgram(): string {
  const beside = join(dirname(nativePath()), 'remover');
  return existsSync(beside) ? beside : join(dirname(nativePath()), '../../build/Release/remover');
}
