/** Local sockets: unix(7). Errors are exceptions with Node's `code` and `errno`. */
import { checkStatus } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';

export const UNIX_STREAM = 1;
export const UNIX_DATAGRAM = 2;
export const UNIX_SEQPACKET = 5;

const FAMILY_UNIX = 1;

export interface UnixListenOptions {
  /** UNIX_STREAM (default) or UNIX_SEQPACKET. */
  readonly type?: number;
  /** Length of the queue of connections not yet accepted; default 8. */
  readonly backlog?: number;
  /** Permissions of the socket file, less the umask; by default only the umask counts. */
  readonly mode?: number;
}

/** Who is at the other end of a socket, or sent a message. */
export interface Credentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * A listening socket at `path` (an abstract name starts with NUL).
 * @returns the fd, which is the caller's, as is the socket file: closing the fd leaves it behind
 * @throws EADDRINUSE when something has that name already
 */
export function listenUnix(native: NativeAddon, path: string, options: UnixListenOptions = {}): number {
  const { type = UNIX_STREAM, backlog = 8, mode = -1 } = options;
  const fd = checkStatus(native.open(FAMILY_UNIX, type, 0), 'socket');
  const bound = native.unixBind(fd, path, mode);
  const status = bound < 0 ? bound : native.listen(fd, backlog);
  if (status < 0) native.close(fd);
  checkStatus(status, bound < 0 ? 'bind' : 'listen', path);
  return fd;
}

/**
 * Connects to the socket at `path`. Local sockets connect at once or not at all.
 * @returns the fd, which is the caller's
 * @throws ENOENT, ECONNREFUSED (nobody listens), EAGAIN (the listener's queue is full), EACCES, EPROTOTYPE (another type)
 */
export function connectUnix(native: NativeAddon, path: string, type: number = UNIX_STREAM): number {
  const fd = checkStatus(native.open(FAMILY_UNIX, type, 0), 'socket');
  const status = native.unixConnect(fd, path);
  if (status < 0) native.close(fd);
  checkStatus(status, 'connect', path);
  return fd;
}

/** Two connected sockets, both the caller's. */
export function createSocketPair(native: NativeAddon, type: number = UNIX_STREAM): [number, number] {
  const fds = new Int32Array(2);
  checkStatus(native.socketPair(type, fds), 'socketpair');
  return [fds[0]!, fds[1]!];
}

/** Who connected, or made the pair: credentials at that time, which outlive a change of user and the passing of the fd. */
export function getPeerCredentials(native: NativeAddon, fd: number): Credentials {
  const out = new Int32Array(3);
  checkStatus(native.peerCredentials(fd, out), 'getsockopt');
  return { pid: out[0]!, uid: out[1]! >>> 0, gid: out[2]! >>> 0 };
}
