/**
 * Which requests go to their devices, and what others are answered.
 *
 * An answer is written into a buffer with the layout of the protocol, ready to be sent. It is valid until the call that gets it returns.
 */
import type { Logger } from '../base/logger.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import type { PrQuestion, PrVerdict, SgStatuses } from '../sys/pr-threads.ts';
import { createSgQueue, type OpenFile, type SgQueue } from '../sys/sg.ts';
import { type DeviceRules, mayServe } from './device-rules.ts';
import {
  getTransferLength,
  isReserveOut,
  RESPONSE_HEADER_BYTES,
  RESPONSE_MAX_BYTES,
  RESPONSE_SENSE,
  writeResponseHead,
} from './helper-protocol.ts';
import { SENSE_BYTES, SENSE_INVALID_OPERATION, SENSE_IO_ERROR, type Sense, writeSense } from './sense.ts';
import { judgeOutcome, STATUS_CHECK_CONDITION, STATUS_GOOD } from './status.ts';

/** Threads are cheap, and each stands for a device that has not answered yet. */
export const THREADS_MAX = 256;

/** The note of an answer for a device that the rules do not let through. */
export const NOTE_DENIED = 'denied by rule';

/** What there is to tell about a request that is answered. */
export interface Outcome {
  readonly status: number;
  /** 96 bytes. */
  readonly sense: Uint8Array;
  readonly sizeBytes: number;
  readonly durationUs: number;
  readonly file: OpenFile | undefined;
  readonly note: string | undefined;
}

/** The same and where the answer is. */
export interface Answer extends Outcome {
  /** The header and `sizeBytes` of payload, from offset 0. */
  readonly bytes: Uint8Array;
}

/** A device that is reached over several paths is not to be sent commands like any other: see multipath.ts. */
export interface MultipathRoute {
  /**
   * Carries a command out if the device is one of several paths.
   * @param fd - open until `reply` was called
   * @returns false when it is not; then nothing was done
   */
  take(fd: number, file: OpenFile, request: Uint8Array, reply: ReplyWith): boolean;
  /** The number says that it never takes commands of this device, so it need not be asked again. Default: it may take any. */
  neverTakes?(file: OpenFile): boolean;
  /** Resolves when nothing of it needs the queue any more. */
  close?(): Promise<void>;
}

/** What a route answers with: a status and either sense to make, or what a device said (96 bytes of sense, and data). */
export type ReplyWith = (reply: {
  readonly status: number;
  readonly sense: Sense | Uint8Array | undefined;
  readonly data?: Uint8Array;
  readonly durationUs: number;
  readonly note: string;
}) => void;

/** A queue whose results lie as answers do. */
export function createAnswerQueue(native: NativeAddon): SgQueue {
  return createSgQueue(native, {
    threads: THREADS_MAX,
    senseOffset: RESPONSE_SENSE,
    dataOffset: RESPONSE_HEADER_BYTES,
    bufferBytes: RESPONSE_MAX_BYTES,
  });
}

/**
 * What is done with a request: `run` lets it go to its device, `grant` all others of that device too without asking. undefined: it is
 * answered, now or later.
 */
export type Decision = 'run' | 'grant' | undefined;

export interface DeciderOptions {
  readonly log: Logger;
  readonly rules?: DeviceRules;
  readonly multipath?: MultipathRoute;
}

export interface Decider {
  /** @param done - may be called before this returns */
  decide(question: PrQuestion, done: (answer: Answer) => void): Decision;
  /** The answer to a request that was let through and for which there is no memory. */
  giveUp(question: PrQuestion): Answer;
}

export function createDecider({ log, rules, multipath }: DeciderOptions): Decider {
  const own = new Uint8Array(RESPONSE_MAX_BYTES);
  const ownSense = own.subarray(RESPONSE_SENSE, RESPONSE_HEADER_BYTES);

  const refuse = (sense: Sense, file: OpenFile | undefined, note: string): Answer => {
    writeResponseHead(own, STATUS_CHECK_CONDITION, 0);
    writeSense(own, RESPONSE_SENSE, sense);
    const status = STATUS_CHECK_CONDITION;
    return { bytes: own, status, sense: ownSense, sizeBytes: 0, durationUs: 0, file, note };
  };

  const replyOwn =
    (request: Uint8Array, file: OpenFile, done: (answer: Answer) => void): ReplyWith =>
    ({ status, sense, data, durationUs, note }) => {
      const mayCarry = !isReserveOut(request) && status === STATUS_GOOD && data !== undefined;
      const sizeBytes = mayCarry ? Math.min(data.length, getTransferLength(request)) : 0;
      writeResponseHead(own, status, sizeBytes);
      ownSense.fill(0);
      if (sense instanceof Uint8Array) ownSense.set(sense.subarray(0, ownSense.length));
      else if (sense !== undefined) writeSense(own, RESPONSE_SENSE, sense);
      if (sizeBytes > 0) own.set(data!.subarray(0, sizeBytes), RESPONSE_HEADER_BYTES);
      done({ bytes: own, status, sense: ownSense, sizeBytes, durationUs, file, note });
    };

  return {
    decide({ file, errno, deviceFd, request }, done) {
      if (file === undefined) {
        log.warn(`a descriptor cannot be looked at: errno ${errno}`);
        done(refuse(SENSE_IO_ERROR, undefined, 'descriptor cannot be used'));
      } else if (isReserveOut(request) && !file.isWritable) {
        done(refuse(SENSE_INVALID_OPERATION, file, 'descriptor is read-only'));
      } else if (file.kind === 'other') {
        done(refuse(SENSE_IO_ERROR, file, 'not a device'));
      } else if (rules !== undefined && !mayServe(rules, file)) {
        done(refuse(SENSE_INVALID_OPERATION, file, NOTE_DENIED));
      } else if (!multipath?.take(deviceFd, file, request, replyOwn(request, file, done))) {
        return multipath === undefined || multipath.neverTakes?.(file) ? 'grant' : 'run';
      }
      return undefined;
    },
    giveUp({ file }) {
      log.error('no command can be started: out of memory');
      return refuse(SENSE_IO_ERROR, file, 'no memory');
    },
  };
}

/** Sense that is made, as far as it is not zeros. */
const MADE_SENSE_BYTES = 18;

/** {@link judgeOutcome} for a table. */
export function tabulateOutcome(outcome: SgStatuses): PrVerdict {
  const { status, sense } = judgeOutcome(outcome);
  if (sense === undefined) return { status, sense };
  const bytes = new Uint8Array(SENSE_BYTES);
  writeSense(bytes, 0, sense);
  return { status, sense: bytes.subarray(0, MADE_SENSE_BYTES) };
}

/** What the guest is not told: that and why the command did not get through. */
export function describeFault({ errno, hostStatus, driverStatus }: Omit<SgStatuses, 'status'>): string | undefined {
  if (errno !== 0) return `errno ${errno}`;
  if (hostStatus !== 0) return `host status ${hostStatus}`;
  return (driverStatus & 6) !== 0 ? `driver status ${driverStatus}` : undefined;
}
