/**
 * SCSI commands on descriptors, beside Node's event loop: SG_IO of ioctl(2) on threads of the addon's, each of which holds one command
 * until the device has answered.
 */
import { checkStatus, createSystemError } from './errors.ts';
import type { NativeAddon, PollHandle, SgPool } from './native-addon.ts';

/** Directions of a transfer: linux/scsi/sg.h. */
export const SG_DXFER_NONE = -1;
export const SG_DXFER_TO_DEVICE = -2;
export const SG_DXFER_FROM_DEVICE = -3;

/** Sense that the kernel may write, and the bytes that every result has for it. */
export const SG_SENSE_BYTES = 96;

/** How a command ended. */
export interface SgResult {
  /** Of the ioctl; 0 when it was carried out, and only then do the statuses mean something. */
  readonly errno: number;
  readonly status: number;
  readonly hostStatus: number;
  readonly driverStatus: number;
  /** How much of the sense the kernel wrote; the rest is zeros. */
  readonly senseBytes: number;
  readonly transferredBytes: number;
  readonly durationUs: number;
}

export interface SgRequest {
  /** The device; must stay open until the command is done. */
  readonly fd: number;
  /** The CDB and, behind it, the data that go to the device. */
  readonly bytes: Uint8Array;
  readonly cdbBytes: number;
  readonly transferBytes: number;
  /** SG_DXFER_*. */
  readonly direction: number;
  readonly timeoutMs: number;
}

export interface SgQueueOptions {
  /** At most so many commands at a time; others wait in order. */
  readonly threads: number;
  /** Places of sense and data in {@link SgQueue.buffer}. */
  readonly senseOffset: number;
  readonly dataOffset: number;
  readonly bufferBytes: number;
}

export interface SgQueue {
  /** Sense and data of the command whose `done` runs; the next one's afterwards. */
  readonly buffer: Uint8Array;
  /** Commands that are not done. */
  readonly pending: number;
  /**
   * Starts a command; all of the request is copied.
   * @param done - called from the event loop, never before `submit` has returned
   * @throws Error with `errno`
   */
  submit(request: SgRequest, done: (result: SgResult) => void): void;
  /** No `done` is called any more. Commands that the kernel has go on. */
  close(): void;
}

/** @throws Error with `errno` */
export function createSgQueue(native: NativeAddon, options: SgQueueOptions): SgQueue {
  const created = native.sgCreate(options.threads);
  if (typeof created === 'number') throw createSystemError('eventfd', created);
  const pool: SgPool = created;
  const buffer = new Uint8Array(options.bufferBytes);
  const result = new Int32Array(8);
  const waiting = new Map<number, (result: SgResult) => void>();
  let nextToken = 0;

  const drain = (): void => {
    while (native.sgTake(pool, result, buffer, options.senseOffset, options.dataOffset) === 1) {
      const token = result[0]! >>> 0;
      const done = waiting.get(token);
      waiting.delete(token);
      if (waiting.size === 0) native.unrefPoll(poll);
      done?.({
        errno: result[1]!,
        status: result[2]!,
        hostStatus: result[3]!,
        driverStatus: result[4]!,
        senseBytes: result[5]!,
        transferredBytes: result[6]!,
        durationUs: result[7]!,
      });
    }
  };
  const started = native.startPoll(native.sgEventFd(pool), drain);
  if (typeof started === 'number') throw createSystemError('uv_poll_start', started);
  const poll: PollHandle = started;
  native.unrefPoll(poll);

  return {
    buffer,
    get pending() {
      return waiting.size;
    },
    submit(request, done) {
      const { fd, bytes, cdbBytes, transferBytes, direction, timeoutMs } = request;
      while (waiting.has(nextToken)) nextToken = (nextToken + 1) >>> 0;
      const token = nextToken;
      nextToken = (nextToken + 1) >>> 0;
      const status = native.sgSubmit(pool, token, fd, bytes, cdbBytes, transferBytes, direction, timeoutMs);
      checkStatus(status, 'pthread_create');
      if (waiting.size === 0) native.refPoll(poll);
      waiting.set(token, done);
    },
    close() {
      waiting.clear();
      native.stopPoll(poll);
    },
  };
}

/** What an open file is, and how it was opened. */
export interface OpenFile {
  readonly kind: 'block' | 'character' | 'other';
  readonly major: number;
  readonly minor: number;
  /** It may be written to; never for O_PATH. */
  readonly isWritable: boolean;
}

const S_IFMT_CHARACTER = 0o020000;
const S_IFMT_BLOCK = 0o060000;
const O_ACCMODE = 3;
const O_RDONLY = 0;

/** Only read while one file is looked at. */
const described = new Int32Array(4);

/** @throws Error with `errno` */
export function describeFile(native: NativeAddon, fd: number): OpenFile {
  checkStatus(native.describeFile(fd, described), 'fstat');
  return readOpenFile(described, 0);
}

/** From the type, major, minor and flags that the addon gives. */
export function readOpenFile(numbers: Int32Array, at: number): OpenFile {
  const type = numbers[at]!;
  const major = numbers[at + 1]!;
  const minor = numbers[at + 2]!;
  const flags = numbers[at + 3]!;
  const kind = type === S_IFMT_BLOCK ? 'block' : type === S_IFMT_CHARACTER ? 'character' : 'other';
  return { kind, major, minor, isWritable: (flags & O_ACCMODE) !== O_RDONLY };
}
