/**
 * Spliced TCP connections: a connection accepted on one side of the namespace is joined to one made on the other, loopback to loopback,
 * and the kernel moves the bytes (splice(2)). No frame, no copy in user space.
 *
 * A flow has two sides, 0 the socket that was accepted and 1 the one that we connected, and two directions. A *direction* is
 * named by the side that it comes from, `2 * flow + side`; so is the socket, and so is its index at the poller. Its source is `fd[d]`,
 * its target `fd[d ^ 1]`.
 *
 * States: CONNECTING (side 1 has not answered; what side 0 sends waits in its socket) → OPEN → RETIRED (closed at the end of the turn,
 * so that no event taken before can meet another flow under the same index) → FREE.
 *
 * Each direction is run until its source is empty or its target full, and then waits for the poller, edge-triggered. One that
 * could go on for ever stops after {@link BUDGET_BYTES} and goes on in the next turn. The end of a source is passed on by
 * shutting down the target once the pipe has drained; when both directions have ended the flow does. An error on either
 * side, a refused connection among them, resets both: each peer sees what it would see of the other one.
 *
 * Out of descriptors: no pipe can be made. Directions that need one wait for one that another gives back, or try again in a while.
 */

import type { Arena } from '../../base/arena.ts';
import type { Clock } from '../../base/clock.ts';
import { EADDRNOTAVAIL, EAGAIN, EHOSTUNREACH, EINPROGRESS, ENETUNREACH } from '../../base/errno.ts';
import { createLogGate, type Logger, warnGated } from '../../base/logger.ts';
import {
  ENDPOINT_BYTES,
  EVENT_EDGE,
  EVENT_ERR,
  EVENT_HUP,
  EVENT_IN,
  EVENT_OUT,
  EVENT_RDHUP,
  KIND_SPLICE_TCP,
  SHUT_WRITE,
  SOCKET_STREAM,
} from '../../stack/ports.ts';
import { createPipePool, type PipePool } from './pipe-pool.ts';
import {
  SPLICE_ENDED,
  SPLICE_MOVED,
  SPLICE_OPEN,
  SPLICE_PENDING,
  SPLICE_RECORD_BYTES,
  SPLICE_SOURCE,
  SPLICE_TARGET,
  type SpliceSockets,
} from './ports.ts';

const STATE_FREE = 0;
const STATE_CONNECTING = 1;
const STATE_OPEN = 2;
const STATE_RETIRED = 3;

/** Whether connect(2) found no way to the address at all. */
export function isUnreachable(status: number): boolean {
  return status === ENETUNREACH || status === EHOSTUNREACH || status === EADDRNOTAVAIL;
}

/** What one direction moves before others have their turn: about a millisecond. */
const BUDGET_BYTES = 4 * 1024 * 1024;
/** More than the descriptors of most processes allow. */
const CAPACITY = 65_536;
const RETRY_MS = 250;
const LOG_INTERVAL_MS = 10_000;

const SOL_SOCKET = 1;
const SO_LINGER = 13;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;

const WATCHED = EVENT_IN | EVENT_OUT | EVENT_RDHUP | EVENT_EDGE;

export interface TcpSpliceOptions {
  readonly arena: Arena;
  readonly sockets: SpliceSockets;
  readonly clock: Clock;
  readonly log: Logger;
  readonly kickTurn: () => void;
}

/** Opens a socket of the far side: `family` 4 or 6, a SOCKET_… type. @returns fd or -errno */
export type OpenSocket = (family: number, type: number) => number;

/** A flow, for people. */
export interface TcpSpliceDescription {
  readonly state: 'connecting' | 'open' | 'half-closed';
  /** The listener it came by, and whether that is one of the namespace. */
  readonly listener: number;
  readonly ofNamespace: boolean;
  readonly generation: number;
  readonly ageMs: number;
  /** Bytes from the side that connected, and to it. */
  readonly bytesFromClient: number;
  readonly bytesToClient: number;
  /** fds of both sides: the accepted one and ours. */
  readonly clientFd: number;
  readonly serverFd: number;
}

export class TcpSplice {
  /** Flows that are not retired. */
  count = 0;
  /** Flows ever, those whose far side could not be reached, and those ended by an error. */
  opened = 0;
  refused = 0;
  reset = 0;
  bytes = 0;

