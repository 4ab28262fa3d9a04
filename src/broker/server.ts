/**
 * The broker's server: accepts connections, reads requests, runs verbs, sends answers.
 *
 * Descriptors of a message belong to this file from their arrival; a verb that keeps them takes them over by not throwing. Everything else is closed:
 * after a refusal, of a message that was cut, when a client goes. While an answer waits for room nothing more is read from that client; one that does
 * not read for {@link BrokerServerOptions.stallMs} is cut off, and what it would have taken stays kept.
 */
import { checkStatus, createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';
import { MAX_MESSAGE_FDS } from '../sys/scm.ts';
import { getPeerCredentials } from '../sys/unix-socket.ts';
import { type Peer, Permissions, type Policy } from './policy.ts';
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

/** What a request came to, for the audit log. */
export interface AuditRecord {
  readonly peer: Peer;
  readonly verb: string;
  /** Name, path, bridge: what it was about. */
  readonly subject: string | undefined;
  /** Descriptors received and sent. */
  readonly received: number;
  readonly sent: number;
  /** Undefined: done. */
  readonly error: BrokerError | undefined;
}

export interface BrokerServerOptions extends Omit<VerbContext, 'ownNames'> {
  readonly policy: Policy;
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
const EAGAIN = -11;
const EMSGSIZE = -90;
const ETOOMANYREFS = -109;

const EVENT_OUT = 4;
const EPOLL_ADD = 1;
const EPOLL_MODIFY = 3;
const EVENT_IN = 1;

interface Waiting {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
  readonly settle: (sent: boolean) => void;
}

interface Connection {
  readonly fd: number;
  /** An epoll of its own: a poll handle knows only "readable", and the events wanted change. */
  readonly epoll: number;
  readonly poll: PollHandle;
  readonly may: Permissions;
  /** A verb is at work: nothing is read until its answer has been sent. */
  busy: boolean;
  /** The answer that the client's socket has no room for yet, and when to give up. */
  waiting: Waiting | undefined;
  stall: NodeJS.Timeout | undefined;
}

export class BrokerServer {
  private readonly options: BrokerServerOptions;
  private readonly context: VerbContext;
  private readonly connections = new Set<Connection>();
  private readonly bytes = new Uint8Array(MAX_MESSAGE_BYTES + 1);
  private readonly fds = new Int32Array(1 + MAX_MESSAGE_FDS);
  private readonly credentials = new Int32Array(3);
  private readonly sending = new Int32Array(MAX_MESSAGE_FDS);
  /** Names of the listeners: a socket that is bound or connected to one of them is the broker's. */
  private readonly ownNames = new Set<string>();
  private readonly listeners: { readonly fd: number; readonly poll: PollHandle }[] = [];

  constructor(options: BrokerServerOptions) {
    this.options = options;
    this.context = { ...options, ownNames: this.ownNames };
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  /** Serves a listening SOCK_SEQPACKET socket; it is the server's from here on. */
  serve(fd: number): void {
    const { native } = this.options;
    const name = native.unixName(fd, 0);
    if (typeof name === 'string') this.ownNames.add(name);
    const poll = native.startPoll(fd, () => this.accept(fd));
    if (typeof poll === 'number') throw createSystemError('uv_poll_start', poll);
    this.listeners.push({ fd, poll });
  }

  /** Ends all connections and listeners. Names stay in the registry. */
  close(): void {
    const { native } = this.options;
    for (const { fd, poll } of this.listeners.splice(0)) {
      native.stopPoll(poll);
      native.close(fd);
    }
    for (const connection of [...this.connections]) this.end(connection);
  }

  private accept(listener: number): void {
    const { native, onTrouble } = this.options;
    const fd = native.accept(listener, this.options.scratch.offset);
    if (fd === EAGAIN) return;
    if (fd < 0) {
      onTrouble?.(createSystemError('accept', fd).message);
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
    const { native, policy, maxConnections = 256, maxConnectionsPerUser = 64 } = this.options;
    const peer = readPeer(native, fd);
    const same = [...this.connections].filter(({ may }) => may.peer.uid === peer.uid).length;
    if (this.connections.size >= maxConnections || (peer.uid !== 0 && same >= maxConnectionsPerUser)) {
      const refusal = new BrokerError('quota', 'too many connections');
      const bytes = formatError(null, refusal);
      native.sendFds(fd, bytes, 0, bytes.length, new Int32Array(0), 0);
      throw new Error(`user ${peer.uid}, process ${peer.pid}: too many connections`);
    }
    const epoll = checkStatus(native.epollCreate(), 'epoll_create1');
    checkStatus(native.epollControl(epoll, EPOLL_ADD, fd, EVENT_IN, 0, 0), 'epoll_ctl');
    const poll = native.startPoll(epoll, () => this.onEvent(connection));
    if (typeof poll === 'number') {
      native.close(epoll);
      throw createSystemError('uv_poll_start', poll);
    }
    const may = new Permissions(policy, peer);
    const connection: Connection = { fd, epoll, poll, may, busy: false, waiting: undefined, stall: undefined };
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
    const { native } = this.options;
    const got = native.receiveFds(connection.fd, this.bytes, 0, this.bytes.length, this.fds, this.credentials);
    if (got === EAGAIN) return false;
    if (got === EMSGSIZE) {
      this.refuse(
        connection,
        null,
        undefined,
        0,
        new BrokerError('truncated', 'the message or its descriptors were cut'),
      );
      return true;
    }
    if (got <= 0) {
      this.end(connection);
      return false;
    }
    const fds: number[] = [];
    for (let i = 1; i <= this.fds[0]!; i++) fds.push(this.fds[i]!);
    this.handle(connection, this.bytes.subarray(0, got), fds);
    return true;
  }

  private handle(connection: Connection, bytes: Uint8Array, fds: readonly number[]): void {
    const { native } = this.options;
    let id: RequestId | null = null;
    let request: BrokerRequest | undefined;
    try {
      request = parseRequest(bytes, (each) => {
        id = each;
      });
      const answer = this.run(connection, request, fds);
      if (answer instanceof Promise) this.answerLater(connection, request, answer);
      else this.answer(connection, request, fds.length, answer);
    } catch (error) {
      for (const fd of fds) native.close(fd);
      this.refuse(connection, id, request, fds.length, this.refusalOf(error));
    }
  }

  private answer(connection: Connection, request: BrokerRequest, received: number, answer: VerbAnswer): void {
    this.audit(connection, request, received, answer.fds.length, undefined);
    this.send(connection, {
      bytes: formatResult(request.id, answer.result, answer.fds.length),
      fds: answer.fds,
      settle: answer.settle,
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
    promise.then(
      (answer) => {
        if (resume()) this.answer(connection, request, 0, answer);
        else answer.settle(false);
      },
      (error: unknown) => {
        const refusal = this.refusalOf(error);
        if (resume()) this.refuse(connection, request.id, request, 0, refusal);
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
    return run(this.context, connection.may, asked, fds);
  }

  private refuse(
    connection: Connection,
    id: RequestId | null,
    request: BrokerRequest | undefined,
    received: number,
    error: BrokerError,
  ): void {
    this.audit(connection, request, received, 0, error);
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
    settle(sent >= 0);
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
    native.close(connection.epoll);
    native.close(connection.fd);
    clearTimeout(connection.stall);
    connection.waiting?.settle(false);
    connection.waiting = undefined;
  }

  private audit(
    connection: Connection,
    request: BrokerRequest | undefined,
    received: number,
    sent: number,
    error: BrokerError | undefined,
  ): void {
    const { peer } = connection.may;
    this.options.audit?.({ peer, verb: request?.verb ?? '?', subject: subjectOf(request), received, sent, error });
  }
}

function subjectOf(request: BrokerRequest | undefined): string | undefined {
  if (request === undefined) return undefined;
  const { asked } = request;
  if ('path' in asked) return asked.path;
  if ('bridge' in asked) return asked.bridge;
  if ('network' in asked) return asked.network;
  if ('place' in asked)
    return asked.place.family === 'unix' ? asked.place.path : `${asked.place.address} ${asked.place.port}`;
  return 'name' in asked ? asked.name : undefined;
}

const MAX_GROUPS = 65_536;

function readPeer(native: NativeAddon, fd: number): Peer {
  const { pid, uid, gid } = getPeerCredentials(native, fd);
  const groups = new Int32Array(MAX_GROUPS);
  const count = checkStatus(native.peerGroups(fd, groups), 'getsockopt');
  return { pid, uid, gid, groups: Array.from(groups.subarray(0, count), (group) => group >>> 0) };
}
