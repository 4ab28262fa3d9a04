/**
 * Removing the helper's sockets at its end, when it is another user without capabilities and can name no file any more. Where that user
 * may write to the directory a sealed name does it; elsewhere a process that was started before does.
 */

import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { EACCES, ENOENT, EPERM, EPIPE } from '../../base/errno.ts';
import { reasonOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { createSystemError } from '../../sys/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { type Remover, startRemover } from '../../sys/remover.ts';
import { type SealedFile, sealFile } from '../../sys/sandbox.ts';
import { unlinkIfThere } from '../pid-file.ts';
import type { Identity } from './identity.ts';

const S_ISVTX = 0o1000;
/** To take a name out of a directory. */
const WRITE_AND_SEARCH = 0o3;

export interface SocketRemoval {
  /** For the filter of system calls. */
  readonly sealed: readonly SealedFile[];
  /** Removes all of them, inside the sandbox as outside; says so when it cannot. */
  removeAll(): void;
}

/**
 * To be called while the process has its privileges.
 * @param paths - of sockets that are there
 * @param identity - who the process will be
 */
export function prepareSocketRemoval(
  native: NativeAddon,
  paths: readonly string[],
  identity: Identity,
  log: Logger,
): SocketRemoval {
  const sealed = paths.map((path, slot) => sealFile(native, slot, path));
  let remover: Remover | undefined;
  if (!paths.every((path) => willBeRemovable(path, identity))) {
    try {
      remover = startRemover(native, paths);
    } catch (error) {
      log.warn(`the sockets will stay behind at the end: ${reasonOf(error)}`);
    }
  }
  const removeOne = (path: string, index: number): void => {
    const file = sealed[index];
    if (file === undefined && remover === undefined) {
      unlinkIfThere(path);
      return;
    }
    let status = file?.remove() ?? EACCES;
    if ((status === EACCES || status === EPERM) && remover !== undefined) {
      const answer = remover.remove(index);
      // Else somebody has ended the remover.
      if (answer !== EPIPE) status = answer;
    }
    if (status < 0 && status !== ENOENT) {
      log.warn(`the socket stays behind: ${createSystemError('unlink', status, path).message}`);
    }
  };
  return {
    sealed: sealed.filter((file) => file !== undefined),
    removeAll() {
      for (const [index, path] of paths.entries()) removeOne(path, index);
      remover?.close();
      remover = undefined;
    },
  };
}

/** By the permissions alone, as for a process without capabilities and further groups. */
function willBeRemovable(path: string, identity: Identity): boolean {
  const uid = identity.uid ?? process.geteuid!();
  const gid = identity.gid ?? process.getegid!();
  try {
    const directory = statSync(dirname(path));
    const shift = directory.uid === uid ? 6 : directory.gid === gid ? 3 : 0;
    if (((directory.mode >> shift) & WRITE_AND_SEARCH) !== WRITE_AND_SEARCH) return false;
    return (directory.mode & S_ISVTX) === 0 || directory.uid === uid || process.geteuid!() === uid;
  } catch {
    return false;
  }
}
