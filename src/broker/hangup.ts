/**
 * Notices when the other end of a kept socket or pipe, or the process of a pidfd, has gone. An epoll set of its own asks for nothing but hang-ups, edge-triggered: data that arrives for
 * whoever will take the descriptor wakes nobody here. Files cannot be watched, and need not be.
 */
import { EPERM } from '../base/errno.ts';
import { checkStatus, createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';

const EPOLL_ADD = 1;
const EPOLL_DELETE = 2;
const EVENT_IN = 1;
const EVENT_RDHUP = 0x2000;
const EVENT_EDGE = 0x80000000;
const MAX_EVENTS = 64;
const EVENT_BYTES = 12;

export interface HangupWatch {
  /** @returns whether it can be watched: false for a file */
  add(fd: number): boolean;
  /** A pidfd. */
  addProcess(pidfd: number): void;
  remove(fd: number): void;
  close(): void;
}

/**
 * @param events - room for 64 event records (768 bytes) in the arena of the addon
 * @param onHangup - called with the descriptor, which is not watched any more
 */
export function watchHangups(
  native: NativeAddon,
  events: { readonly view: DataView; readonly offset: number },
  onHangup: (fd: number) => void,
): HangupWatch {
  const epoll = checkStatus(native.epollCreate(), 'epoll_create1');
  const watched = new Set<number>();
  const remove = (fd: number): void => {
    if (watched.delete(fd)) native.epollControl(epoll, EPOLL_DELETE, fd, 0, 0, 0);
  };
  const poll: PollHandle | number = native.startPoll(epoll, () => {
    const count = native.epollWait(epoll, events.offset, MAX_EVENTS, 0);
    const gone: number[] = [];
    for (let i = 0; i < count; i++) gone.push(events.view.getUint32(events.offset + EVENT_BYTES * i + 8, true));
    for (const fd of gone) {
      // An earlier one of this round may have ended it.
      if (!watched.has(fd)) continue;
      remove(fd);
      onHangup(fd);
    }
  });
  if (typeof poll === 'number') {
    native.close(epoll);
    throw createSystemError('uv_poll_start', poll);
  }
  return {
    add(fd) {
      const status = native.epollControl(epoll, EPOLL_ADD, fd, (EVENT_RDHUP | EVENT_EDGE) >>> 0, 0, fd);
      if (status === EPERM) return false;
      checkStatus(status, 'epoll_ctl');
      watched.add(fd);
      return true;
    },
    addProcess(pidfd) {
      checkStatus(native.epollControl(epoll, EPOLL_ADD, pidfd, EVENT_IN, 0, pidfd), 'epoll_ctl');
      watched.add(pidfd);
    },
    remove,
    close() {
      native.stopPoll(poll);
      native.close(epoll);
    },
  };
}
