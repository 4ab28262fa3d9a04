/**
 * A helper that executes PERSISTENT RESERVE commands for QEMU: the server of the protocol in helper-protocol.ts.
 *
 * Requests of different connections run side by side, those of one in order. Who may connect is decided by the permissions of the
 * socket, and what a client may do by the devices that it can open: it must show a descriptor, writable for anything that changes.
 *
 * The connections are served by threads of the addon's (src/native/pr-server.c); here is decided which requests go to their devices, and here
 * is kept and told what became of them. At most one request of a connection is carried out at a time, and nothing is read behind it until
 * its answer has been taken by the socket, so a client that does not read, or sends ahead, waits for itself alone. There are no time
 * limits: QEMU keeps its connection for as long as its guest lives.
 */
import { EAGAIN, ECONNABORTED, EINTR } from '../base/errno.ts';
import { createLogGate, type Logger, warnGated } from '../base/logger.ts';
import { createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';
import { createPrThreads, type PrHost } from '../sys/pr-threads.ts';
import type { OpenFile, SgQueue } from '../sys/sg.ts';
import { getPeerCredentials } from '../sys/unix-socket.ts';
import { Activity, type ClientRecord } from './activity.ts';
import { CONNECTION_ENDS, type ConnectionEnd, type Peer } from './connection.ts';
import { type AccessEntry, describeAccess, formatDevice } from './describe.ts';
import type { DeviceRules } from './device-rules.ts';
import {
  type Answer,
  createDecider,
  describeFault,
  type MultipathRoute,
  type Outcome,
  THREADS_MAX,
  tabulateOutcome,
} from './executor.ts';
import { RESPONSE_HEADER_BYTES } from './helper-protocol.ts';

/** Without free descriptors the next client stays in the queue; the socket would be readable all the time. */
const ACCEPT_RETRY_MS = 100;
const WARN_INTERVAL_MS = 10_000;
/** Commands that one device may have at a time: enough for any, and few enough that a device that is stuck leaves threads to others. */
export const COMMANDS_PER_DEVICE = 16;

export interface PrHelperServerOptions {
  readonly native: NativeAddon;
  readonly log: Logger;
  /** What a device may take for one command, as the kernel counts it; default 30 s. Its error recovery comes on top. */
  readonly requestTimeoutMs?: number;
  /** Default: every device that a client can show. */
  readonly rules?: DeviceRules;
  /** How devices with several paths are served; default: as any other, which reaches one path only. */
  readonly multipath?: MultipathRoute;
  /** The queue that `multipath` uses, which is closed at the end. */
  readonly queue?: SgQueue;
  /** Called for each request, in order for each client, within milliseconds of its answer. */
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
  /** The same in detail, for each client and device, as it is now. */
  readonly activity: Activity;
  /** Takes no more clients, ends those that wait for nothing, and resolves when the requests in the devices' hands are answered. */
  stop(): Promise<void>;
}

/** Ends that say nothing about the client. */
const ORDERLY: ReadonlySet<ConnectionEnd> = new Set(['closed by the client', 'server stopped', 'socket error']);

export function createPrHelperServer(options: PrHelperServerOptions): PrHelperServer {
  const { native, log, onAccess, findPath, multipath, queue } = options;
  const decider = createDecider(options);
  const activity = new Activity();
  /** By slot. */
  const connections = new Map<number, ClientRecord>();
  const gate = createLogGate(WARN_INTERVAL_MS);
  let listenFd = -1;
  let listenPoll: PollHandle | undefined;
  let retry: NodeJS.Timeout | undefined;
  let stopped: (() => void) | undefined;
  let finishing = false;

  const tell = (client: ClientRecord, request: Uint8Array, outcome: Outcome): void => {
    activity.finish(client, request, outcome);
    if (onAccess === undefined) return;
    const { file, status, sense, sizeBytes, durationUs, note } = outcome;
    const path = file === undefined ? undefined : findPath?.(file);
    const { pid: peerPid, uid: peerUid } = client.peer;
    onAccess(describeAccess({ peerPid, peerUid, file, path, request, status, sense, sizeBytes, durationUs, note }));
  };

  const finishIfDone = (): void => {
    if (stopped === undefined || finishing || connections.size > 0) return;
    finishing = true;
    const finished = stopped;
    void (async () => {
      await multipath?.close?.();
      await threads.close();
      queue?.close();
      finished();
    })();
  };

  const host: PrHost = {
    onQuestion(question) {
      const { slot, request } = question;
      const client = connections.get(slot)!;
      const answer = (given: Answer): void => {
        tell(client, request, given);
        threads.answer(slot, given.bytes, RESPONSE_HEADER_BYTES + given.sizeBytes);
      };
      const decision = decider.decide(question, answer);
      if (decision !== undefined && !threads.run(slot, decision === 'grant')) answer(decider.giveUp(question));
    },
    onDone(done) {
      const { slot, request, status, sense, sizeBytes, durationUs, file } = done;
      tell(connections.get(slot)!, request, { status, sense, sizeBytes, durationUs, file, note: describeFault(done) });
    },
    onCrowded(_slot, file) {
      const device = formatDevice(file);
      log.warn(`device ${device} has ${COMMANDS_PER_DEVICE} commands that it has not answered: others wait for them`);
    },
    onEnd(slot, reason) {
      const client = connections.get(slot)!;
      const { pid, uid } = client.peer;
      connections.delete(slot);
      const end = CONNECTION_ENDS[reason]!;
      const isOrderly = ORDERLY.has(end);
      activity.disconnect(client, !isOrderly);
      if (isOrderly) log.debug(`client ${pid} (uid ${uid}): ${end}`);
      else {
        warnGated(log, gate, performance.now(), `closing the connection of process ${pid} (uid ${uid}): ${end}`);
      }
      finishIfDone();
    },
  };
  const threads = createPrThreads(
    native,
    {
      threads: THREADS_MAX,
      perDevice: COMMANDS_PER_DEVICE,
      timeoutMs: options.requestTimeoutMs ?? REQUEST_TIMEOUT_DEFAULT_MS,
      judge: tabulateOutcome,
    },
    host,
  );

  const attach = (fd: number): void => {
    let peer: Peer;
    try {
      peer = getPeerCredentials(native, fd);
    } catch {
      native.close(fd);
      return;
    }
    const slot = threads.attach(fd);
    if (slot < 0) {
      native.close(fd);
      log.warn(`a client cannot be served: ${createSystemError('attach', slot).message}`);
      return;
    }
    connections.set(slot, activity.connect(peer));
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
    get activity() {
      threads.collect();
      for (const client of activity.clients) client.request = undefined;
      for (const { slot, file, request, ageMs } of threads.pending()) {
        activity.begin(connections.get(slot)!, file, request, ageMs);
      }
      return activity;
    },
    status() {
      const inFlight = threads.collect();
      const { requests, good, conflicts, failures } = activity.total;
      const { clientsTotal: connectionsTotal, refused } = activity;
      const all = requests + inFlight;
      return {
        connections: connections.size,
        connectionsTotal,
        requests: all,
        inFlight,
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
        threads.stop();
        finishIfDone();
      });
    },
  };
}
