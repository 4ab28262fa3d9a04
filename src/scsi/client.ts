/**
 * The client's end of the helper protocol: what QEMU's `pr-manager-helper` object does. For programs that hold a device open and may not
 * send it commands themselves, and for tests.
 */
import { EAGAIN } from '../base/errno.ts';
import { checkStatus, createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';
import { connectUnix } from '../sys/unix-socket.ts';
import {
  FEATURE_BYTES,
  isReserveOut,
  parseResponseHead,
  REQUEST_BYTES,
  RESPONSE_HEADER_BYTES,
  RESPONSE_SENSE,
  TRANSFER_MAX_BYTES,
} from './helper-protocol.ts';
import { createReserveIn, createReserveOut } from './persistent-reserve.ts';

const WRITE_RETRY_MS = 5;

export interface PrAnswer {
  /** SCSI status: 0 is GOOD, 0x18 a reservation conflict. */
  readonly status: number;
  /** 96 bytes; means something with status 2 (CHECK CONDITION). */
  readonly sense: Uint8Array;
  /** PERSISTENT RESERVE IN with GOOD only. */
  readonly data: Uint8Array;
}

export interface PrManagerClient {
  /** Asks a device. @param deviceFd - stays the caller's. @param allocationBytes - at most 8192 */
  reserveIn(deviceFd: number, serviceAction: number, allocationBytes?: number): Promise<PrAnswer>;
  /** Changes a device; `deviceFd` must be open for writing. @param type - 0 where the action has none */
  reserveOut(deviceFd: number, serviceAction: number, type: number, parameters: Uint8Array): Promise<PrAnswer>;
  /** Sends any command: its CDB, at most 16 bytes, and the parameters that it announces. */
  command(deviceFd: number, cdb: Uint8Array, parameters?: Uint8Array): Promise<PrAnswer>;
  /** A request that waits for its answer is rejected. */
  close(): void;
}

/**
 * Connects and agrees on features, of which there are none.
 * @throws Error with `code` when nobody listens at `path`, or what listens is no helper
 */
export async function connectPrManager(native: NativeAddon, path: string): Promise<PrManagerClient> {
  return openPrManager(native, connectUnix(native, path));
}

/** The same on a socket that is connected and non-blocking; it becomes the client's. */
export async function openPrManager(native: NativeAddon, fd: number): Promise<PrManagerClient> {
  const stream = createStream(native, fd);
  try {
    const features = await stream.read(FEATURE_BYTES);
    if (features.some((byte) => byte !== 0)) throw new Error('the helper has features that are not known');
    await stream.write(new Uint8Array(FEATURE_BYTES), -1);
  } catch (error) {
    stream.close();
    throw error;
  }
  let last: Promise<unknown> = Promise.resolve();

  const exchange = async (deviceFd: number, cdb: Uint8Array, parameters: Uint8Array): Promise<PrAnswer> => {
    const request = new Uint8Array(REQUEST_BYTES + parameters.length);
    request.set(cdb);
    request.set(parameters, REQUEST_BYTES);
    await stream.write(request, deviceFd);
    const header = await stream.read(RESPONSE_HEADER_BYTES);
    const { status, sizeBytes } = parseResponseHead(header)!;
    if (sizeBytes > (isReserveOut(cdb) ? 0 : TRANSFER_MAX_BYTES)) {
      stream.close();
      throw new Error(`the helper announces ${sizeBytes} bytes, which it may not`);
    }
    return { status, sense: header.subarray(RESPONSE_SENSE), data: await stream.read(sizeBytes) };
  };
  const command = (
    deviceFd: number,
    cdb: Uint8Array,
    parameters: Uint8Array = new Uint8Array(0),
  ): Promise<PrAnswer> => {
    if (cdb.length > REQUEST_BYTES) throw new RangeError(`a CDB has at most ${REQUEST_BYTES} bytes`);
    // One at a time: answers have no mark of their requests.
    const turn = last.then(() => exchange(deviceFd, cdb, parameters));
    last = turn.catch(() => {});
    return turn;
  };
  return {
    command,
    reserveIn: (deviceFd, action, allocationBytes = TRANSFER_MAX_BYTES) =>
      command(deviceFd, createReserveIn(action, allocationBytes)),
    reserveOut: (deviceFd, action, type, parameters) =>
      command(deviceFd, createReserveOut(action, type, parameters.length), parameters),
    close: () => stream.close(),
  };
}

interface Stream {
  read(bytes: number): Promise<Uint8Array>;
  /** @param deviceFd - goes with the first byte; -1: none */
  write(bytes: Uint8Array, deviceFd: number): Promise<void>;
  close(): void;
}

function createStream(native: NativeAddon, fd: number): Stream {
  let closed = false;
  let poll: PollHandle | undefined;
  let wake: (() => void) | undefined;
  const noFds = new Int32Array(1);
  const sender = new Int32Array(3);

  const readable = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const handle = native.startPoll(fd, () => wake?.());
      if (typeof handle === 'number') {
        reject(createSystemError('uv_poll_start', handle));
        return;
      }
      poll = handle;
      wake = () => {
        if (poll !== undefined) native.stopPoll(poll);
        poll = undefined;
        wake = undefined;
        resolve();
      };
    });
  const checkOpen = (): void => {
    if (closed) throw createSystemError('recvmsg', -9);
  };
  return {
    async read(bytes) {
      const into = new Uint8Array(bytes);
      for (let have = 0; have < bytes; ) {
        checkOpen();
        const got = native.receiveFds(fd, into, have, bytes - have, noFds, sender);
        if (got === 0) throw createSystemError('recvmsg', -104);
        if (got === EAGAIN) await readable();
        else have += checkStatus(got, 'recvmsg');
      }
      return into;
    },
    async write(bytes, deviceFd) {
      const fds = Int32Array.of(deviceFd);
      for (let sent = 0; sent < bytes.length; ) {
        checkOpen();
        const count = sent === 0 && deviceFd >= 0 ? 1 : 0;
        const took = native.sendFds(fd, bytes, sent, bytes.length - sent, fds, count);
        if (took !== EAGAIN) sent += checkStatus(took, 'sendmsg');
        else await new Promise((resolve) => setTimeout(resolve, WRITE_RETRY_MS));
      }
    },
    close() {
      if (closed) return;
      closed = true;
      wake?.();
      native.close(fd);
    },
  };
}
