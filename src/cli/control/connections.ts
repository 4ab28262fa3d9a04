/**
 * Connections of a control socket, taken in place of Node's server, because that loses descriptors: those that come with a connection's
 * first bytes (SCM_RIGHTS of unix(7)) are kept for its first request. All else goes on as HTTP.
 */

import { Socket } from 'node:net';
import { EAGAIN, ECONNABORTED } from '../../base/errno.ts';
import { OwnedFd } from '../../base/owned-fd.ts';
import { createSystemError } from '../../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../../sys/native-addon.ts';
import { receiveWithFds } from '../../sys/scm.ts';

/** How long no connection is accepted when there is no descriptor for one. */
const ACCEPT_PAUSE_MS = 200;
/** Room for the first bytes; what is longer comes by Node. */
const FIRST_BYTES = 16 * 1024;
/** Those that wait to be accepted. */
const BACKLOG = 64;
/** Accepted in a row, before others have their turn. */
const ACCEPTS_A_TURN = 16;
/** More in a message is refused. */
const FDS_MAX = 4;

export interface ConnectionsOptions {
  readonly native: NativeAddon;
  /** A listening SOCK_STREAM unix socket, this one's from here on. */
  readonly fd: number;
  /** Further connections are closed at once. */
  readonly max: number;
  /** A connection that has sent nothing for so long is closed. */
  readonly patienceMs: number;
  /** @param fds - the callee's */
  readonly onConnection: (socket: Socket, fds: readonly OwnedFd[]) => void;
  readonly onTrouble: (message: string) => void;
}

export interface Connections {
  /** Ends all connections and closes the socket. */
  close(): void;
}

/** @throws Error with `errno` when the socket cannot be watched; it is closed then */
export function acceptConnections(options: ConnectionsOptions): Connections {
  const { native, fd, max, patienceMs, onConnection, onTrouble } = options;
  /** Those that have sent nothing, by their way to end; and the others. */
  const silent = new Set<() => void>();
  const sockets = new Set<Socket>();
  let poll: PollHandle | undefined;
  let pause: NodeJS.Timeout | undefined;

  const listen = (): void => {
    const handle = native.startPoll(fd, accept);
    if (typeof handle === 'number') {
      native.close(fd);
      throw createSystemError('uv_poll_start', handle);
    }
    poll = handle;
  };
  const accept = (): void => {
    for (let i = 0; i < ACCEPTS_A_TURN && acceptOne(); i++);
  };
  /** @returns whether there may be more */
  const acceptOne = (): boolean => {
    const connection = native.unixAccept(fd);
    if (connection === EAGAIN || connection === ECONNABORTED) return false;
    if (connection < 0) {
      // No descriptor for it, most likely: it stays readable, and would be reported again at once.
      onTrouble(createSystemError('accept', connection).message);
      native.stopPoll(poll!);
      poll = undefined;
      pause = setTimeout(listen, ACCEPT_PAUSE_MS).unref();
      return false;
    }
    if (silent.size + sockets.size >= max) native.close(connection);
    else awaitFirst(connection);
    return true;
  };
  /** Waits for the first bytes. */
  const awaitFirst = (connection: number): void => {
    const handle = native.startPoll(connection, () => {
      const first = receiveFirst(native, connection);
      if (first === undefined) return;
      end(first.bytes.length === 0);
      if (first.bytes.length > 0) open(connection, first);
      else for (const each of first.fds) each.close();
    });
    if (typeof handle === 'number') {
      native.close(connection);
      return;
    }
    const end = (isClosed: boolean): void => {
      silent.delete(drop);
      clearTimeout(timer);
      native.stopPoll(handle);
      if (isClosed) native.close(connection);
    };
    const drop = (): void => end(true);
    const timer = setTimeout(drop, patienceMs).unref();
    silent.add(drop);
  };
  const open = (connection: number, { bytes, fds }: First): void => {
    const socket = new Socket({ fd: connection, readable: true, writable: true });
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.unshift(bytes);
    onConnection(socket, fds);
  };

  native.listen(fd, BACKLOG);
  listen();
  return {
    close() {
      if (poll !== undefined) native.stopPoll(poll);
      clearTimeout(pause);
      native.close(fd);
      for (const drop of silent) drop();
      for (const socket of sockets) socket.destroy();
    },
  };
}

interface First {
  /** Empty: it has ended, or what it sent is refused. */
  readonly bytes: Uint8Array;
  readonly fds: readonly OwnedFd[];
}

/** @returns undefined: nothing has come */
function receiveFirst(native: NativeAddon, connection: number): First | undefined {
  try {
    const message = receiveWithFds(native, connection, FIRST_BYTES, FDS_MAX);
    return message === undefined ? undefined : { bytes: message.bytes, fds: message.fds.map((fd) => new OwnedFd(fd)) };
  } catch {
    return { bytes: new Uint8Array(0), fds: [] };
  }
}