  private readonly sockets: SpliceSockets;
  private readonly view: DataView;
  private readonly clock: Clock;
  private readonly log: Logger;
  private readonly kickTurn: () => void;
  private readonly record: number;
  private readonly pipes: PipePool;

  private readonly state = new Uint8Array(CAPACITY);
  private readonly generation = new Uint32Array(CAPACITY);
  private readonly openedMs = new Float64Array(CAPACITY);
  private readonly listener = new Int32Array(CAPACITY);
  private readonly ofNamespace = new Uint8Array(CAPACITY);
  private readonly nextFree = new Int32Array(CAPACITY);
  // By direction.
  private readonly fd = new Int32Array(CAPACITY * 2);
  /** Pipe number + 1; 0: none. */
  private readonly pipe = new Int32Array(CAPACITY * 2);
  private readonly pending = new Uint32Array(CAPACITY * 2);
  /** 1: the source has ended and all of it is in the target. */
  private readonly ended = new Uint8Array(CAPACITY * 2);
  private readonly moved = new Float64Array(CAPACITY * 2);
  private readonly queued = new Uint8Array(CAPACITY * 2);

  private freeHead = 0;
  private highWater = 0;
  /** Directions that go on in the next turn, for want of budget or of a pipe. */
  private ready: number[] = [];
  private waiting: number[] = [];
  private readonly retired: number[] = [];
  private again: NodeJS.Immediate | undefined;
  private retry: NodeJS.Timeout | undefined;
  private readonly gate = createLogGate(LOG_INTERVAL_MS);

  constructor(options: TcpSpliceOptions) {
    this.sockets = options.sockets;
    this.view = options.arena.view;
    this.clock = options.clock;
    this.log = options.log;
    this.kickTurn = options.kickTurn;
    this.record = options.arena.allocate(SPLICE_RECORD_BYTES);
    this.pipes = createPipePool(options.sockets);
  }

  /**
   * Joins an accepted connection to a new one.
   * @param accepted - becomes the flow's, and is closed if there can be none
   * @param open - makes the socket of the far side
   * @param target - endpoint record to connect to, and behind it the one to try where that is not reachable (family 0: none)
   * @param family - 4 or 6, of the target
   */
  join(
    accepted: number,
    listener: number,
    ofNamespace: boolean,
    open: OpenSocket,
    target: number,
    family: number,
  ): void {
    const { sockets } = this;
    const flow = this.allocate();
    const far = flow < 0 ? -1 : open(family, SOCKET_STREAM);
    if (flow < 0 || far < 0) {
      const reason = flow < 0 ? 'too many of them' : `errno ${-far}`;
      warnGated(this.log, this.gate, this.clock.nowMs(), `loopback connections are refused: ${reason}`);
      if (flow >= 0) this.free(flow);
      this.refused++;
      this.closeHard(accepted);
      return;
    }
    const side = flow * 2;
    this.state[flow] = STATE_CONNECTING;
    this.listener[flow] = listener;
    this.ofNamespace[flow] = ofNamespace ? 1 : 0;
    this.openedMs[flow] = this.clock.nowMs();
    for (let d = side; d <= side + 1; d++) {
      this.pipe[d] = 0;
      this.pending[d] = 0;
      this.ended[d] = 0;
      this.moved[d] = 0;
      this.queued[d] = 0;
    }
    this.fd[side] = accepted;
    this.fd[side + 1] = far;
    this.count++;
    this.opened++;
    sockets.setOption(accepted, IPPROTO_TCP, TCP_NODELAY, 1);
    sockets.setOption(far, IPPROTO_TCP, TCP_NODELAY, 1);
    let status = sockets.connect(far, target);
    if (isUnreachable(status) && this.view.getUint8(target + ENDPOINT_BYTES) === family) {
      status = sockets.connect(far, target + ENDPOINT_BYTES);
    }
    if (status < 0 && status !== EINPROGRESS) {
      this.refuse(flow);
      return;
    }
    const isWatched =
      sockets.watch(far, WATCHED, KIND_SPLICE_TCP, side + 1) >= 0 &&
      sockets.watch(accepted, WATCHED, KIND_SPLICE_TCP, side) >= 0;
    if (!isWatched) this.refuse(flow);
    // What is there already is told by the poller, too: registering raises the edge.
    else if (status === 0) this.state[flow] = STATE_OPEN;
  }

