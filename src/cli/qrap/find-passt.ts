/**
 * Finding a passt that waits for its guest: the sockets that passt makes by default are tried in turn, each with a probe
 * (probe-frames.ts) that it must answer.
 *
 * A passt that has a guest already accepts and resets at once. libvirt and KubeVirt start QEMU several times in a row, and passt may
 * see the end of the last one late: the same socket is tried again for a while, each time with a new connection, the old one closed.
 * The answer is read to its end, so that what QEMU reads first is a frame for its guest. Nothing else has begun in this process: it
 * simply waits.
 */

import { getSystemErrorMap } from 'node:util';
import { EAGAIN, ECONNRESET, EPIPE } from '../../base/errno.ts';
import { PasselError } from '../../base/errors.ts';
import { EPOLL_ADD, EPOLL_DELETE, type NativeAddon } from '../../sys/native-addon.ts';
import { connectUnix } from '../../sys/unix-socket.ts';
import { checkFrameLength, FRAME_MAX_BYTES, FRAME_PREFIX_BYTES, getFrameLength } from '../../wire/frame-length.ts';
import { buildProbe, isArpReply } from './probe-frames.ts';

/** Numbers of the paths. passt takes the first 64; C's qrap looks at all of these. */
const FIRST_NUMBER = 1;
const LAST_NUMBER = 99;

/** How long a peer may take to let us in, and to answer. */
const ANSWER_TIMEOUT_MS = 500;
/** A listener whose queue is full is asked again after this. */
const QUEUE_RETRY_MS = 10;
const RESET_RETRIES = 50;
const RESET_RETRY_MS = 50;

const EPOLLIN = 1;

/** One frame, and an epoll event behind it. */
const ARENA_BYTES = 128 * 1024;
const EVENT_OFFSET = FRAME_PREFIX_BYTES + FRAME_MAX_BYTES + 1;

export interface FoundPasst {
  readonly path: string;
  /** The connected socket, non-blocking and close-on-exec, the caller's. */
  readonly fd: number;
}

function pathOf(number: number): string {
  return `/tmp/passt_${number}.socket`;
}

/**
 * The first socket that answers, connected. Blocks.
 * @throws PasselError PASSEL_E_QRAP_NO_PASST, with what became of each path
 */
export function findPasst(native: NativeAddon): FoundPasst {
  const arena = new ArrayBuffer(ARENA_BYTES);
  native.bindArena(arena);
  const probe: Prober = { native, view: new DataView(arena), epoll: native.epollCreate(), frames: buildProbe() };
  const answers: string[] = [];
  try {
    for (let number = FIRST_NUMBER; number <= LAST_NUMBER; number++) {
      const answer = tryPath(probe, pathOf(number));
      if (typeof answer === 'number') return { path: pathOf(number), fd: answer };
      answers.push(answer);
    }
  } finally {
    native.close(probe.epoll);
  }
  throw new PasselError('PASSEL_E_QRAP_NO_PASST', { value: summarise(answers) });
}

interface Prober {
  readonly native: NativeAddon;
  /** The arena. */
  readonly view: DataView;
  readonly epoll: number;
  readonly frames: Uint8Array;
}

/** @returns a connected socket, or why there is none */
function tryPath(prober: Prober, path: string): number | string {
  for (let retries = 0; ; retries++) {
    const answer = tryOnce(prober, path);
    if (answer !== ECONNRESET) return typeof answer === 'number' && answer < 0 ? describe(answer) : answer;
    if (retries === RESET_RETRIES) return 'it has a guest already (connection reset)';
    sleep(RESET_RETRY_MS);
  }
}

/** @returns a connected socket, -errno, or another reason */
function tryOnce(prober: Prober, path: string): number | string {
  const fd = connectWithin(prober.native, path, ANSWER_TIMEOUT_MS);
  if (fd < 0) return fd;
  const { native, frames } = prober;
  const sent = native.sendBuffer(fd, frames, 0, frames.length, 0);
  // Closed before we spoke: the same as a reset, seen from another moment.
  let failure: number | string | undefined = sent === EPIPE ? ECONNRESET : undefined;
  if (failure === undefined && sent !== frames.length) failure = sent < 0 ? sent : 'it takes no data';
  failure ??= awaitAnswer(prober, fd);
  if (failure === undefined) return fd;
  native.close(fd);
  return failure;
}

