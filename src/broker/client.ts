/**
 * A client of the broker: one connection, one request at a time, blocking no event loop longer than the broker takes to answer.
 */
import type { OwnedFd } from '../base/owned-fd.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { FdConnection } from './fd-connection.ts';
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

/** An asker of one broker. Requests wait for each other; between them the connection lets the process end. */
export class FdBroker {
  private readonly connection: FdConnection;
  private last: Promise<unknown> = Promise.resolve();
  private nextId = 1;

  /** @param connection - to a broker; this object's from here on */
  constructor(connection: FdConnection) {
    this.connection = connection;
  }

  /**
   * Connects to the broker at `path` ('@' in front: an abstract name).
   * @throws ENOENT, ECONNREFUSED, EACCES …
   */
  static connect(native: NativeAddon, path: string): FdBroker {
    return new FdBroker(FdConnection.connect(native, path));
  }

  /**
   * @param fds - sent along; they stay the caller's
   * @throws BrokerError when the broker refuses, or has gone (`closing`)
   */
  ask<V extends Verb>(verb: V, asked: VerbRequest<V>, fds: readonly number[] = []): Promise<BrokerReply> {
    const reply = this.last.then(
      () => this.askNow(verb, asked, fds),
      () => this.askNow(verb, asked, fds),
    );
    this.last = reply;
    return reply;
  }

  /** Ends the connection; requests that wait are refused. */
  close(): void {
    this.connection.close();
  }

  private async askNow(verb: Verb, asked: object, fds: readonly number[]): Promise<BrokerReply> {
    const id = this.nextId++;
    try {
      // One request is under way at a time, so there is room for it.
      this.connection.send(formatRequest(id, verb, asked, fds.length), fds);
    } catch (error) {
      if (!isGone(error as NodeJS.ErrnoException)) throw error;
      throw ended();
    }
    const message = await this.connection.receive({ maxBytes: MAX_MESSAGE_BYTES });
    if (message === undefined) throw ended();
    try {
      return { result: readResult(message.bytes, id, message.fds.length), fds: message.fds };
    } catch (error) {
      for (const fd of message.fds) fd.close();
      throw error;
    }
  }
}

/** {@link FdBroker.connect}. */
export function connectBroker(native: NativeAddon, path: string): FdBroker {
  return FdBroker.connect(native, path);
}

function readResult(bytes: Uint8Array, id: number, fds: number): Readonly<Record<string, unknown>> {
  const answer = parseAnswer(bytes);
  if ('error' in answer) {
    const { code, message, errno } = answer.error;
    throw new BrokerError(code as BrokerErrorCode, message, errno);
  }
  if (answer.id !== id) throw new BrokerError('bad-request', 'an answer to something else');
  if (answer.fds !== fds) throw new BrokerError('fd-count', `${answer.fds} descriptors were announced, ${fds} came`);
  return answer.result;
}

function isGone({ code }: NodeJS.ErrnoException): boolean {
  return code === 'EPIPE' || code === 'ECONNRESET' || code === 'EBADF' || code === 'ENOTCONN';
}

function ended(): BrokerError {
  return new BrokerError('closing', 'the connection to the broker has ended');
}