  /** An event of one socket. `index` names it as a direction does. */
  onEvent(index: number, events: number): void {
    const flow = index >> 1;
    const state = this.state[flow];
    if (state === STATE_OPEN) {
      this.serve(index, events);
      // Only now: what came before a reset can still be read, and its peer would have read it too.
      const isBroken = (events & EVENT_ERR) !== 0 && this.state[flow] === STATE_OPEN;
      if (isBroken && this.sockets.takeError(this.fd[index]!) !== 0) this.fail(flow);
    } else if (state === STATE_CONNECTING) {
      const isOver = (events & (EVENT_ERR | EVENT_HUP)) !== 0;
      if ((index & 1) === 0) {
        // The client has gone before there was anybody to talk to.
        if (isOver) this.fail(flow);
      } else if (isOver || (events & EVENT_OUT) !== 0) {
        if (this.sockets.takeError(this.fd[index]!) !== 0) {
          this.refuse(flow);
          return;
        }
        this.state[flow] = STATE_OPEN;
        this.run(index ^ 1);
        if (this.state[flow] === STATE_OPEN) this.run(index);
      }
    }
  }

  private serve(index: number, events: number): void {
    if ((events & (EVENT_IN | EVENT_RDHUP | EVENT_HUP)) !== 0) this.run(index);
    const isRoomMade = (events & EVENT_OUT) !== 0 && this.pending[index ^ 1]! > 0;
    if (isRoomMade && this.state[index >> 1] === STATE_OPEN) this.run(index ^ 1);
  }

  /** Moves what can be moved in a direction. */
  private run(d: number): void {
    if (this.ended[d] !== 0 || this.queued[d] !== 0) return;
    const { sockets, pipes, view, record } = this;
    if (this.pipe[d] === 0) {
      const taken = pipes.take();
      if (taken < 0) {
        this.queued[d] = 1;
        this.waiting.push(d);
        return;
      }
      this.pipe[d] = taken + 1;
    }
    const pipe = this.pipe[d]! - 1;
    const status = sockets.spliceStream(
      this.fd[d]!,
      pipes.readFd(pipe),
      pipes.writeFd(pipe),
      this.fd[d ^ 1]!,
      this.pending[d]!,
      BUDGET_BYTES,
      record,
    );
    if (status < 0) {
      this.fail(d >> 1);
      return;
    }
    const pending = view.getUint32(record + SPLICE_PENDING, true);
    const movedNow = view.getUint32(record + SPLICE_MOVED, true);
    const source = view.getInt32(record + SPLICE_SOURCE, true);
    const target = view.getInt32(record + SPLICE_TARGET, true);
    this.pending[d] = pending;
    this.moved[d] = this.moved[d]! + movedNow;
    this.bytes += movedNow;
    const hasFailed = (source < 0 && source !== EAGAIN) || (target < 0 && target !== EAGAIN);
    if (hasFailed) {
      this.fail(d >> 1);
      return;
    }
    if (pending > 0 || source === SPLICE_OPEN) {
      // With the target full its room is an event to come; otherwise only the budget has ended.
      if (target === SPLICE_OPEN) this.queue(d);
      return;
    }
    pipes.give(pipe);
    this.pipe[d] = 0;
    if (source === SPLICE_ENDED) this.end(d);
  }

  /** All of a direction has arrived: passes its end on. */
  private end(d: number): void {
    this.ended[d] = 1;
    this.sockets.shutdown(this.fd[d ^ 1]!, SHUT_WRITE);
    if (this.ended[d ^ 1] !== 0) this.retire(d >> 1);
  }

  private queue(d: number): void {
    this.queued[d] = 1;
    this.ready.push(d);
  }

  private refuse(flow: number): void {
    this.refused++;
    this.abort(flow);
  }

  private fail(flow: number): void {
    this.reset++;
    this.abort(flow);
  }

  private abort(flow: number): void {
    for (let d = flow * 2; d <= flow * 2 + 1; d++) this.sockets.setOption(this.fd[d]!, SOL_SOCKET, SO_LINGER, 0);
    this.retire(flow);
  }