/** connect(2) to a local socket fails at once when the listener's queue is full; it empties. @returns fd or -errno */
function connectWithin(native: NativeAddon, path: string, timeoutMs: number): number {
  for (const deadline = performance.now() + timeoutMs; ; ) {
    try {
      return connectUnix(native, path);
    } catch (error) {
      const { errno } = error as NodeJS.ErrnoException;
      if (errno === undefined) throw error;
      if (errno !== EAGAIN || performance.now() >= deadline) return errno;
    }
    sleep(QUEUE_RETRY_MS);
  }
}

/**
 * Reads frames until the ARP reply. A peer that sends frames but not that one is taken too, as C takes it, when its time is up.
 * @returns undefined when it came, else why not
 */
function awaitAnswer(prober: Prober, fd: number): number | string | undefined {
  const deadline = performance.now() + ANSWER_TIMEOUT_MS;
  for (let frames = 0; ; frames++) {
    const prefix = receiveExactly(prober, fd, 0, FRAME_PREFIX_BYTES, deadline);
    if (prefix === NO_ANSWER && frames > 0) return undefined;
    if (prefix !== undefined) return prefix;
    if (checkFrameLength(prober.view, 0, FRAME_PREFIX_BYTES) < 0) return 'what it sends is not a frame';
    const length = getFrameLength(prober.view, 0);
    const frame = receiveExactly(prober, fd, FRAME_PREFIX_BYTES, length, deadline);
    if (frame !== undefined) return frame === NO_ANSWER ? HALF_AN_ANSWER : frame;
    if (isArpReply(prober.view, FRAME_PREFIX_BYTES, FRAME_PREFIX_BYTES + length)) return undefined;
  }
}

const NO_ANSWER = `no answer within ${ANSWER_TIMEOUT_MS} ms`;
const HALF_AN_ANSWER = `half an answer within ${ANSWER_TIMEOUT_MS} ms`;

/** Exactly so many bytes to `offset` of the arena. @returns undefined, or why not */
function receiveExactly(
  prober: Prober,
  fd: number,
  offset: number,
  length: number,
  deadline: number,
): number | string | undefined {
  const { native } = prober;
  for (let have = 0; have < length; ) {
    const got = native.receive(fd, offset + have, length - have, 0);
    if (got === 0) return 'it closed the connection';
    if (got > 0) have += got;
    else if (got !== EAGAIN) return got;
    else if (!waitReadable(prober, fd, deadline)) return have === 0 ? NO_ANSWER : HALF_AN_ANSWER;
  }
  return undefined;
}

function waitReadable({ native, epoll }: Prober, fd: number, deadline: number): boolean {
  native.epollControl(epoll, EPOLL_ADD, fd, EPOLLIN, 0, 0);
  try {
    for (;;) {
      const leftMs = Math.ceil(deadline - performance.now());
      if (leftMs <= 0) return false;
      if (native.epollWait(epoll, EVENT_OFFSET, 1, leftMs) !== 0) return true;
    }
  } finally {
    native.epollControl(epoll, EPOLL_DELETE, fd, 0, 0, 0);
  }
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function describe(errno: number): string {
  return getSystemErrorMap().get(errno)?.[1] ?? `error ${-errno}`;
}

/** `PATH: answer; PATH to PATH: answer`. */
function summarise(answers: readonly string[]): string {
  const parts: string[] = [];
  for (let first = 0; first < answers.length; ) {
    let last = first;
    while (answers[last + 1] === answers[first]) last++;
    const paths = pathOf(FIRST_NUMBER + first) + (last === first ? '' : ` to ${pathOf(FIRST_NUMBER + last)}`);
    parts.push(`${paths}: ${answers[first]}`);
    first = last + 1;
  }
  return parts.join('; ');
}
