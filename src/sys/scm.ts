/** Messages with descriptors and credentials: SCM_RIGHTS and SCM_CREDENTIALS of unix(7). */
import { EAGAIN } from '../base/errno.ts';
import { checkStatus, createSystemError } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';
import type { Credentials } from './unix-socket.ts';

/** The most descriptors that one message carries (SCM_MAX_FD of the kernel). */
export const MAX_MESSAGE_FDS = 253;

const SOL_SOCKET = 1;
const SO_PASSCRED = 16;

export interface FdMessage {
  /** The payload; empty at the end of a stream. */
  readonly bytes: Uint8Array;
  /** Received descriptors, close-on-exec; they belong to the caller. */
  readonly fds: readonly number[];
  /** The sender, if {@link passCredentials} was called on the socket before it sent. */
  readonly credentials: Credentials | undefined;
}

/**
 * Sends `bytes` with descriptors, which stay the caller's and may be closed at once.
 * @param bytes - at least one, because a stream carries no message without payload
 * @returns false when the socket takes nothing now (EAGAIN)
 * @throws EMSGSIZE when a stream took only a part: the descriptors went with the first byte, so the message cannot be sent again
 */
export function sendWithFds(native: NativeAddon, fd: number, bytes: Uint8Array, fds: readonly number[]): boolean {
  if (bytes.length === 0) throw new RangeError('descriptors need at least one byte to go with');
  if (fds.length > MAX_MESSAGE_FDS) throw new RangeError(`a message carries at most ${MAX_MESSAGE_FDS} descriptors`);
  const sent = native.sendFds(fd, bytes, 0, bytes.length, Int32Array.from(fds), fds.length);
  if (sent === EAGAIN) return false;
  checkStatus(sent, 'sendmsg');
  if (sent < bytes.length) throw createSystemError('sendmsg', -90);
  return true;
}

/**
 * Receives one message: of a stream, what lies before or up to the next one that carries descriptors.
 * @param maxBytes - room for the payload
 * @param maxFds - more descriptors than this are refused
 * @returns undefined when there is nothing now (EAGAIN)
 * @throws EMSGSIZE when payload or descriptors did not fit; all descriptors of the message have been closed
 */
export function receiveWithFds(
  native: NativeAddon,
  fd: number,
  maxBytes: number,
  maxFds: number = MAX_MESSAGE_FDS,
): FdMessage | undefined {
  const bytes = new Uint8Array(maxBytes);
  const fds = new Int32Array(1 + maxFds);
  const sender = new Int32Array(3);
  const received = native.receiveFds(fd, bytes, 0, maxBytes, fds, sender);
  if (received === EAGAIN) return undefined;
  checkStatus(received, 'recvmsg');
  return {
    bytes: bytes.subarray(0, received),
    fds: Array.from(fds.subarray(1, 1 + fds[0]!)),
    credentials: sender[0] === -1 ? undefined : { pid: sender[0]!, uid: sender[1]! >>> 0, gid: sender[2]! >>> 0 },
  };
}

/** Asks for the sender's credentials with every message that is sent to this socket from now on. */
export function passCredentials(native: NativeAddon, fd: number): void {
  checkStatus(native.setOption(fd, SOL_SOCKET, SO_PASSCRED, 1), 'setsockopt');
}
