/**
 * A client of the helper's protocol for tests. It can also do what no real client does: parts of requests, several fds or
 * none, two requests at once. Answers are awaited one at a time, in order.
 */
import { Socket } from 'node:net';
import { loadNative } from '../../../../src/sys/native.ts';
import { sendWithFds } from '../../../../src/sys/scm.ts';
import { connectUnix } from '../../../../src/sys/unix-socket.ts';
import type { Command } from './commands.ts';

const HEADER_BYTES = 104;
const SENSE_BYTES = 96;

/** What came back: an answer, or the end of the connection. */
export type Reply =
  | { kind: 'answer'; status: number; size: number; sense: Buffer; data: Buffer }
  | { kind: 'ended'; how: 'eof' | 'reset' };

const native = loadNative();

export class Connection {
  readonly #fd: number;
  readonly #socket: Socket;
  #buffered = Buffer.alloc(0);
  #ended: 'eof' | 'reset' | undefined;
  #wake: (() => void) | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.on('data', (chunk: Buffer) => {
      this.#buffered = Buffer.concat([this.#buffered, chunk]);
      this.#wake?.();
    });
    const end = (how: 'eof' | 'reset'): void => {
      this.#ended ??= how;
      this.#wake?.();
    };
    this.#socket.on('error', () => end('reset'));
    this.#socket.on('end', () => end('eof'));
    this.#socket.on('close', () => end('eof'));
  }

  /** Connects and shakes hands. A listener whose queue is full (C's holds one) is asked again. */
  static async open(path: string): Promise<Connection> {
    const connection = await Connection.connect(path);
    const features = await connection.readBytes(4);
    if (features === undefined || !features.equals(Buffer.alloc(4))) throw new Error('no greeting of four zero bytes');
    connection.send(Buffer.alloc(4));
    return connection;
  }

  /** Connects only. */
  static async connect(path: string): Promise<Connection> {
    for (;;) {
      try {
        return new Connection(connectUnix(native, path));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  }

  /** Sends bytes, with fds on the first of them. */
  send(bytes: Buffer, ...fds: number[]): void {
    if (!sendWithFds(native, this.#fd, bytes, fds)) throw new Error('the socket is full');
  }

  /** Sends a command and awaits the answer. Command and data go apart, as QEMU sends them. */
  async request(command: Command, ...fds: number[]): Promise<Reply> {
    this.sendCommand(command, ...fds);
    return this.readReply();
  }

  sendCommand(command: Command, ...fds: number[]): void {
    this.send(command.cdb, ...fds);
    if (command.data.length > 0 && this.#ended === undefined) {
      try {
        this.send(command.data);
      } catch (error) {
        // A helper that has refused the CDB has closed already: what the test wants to see is how.
        if (!['EPIPE', 'ECONNRESET'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      }
    }
  }

  async readReply(): Promise<Reply> {
    const header = await this.readBytes(HEADER_BYTES);
    if (header === undefined) return this.#end();
    const size = header.readInt32BE(4);
    const data = await this.readBytes(size);
    if (data === undefined) return this.#end();
    const sense = header.subarray(8, 8 + SENSE_BYTES);
    return { kind: 'answer', status: header.readInt32BE(0), size, sense, data };
  }

  /** The next `count` bytes; undefined when the connection ended before. */
  async readBytes(count: number): Promise<Buffer | undefined> {
    while (this.#buffered.length < count) {
      if (this.#ended !== undefined) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const bytes = this.#buffered.subarray(0, count);
    this.#buffered = this.#buffered.subarray(count);
    return bytes;
  }

  close(): void {
    this.#socket.destroy();
  }

  #end(): Reply {
    if (this.#buffered.length > 0)
      throw new Error(`the connection ended inside an answer: ${this.#buffered.length} bytes`);
    return { kind: 'ended', how: this.#ended ?? 'eof' };
  }
}
