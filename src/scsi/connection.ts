/**
 * One client of the helper: features, then request and answer in turns.
 *
 * At most one request of a connection is carried out at a time, and nothing is read behind it until its answer has been taken by the
 * socket, so a client that does not read, or sends ahead, waits for itself alone. There are no time limits: QEMU keeps its
 * connection for as long as its guest lives.
 */
import { closeSync } from 'node:fs';
import { EPOLL_ADD, type NativeAddon, type PollHandle } from '../sys/native-addon.ts';
import { MAX_MESSAGE_FDS } from '../sys/scm.ts';
import type { ClientRecord } from './activity.ts';
import type { Answer } from './executor.ts';
import {
  checkRequest,
  FEATURE_BYTES,
  getTransferLength,
  isReserveOut,
  REQUEST_BYTES,
  RESPONSE_HEADER_BYTES,
} from './helper-protocol.ts';

const EAGAIN = -11;
const EMSGSIZE = -90;
const EPOLLOUT = 4;
/** A client that sends ahead gives way to others after so many reads; what it has sent makes its socket readable again. */
const ROUNDS_MAX = 64;

/** Why a connection ended, in the words of the log. */
export type ConnectionEnd =
  | 'closed by the client'
  | 'end of stream in a request'
  | 'features that do not exist were asked for'
  | 'no descriptor in a request'
  | 'more than one descriptor in a request'
  | 'not a PERSISTENT RESERVE command'
  | 'more than 8192 bytes'
  | 'socket error'
  | 'server stopped';

/** What a connection needs of its server. */
export interface ConnectionHost {
  readonly native: NativeAddon;
  /** @param deviceFd - open until `done`, then the connection closes it */
  execute(connection: Connection, deviceFd: number, request: Uint8Array, done: (answer: Answer) => void): void;
  /** The connection is over and its socket closed. A request of it may still be in the device's hands. */
  onEnd(connection: Connection, end: ConnectionEnd): void;
  /** A request has been answered, or its answer dropped because the client has gone. */
  onIdle(connection: Connection): void;
}

export interface Peer {
  readonly pid: number;
  readonly uid: number;
}

type State = 'features' | 'command' | 'parameters' | 'executing' | 'answering' | 'closed';

/** Room for what one message carries; only read while one is received. */
const received = new Int32Array(1 + MAX_MESSAGE_FDS);
const sender = new Int32Array(3);
const NO_BYTES = new Uint8Array(0);

export class Connection {
  readonly client: ClientRecord;
  private readonly host: ConnectionHost;
  private readonly fd: number;
  private state: State = 'features';
  private poll: PollHandle | undefined;
  /** The request: its CDB, and behind it the parameters as soon as their length is known. */
  private input = new Uint8Array(REQUEST_BYTES);
  private have = 0;
  private deviceFd = -1;
  /** What the socket has not taken of an answer, and the epoll set that waits for it to. */
  private unsent = NO_BYTES;
  private writeSet = -1;
  private writePoll: PollHandle | undefined;

  /** @param fd - a connected, non-blocking socket, which becomes the connection's */
  constructor(host: ConnectionHost, fd: number, client: ClientRecord) {
    this.host = host;
    this.fd = fd;
    this.client = client;
  }

  /** A request is being carried out, also of a client that has left meanwhile, or its answer sent. Half a request is none. */
  get isBusy(): boolean {
    return this.state === 'executing' || this.state === 'answering' || (this.state === 'closed' && this.deviceFd >= 0);
  }

  get isClosed(): boolean {
    return this.state === 'closed';
  }

  start(): void {
    const greeting = new Uint8Array(FEATURE_BYTES);
    if (this.host.native.sendBuffer(this.fd, greeting, 0, FEATURE_BYTES, 0) !== FEATURE_BYTES) {
      this.end('socket error');
      return;
    }
    this.watch();
  }

  /** Ends the connection. A request that a device has is answered by nobody. */
  end(reason: ConnectionEnd): void {
    if (this.state === 'closed') return;
    const executing = this.state === 'executing';
    this.state = 'closed';
    this.unwatch();
    this.dropWriteSet();
    this.host.native.close(this.fd);
    if (!executing) this.dropDevice();
    this.host.onEnd(this, reason);
  }

  private watch(): void {
    const poll = this.host.native.startPoll(this.fd, () => this.onReadable());
    if (typeof poll === 'number') this.end('socket error');
    else this.poll = poll;
  }

  private unwatch(): void {
    if (this.poll === undefined) return;
    this.host.native.stopPoll(this.poll);
    this.poll = undefined;
  }

  private onReadable(): void {
    // Sent ahead, or gone: either waits until this request is over.
    if (this.state === 'executing' || this.state === 'answering') this.unwatch();
    else this.read();
  }

