/**
 * Reservation requests on threads of the addon's: the typed surface of src/native/pr-server.c.
 *
 * What is done is told by records. The first one after a pause is told at once; while more come, they are collected every few
 * milliseconds, many at a time, since waking the event loop for each would cost more than the requests themselves.
 */
import { checkStatus, createSystemError } from './errors.ts';
import type { NativeAddon, PollHandle, PrThreads as Threads } from './native-addon.ts';
import { type OpenFile, readOpenFile, type SgResult } from './sg.ts';

/** How long what is done may wait to be told while more of it comes. */
const COLLECT_MS = 5;
const RECORDS = 128;
const RECORD_NUMBERS = 16;
const HEAD_NUMBERS = 4;
const NOTED_BYTES = 40;
const SENSE_BYTES = 96;
const RECORD_BYTES = NOTED_BYTES + SENSE_BYTES;
const ENDED = 64;
const REQUEST_MAX_BYTES = 16 + 8192;
const PENDING_NUMBERS = 8;
const KIND_DONE = 0;

const VERDICTS = 256;
const VERDICT_BYTES = 20;
const VERDICT_DECIDES = 1;
const VERDICT_SENSE = 2;
/** No status of a device's: tells where its own stands. */
const OWN_STATUS = 0x7f;

/** What SG_IO told about a command. */
export type SgStatuses = Pick<SgResult, 'errno' | 'status' | 'hostStatus' | 'driverStatus'>;

/** What becomes of it: a status, and the first 18 bytes of sense where the device's own do not stand. */
export interface PrVerdict {
  readonly status: number;
  readonly sense: Uint8Array | undefined;
}

/** A request that a device has carried out. The bytes are valid until the call that gets it returns. */
export interface PrDone {
  readonly slot: number;
  readonly file: OpenFile;
  /** The CDB with its padding and as much of the parameters as is kept: 24 bytes. */
  readonly request: Uint8Array;
  readonly status: number;
  readonly sense: Uint8Array;
  readonly sizeBytes: number;
  /** Of the ioctl, with the device's own status. */
  readonly errno: number;
  readonly hostStatus: number;
  readonly driverStatus: number;
  readonly durationUs: number;
}

/** A request that is not carried out before it is let through. */
export interface PrQuestion {
  readonly slot: number;
  /** undefined: it could not be looked at. */
  readonly file: OpenFile | undefined;
  readonly errno: number;
  /** Open until the request is answered or let through. */
  readonly deviceFd: number;
  /** The CDB with its padding and all of the parameters; the receiver's to keep. */
  readonly request: Uint8Array;
}

/** A request that is not answered. */
export interface PrPending {
  readonly slot: number;
  readonly file: OpenFile | undefined;
  readonly request: Uint8Array;
  readonly ageMs: number;
}

/** What the owner is told, from the event loop or from within {@link PrServerThreads.collect}. */
export interface PrHost {
  onQuestion(question: PrQuestion): void;
  onDone(done: PrDone): void;
  /** A device has as many commands as it may; others wait until it answers. Told again when none have waited in between. */
  onCrowded(slot: number, file: OpenFile): void;
  /** A connection is over and its socket closed. @param reason - index of the addon's list; the slot may be given to another one now */
  onEnd(slot: number, reason: number): void;
}

export interface PrThreadsOptions {
  /** Commands at a time, and of one device's. */
  readonly threads: number;
  readonly perDevice: number;
  readonly timeoutMs: number;
  /** Asked at the start, for everything that there may be. */
  readonly judge: (outcome: SgStatuses) => PrVerdict;
}

export interface PrServerThreads {
  /**
   * Greets a client.
   * @param fd - connected and non-blocking
   * @returns its slot, and the socket is the threads'; or -errno, and it is not
   */
  attach(fd: number): number;
  /** @param grant - also lets through all others for this device; see the addon. @returns false when there is no memory: it must be answered */
  run(slot: number, grant: boolean): boolean;
  /** @param answer - copied */
  answer(slot: number, answer: Uint8Array, lengthBytes: number): void;
  /** Tells now all that there is to tell. @returns how many requests are not answered */
  collect(): number;
  pending(): PrPending[];
  /** Connections that wait for nothing end, the others when they have their answers. */
  stop(): void;
  /** Nothing is told any more. Resolves when no thread is left: a device that has one still is waited for. */
  close(): Promise<void>;
}

