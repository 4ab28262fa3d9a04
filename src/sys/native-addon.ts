import type { HostSockets } from '../stack/ports.ts';

/**
 * The C addon as TypeScript sees it, one function per system call or per batch of them. See `src/native/native.h` for the conventions:
 * integers in, integers out, `-errno` for an error, offsets into the arena that was bound last on this thread.
 * `-EFAULT` (-14): a range outside the arena or buffer. `-EINVAL` (-22): also an argument of the wrong type.
 */
export interface NativeAddon extends DataPathAddon {}

/** What `startPoll` gives: opaque, kept alive by the addon while the poll runs. */
export type PollHandle = object;

/** epoll_ctl(2) operations. */
export const EPOLL_ADD = 1;
export const EPOLL_DELETE = 2;
export const EPOLL_MODIFY = 3;

/** Bytes that `epollWait` writes per event: u32 LE events, kind, index. */
export const EPOLL_EVENT_BYTES = 12;

/** The functions behind {@link HostSockets}, the arena, checksums, and the event loop. */
export interface DataPathAddon extends Omit<HostSockets, 'watch' | 'rewatch' | 'unwatch'> {
  /**
   * Makes `buffer` the arena of this thread; offsets of all later calls are into it. The addon keeps the buffer alive.
   * @returns 0 or -errno
   */
  bindArena(buffer: ArrayBuffer): number;
  /**
   * One complement sum as `sum` gives it (RFC 1071: words in network order, folded to 16 bits, not inverted), over bytes that do
   * not lie in the arena.
   */
  checksumBuffer(bytes: Uint8Array, offset: number, lengthBytes: number, initial: number): number;

  /** epoll_create1(2). @returns an fd that belongs to the caller, or -errno */
  epollCreate(): number;
  /** epoll_ctl(2): `operation` is EPOLL_ADD, EPOLL_MODIFY or EPOLL_DELETE; `kind` and `index` come back with each event. */
  epollControl(epollFd: number, operation: number, fd: number, events: number, kind: number, index: number): number;
  /**
   * epoll_wait(2): writes up to `max` (256 at most per call) events of {@link EPOLL_EVENT_BYTES} to `offset`.
   * @param timeoutMs - 0: do not wait; -1: for ever, which blocks the whole thread
   * @returns the number of events (0 also when a signal ended the wait) or -errno
   */
  epollWait(epollFd: number, offset: number, max: number, timeoutMs: number): number;

  /**
   * Calls `callback` from Node's event loop whenever `fd` is readable (uv_poll_t, level-triggered). Microtasks and
   * process.nextTick run after each call; an exception goes to `uncaughtException` and the poll goes on. The fd stays the
   * caller's and must not be closed before `stopPoll`.
   * @returns a handle, or -errno
   */
  startPoll(fd: number, callback: () => void): PollHandle | number;
  /** Ends a poll. A second call does nothing. */
  stopPoll(handle: PollHandle): number;
  /** Lets the poll keep the process alive (the initial state). */
  refPoll(handle: PollHandle): number;
  /** Lets the process end while the poll runs. */
  unrefPoll(handle: PollHandle): number;
}
