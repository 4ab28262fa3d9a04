/**
 * A client of the broker: one connection, one request at a time, blocking no event loop longer than the broker takes to answer.
 */
import { OwnedFd } from '../base/owned-fd.ts';
import { createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';
import { MAX_MESSAGE_FDS, receiveWithFds, sendWithFds } from '../sys/scm.ts';
import { connectUnix, UNIX_SEQPACKET } from '../sys/unix-socket.ts';
import {
  BrokerError,
  type BrokerErrorCode,
  formatRequest,
  MAX_MESSAGE_BYTES,
  parseAnswer,
  type Verb,
  type VerbRequest,
} from './protocol.ts';

/** What a request came to. */
export interface BrokerReply {
  readonly result: Readonly<Record<string, unknown>>;
  /** The caller's. */
  readonly fds: readonly OwnedFd[];
}

/** An asker of one broker. Requests wait for each other. */
export interface FdBroker {
  /**
   * @param fds - sent along; they stay the caller's
   * @throws BrokerError when the broker refuses, or has gone (`closing`)
   */
  ask<V extends Verb>(verb: V, asked: VerbRequest<V>, fds?: readonly number[]): Promise<BrokerReply>;
  /** Ends the connection; requests that wait are refused. */
  close(): void;
}

/**
 * Connects to the broker at `path` ('@' in front: an abstract name).
 * @throws ENOENT, ECONNREFUSED, EACCES …
 */
export function connectBroker(native: NativeAddon, path: string): FdBroker {
  const name = path.startsWith('@') ? `\0${path.slice(1)}` : path;
  return new BrokerConnection(native, connectUnix(native, name, UNIX_SEQPACKET));
}

interface Asking {
  readonly id: number;
  readonly resolve: (reply: BrokerReply) => void;
  readonly reject: (error: Error) => void;
}

class BrokerConnection implements FdBroker {
  private readonly native: NativeAddon;
  private readonly fd: number;
  private readonly poll: PollHandle;
  private asking: Asking | undefined;
  private last: Promise<unknown> = Promise.resolve();
  private nextId = 1;
  private closed = false;

  constructor(native: NativeAddon, fd: number) {
    this.native = native;
    this.fd = fd;
    const poll = native.startPoll(fd, () => this.onReadable());
    if (typeof poll === 'number') {
      native.close(fd);
      throw createSystemError('uv_poll_start', poll);
    }
    this.poll = poll;
    native.unrefPoll(poll);
  }

  ask<V extends Verb>(verb: V, asked: VerbRequest<V>, fds: readonly number[] = []): Promise<BrokerReply> {
    const reply = this.last.then(
      () => this.askNow(verb, asked, fds),
      () => this.askNow(verb, asked, fds),
    );
    this.last = reply;
    return reply;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.native.stopPoll(this.poll);
    this.native.close(this.fd);
    this.fail(new BrokerError('closing', 'the connection to the broker has ended'));
  }

  private askNow(verb: Verb, asked: object, fds: readonly number[]): Promise<BrokerReply> {
    return new Promise((resolve, reject) => {
      if (this.closed) throw new BrokerError('closing', 'the connection to the broker has ended');
      const id = this.nextId++;
      // One request is under way at a time, so there is room for it.
      if (!sendWithFds(this.native, this.fd, formatRequest(id, verb, asked, fds.length), fds)) {
        throw new BrokerError('closing', 'the broker takes no requests');
      }
      this.asking = { id, resolve, reject };
      this.native.refPoll(this.poll);
    });
  }

  private onReadable(): void {
    let message: ReturnType<typeof receiveWithFds>;
    try {
      message = receiveWithFds(this.native, this.fd, MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS);
    } catch (error) {
      this.fail(error as Error);
      return;
    }
    if (message === undefined) return;
    if (message.bytes.length === 0) {
      this.close();
      return;
    }
    const fds = message.fds.map((fd) => new OwnedFd(fd));
    try {
      this.settle(message.bytes, fds);
    } catch (error) {
      for (const fd of fds) fd.close();
      this.fail(error as Error);
    }
  }

  private settle(bytes: Uint8Array, fds: readonly OwnedFd[]): void {
    const answer = parseAnswer(bytes);
    if ('error' in answer) {
      const { code, message, errno } = answer.error;
      throw new BrokerError(code as BrokerErrorCode, message, errno);
    }
    if (answer.id !== this.asking?.id) throw new BrokerError('bad-request', 'an answer to something else');
    if (answer.fds !== fds.length) {
      throw new BrokerError('fd-count', `${answer.fds} descriptors were announced, ${fds.length} came`);
    }
    const { resolve } = this.asking;
    this.finish();
    resolve({ result: answer.result, fds });
  }

  private fail(error: Error): void {
    const asking = this.asking;
    this.finish();
    asking?.reject(error);
  }

  private finish(): void {
    this.asking = undefined;
    if (!this.closed) this.native.unrefPoll(this.poll);
  }
}
