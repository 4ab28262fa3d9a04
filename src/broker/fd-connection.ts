/**
 * A connection over which messages with descriptors go, for programs that pass descriptors to each other. Each received descriptor has an owner, and a message
 * is either what was expected or an error, of which nothing stays open.
 */
import { EAGAIN, EMSGSIZE } from '../base/errno.ts';
import { OwnedFd } from '../base/owned-fd.ts';
import { createSystemError } from '../sys/errors.ts';
import { readFdFacts } from '../sys/fd-facts.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';
import { MAX_MESSAGE_FDS, receiveWithFds, sendWithFds } from '../sys/scm.ts';
import {
  type Credentials,
  connectUnix,
  createSocketPair,
  getPeerCredentials,
  UNIX_SEQPACKET,
} from '../sys/unix-socket.ts';
import { BrokerError } from './broker-error.ts';
import { checkExpectation } from './fd-check.ts';
import type { FdExpectation } from './protocol.ts';

/** What a message must be; what is left out may be anything. */
export interface FdMessageExpectation {
  /** How many descriptors. */
  readonly fds?: number;
  /** What each of them is. */
  readonly each?: FdExpectation;
  /** Room for the payload; default 65536. */
  readonly maxBytes?: number;
}

/** A message that was received. */
export interface ReceivedFds {
  readonly bytes: Uint8Array;
  /** Close-on-exec, the caller's. */
  readonly fds: readonly OwnedFd[];
}

const DEFAULT_MAX_BYTES = 65_536;

interface Receiving {
  readonly expected: FdMessageExpectation;
  readonly resolve: (message: ReceivedFds | undefined) => void;
  readonly reject: (error: Error) => void;
}

export class FdConnection {
  private readonly native: NativeAddon;
  private readonly fd: number;
  private receiving: Receiving | undefined;
  /** Stays between messages, without keeping the process alive, until something comes that nobody waits for. */
  private poll: PollHandle | undefined;
  private closed = false;

  /** @param fd - a connected SOCK_SEQPACKET unix socket, non-blocking, this object's from here on */
  constructor(native: NativeAddon, fd: number) {
    this.native = native;
    this.fd = fd;
  }

  /**
   * Connects to the SOCK_SEQPACKET socket at `path` ('@' in front: an abstract name).
   * @throws ENOENT, ECONNREFUSED, EACCES …
   */
  static connect(native: NativeAddon, path: string): FdConnection {
    const name = path.startsWith('@') ? `\0${path.slice(1)}` : path;
    return new FdConnection(native, connectUnix(native, name, UNIX_SEQPACKET));
  }

  /** Two connected ends; one of them may be given to a child. */
  static pair(native: NativeAddon): [FdConnection, FdConnection] {
    const [a, b] = createSocketPair(native, UNIX_SEQPACKET);
    return [new FdConnection(native, a), new FdConnection(native, b)];
  }

  /** Who connected, or made the pair. */
  get peer(): Credentials {
    return getPeerCredentials(this.native, this.fd);
  }

  get isOpen(): boolean {
    return !this.closed;
  }

  /**
   * Sends one message.
   * @param bytes - at least one
   * @param fds - at most 253; they stay the caller's and may be closed at once
   * @throws EAGAIN: the other end has not read what it was sent; EPIPE: it has gone
   */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    if (this.closed) throw createSystemError('sendmsg', -9);
    if (!sendWithFds(this.native, this.fd, bytes, fds)) throw createSystemError('sendmsg', EAGAIN);
  }

  /**
   * The next message. One is received at a time; an idle connection lets the process end.
   * @returns undefined: the other end has closed, or this one
   * @throws BrokerError `truncated`: it did not fit; `fd-count`, `fd-kind`: it is not as expected. Its descriptors have been closed
   */
  receive(expected: FdMessageExpectation = {}): Promise<ReceivedFds | undefined> {
    return new Promise((resolve, reject) => {
      if (this.receiving !== undefined) throw new Error('a message is being received already');
      if (this.closed) {
        resolve(undefined);
        return;
      }
      if (this.poll === undefined) {
        const poll = this.native.startPoll(this.fd, () => this.onReadable());
        if (typeof poll === 'number') throw createSystemError('uv_poll_start', poll);
        this.poll = poll;
      } else this.native.refPoll(this.poll);
      this.receiving = { expected, resolve, reject };
    });
  }

  /** A second call does nothing. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    const receiving = this.stop();
    this.stopPoll();
    this.native.close(this.fd);
    receiving?.resolve(undefined);
  }

  private onReadable(): void {
    if (this.receiving === undefined) {
      this.stopPoll();
      return;
    }
    let message: ReceivedFds | undefined;
    try {
      message = this.take(this.receiving.expected);
    } catch (error) {
      this.stop()?.reject(error as Error);
      return;
    }
    if (message === undefined) return;
    if (message.bytes.length === 0) this.close();
    else this.stop()?.resolve(message);
  }

  /** @returns undefined: nothing has come */
  private take({ fds: count, each, maxBytes = DEFAULT_MAX_BYTES }: FdMessageExpectation): ReceivedFds | undefined {
    let message: ReturnType<typeof receiveWithFds>;
    try {
      message = receiveWithFds(this.native, this.fd, maxBytes, MAX_MESSAGE_FDS);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).errno !== EMSGSIZE) throw error;
      throw new BrokerError('truncated', 'a message or its descriptors were cut');
    }
    if (message === undefined) return undefined;
    const fds = message.fds.map((fd) => new OwnedFd(fd));
    try {
      if (count !== undefined && fds.length !== count && message.bytes.length > 0) {
        throw new BrokerError('fd-count', `${count} descriptors were expected, ${fds.length} came`);
      }
      if (each !== undefined) {
        for (const [index, { fd }] of fds.entries()) checkExpectation(readFdFacts(this.native, fd), each, index);
      }
    } catch (error) {
      for (const fd of fds) fd.close();
      throw error;
    }
    return { bytes: message.bytes, fds };
  }

  private stop(): Receiving | undefined {
    const { receiving } = this;
    this.receiving = undefined;
    if (this.poll !== undefined) this.native.unrefPoll(this.poll);
    return receiving;
  }

  private stopPoll(): void {
    if (this.poll !== undefined) this.native.stopPoll(this.poll);
    this.poll = undefined;
  }
}
