/**
 * The data path's event loop inside Node's.
 *
 * One epoll set holds every fd of the data path, and Node's loop besides: the thread sleeps in it (native/event-loop.c). Events are taken in
 * rounds. Each is handed to the handler of its kind, and the end of each round is told, so that what a round produced leaves
 * in one batch. Rounds go on until Node has something to do: a timer, an immediate, a descriptor or a signal of its own.
 *
 * A second poller of the same thread is one descriptor that Node's loop watches.
 */

import type { Arena } from '../base/arena.ts';
import { EBUSY } from '../base/errno.ts';
import { createSystemError } from './errors.ts';
import { EPOLL_EVENT_BYTES, type NativeAddon } from './native-addon.ts';

/** @param events - EVENT_* bits as epoll gave them */
export type EventHandler = (index: number, events: number) => void;

export interface Poller {
  /** The epoll set, for `createHostSockets`; owned by the poller. */
  readonly fd: number;
  /** Handler by kind. An event of a kind without one is dropped: with edge triggering it does not come again. */
  readonly handlers: (EventHandler | undefined)[];
  /** Called after each round of events, and by {@link kickTurn}. */
  onTurnEnd: () => void;
  /** Asked after each round: for how many microseconds to look for events before the thread sleeps; 0: not at all. */
  busyPollUs: () => number;
  /** Hooks the set into Node's loop; the process stays alive until `stop`. */
  start(): void;
  /** Unhooks it. Events stay in the set and come after the next `start`. */
  stop(): void;
  /** Stops and closes the set. Watched fds stay their owners'. */
  close(): void;
  /** Takes events now, without waiting. @returns events handled */
  drain(): number;
  /** Ends a turn that no event began: for work that a timer or the control path produced. */
  kickTurn(): void;
}

const EVENTS_PER_ROUND = 256;
const ROUNDS_PER_DRAIN = 16;

/**
 * @param arena - already bound to `native`, or bound before the first `start`; the poller takes 3 KiB of it
 * @throws Error with `errno` and `code` when no epoll set can be made
 */
export function createPoller(native: NativeAddon, arena: Arena): Poller {
  const eventsOffset = arena.allocate(EVENTS_PER_ROUND * EPOLL_EVENT_BYTES);
  const { view } = arena;
  const fd = native.epollCreate();
  if (fd < 0) throw createSystemError('epoll_create1', fd);

  let stopWaiting: (() => void) | undefined;
  let closed = false;

  /** Hands out `count` events that lie at `offset`. */
  function dispatch(source: DataView, offset: number, count: number): void {
    let position = 0;
    try {
      while (position < count) {
        const at = offset + position * EPOLL_EVENT_BYTES;
        position++;
        const handler = poller.handlers[source.getUint32(at + 4, true)];
        if (handler !== undefined) handler(source.getUint32(at + 8, true), source.getUint32(at, true));
      }
      poller.onTurnEnd();
    } catch (error) {
      // Edges that were taken from the set and not handled would never come again.
      if (position < count) keepRest(source, offset + position * EPOLL_EVENT_BYTES, count - position);
      throw error;
    }
  }

  /** Has what is left of a round handled later: the place where it lies is about to be overwritten. */
  function keepRest(source: DataView, offset: number, count: number): void {
    const start = source.byteOffset + offset;
    const rest = new DataView(source.buffer.slice(start, start + count * EPOLL_EVENT_BYTES));
    setImmediate(() => {
      if (!closed) dispatch(rest, 0, count);
    });
  }

  function takeRound(count: number): number {
    dispatch(view, eventsOffset, count);
    return poller.busyPollUs();
  }

  /** @returns what ends it */
  function wait(): () => void {
    const loop = native.startEventLoop(fd, eventsOffset, EVENTS_PER_ROUND, takeRound);
    if (typeof loop !== 'number') return () => native.stopEventLoop(loop);
    // A loop of this thread runs already.
    if (loop !== EBUSY) throw createSystemError('epoll_ctl', loop);
    const poll = native.startPoll(fd, drain);
    if (typeof poll === 'number') throw createSystemError('uv_poll_start', poll);
    return () => native.stopPoll(poll);
  }

  function drain(): number {
    let handled = 0;
    for (let round = 0; round < ROUNDS_PER_DRAIN && !closed; round++) {
      const count = native.epollWait(fd, eventsOffset, EVENTS_PER_ROUND, 0);
      if (count <= 0) break;
      handled += count;
      takeRound(count);
    }
    return handled;
  }

  const poller: Poller = {
    fd,
    handlers: [],
    onTurnEnd() {},
    busyPollUs: () => 0,
    start() {
      if (stopWaiting === undefined && !closed) stopWaiting = wait();
    },
    stop() {
      stopWaiting?.();
      stopWaiting = undefined;
    },
    close() {
      if (closed) return;
      poller.stop();
      closed = true;
      native.close(fd);
    },
    drain,
    kickTurn() {
      poller.onTurnEnd();
    },
  };
  return poller;
}
