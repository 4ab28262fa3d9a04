/** The listening socket of the helper: one that we were given, or one that we make, with its permissions and its removal. */
import { chmodSync, lchownSync } from 'node:fs';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { FIRST_ACTIVATED_FD } from '../../sys/systemd-activation.ts';
import { listenUnix } from '../../sys/unix-socket.ts';
import { claimSocketPath } from '../socket-path.ts';

/** C's helper has 1: a node with many guests that all start at once should not see refusals. */
const BACKLOG = 128;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const SOCK_STREAM = 1;
const AF_UNIX = 1;
const MODE_OWNER = 0o700;
const CONTROL_OPTION = '--conf-path';
const MODE_OWNER_CONTROL = 0o600;

export interface SocketRequest {
  readonly path: string;
  readonly mode: number | undefined;
  readonly gid: number | undefined;
}

/**
 * Listens at a path. A socket that nobody serves any more is replaced; one that is served, or a file of another kind, is not.
 * @throws PasselError
 */
export async function openSocket(native: NativeAddon, { path, mode, gid }: SocketRequest): Promise<number> {
  await claimSocketPath(path);
  const settles = mode !== undefined || gid !== undefined;
  const mask = process.umask();
  let fd = -1;
  try {
    // Nobody else may connect before the group is what it shall be.
    fd = listenUnix(native, path, { backlog: BACKLOG, ...(settles ? { mode: MODE_OWNER } : {}) });
    if (gid !== undefined) lchownSync(path, process.geteuid!(), gid);
    if (settles) chmodSync(path, mode ?? 0o777 & ~mask);
    return fd;
  } catch (error) {
    if (fd >= 0) native.close(fd);
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') {
      throw new PasselError('PASSEL_E_SOCKET_IN_USE', { option: '--socket', value: path }, { cause: error });
    }
    const reason = reasonOf(error);
    throw new PasselError('PASSEL_E_SOCKET_PATH', { option: '--socket', value: path, reason }, { cause: error });
  }
}

/**
 * The control socket: its owner, and root, may ask.
 * @throws PasselError
 */
export async function openControlSocket(native: NativeAddon, path: string): Promise<number> {
  await claimSocketPath(path, CONTROL_OPTION);
  try {
    return listenUnix(native, path, { mode: MODE_OWNER_CONTROL });
  } catch (error) {
    const reason = reasonOf(error);
    throw new PasselError('PASSEL_E_SOCKET_PATH', { option: CONTROL_OPTION, value: path, reason }, { cause: error });
  }
}

/**
 * The socket that systemd has opened.
 * @throws PasselError PASSEL_E_PR_ACTIVATION
 */
export function useActivatedSocket(native: NativeAddon, count: number): number {
  const fail = (reason: string): never => {
    throw new PasselError('PASSEL_E_PR_ACTIVATION', { reason });
  };
  const fd = FIRST_ACTIVATED_FD;
  const type = native.getOption(fd, SOL_SOCKET, SO_TYPE);
  if (type < 0) fail(`descriptor ${fd} is not a socket`);
  if (count > 1) fail(`${count} sockets were passed, expected one (LISTEN_FDS)`);
  const isOurs = type === SOCK_STREAM && native.getOption(fd, SOL_SOCKET, SO_DOMAIN) === AF_UNIX;
  if (!isOurs || native.getOption(fd, SOL_SOCKET, SO_ACCEPTCONN) !== 1) {
    fail(`descriptor ${fd} is not a unix stream socket that listens`);
  }
  native.setNonBlocking(fd, 1);
  native.setCloseOnExec(fd, 1);
  return fd;
}
