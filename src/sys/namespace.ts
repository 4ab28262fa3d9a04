/**
 * A network namespace to serve: made or joined by an agent, a small C process (`native/agent`), because a process with threads cannot do it.
 * The agent makes and configures the tap, starts the command in new namespaces, says when it has ended or when a joined namespace is gone,
 * and makes the sockets that belong there. It ends, and the command with it, when this process closes its sockets or ends.
 */

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EPIPE } from '../base/errno.ts';
import { checkStatus, createSystemError } from './errors.ts';
import { nativePath } from './native.ts';
import type { NativeAddon, PollHandle } from './native-addon.ts';
import { type ChildEnd, decodeWaitStatus, listEnvironment, startProgram } from './process.ts';
import { receiveWithFds } from './scm.ts';

/** An address or a route of the tap, for {@link TapRequest}. */
export interface TapAddress {
  /** As text. */
  readonly address: string;
  readonly prefixLength: number;
}

export interface TapRoute extends TapAddress {
  /** Undefined: on link. */
  readonly gateway: string | undefined;
  /** 0: the kernel's default. */
  readonly metric: number;
  /** What cannot be had in the namespace is left out. */
  readonly optional: boolean;
}

export interface TapRequest {
  readonly name: string;
  /** As text; undefined: the kernel's choice. */
  readonly mac: string | undefined;
  /** Ask for virtio-net headers in front of frames. */
  readonly vnetHeader: boolean;
  /** Undefined: the device is left down and without addresses. */
  readonly network:
    | {
        /** Bytes; 0: the kernel's default. */
        readonly mtu: number;
        readonly addresses: readonly TapAddress[];
        /** In the order in which they can be made. */
        readonly routes: readonly TapRoute[];
      }
    | undefined;
}

export type NamespaceTarget =
  /** New namespaces with a command in them. */
  | {
      readonly kind: 'new';
      /** Path of the program. */
      readonly file: string;
      /** The zeroth included. */
      readonly args: readonly string[];
      /** It is an interactive shell: on a terminal it leads the foreground. */
      readonly isShell: boolean;
    }
  /** Those that are there. */
  | {
      readonly kind: 'join';
      readonly netPath: string;
      /** Undefined: this process's own. */
      readonly userPath: string | undefined;
      /** Whose they are; undefined: nobody's. */
      readonly pid: number | undefined;
      /** Say when they are gone. */
      readonly watch: boolean;
    };

export interface NamespaceRequest {
  readonly target: NamespaceTarget;
  /** Whom agent and command become; undefined: nobody else. */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
  /** Undefined: none. */
  readonly tap: TapRequest | undefined;
}

/** Tables of sockets in the namespace, as /proc/net has them: to be read from offset 0 again and again. */
export interface SocketTables {
  readonly tcp: number;
  readonly tcp6: number;
  readonly udp: number;
  readonly udp6: number;
}

/** How the work of a namespace came to its end. */
export type NamespaceEnd =
  | { readonly kind: 'command'; readonly end: ChildEnd }
  /** Its process has ended, or its name was removed. */
  | { readonly kind: 'gone' }
  /** The agent was killed. */
  | { readonly kind: 'agent' };

export interface GuestNamespace {
  /** Non-blocking; undefined: none was asked for. Whoever takes it owns it. */
  readonly tap: { readonly fd: number; readonly vnetHeader: boolean } | undefined;
  readonly tables: SocketTables;
  /** The first process of new namespaces; 0: they were there before. */
  readonly initPid: number;
  readonly agentPid: number;
  /** A socket of the namespace: an fd for the caller, or -errno. */
  open(family: number, type: number): number;
  /** bind(2) with the namespace's right to low ports. @returns 0 or -errno */
  bind(fd: number, endpointOffset: number): number;
  /** Lets the command start. */
  start(): void;
  readonly ended: Promise<NamespaceEnd>;
  /** Ends agent and command. Harmless when called twice. */
  close(): void;
}

/** Words for `enum agent_step` of native/agent/protocol.h: "cannot …". */
export const NAMESPACE_STEPS = [
  'start the namespace agent',
  'find the process',
  'open the user namespace',
  'open the network namespace',
  'change the user',
  'join the user namespace',
  'join the network namespace',
  'make a user namespace',
  'map user and group ids',
  'make the namespaces',
  'start a process in the namespaces',
  'open the tap driver',
  'make the tap device',
  'configure the network',
  'open the tables of sockets',
  'watch the namespace',
  'give up privileges',
] as const;

