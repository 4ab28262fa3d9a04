/**
 * The broker's server: accepts connections, reads requests, runs verbs, sends answers.
 *
 * Descriptors of a message belong to this file from their arrival; a verb that keeps them takes them over by not throwing. Everything else is closed:
 * after a refusal, of a message that was cut, when a client goes. While an answer waits for room nothing more is read from that client; one that does
 * not read for {@link BrokerServerOptions.stallMs} is cut off, and what it would have taken stays kept.
 */
import { EAGAIN, ECONNABORTED, EMSGSIZE, EPIPE, ETOOMANYREFS } from '../base/errno.ts';
import { createSystemError, nameErrno } from '../sys/errors.ts';
import type { PollHandle } from '../sys/native-addon.ts';
import { MAX_MESSAGE_FDS } from '../sys/scm.ts';
import { type AuditRecord, describeRequest, type Outcome } from './audit.ts';
import type { Closer } from './closer.ts';
import { readPeer } from './peer.ts';
import { Permissions, type Policy } from './policy.ts';
import {
  BrokerError,
  type BrokerRequest,
  formatError,
  formatResult,
  MAX_MESSAGE_BYTES,
  parseRequest,
  type RequestId,
} from './protocol.ts';
import { VERB_HANDLERS, type VerbAnswer, type VerbContext } from './verbs.ts';

export interface BrokerServerOptions extends Omit<VerbContext, 'ownNames' | 'pidfd'> {
  readonly policy: Policy;
  readonly closer: Closer;
  /** Connections at a time, of all users; default 256. */
  readonly maxConnections?: number;
  /** Of these at most this many of one user (root's do not count); default 64. */
  readonly maxConnectionsPerUser?: number;
  /** How long an answer may wait for its client, milliseconds; default 10 000. */
  readonly stallMs?: number;
  readonly audit?: (record: AuditRecord) => void;
  /** Something went wrong that no client can be told. */
  readonly onTrouble?: (message: string) => void;
}

const DEFAULT_STALL_MS = 10_000;
/** Requests of one connection in a row, before others have their turn. */
const REQUESTS_A_TURN = 16;
/** How long no connection is accepted when there is no descriptor for one. */
const ACCEPT_PAUSE_MS = 200;

/**
 * More than a message may have, and than the default limits of the kernel let one send: what is too long arrives whole, so that its descriptors are closed
 * by {@link Closer}.
 */
const RECEIVE_BYTES = 512 * 1024;

const EVENT_OUT = 4;
const EPOLL_ADD = 1;
const EPOLL_MODIFY = 3;
const EVENT_IN = 1;

interface Waiting {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  /** Called once. @param status - 0 or more: it has left; else -errno */
  readonly settle: (status: number) => void;
}

interface Listener {
  readonly fd: number;
  /** Undefined while nothing is accepted. */
  poll: PollHandle | undefined;
  pause: NodeJS.Timeout | undefined;
}

interface Connection {
  readonly fd: number;
  /** An epoll of its own: a poll handle knows only "readable", and the events wanted change. */
  readonly epoll: number;
  readonly poll: PollHandle;
  /** Of the process that connected, where the kernel has them. */
  readonly pidfd: number | undefined;
  may: Permissions;
  /** What its verbs work with. */
  readonly context: VerbContext;
  /** A verb is at work: nothing is read until its answer has been sent. */
  busy: boolean;
  /** The answer that the client's socket has no room for yet, and when to give up. */
  waiting: Waiting | undefined;
  stall: NodeJS.Timeout | undefined;
}

export class BrokerServer {
  private readonly options: BrokerServerOptions;
  private readonly connections = new Set<Connection>();
  private readonly bytes = new Uint8Array(RECEIVE_BYTES);
  private readonly fds = new Int32Array(1 + MAX_MESSAGE_FDS);
  private readonly credentials = new Int32Array(3);
  private readonly sending = new Int32Array(MAX_MESSAGE_FDS);
  /** Names of the listeners: a socket that is bound or connected to one of them is the broker's. */
  private readonly ownNames = new Set<string>();
  private readonly listeners: Listener[] = [];
  private policy: Policy;

