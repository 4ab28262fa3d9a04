/**
 * The socket on which a service manager listens for its services: the protocol of sd_notify(3), datagrams of lines `NAME=value`, with descriptors
 * for FDSTORE. The socket is connected when it is opened, so that it works when its path can no longer be reached.
 */
import { EAGAIN } from '../base/errno.ts';
import { checkStatus, createSystemError } from './errors.ts';
import { EPOLL_ADD, type NativeAddon, type PollHandle } from './native-addon.ts';
import { connectUnix, UNIX_DATAGRAM } from './unix-socket.ts';

const EVENT_OUT = 4;
/** The listener was opened anew: its path leads to the new one. */
const GONE: readonly number[] = [-111 /* ECONNREFUSED */, -107 /* ENOTCONN */, -104 /* ECONNRESET */];

/** Bytes of the arena that {@link NotifySocket} needs: one event. */
export const NOTIFY_ARENA_BYTES = 16;

export class NotifySocket {
  private readonly native: NativeAddon;
  private readonly path: string;
  private readonly eventOffset: number;
  private readonly epoll: number;
  private fd: number;
  /** It did not take a message within the time that one may wait: nobody waits again before it has taken one. */
  private stuck = false;
  private poll: PollHandle | undefined;

  /**
   * @param address - as in NOTIFY_SOCKET: an absolute path, or an abstract name after '@'
   * @param eventOffset - {@link NOTIFY_ARENA_BYTES} in the arena that the addon is bound to on this thread
   * @throws ENOENT, ECONNREFUSED, EACCES …; EAFNOSUPPORT for an address of another kind (vsock)
   */
  constructor(native: NativeAddon, address: string, eventOffset: number) {
    if (!/^[/@]./.test(address)) throw createSystemError('connect', -97, address);
    this.native = native;
    this.path = address.startsWith('@') ? `\0${address.slice(1)}` : address;
    this.eventOffset = eventOffset;
    this.fd = connectUnix(native, this.path, UNIX_DATAGRAM);
    this.epoll = native.epollCreate();
    const status = this.epoll < 0 ? this.epoll : native.epollControl(this.epoll, EPOLL_ADD, this.fd, EVENT_OUT, 0, 0);
    if (status < 0) this.close();
    checkStatus(status, 'epoll');
  }

  /**
   * @param text - lines without an end of line behind the last
   * @param fds - stay the caller's
   * @param waitMs - blocks the thread so long at most, while the manager's queue is full
   * @returns whether the manager's queue has it
   * @throws other errors of sendmsg(2)
   */
  send(text: string, fds: readonly number[] = [], waitMs = 0): boolean {
    const bytes = Buffer.from(text);
    const numbers = Int32Array.from(fds);
    const trySend = () => this.native.sendFds(this.fd, bytes, 0, bytes.length, numbers, numbers.length);
    let sent = trySend();
    if (GONE.includes(sent)) {
      this.reconnect();
      sent = trySend();
    }
    const untilMs = performance.now() + (this.stuck ? 0 : waitMs);
    while (sent === EAGAIN) {
      const leftMs = Math.ceil(untilMs - performance.now());
      if (leftMs <= 0) break;
      this.native.epollWait(this.epoll, this.eventOffset, 1, leftMs);
      sent = trySend();
    }
    this.stuck = sent === EAGAIN && (this.stuck || waitMs > 0);
    if (sent === EAGAIN) return false;
    checkStatus(sent, 'sendmsg');
    return true;
  }

  /** Calls once, from the event loop, when there is room in the manager's queue again. A later call replaces an earlier one. */
  onRoom(callback: () => void): void {
    this.stopPoll();
    const poll = this.native.startPoll(this.epoll, () => {
      this.stopPoll();
      callback();
    });
    if (typeof poll === 'number') throw createSystemError('uv_poll_start', poll);
    this.native.unrefPoll(poll);
    this.poll = poll;
  }

  close(): void {
    this.stopPoll();
    for (const fd of [this.epoll, this.fd]) if (fd >= 0) this.native.close(fd);
  }

  private stopPoll(): void {
    if (this.poll !== undefined) this.native.stopPoll(this.poll);
    this.poll = undefined;
  }

  private reconnect(): void {
    const fd = connectUnix(this.native, this.path, UNIX_DATAGRAM);
    // Closing takes it out of the epoll set.
    this.native.close(this.fd);
    this.fd = fd;
    checkStatus(this.native.epollControl(this.epoll, EPOLL_ADD, fd, EVENT_OUT, 0, 0), 'epoll_ctl');
  }
}