export type NamespaceStep = (typeof NAMESPACE_STEPS)[number];

/** The agent could not do its work; nothing is left of it. */
export interface NamespaceError extends NodeJS.ErrnoException {
  readonly step: NamespaceStep;
  /** What it was about; empty: nothing in particular. */
  readonly subject: string;
}

const SOCK_SEQPACKET = 5;
/** See native/agent/protocol.h. */
const REQUEST_FD = 3;
const REPORT_FD = 4;
const REPORT_BYTES = 128;
const REPORT_TEXT = 12;
const REPORT_READY = 1;
const REPORT_FAILED = 2;
const REPORT_ENDED = 3;
const REPORT_GONE = 4;
const READY_TAP = 1;
const READY_VNET = 2;
const REQUEST_BYTES = 136;
const REQUEST_GO = 3;
const SIGKILL = 9;

/** Sockets asked for at once, and room for the most that an answer brings. */
const POOL_SOCKETS = 32;
const ANSWER_FDS = 64;

/** Where the agent's executable is: beside the addon. */
export function agentPath(): string {
  const beside = join(dirname(nativePath()), 'namespace-agent');
  return existsSync(beside) ? beside : join(dirname(nativePath()), '../../build/Release/namespace-agent');
}

interface Report {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
  readonly text: string;
  readonly fds: readonly number[];
}

/**
 * Starts an agent and waits until all is set up.
 * @throws NamespaceError, ExecError
 */
export async function openNamespace(native: NativeAddon, request: NamespaceRequest): Promise<GuestNamespace> {
  const requestPair = makePair(native);
  const reportPair = makePair(native);
  const [requests, reports] = [requestPair[0], reportPair[0]];
  // Whoever asks waits for the answer: one that came later would be taken for that of the next question.
  checkStatus(native.setNonBlocking(requests, 0), 'fcntl');
  let agentPid: number;
  let agentEnded: Promise<ChildEnd>;
  try {
    const agent = startProgram(native, {
      file: agentPath(),
      args: ['passel-namespace', ...listWords(request)],
      env: listEnvironment(process.env),
      fds: Int32Array.of(REQUEST_FD, requestPair[1], REPORT_FD, reportPair[1]),
      deathSignal: SIGKILL,
    });
    agentPid = agent.pid;
    agentEnded = agent.ended;
  } catch (error) {
    native.close(requests);
    native.close(reports);
    throw error;
  } finally {
    native.close(requestPair[1]);
    native.close(reportPair[1]);
  }
  const ended = watchReports(native, reports);
  const first = await ended.next();
  if (first?.kind !== REPORT_READY) {
    ended.stop();
    native.close(requests);
    native.close(reports);
    await agentEnded;
    throw describeFailure(first);
  }
  // Its end is told by its sockets; the wait only takes what is left of it.
  agentEnded.catch(() => {});
  return takeOver(native, { requests, reports, agentPid, first, ended });
}

function makePair(native: NativeAddon): readonly [number, number] {
  const fds = new Int32Array(2);
  checkStatus(native.socketPair(SOCK_SEQPACKET, fds), 'socketpair');
  return [fds[0]!, fds[1]!];
}

/** The agent's command line. */
function listWords({ target, user, tap }: NamespaceRequest): string[] {
  const words: string[] = [];
  const add = (name: string, value: string | number | undefined): void => {
    if (value !== undefined) words.push(`${name}=${value}`);
  };
  add('uid', user?.uid);
  add('gid', user?.gid);
  if (target.kind === 'join') {
    add('net', target.netPath);
    add('user', target.userPath);
    add('pid', target.pid);
    add('watch', target.watch ? 1 : 0);
  }
  if (tap !== undefined) {
    add('tap', tap.name);
    add('vnet', tap.vnetHeader ? 1 : 0);
    add('mac', tap.mac);
    const { network } = tap;
    if (network !== undefined) {
      add('up', 1);
      add('mtu', network.mtu);
      for (const { address, prefixLength } of network.addresses) add('address', `${address}/${prefixLength}`);
      for (const { address, prefixLength, gateway, metric, optional } of network.routes) {
        add(optional ? 'may-route' : 'route', `${address}/${prefixLength},${gateway ?? '-'},${metric}`);
      }
    }
  }
  if (target.kind === 'new') words.push(`shell=${target.isShell ? 1 : 0}`, '--', target.file, ...target.args);
  return words;
}