  private retire(flow: number): void {
    if (this.state[flow] === STATE_RETIRED) return;
    this.state[flow] = STATE_RETIRED;
    this.count--;
    this.retired.push(flow);
  }

  private closeHard(fd: number): void {
    this.sockets.setOption(fd, SOL_SOCKET, SO_LINGER, 0);
    this.sockets.close(fd);
  }

  /** Lets queued directions go on, frees what has ended. */
  endTurn(): void {
    if (this.retired.length > 0) this.sweep();
    if (this.waiting.length > 0) {
      const waiting = this.waiting;
      this.waiting = [];
      this.runAll(waiting);
      // Another direction gives its pipe back, or descriptors get free in the process: no event tells the second.
      if (this.waiting.length > 0 && this.retry === undefined) {
        this.retry = setTimeout(() => {
          this.retry = undefined;
          this.kickTurn();
        }, RETRY_MS);
      }
    }
    if (this.ready.length > 0) {
      const ready = this.ready;
      this.ready = [];
      this.runAll(ready);
      if (this.ready.length > 0 && this.again === undefined) {
        this.again = setImmediate(() => {
          this.again = undefined;
          this.kickTurn();
        });
      }
    }
    if (this.retired.length > 0) this.sweep();
  }

  private runAll(directions: readonly number[]): void {
    for (const d of directions) {
      this.queued[d] = 0;
      if (this.state[d >> 1] === STATE_OPEN) this.run(d);
    }
  }

  private sweep(): void {
    for (const flow of this.retired) {
      for (let d = flow * 2; d <= flow * 2 + 1; d++) {
        this.sockets.close(this.fd[d]!);
        this.fd[d] = -1;
        if (this.pipe[d] !== 0) {
          if (this.pending[d]! > 0) this.pipes.discard(this.pipe[d]! - 1);
          else this.pipes.give(this.pipe[d]! - 1);
          this.pipe[d] = 0;
        }
        // A queue that still named this direction would run another flow's.
        if (this.queued[d] !== 0) {
          this.ready = this.ready.filter((other) => other !== d);
          this.waiting = this.waiting.filter((other) => other !== d);
        }
      }
      this.free(flow);
    }
    this.retired.length = 0;
  }

  private allocate(): number {
    let flow: number;
    if (this.freeHead !== 0) {
      flow = this.freeHead - 1;
      this.freeHead = this.nextFree[flow]!;
    } else if (this.highWater < CAPACITY) {
      flow = this.highWater++;
    } else {
      return -1;
    }
    this.generation[flow] = this.generation[flow]! + 1;
    return flow;
  }

  private free(flow: number): void {
    this.state[flow] = STATE_FREE;
    this.nextFree[flow] = this.freeHead;
    this.freeHead = flow + 1;
  }

  /** One past the highest index ever used: the bound for a walk over all flows. */
  get bound(): number {
    return this.highWater;
  }

  /** @returns undefined when there is no such flow. Not for the data path */
  describe(flow: number): TcpSpliceDescription | undefined {
    const state = this.state[flow];
    if (state !== STATE_CONNECTING && state !== STATE_OPEN) return undefined;
    const client = flow * 2;
    const isHalf = this.ended[client] !== 0 || this.ended[client + 1] !== 0;
    return {
      state: state === STATE_CONNECTING ? 'connecting' : isHalf ? 'half-closed' : 'open',
      listener: this.listener[flow]!,
      ofNamespace: this.ofNamespace[flow] !== 0,
      generation: this.generation[flow]!,
      ageMs: this.clock.nowMs() - this.openedMs[flow]!,
      bytesFromClient: this.moved[client]!,
      bytesToClient: this.moved[client + 1]!,
      clientFd: this.fd[client]!,
      serverFd: this.fd[client + 1]!,
    };
  }

  /** Pipes in use. */
  get pipesLent(): number {
    return this.pipes.lent;
  }

  close(): void {
    if (this.again !== undefined) clearImmediate(this.again);
    clearTimeout(this.retry);
    for (let flow = 0; flow < this.highWater; flow++) {
      if (this.state[flow] === STATE_CONNECTING || this.state[flow] === STATE_OPEN) this.retire(flow);
    }
    this.sweep();
    this.pipes.close();
  }
}