/** @throws Error with `errno` */
export function createPrThreads(native: NativeAddon, options: PrThreadsOptions, host: PrHost): PrServerThreads {
  const created = native.prCreate(options.threads, options.perDevice, options.timeoutMs, tabulate(options.judge));
  if (typeof created === 'number') throw createSystemError('epoll_create1', created);
  const threads: Threads = created;
  const numbers = new Int32Array(HEAD_NUMBERS + RECORDS * RECORD_NUMBERS);
  const bytes = new Uint8Array(RECORDS * RECORD_BYTES);
  const senses = Array.from({ length: RECORDS }, (_, i) => {
    const at = i * RECORD_BYTES + NOTED_BYTES;
    return bytes.subarray(at, at + SENSE_BYTES);
  });
  const ended = new Int32Array(ENDED * 2);
  const asked = new Int32Array(PENDING_NUMBERS);
  const askedBytes = new Uint8Array(REQUEST_MAX_BYTES);
  let connections = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  /** What is being told must not be overwritten by what is told for somebody who asks meanwhile. */
  let telling = false;
  const closing: (() => void)[] = [];

  const tellDone = (index: number): void => {
    const at = HEAD_NUMBERS + index * RECORD_NUMBERS;
    const slot = numbers[at + 1]!;
    const file = readOpenFile(numbers, at + 2);
    if (numbers[at] !== KIND_DONE) {
      host.onCrowded(slot, file);
      return;
    }
    const from = index * RECORD_BYTES;
    host.onDone({
      slot,
      file,
      request: bytes.subarray(from, from + Math.min(numbers[at + 8]!, NOTED_BYTES)),
      status: numbers[at + 6]!,
      sense: senses[index]!,
      sizeBytes: numbers[at + 7]!,
      errno: numbers[at + 9]!,
      hostStatus: numbers[at + 10]!,
      driverStatus: numbers[at + 11]!,
      durationUs: numbers[at + 12]!,
    });
  };

  /** @returns how much there was */
  const takeAll = (arm: boolean): number => {
    let taken = 0;
    do {
      checkStatus(native.prTake(threads, numbers, bytes, ended, arm ? 1 : 0), 'prTake');
      const [records = 0, ends = 0] = numbers;
      for (let i = 0; i < records; i++) tellDone(i);
      for (let i = 0; i < ends; i++) {
        leave();
        host.onEnd(ended[i * 2]!, ended[i * 2 + 1]!);
        // The last one may have closed us.
        if (closed) return taken;
      }
      taken += records + ends;
    } while (numbers[2] === 1);
    return taken;
  };

  const takeQuestions = (): void => {
    while (!closed && native.prQuestion(threads, asked, askedBytes) === 1) {
      const errno = asked[5]!;
      host.onQuestion({
        slot: asked[0]!,
        file: errno === 0 ? readOpenFile(asked, 1) : undefined,
        errno,
        deviceFd: asked[6]!,
        request: askedBytes.slice(0, asked[7]!),
      });
    }
  };

  /** Questions last: what told of them has been read with the records. @returns how many records and ends there were */
  const tellAll = (arm: boolean): number => {
    if (telling) return 0;
    telling = true;
    try {
      const taken = takeAll(arm);
      takeQuestions();
      return taken;
    } finally {
      telling = false;
    }
  };
  const onTimer = (): void => {
    timer = undefined;
    if (tellAll(true) > 0 && !closed) collectLater();
  };
  const collectLater = (): void => {
    timer ??= setTimeout(onTimer, COLLECT_MS);
  };

  const closeWhenLeft = (): void => {
    if (native.prEnd(threads) > 0) return;
    native.stopPoll(poll);
    native.prClose(threads);
    for (const resolve of closing.splice(0)) resolve();
  };

  const started = native.startPoll(native.prEventFd(threads), () => {
    if (closed) {
      closeWhenLeft();
      return;
    }
    tellAll(false);
    if (!closed) collectLater();
  });
  if (typeof started === 'number') throw createSystemError('uv_poll_start', started);
  const poll: PollHandle = started;
  native.unrefPoll(poll);

  const leave = (): void => {
    connections--;
    if (connections === 0) native.unrefPoll(poll);
  };

  return {
    attach(fd) {
      const slot = native.prAttach(threads, fd);
      if (slot < 0) return slot;
      if (connections === 0) native.refPoll(poll);
      connections++;
      return slot;
    },
    run: (slot, grant) => native.prRun(threads, slot, grant ? 1 : 0) === 0,
    answer(slot, answer, lengthBytes) {
      checkStatus(native.prAnswer(threads, slot, answer, lengthBytes), 'prAnswer');
    },
    collect() {
      if (closed) return 0;
      tellAll(false);
      // Again, since questions may have been answered by now, and the count goes with what was told.
      tellAll(false);
      if (!closed) collectLater();
      return numbers[3]!;
    },
    pending() {
      if (closed) return [];
      const found = new Int32Array(connections * PENDING_NUMBERS);
      const requests = new Uint8Array(connections * NOTED_BYTES);
      const count = native.prPending(threads, found, requests);
      checkStatus(count, 'prPending');
      return Array.from({ length: count }, (_, i): PrPending => {
        const at = i * PENDING_NUMBERS;
        const from = i * NOTED_BYTES;
        return {
          slot: found[at]!,
          file: found[at + 7] === 0 ? readOpenFile(found, at + 1) : undefined,
          request: requests.subarray(from, from + Math.min(found[at + 6]!, NOTED_BYTES)),
          ageMs: found[at + 5]!,
        };
      });
    },
    stop() {
      native.prStop(threads);
      collectLater();
    },
    close() {
      closed = true;
      clearTimeout(timer);
      native.refPoll(poll);
      return new Promise((resolve) => {
        closing.push(resolve);
        closeWhenLeft();
      });
    },
  };
}

/** All that can come out as the addon looks it up; the first of each table stands for what is beyond it. */
function tabulate(judge: PrThreadsOptions['judge']): Uint8Array {
  const table = new Uint8Array(3 * VERDICTS * VERDICT_BYTES);
  const none: SgStatuses = { errno: 0, status: OWN_STATUS, hostStatus: 0, driverStatus: 0 };
  const beyond = 0x7fff;
  for (let i = 0; i < VERDICTS; i++) {
    write(table, i, judge({ ...none, errno: i === 0 ? beyond : i }));
    write(table, VERDICTS + i, judge({ ...none, hostStatus: i === 0 ? beyond : i }));
    write(table, 2 * VERDICTS + i, judge({ ...none, driverStatus: i }));
  }
  return table;
}

function write(table: Uint8Array, index: number, { status, sense }: PrVerdict): void {
  const at = index * VERDICT_BYTES;
  if (status !== OWN_STATUS) table[at] = VERDICT_DECIDES;
  table[at + 1] = status;
  if (sense === undefined) return;
  table[at] = table[at]! | VERDICT_SENSE;
  table.set(sense, at + 2);
}