  constructor(options: BrokerServerOptions) {
    this.options = options;
    this.policy = options.policy;
  }

  /** What counts from here on, also for those who are connected. What they have stays theirs. */
  setPolicy(policy: Policy): void {
    this.policy = policy;
    for (const connection of this.connections) connection.may = new Permissions(policy, connection.may.peer);
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  /** Serves a listening SOCK_SEQPACKET socket; it is the server's from here on. */
  serve(fd: number): void {
    const { native } = this.options;
    const name = native.unixName(fd, 0);
    if (typeof name === 'string') this.ownNames.add(name);
    const listener: Listener = { fd, poll: undefined, pause: undefined };
    this.resume(listener);
    this.listeners.push(listener);
  }

  /** Ends all connections and listeners. Names stay in the registry. */
  close(): void {
    const { native } = this.options;
    for (const { fd, poll, pause } of this.listeners.splice(0)) {
      if (poll !== undefined) native.stopPoll(poll);
      clearTimeout(pause);
      native.close(fd);
    }
    for (const connection of [...this.connections]) this.end(connection);
  }

  private resume(listener: Listener): void {
    const poll = this.options.native.startPoll(listener.fd, () => this.accept(listener));
    if (typeof poll === 'number') throw createSystemError('uv_poll_start', poll);
    listener.poll = poll;
  }

  private accept(listener: Listener): void {
    const { native, onTrouble } = this.options;
    const fd = native.unixAccept(listener.fd);
    if (fd === EAGAIN || fd === ECONNABORTED) return;
    if (fd < 0) {
      // No descriptor for it, most likely: it stays readable, and would be reported again at once.
      onTrouble?.(`${createSystemError('accept', fd).message}: no connections for ${ACCEPT_PAUSE_MS} ms`);
      native.stopPoll(listener.poll!);
      listener.poll = undefined;
      listener.pause = setTimeout(() => this.resume(listener), ACCEPT_PAUSE_MS);
      return;
    }
    try {
      this.open(fd);
    } catch (error) {
      native.close(fd);
      onTrouble?.(error instanceof Error ? error.message : String(error));
    }
  }

  private open(fd: number): void {
    const { native, maxConnections = 256, maxConnectionsPerUser = 64 } = this.options;
    const { peer, pidfd } = readPeer(native, fd);
    const same = [...this.connections].filter(({ may }) => may.peer.uid === peer.uid).length;
    if (this.connections.size >= maxConnections || (peer.uid !== 0 && same >= maxConnectionsPerUser)) {
      const refusal = new BrokerError('quota', 'too many connections');
      const bytes = formatError(null, refusal);
      native.sendFds(fd, bytes, 0, bytes.length, new Int32Array(0), 0);
      if (pidfd !== undefined) native.close(pidfd);
      throw new Error(`user ${peer.uid}, process ${peer.pid}: too many connections`);
    }
    const epoll = native.epollCreate();
    const status = epoll < 0 ? epoll : native.epollControl(epoll, EPOLL_ADD, fd, EVENT_IN, 0, 0);
    const poll = status < 0 ? status : native.startPoll(epoll, () => this.onEvent(connection));
    if (typeof poll === 'number') {
      for (const each of [epoll, pidfd ?? -1]) if (each >= 0) native.close(each);
      throw createSystemError('epoll', poll);
    }
    const may = new Permissions(this.policy, peer);
    const context: VerbContext = { ...this.options, ownNames: this.ownNames, pidfd };
    const state = { busy: false, waiting: undefined, stall: undefined };
    const connection: Connection = { fd, epoll, poll, pidfd, may, context, ...state };
    this.connections.add(connection);
  }

  private onEvent(connection: Connection): void {
    const { waiting, busy } = connection;
    // All that is reported meanwhile is that the client has gone.
    if (busy) {
      this.end(connection);
      return;
    }
    if (waiting !== undefined) {
      this.rest(connection);
      this.send(connection, waiting);
    }
    for (let i = 0; i < REQUESTS_A_TURN; i++) {
      if (!this.connections.has(connection) || connection.busy || connection.waiting !== undefined) return;
      if (!this.receive(connection)) return;
    }
  }

  /** @returns whether there may be more */
  private receive(connection: Connection): boolean {
    const { native, closer, onTrouble } = this.options;
    const { uid } = connection.may.peer;
    // Who lets descriptors pile up that cannot be closed gets no further.
    if (closer.countOf(uid) > connection.may.quota.fds) {
      onTrouble?.(`user ${uid}: too many descriptors cannot be closed: cut off`);
      this.end(connection);
      return false;
    }
    const got = native.receiveFds(connection.fd, this.bytes, 0, this.bytes.length, this.fds, this.credentials);
    if (got === EAGAIN) return false;
    const fds: number[] = [];
    if (got >= 0) for (let i = 1; i <= this.fds[0]!; i++) fds.push(this.fds[i]!);
    if (got === EMSGSIZE || got > MAX_MESSAGE_BYTES) {
      for (const fd of fds) closer.close(fd, uid);
      const what =
        got > 0
          ? `the message has ${got} bytes, of ${MAX_MESSAGE_BYTES} at most`
          : 'the message or its descriptors were cut';
      this.refuse(connection, null, undefined, fds.length, new BrokerError('truncated', what));
      return true;
    }
    if (got <= 0) {
      for (const fd of fds) closer.close(fd, uid);
      this.end(connection);
      return false;
    }
    this.handle(connection, this.bytes.subarray(0, got), fds);
    return true;
  }

  private handle(connection: Connection, bytes: Uint8Array, fds: readonly number[]): void {
    const { closer } = this.options;
    let id: RequestId | null = null;
    let request: BrokerRequest | undefined;
    let answer: VerbAnswer | Promise<VerbAnswer>;
    try {
      request = parseRequest(bytes, (each) => {
        id = each;
      });
      answer = this.run(connection, request, fds);
    } catch (error) {
      for (const fd of fds) closer.close(fd, connection.may.peer.uid);
      this.refuse(connection, id, request, fds.length, this.refusalOf(error));
      return;
    }
    if (answer instanceof Promise) this.answerLater(connection, request, answer);
    else this.answer(connection, request, fds.length, answer);
  }

  private answer(connection: Connection, request: BrokerRequest, received: number, answer: VerbAnswer): void {
    const { result, fds, facts, settle } = answer;
    this.send(connection, {
      bytes: formatResult(request.id, result, fds.length),
      fds,
      settle: (status) => {
        settle(status >= 0);
        const error = status >= 0 ? undefined : undelivered(status);
        const made = request.verb === 'tap' || request.verb === 'netdev' ? result : undefined;
        this.audit(connection, request, { received, sent: error === undefined ? fds.length : 0, facts, made, error });
      },
    });
  }

  /** Requests of verbs that take their time come without descriptors. */
  private answerLater(connection: Connection, request: BrokerRequest, promise: Promise<VerbAnswer>): void {
    const { native } = this.options;
    connection.busy = true;
    native.epollControl(connection.epoll, EPOLL_MODIFY, connection.fd, 0, 0, 0);
    const resume = (): boolean => {
      connection.busy = false;
      if (!this.connections.has(connection)) return false;
      native.epollControl(connection.epoll, EPOLL_MODIFY, connection.fd, EVENT_IN, 0, 0);
      return true;
    };
    const gone = (outcome: Partial<Outcome>): void => {
      const error = undelivered(EPIPE);
      this.audit(connection, request, { received: 0, sent: 0, facts: [], made: undefined, error, ...outcome });
    };
    promise.then(
      (answer) => {
        if (resume()) {
          this.answer(connection, request, 0, answer);
          return;
        }
        answer.settle(false);
        gone({ facts: answer.facts, made: answer.result });
      },
      (error: unknown) => {
        const refusal = this.refusalOf(error);
        if (resume()) this.refuse(connection, request.id, request, 0, refusal);
        else gone({ error: refusal });
      },
    );
  }

  private refusalOf(error: unknown): BrokerError {
    if (error instanceof BrokerError) return error;
    this.options.onTrouble?.(String((error as Error).stack));
    return new BrokerError('system', `internal error: ${(error as Error).message}`);
  }

  private run(
    connection: Connection,
    { verb, fds: declared, asked }: BrokerRequest,
    fds: readonly number[],
  ): VerbAnswer | Promise<VerbAnswer> {
    if (fds.length !== declared) {
      throw new BrokerError('fd-count', `${declared} descriptors were announced, ${fds.length} came`);
    }
    const row = VERB_HANDLERS[verb];
    if (row.fds === 'none' && fds.length > 0) throw new BrokerError('fd-count', `'${verb}' takes no descriptors`);
    if (row.fds === 'some' && fds.length === 0) throw new BrokerError('fd-count', `'${verb}' needs descriptors`);
    connection.may.checkVerb(verb);
    // The row and what was asked belong together: both are of this verb.
    const run = row.run as (
      context: VerbContext,
      may: Permissions,
      what: unknown,
      came: readonly number[],
    ) => VerbAnswer | Promise<VerbAnswer>;
    return run(connection.context, connection.may, asked, fds);
  }

  private refuse(
    connection: Connection,
    id: RequestId | null,
    request: BrokerRequest | undefined,
    received: number,
    error: BrokerError,
  ): void {
    this.audit(connection, request, { received, sent: 0, facts: [], made: undefined, error });
    this.send(connection, { bytes: formatError(id, error), fds: [], settle: () => {} });
  }

  private send(connection: Connection, message: Waiting): void {
    const { native } = this.options;
    const { bytes, fds, settle } = message;
    for (let i = 0; i < fds.length; i++) this.sending[i] = fds[i]!;
    const sent = native.sendFds(connection.fd, bytes, 0, bytes.length, this.sending, fds.length);
    if (sent === EAGAIN) {
      this.wait(connection, message);
      return;
    }
    settle(sent);
    if (sent === ETOOMANYREFS) {
      // The kernel's limit on descriptors that this process has sent and nobody has received yet (unix(7)).
      const refusal = new BrokerError('quota', 'too many descriptors are on their way to clients that do not read');
      this.send(connection, { bytes: formatError(null, refusal), fds: [], settle: () => {} });
    } else if (sent < 0) this.end(connection);
  }

  /** Until there is room nothing is read. */
  private wait(connection: Connection, message: Waiting): void {
    const { native, onTrouble, stallMs = DEFAULT_STALL_MS } = this.options;
    connection.waiting = message;
    native.epollControl(connection.epoll, EPOLL_MODIFY, connection.fd, EVENT_OUT, 0, 0);
    connection.stall = setTimeout(() => {
      onTrouble?.(`process ${connection.may.peer.pid} does not read its answers: cut off`);
      this.end(connection);
    }, stallMs).unref();
  }

  private rest(connection: Connection): void {
    clearTimeout(connection.stall);
    connection.waiting = undefined;
    this.options.native.epollControl(connection.epoll, EPOLL_MODIFY, connection.fd, EVENT_IN, 0, 0);
  }

  private end(connection: Connection): void {
    if (!this.connections.delete(connection)) return;
    const { native } = this.options;
    native.stopPoll(connection.poll);
    for (const fd of [connection.epoll, connection.fd, connection.pidfd]) if (fd !== undefined) native.close(fd);
    clearTimeout(connection.stall);
    const { waiting } = connection;
    connection.waiting = undefined;
    waiting?.settle(EPIPE);
  }

  private audit(connection: Connection, request: BrokerRequest | undefined, outcome: Outcome): void {
    this.options.audit?.(describeRequest(connection.may.peer, request, outcome));
  }
}

/** The client has gone, or did not take its answer. */
function undelivered(status: number): BrokerError {
  if (status === ETOOMANYREFS)
    return new BrokerError('quota', 'the answer did not leave: too many descriptors are on their way');
  return new BrokerError('closing', `the answer did not leave: ${nameErrno(status)}`, nameErrno(status));
}
