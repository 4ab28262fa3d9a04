/** The child that connects to one local address on behalf of a process that has given up files and local sockets: see connector.c. */
import { EAGAIN, EPIPE } from '../base/errno.ts';
import { checkStatus } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';

/** No answer yet. */
export const CONNECTOR_PENDING = EAGAIN;

const ANSWER_BYTES = 4;

export interface Connector {
  /** Readable when there is an answer; the connector's. */
  readonly fd: number;
  readonly pid: number;
  /** Asks for a connection; one at a time. @returns 0 or -errno: -EPIPE when the child has ended */
  ask(): number;
  /** @returns a connected stream socket, which is the caller's, or 0 for a datagram socket; {@link CONNECTOR_PENDING} or another -errno */
  takeAnswer(): number;
  /** Ends the child. */
  close(): void;
}

/**
 * @param path - abstract names start with NUL
 * @param datagramFd - a datagram socket for it to connect, again and again; undefined: it makes stream sockets
 */
export function startConnector(native: NativeAddon, path: string, datagramFd = -1): Connector {
  const out = new Int32Array(2);
  checkStatus(native.startConnector(path, datagramFd, out), 'fork');
  const [fd, pid] = [out[0]!, out[1]!];
  const request = Uint8Array.of(0);
  const answer = new Uint8Array(ANSWER_BYTES);
  const view = new Int32Array(answer.buffer);
  const fds = new Int32Array(2);
  const sender = new Int32Array(3);
  let open = true;
  return {
    fd,
    pid,
    ask() {
      const sent = native.sendFds(fd, request, 0, 1, fds, 0);
      return Math.min(sent, 0);
    },
    takeAnswer() {
      const got = native.receiveFds(fd, answer, 0, ANSWER_BYTES, fds, sender);
      if (got < 0) return got;
      if (got !== ANSWER_BYTES) return EPIPE;
      return view[0] === 0 && fds[0]! > 0 ? fds[1]! : view[0]!;
    },
    close() {
      if (!open) return;
      open = false;
      native.close(fd);
      // It ends at once, and is then no more than an entry in the kernel's table; where we may not wait for it, it goes with us.
      native.waitProcess(pid, new Int32Array(1));
    },
  };
}