interface ReportWatch {
  /** The next report; undefined: the agent is gone. */
  next(): Promise<Report | undefined>;
  stop(): void;
}

function watchReports(native: NativeAddon, fd: number): ReportWatch {
  const arrived: (Report | undefined)[] = [];
  let waiting: ((report: Report | undefined) => void) | undefined;
  let poll: PollHandle | undefined;
  const stop = (): void => {
    if (poll !== undefined) native.stopPoll(poll);
    poll = undefined;
  };
  const put = (report: Report | undefined): void => {
    if (report === undefined) stop();
    if (waiting === undefined) arrived.push(report);
    else waiting(report);
    waiting = undefined;
  };
  const handle = native.startPoll(fd, () => {
    const message = receiveWithFds(native, fd, REPORT_BYTES);
    if (message !== undefined)
      put(message.bytes.length < REPORT_BYTES ? undefined : decode(message.bytes, message.fds));
  });
  if (typeof handle === 'number') throw createSystemError('uv_poll_start', handle);
  poll = handle;
  return {
    next: () =>
      arrived.length > 0
        ? Promise.resolve(arrived.shift())
        : new Promise((resolve) => {
            waiting = resolve;
          }),
    stop,
  };
}

function decode(bytes: Uint8Array, fds: readonly number[]): Report {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, 3);
  const text = Buffer.from(bytes.subarray(REPORT_TEXT)).toString('utf8');
  return { kind: words[0]!, a: words[1]!, b: words[2]!, text: text.slice(0, text.indexOf('\0')), fds };
}

function describeFailure(report: Report | undefined): NamespaceError {
  const step = NAMESPACE_STEPS[report?.kind === REPORT_FAILED ? report.a : 0] ?? NAMESPACE_STEPS[0];
  const subject = report?.text ?? '';
  const error = createSystemError(step, report?.kind === REPORT_FAILED ? -report.b : EPIPE);
  return Object.assign(error, { step, subject });
}

interface Agent {
  readonly requests: number;
  readonly reports: number;
  readonly agentPid: number;
  readonly first: Report;
  readonly ended: ReportWatch;
}

function takeOver(native: NativeAddon, { requests, reports, agentPid, first, ended }: Agent): GuestNamespace {
  const fds = [...first.fds];
  const tapFd = first.a & READY_TAP ? fds.shift() : undefined;
  const [tcp, tcp6, udp, udp6] = fds as [number, number, number, number];
  const pool = createSocketPool(native, requests);
  let open = true;
  return {
    tap: tapFd === undefined ? undefined : { fd: tapFd, vnetHeader: (first.a & READY_VNET) !== 0 },
    tables: { tcp, tcp6, udp, udp6 },
    initPid: first.b,
    agentPid,
    open: pool.take,
    bind: (fd, endpointOffset) => native.namespaceBind(requests, fd, endpointOffset),
    start() {
      const bytes = new Uint8Array(REQUEST_BYTES);
      bytes[0] = REQUEST_GO;
      // An agent that is gone says so by its end.
      native.sendFds(requests, bytes, 0, bytes.length, new Int32Array(0), 0);
    },
    ended: ended.next().then((report): NamespaceEnd => {
      if (report?.kind === REPORT_ENDED) return { kind: 'command', end: decodeWaitStatus(report.a) };
      return { kind: report?.kind === REPORT_GONE ? 'gone' : 'agent' };
    }),
    close() {
      if (!open) return;
      open = false;
      ended.stop();
      pool.close();
      for (const fd of [tcp, tcp6, udp, udp6]) native.close(fd);
      native.close(requests);
      native.close(reports);
    },
  };
}

/** Sockets are asked for by the dozen: an exchange with the agent costs as much for many as for one. */
function createSocketPool(
  native: NativeAddon,
  requests: number,
): { take(family: number, type: number): number; close(): void } {
  const pools = new Map<number, number[]>();
  const answer = new Int32Array(ANSWER_FDS);
  return {
    take(family, type) {
      const key = family * 16 + type;
      const pool = pools.get(key) ?? [];
      pools.set(key, pool);
      const fd = pool.pop();
      if (fd !== undefined) return fd;
      const count = native.namespaceSockets(requests, family, type, POOL_SOCKETS, answer);
      if (count <= 0) return count === 0 ? EPIPE : count;
      for (let i = 1; i < count; i++) pool.push(answer[i]!);
      return answer[0]!;
    },
    close() {
      for (const pool of pools.values()) for (const fd of pool.splice(0)) native.close(fd);
    },
  };
}
