/**
 * From a request and a descriptor to an answer: the checks that come before the device, and the device.
 *
 * An answer is written into a buffer with the layout of the protocol, ready to be sent: the queue's own for what a device said, one of
 * ours for refusals. It is valid until the call that gets it returns.
 */
import type { Logger } from '../base/logger.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import {
  createSgQueue,
  describeFile,
  type OpenFile,
  SG_DXFER_FROM_DEVICE,
  SG_DXFER_TO_DEVICE,
  type SgQueue,
  type SgResult,
} from '../sys/sg.ts';
import { type DeviceRules, mayServe } from './device-rules.ts';
import {
  getTransferLength,
  isReserveOut,
  REQUEST_BYTES,
  RESPONSE_HEADER_BYTES,
  RESPONSE_MAX_BYTES,
  RESPONSE_SENSE,
  TRANSFER_MAX_BYTES,
  writeResponseHead,
} from './helper-protocol.ts';
import { SENSE_INVALID_OPERATION, SENSE_IO_ERROR, type Sense, writeSense } from './sense.ts';
import { judgeOutcome, STATUS_CHECK_CONDITION, STATUS_GOOD } from './status.ts';

/** Threads are cheap, and each stands for a device that has not answered yet. */
const THREADS_MAX = 256;

/** The note of an answer for a device that the rules do not let through. */
export const NOTE_DENIED = 'denied by rule';

/** Where an answer is, and what there is to tell about it. */
export interface Answer {
  /** The header and `sizeBytes` of payload, from offset 0. */
  readonly bytes: Uint8Array;
  readonly status: number;
  readonly sizeBytes: number;
  readonly durationUs: number;
  readonly file: OpenFile | undefined;
  readonly note: string | undefined;
}

/** A device that is reached over several paths is not to be sent commands like any other: see multipath.ts. */
export interface MultipathRoute {
  /**
   * Carries a command out if the device is one of several paths.
   * @returns false when it is not; then nothing was done
   */
  take(fd: number, file: OpenFile, request: Uint8Array, reply: ReplyWith): boolean;
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

export interface ExecutorOptions {
  readonly native: NativeAddon;
  readonly log: Logger;
  readonly requestTimeoutMs: number;
  readonly rules?: DeviceRules;
  readonly multipath?: MultipathRoute;
  /** Shared with a route; the executor makes one otherwise. */
  readonly queue?: SgQueue;
}

export interface Executor {
  /** Commands that a device has not answered. */
  readonly pending: number;
  /**
   * @param fd - stays the caller's and must stay open until `done`
   * @param request - the CDB with its padding and, for OUT, the parameters
   * @param done - may be called before this returns
   */
  execute(fd: number, request: Uint8Array, done: (answer: Answer) => void): void;
  close(): void;
}

/** A queue whose results lie as answers do. */
export function createAnswerQueue(native: NativeAddon): SgQueue {
  return createSgQueue(native, {
    threads: THREADS_MAX,
    senseOffset: RESPONSE_SENSE,
    dataOffset: RESPONSE_HEADER_BYTES,
    bufferBytes: RESPONSE_MAX_BYTES,
  });
}

export function createExecutor(options: ExecutorOptions): Executor {
  const { native, log, requestTimeoutMs, rules, multipath } = options;
  const queue = options.queue ?? createAnswerQueue(native);
  const own = new Uint8Array(RESPONSE_MAX_BYTES);

  const refuse = (sense: Sense, file: OpenFile | undefined, note: string, done: (answer: Answer) => void): void => {
    writeResponseHead(own, STATUS_CHECK_CONDITION, 0);
    writeSense(own, RESPONSE_SENSE, sense);
    done({ bytes: own, status: STATUS_CHECK_CONDITION, sizeBytes: 0, durationUs: 0, file, note });
  };

  const answerWith = (request: Uint8Array, file: OpenFile, result: SgResult): Answer => {
    const { status, sense } = judgeOutcome(result);
    const isRead = !isReserveOut(request) && status === STATUS_GOOD;
    const sizeBytes = isRead ? Math.min(result.transferredBytes, getTransferLength(request)) : 0;
    writeResponseHead(queue.buffer, status, sizeBytes);
    if (sense !== undefined) writeSense(queue.buffer, RESPONSE_SENSE, sense);
    const note = describeFault(result);
    return { bytes: queue.buffer, status, sizeBytes, durationUs: result.durationUs, file, note };
  };

  const replyOwn =
    (request: Uint8Array, file: OpenFile, done: (answer: Answer) => void): ReplyWith =>
    ({ status, sense, data, durationUs, note }) => {
      const mayCarry = !isReserveOut(request) && status === STATUS_GOOD && data !== undefined;
      const sizeBytes = mayCarry ? Math.min(data.length, getTransferLength(request)) : 0;
      writeResponseHead(own, status, sizeBytes);
      own.fill(0, RESPONSE_SENSE, RESPONSE_HEADER_BYTES);
      if (sense instanceof Uint8Array)
        own.set(sense.subarray(0, RESPONSE_HEADER_BYTES - RESPONSE_SENSE), RESPONSE_SENSE);
      else if (sense !== undefined) writeSense(own, RESPONSE_SENSE, sense);
      if (sizeBytes > 0) own.set(data!.subarray(0, sizeBytes), RESPONSE_HEADER_BYTES);
      done({ bytes: own, status, sizeBytes, durationUs, file, note });
    };

  return {
    get pending() {
      return queue.pending;
    },
    execute(fd, request, done) {
      let file: OpenFile;
      try {
        file = describeFile(native, fd);
      } catch (error) {
        log.warn(`a descriptor cannot be looked at: ${(error as Error).message}`);
        refuse(SENSE_IO_ERROR, undefined, 'descriptor cannot be used', done);
        return;
      }
      const isOut = isReserveOut(request);
      if (isOut && !file.isWritable) {
        refuse(SENSE_INVALID_OPERATION, file, 'descriptor is read-only', done);
        return;
      }
      if (file.kind === 'other') {
        refuse(SENSE_IO_ERROR, file, 'not a device', done);
        return;
      }
      if (rules !== undefined && !mayServe(rules, file)) {
        refuse(SENSE_INVALID_OPERATION, file, NOTE_DENIED, done);
        return;
      }
      if (multipath?.take(fd, file, request, replyOwn(request, file, done))) return;
      try {
        queue.submit(
          {
            fd,
            bytes: request,
            cdbBytes: REQUEST_BYTES,
            transferBytes: isOut ? request.length - REQUEST_BYTES : TRANSFER_MAX_BYTES,
            direction: isOut ? SG_DXFER_TO_DEVICE : SG_DXFER_FROM_DEVICE,
            timeoutMs: requestTimeoutMs,
          },
          (result) => done(answerWith(request, file, result)),
        );
      } catch (error) {
        log.error(`no command can be started: ${(error as Error).message}`);
        refuse(SENSE_IO_ERROR, file, 'no thread', done);
      }
    },
    close: () => queue.close(),
  };
}

/** What the guest is not told: that and why the command did not get through. */
function describeFault({ errno, hostStatus, driverStatus }: SgResult): string | undefined {
  if (errno !== 0) return `errno ${errno}`;
  if (hostStatus !== 0) return `host status ${hostStatus}`;
  return (driverStatus & 6) !== 0 ? `driver status ${driverStatus}` : undefined;
}
