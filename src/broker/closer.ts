/**
 * Closing what strangers gave. close(2) of a file asks its server first (FUSE, NFS), and that of a TCP socket with SO_LINGER waits for its peer: both may take
 * for ever, and the broker with them. Such descriptors are closed on a thread of their own; until they are, they count as their user's.
 */
import { readSync } from 'node:fs';
import { checkStatus, createSystemError } from '../sys/errors.ts';
import type { NativeAddon, PollHandle } from '../sys/native-addon.ts';

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFSOCK = 0o140000;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const PIPE_BYTES = 65_536;

interface Closing {
  readonly uid: number;
  readonly done: (() => void) | undefined;
}

export class Closer {
  private readonly native: NativeAddon;
  private readonly closing = new Map<number, Closing>();
  private readonly users = new Map<number, number>();
  private readonly bytes = Buffer.alloc(4096);
  private readonly facts = new Int32Array(5);
  private nextToken = 1;
  /** On which the threads report. */
  private readonly readEnd: number;
  private readonly writeEnd: number;
  private readonly poll: PollHandle;

  constructor(native: NativeAddon) {
    this.native = native;
    const fds = new Int32Array(2);
    checkStatus(native.pipe(PIPE_BYTES, fds), 'pipe2');
    this.readEnd = fds[0]!;
    this.writeEnd = fds[1]!;
    const poll = native.startPoll(this.readEnd, () => this.onDone());
    if (typeof poll === 'number') {
      for (const fd of fds) native.close(fd);
      throw createSystemError('uv_poll_start', poll);
    }
    native.unrefPoll(poll);
    this.poll = poll;
  }

  /** Descriptors of a user that are still being closed. */
  countOf(uid: number): number {
    return this.users.get(uid) ?? 0;
  }

  /** @param done - called when it is closed, perhaps at once */
  close(fd: number, uid: number, done?: () => void): void {
    if (!this.mayTakeLong(fd) || !this.closeAside(fd, { uid, done })) {
      this.native.close(fd);
      done?.();
    }
  }

  /** What is being closed goes on. */
  dispose(): void {
    this.native.stopPoll(this.poll);
    this.native.close(this.readEnd);
    // A thread that still writes to the other end must not meet a file that got its number: it stays until the process ends.
    if (this.closing.size === 0) this.native.close(this.writeEnd);
  }

  private mayTakeLong(fd: number): boolean {
    const { facts } = this;
    if (this.native.fileFacts(fd, facts) < 0) return false;
    const type = facts[0]! & S_IFMT;
    // Without a block device below it a file system may have a server.
    if (type === S_IFREG) return facts[1] === 0;
    return type === S_IFSOCK && this.native.getOption(fd, SOL_SOCKET, SO_LINGER) > 0;
  }

  private closeAside(fd: number, closing: Closing): boolean {
    const token = this.nextToken;
    if (this.native.closeAside(fd, this.writeEnd, token) < 0) return false;
    this.nextToken = (token + 1) | 0;
    this.closing.set(token, closing);
    this.users.set(closing.uid, this.countOf(closing.uid) + 1);
    return true;
  }

  private onDone(): void {
    const size = readSync(this.readEnd, this.bytes);
    for (let at = 0; at < size; at += 4) {
      const token = this.bytes.readInt32LE(at);
      const { uid, done } = this.closing.get(token)!;
      this.closing.delete(token);
      const left = this.countOf(uid) - 1;
      if (left === 0) this.users.delete(uid);
      else this.users.set(uid, left);
      done?.();
    }
  }
}
