/** The connection under both of QEMU's monitors: a unix stream on which whole commands leave, each with at most one descriptor, and text arrives. */
import { createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';
import { receiveWithFds, sendWithFds } from '../sys/scm.ts';
import { connectUnix } from '../sys/unix-socket.ts';

/** Why a monitor cannot be used (any more), for programs. */
export type MonitorErrorCode =
  /** What answers is not the monitor that was expected. */
  | 'not-a-monitor'
  /** It did not answer in time. QEMU serves one client of a monitor at a time, and says nothing to others. */
  | 'timeout'
  /** QEMU has ended the connection, or {@link MonitorSocket.close} has. */
  | 'closed';

/** The connection to a monitor is of no use any more. What QEMU says about a command is a QmpError or HmpError instead. */
export class MonitorError extends Error {
  override readonly name = 'MonitorError';
  readonly code: MonitorErrorCode;

  constructor(code: MonitorErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface MonitorEvents {
  onBytes(bytes: Uint8Array): void;
  /** Once: no more bytes come. */
  onEnd(error: Error): void;
}

const READ_BYTES = 65_536;

export class MonitorSocket {
  private readonly native: NativeAddon;
  private readonly fd: number;
  private readonly poll: PollHandle;
  private readonly events: MonitorEvents;
  private closed = false;

  /**
   * Connects to the monitor at `path` ('@' in front: an abstract name).
   * @throws ENOENT, ECONNREFUSED, EACCES …
   */
  constructor(native: NativeAddon, path: string, events: MonitorEvents) {
    this.native = native;
    this.events = events;
    this.fd = connectUnix(native, path.startsWith('@') ? `\0${path.slice(1)}` : path);
    const poll = native.startPoll(this.fd, () => this.onReadable());
    if (typeof poll === 'number') {
      native.close(this.fd);
      throw createSystemError('uv_poll_start', poll);
    }
    this.poll = poll;
  }

  /** Whether the connection keeps the process alive; it does at first. */
  setRef(on: boolean): void {
    if (this.closed) return;
    if (on) this.native.refPoll(this.poll);
    else this.native.unrefPoll(this.poll);
  }

  /**
   * Sends a command whole: the descriptor goes with its first byte, and one message is what ties the two together.
   * @param fd - sent along; it stays the caller's
   * @throws MonitorError `closed`; EMSGSIZE for a command that is larger than the socket's buffer
   */
  send(command: string, fd: number | undefined): void {
    if (this.closed) throw new MonitorError('closed', 'the connection to the monitor has ended');
    // The answer to the one before has been awaited, so the buffer is empty.
    if (!sendWithFds(this.native, this.fd, Buffer.from(command), fd === undefined ? [] : [fd])) {
      throw new MonitorError('timeout', 'the monitor takes no commands');
    }
  }

  close(reason: Error = new MonitorError('closed', 'the connection to the monitor has ended')): void {
    if (this.closed) return;
    this.closed = true;
    this.native.stopPoll(this.poll);
    this.native.close(this.fd);
    this.events.onEnd(reason);
  }

  private onReadable(): void {
    try {
      const message = receiveWithFds(this.native, this.fd, READ_BYTES, 0);
      if (message === undefined) return;
      if (message.bytes.length === 0) this.close(new MonitorError('closed', 'QEMU has ended the connection'));
      else this.events.onBytes(message.bytes);
    } catch (error) {
      this.close(error as Error);
    }
  }
}