  private read(): void {
    const { native } = this.host;
    for (let round = 0; round < ROUNDS_MAX; round++) {
      if (this.state !== 'features' && this.state !== 'command' && this.state !== 'parameters') return;
      const wanted = this.state === 'features' ? FEATURE_BYTES : this.input.length;
      if (this.have === wanted) {
        this.take();
        continue;
      }
      const got = native.receiveFds(this.fd, this.input, this.have, wanted - this.have, received, sender);
      if (got === EAGAIN) return;
      if (got < 0) {
        this.end(got === EMSGSIZE ? 'more than one descriptor in a request' : 'socket error');
        return;
      }
      const fault = this.takeDescriptors();
      if (fault !== undefined) {
        this.end(fault);
        return;
      }
      if (got === 0) {
        const inside = this.have > 0 || this.state === 'parameters';
        this.end(inside ? 'end of stream in a request' : 'closed by the client');
        return;
      }
      this.have += got;
    }
  }

  /** Descriptors belong to a CDB; with other bytes they mean nothing and are dropped. */
  private takeDescriptors(): ConnectionEnd | undefined {
    const count = received[0]!;
    for (let i = 1; i <= count; i++) {
      const fd = received[i]!;
      if (this.state === 'command' && count === 1 && this.deviceFd < 0) this.deviceFd = fd;
      else closeSync(fd);
    }
    const tooMany = this.state === 'command' && (count > 1 || (count === 1 && this.deviceFd !== received[1]));
    return tooMany ? 'more than one descriptor in a request' : undefined;
  }

  /** All bytes of a state are there. */
  private take(): void {
    if (this.state === 'features') {
      if (this.input.subarray(0, FEATURE_BYTES).some((byte) => byte !== 0)) {
        this.end('features that do not exist were asked for');
        return;
      }
      this.expectCommand();
      return;
    }
    if (this.state === 'parameters') {
      this.execute();
      return;
    }
    if (this.deviceFd < 0) {
      this.end('no descriptor in a request');
      return;
    }
    const fault = checkRequest(this.input);
    if (fault !== undefined) {
      this.end(fault === 'opcode' ? 'not a PERSISTENT RESERVE command' : 'more than 8192 bytes');
      return;
    }
    if (!isReserveOut(this.input)) {
      this.execute();
      return;
    }
    this.state = 'parameters';
    const whole = new Uint8Array(REQUEST_BYTES + getTransferLength(this.input));
    whole.set(this.input);
    this.input = whole;
  }

  private expectCommand(): void {
    this.state = 'command';
    if (this.input.length !== REQUEST_BYTES) this.input = new Uint8Array(REQUEST_BYTES);
    this.have = 0;
  }

  private execute(): void {
    this.state = 'executing';
    this.host.execute(this, this.deviceFd, this.input, (answer) => this.answer(answer));
  }

  private answer(answer: Answer): void {
    this.dropDevice();
    if (this.state !== 'executing') {
      this.host.onIdle(this);
      return;
    }
    this.state = 'answering';
    const lengthBytes = RESPONSE_HEADER_BYTES + answer.sizeBytes;
    const sent = this.host.native.sendBuffer(this.fd, answer.bytes, 0, lengthBytes, 0);
    if (sent < 0 && sent !== EAGAIN) {
      this.endAnswering();
      return;
    }
    if (sent === lengthBytes) {
      this.goOn();
      return;
    }
    this.unsent = answer.bytes.slice(Math.max(0, sent), lengthBytes);
    this.awaitRoom();
  }

  /** The next request, which may be there already. */
  private goOn(): void {
    this.expectCommand();
    this.host.onIdle(this);
    if (this.isClosed) return;
    if (this.poll === undefined) this.watch();
  }

  private endAnswering(): void {
    this.end('socket error');
    this.host.onIdle(this);
  }

  /** Watches for writing by a set of its own: what Node's loop watches is readable when the socket in it can be written to. */
  private awaitRoom(): void {
    const { native } = this.host;
    this.writeSet = native.epollCreate();
    if (this.writeSet < 0) {
      this.endAnswering();
      return;
    }
    if (native.epollControl(this.writeSet, EPOLL_ADD, this.fd, EPOLLOUT, 0, 0) < 0) {
      this.endAnswering();
      return;
    }
    const poll = native.startPoll(this.writeSet, () => this.sendRest());
    if (typeof poll === 'number') {
      this.endAnswering();
      return;
    }
    this.writePoll = poll;
  }

  private sendRest(): void {
    if (this.state !== 'answering') return;
    const sent = this.host.native.sendBuffer(this.fd, this.unsent, 0, this.unsent.length, 0);
    if (sent === EAGAIN) return;
    if (sent < 0) {
      this.endAnswering();
      return;
    }
    this.unsent = this.unsent.subarray(sent);
    if (this.unsent.length > 0) return;
    this.dropWriteSet();
    this.goOn();
  }

  private dropWriteSet(): void {
    if (this.writePoll !== undefined) this.host.native.stopPoll(this.writePoll);
    if (this.writeSet >= 0) this.host.native.close(this.writeSet);
    this.writePoll = undefined;
    this.writeSet = -1;
    this.unsent = NO_BYTES;
  }

  private dropDevice(): void {
    if (this.deviceFd < 0) return;
    this.host.native.close(this.deviceFd);
    this.deviceFd = -1;
  }
}
