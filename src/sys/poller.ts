/**
 * The data path's event loop inside Node's.
 *
 * One epoll set holds every fd of the data path. The set itself is one descriptor that Node's loop watches; when it becomes readable the
 * callback takes events in rounds, hands each to the handler of its kind, and tells the end of each round, so that what a
 * round produced leaves in one batch. Rounds go on while there are events, up to a bound that lets timers and the
 * control path of the process have their turn; what is left is found by the next callback, because the set is still readable then.
 */
import type { Arena } from '../base/arena.ts';
import { createSystemError } from './errors.ts';
import { EPOLL_EVENT_BYTES, type NativeAddon, type PollHandle } from './native-addon.ts';

/** @param events - EVENT_* bits as epoll gave them */
export type EventHandler = (index: number, events: number) => void;

export interface Poller {
  /** The epoll set, for `createHostSockets`; owned by the poller. */
  readonly fd: number;
  /** Handler by kind. An event of a kind without one is dropped: with edge triggering it does not come again. */
  readonly handlers: (EventHandler | undefined)[];
  /** Called after each round of events, and by {@link kickTurn}. */
  onTurnEnd: () => void;
  /** Hooks the set into Node's loop; the process stays alive until `stop`. */
  start(): void;
  /** Unhooks it. Events stay in the set and come after the next `start`. */
  stop(): void;
  /** Stops and closes the set. Watched fds stay their owners'. */
  close(): void;
  /** Takes events now, without waiting, as the loop's callback does. @returns events handled */
  drain(): number;
  /** Ends a turn that no event began: for work that a timer or the control path produced. */
  kickTurn(): void;
}

const EVENTS_PER_ROUND = 256;
const ROUNDS_PER_CALLBACK = 16;

/**
 * @param arena - already bound to `native`, or bound before the first `start`; the poller takes 3 KiB of it
 * @throws Error with `errno` and `code` when no epoll set can be made
 */
export function createPoller(native: NativeAddon, arena: Arena): Poller {
  const eventsOffset = arena.allocate(EVENTS_PER_ROUND * EPOLL_EVENT_BYTES);
  const { view } = arena;
  const fd = native.epollCreate();
  if (fd < 0) throw createSystemError('epoll_create1', fd);

  let poll: PollHandle | undefined;
  let closed = false;
  // Events of a round that are not handled yet. They outlive the callback only when a handler throws.
  let position = 0;
  let end = 0;

  function dispatchRound(): void {
    while (position < end) {
      const at = eventsOffset + position * EPOLL_EVENT_BYTES;
      position++;
      const handler = poller.handlers[view.getUint32(at + 4, true)];
      if (handler !== undefined) handler(view.getUint32(at + 8, true), view.getUint32(at, true));
    }
    poller.onTurnEnd();
  }

  function drain(): number {
    let handled = 0;
    let finished = false;
    try {
      if (position < end) dispatchRound();
      for (let round = 0; round < ROUNDS_PER_CALLBACK && !closed; round++) {
        const count = native.epollWait(fd, eventsOffset, EVENTS_PER_ROUND, 0);
        if (count <= 0) break;
        position = 0;
        end = count;
        handled += count;
        dispatchRound();
      }
      finished = true;
    } finally {
      // Edges that were taken from the set and not handled would never come again.
      if (!finished && position < end) setImmediate(drain);
    }
    return handled;
  }

  const poller: Poller = {
    fd,
    handlers: [],
    onTurnEnd() {},
    start() {
      if (poll !== undefined || closed) return;
      const handle = native.startPoll(fd, drain);
      if (typeof handle === 'number') throw createSystemError('uv_poll_start', handle);
      poll = handle;
    },
    stop() {
      if (poll === undefined) return;
      native.stopPoll(poll);
      poll = undefined;
    },
    close() {
      if (closed) return;
      poller.stop();
      closed = true;
      position = end;
      native.close(fd);
    },
    drain,
    kickTurn() {
      poller.onTurnEnd();
    },
  };
  return poller;
}
