/**
 * A helper that executes PERSISTENT RESERVE commands for QEMU: the server of the protocol in helper-protocol.ts.
 *
 * Requests of different connections run side by side, those of one in order. Who may connect is decided by the permissions of the
 * socket, and what a client may do by the devices that it can open: it must show a descriptor, writable for anything that changes.
 */
import { createLogGate, type Logger, warnGated } from '../base/logger.ts';
import { createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';
import type { OpenFile, SgQueue } from '../sys/sg.ts';
import { getPeerCredentials } from '../sys/unix-socket.ts';
import { Activity } from './activity.ts';
import { Connection, type ConnectionEnd, type ConnectionHost, type Peer } from './connection.ts';
import { type AccessEntry, describeAccess } from './describe.ts';
import type { DeviceRules } from './device-rules.ts';
import { type Answer, createExecutor, type MultipathRoute } from './executor.ts';
import { RESPONSE_HEADER_BYTES, RESPONSE_SENSE } from './helper-protocol.ts';

const EAGAIN = -11;
const ECONNABORTED = -103;
const EINTR = -4;
/** Without free descriptors the next client stays in the queue; the socket would be readable all the time. */
const ACCEPT_RETRY_MS = 100;
const WARN_INTERVAL_MS = 10_000;

export interface PrHelperServerOptions {
  readonly native: NativeAddon;
  readonly log: Logger;
  /** What a device may take for one command, as the kernel counts it; default 30 s. Its error recovery comes on top. */
  readonly requestTimeoutMs?: number;
  /** Default: every device that a client can show. */
  readonly rules?: DeviceRules;
  /** How devices with several paths are served; default: as any other, which reaches one path only. */
  readonly multipath?: MultipathRoute;
  /** The queue that `multipath` uses too. */
  readonly queue?: SgQueue;
  /** Called after each request. */
  readonly onAccess?: (entry: AccessEntry) => void;
  /** The path of a device node, for `onAccess`. */
  readonly findPath?: (file: OpenFile) => string | undefined;
}

export const REQUEST_TIMEOUT_DEFAULT_MS = 30_000;

export interface PrServerStatus {
  readonly connections: number;
  readonly connectionsTotal: number;
  readonly requests: number;
  readonly inFlight: number;
  /** Answers by what they were. */
  readonly good: number;
  readonly conflicts: number;
  readonly failures: number;
  /** Connections that broke the protocol. */
  readonly refused: number;
}

export interface PrHelperServer {
  /** Takes clients of a listening stream socket, non-blocking, which becomes the server's. */
  listen(fd: number): void;
  /** Serves a connected stream socket, which becomes the server's. */
  attach(fd: number): void;
  status(): PrServerStatus;
  /** The same in detail, for each client and device. */
  readonly activity: Activity;
  /** Takes no more clients, ends those that wait for nothing, and resolves when the requests in the devices' hands are answered. */
  stop(): Promise<void>;
}

/** Ends that say nothing about the client. */
const ORDERLY: ReadonlySet<ConnectionEnd> = new Set(['closed by the client', 'server stopped', 'socket error']);

export function createPrHelperServer(options: PrHelperServerOptions): PrHelperServer {
  const { native, log, onAccess, findPath, multipath, requestTimeoutMs = REQUEST_TIMEOUT_DEFAULT_MS } = options;
  const executor = createExecutor({ ...options, requestTimeoutMs });
  const connections = new Set<Connection>();
  /** Closed by their clients while a device had their request. */
  const orphans = new Set<Connection>();
  const gate = createLogGate(WARN_INTERVAL_MS);
  const activity = new Activity();
  /** Begun, answered or not. */
  let requests = 0;
  let listenFd = -1;
  let listenPoll: PollHandle | undefined;
  let retry: NodeJS.Timeout | undefined;
  let stopped: (() => void) | undefined;
  let finishing = false;

  const tell = (peer: Peer, request: Uint8Array, answer: Answer): void => {
    if (onAccess === undefined) return;
    const { file, status, sizeBytes, durationUs, note } = answer;
    const sense = answer.bytes.subarray(RESPONSE_SENSE, RESPONSE_HEADER_BYTES);
    const path = file === undefined ? undefined : findPath?.(file);
    const { pid: peerPid, uid: peerUid } = peer;
    onAccess(describeAccess({ peerPid, peerUid, file, path, request, status, sense, sizeBytes, durationUs, note }));
  };

  const finishIfDone = (): void => {
    if (stopped === undefined || finishing || connections.size > 0 || orphans.size > 0) return;
    finishing = true;
    const finished = stopped;
    void Promise.resolve(multipath?.close?.()).then(() => {
      executor.close();
      finished();
    });
  };

  const host: ConnectionHost = {
    native,
    execute(connection, deviceFd, request, done) {
      requests++;
      activity.begin(connection.client, deviceFd, request);
      executor.execute(deviceFd, request, (answer) => {
        activity.finish(connection.client, request, answer);
        tell(connection.client.peer, request, answer);
        done(answer);
      });
    },
    onEnd(connection, end) {
      connections.delete(connection);
      if (connection.isBusy) orphans.add(connection);
      const { pid, uid } = connection.client.peer;
      const isOrderly = ORDERLY.has(end);
      activity.disconnect(connection.client, !isOrderly);
      if (isOrderly) log.debug(`client ${pid} (uid ${uid}): ${end}`);
      else {
        warnGated(log, gate, performance.now(), `closing the connection of process ${pid} (uid ${uid}): ${end}`);
      }
      finishIfDone();
    },
    onIdle(connection) {
      orphans.delete(connection);
      if (stopped !== undefined && !connection.isClosed) connection.end('server stopped');
      finishIfDone();
    },
  };

  const attach = (fd: number): void => {
    let peer: Peer;
    try {
      peer = getPeerCredentials(native, fd);
    } catch {
      native.close(fd);
      return;
    }
    const connection = new Connection(host, fd, activity.connect(peer));
    connections.add(connection);
    connection.start();
  };

  const watchListener = (): void => {
    const poll = native.startPoll(listenFd, acceptAll);
    if (typeof poll === 'number') throw createSystemError('uv_poll_start', poll);
    listenPoll = poll;
  };
  const unwatchListener = (): void => {
    clearTimeout(retry);
    if (listenPoll !== undefined) native.stopPoll(listenPoll);
    listenPoll = undefined;
  };

  function acceptAll(): void {
    for (;;) {
      const fd = native.unixAccept(listenFd);
      if (fd === EAGAIN) return;
      if (fd === ECONNABORTED || fd === EINTR) continue;
      if (fd >= 0) {
        attach(fd);
        continue;
      }
      warnGated(
        log,
        gate,
        performance.now(),
        `a client cannot be accepted: ${createSystemError('accept', fd).message}`,
      );
      unwatchListener();
      retry = setTimeout(watchListener, ACCEPT_RETRY_MS);
      return;
    }
  }

  return {
    listen(fd) {
      listenFd = fd;
      watchListener();
    },
    attach,
    activity,
    status() {
      const { good, conflicts, failures } = activity.total;
      const { clientsTotal: connectionsTotal, refused } = activity;
      const { size } = connections;
      return {
        connections: size,
        connectionsTotal,
        requests,
        inFlight: executor.pending,
        good,
        conflicts,
        failures,
        refused,
      };
    },
    stop() {
      unwatchListener();
      if (listenFd >= 0) native.close(listenFd);
      listenFd = -1;
      return new Promise((resolve) => {
        stopped = resolve;
        for (const connection of [...connections]) if (!connection.isBusy) connection.end('server stopped');
        finishIfDone();
      });
    },
  };
}
