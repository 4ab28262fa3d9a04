/**
 * A cable that can be pulled: joins a guest that speaks QEMU's stream protocol (a length of four bytes, then the frame) with a stack, and cuts the
 * stack's side while the guest's stays, as when QEMU reconnects by itself. Frames that pass meanwhile are lost.
 */
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { waitUntil } from './netns/namespace.ts';

/** What has come of a stream and is no whole frame yet. */
class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** @returns the whole frames, with their lengths, as one piece */
  take(chunk: Buffer): Buffer {
    const all = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let end = 0;
    while (all.length - end >= 4 && all.length - end >= 4 + all.readUInt32BE(end)) end += 4 + all.readUInt32BE(end);
    this.#rest = all.subarray(end);
    return all.subarray(0, end);
  }
}

export class FrameProxy {
  /** Frames' bytes that passed, both ways. */
  passedBytes = 0;
  /** Bytes that were lost for want of a stack. */
  lostBytes = 0;
  readonly #server: Server;
  readonly #stackPath: string;
  #guest: Socket | undefined;
  #stack: Socket | undefined;

  private constructor(server: Server, stackPath: string) {
    this.#server = server;
    this.#stackPath = stackPath;
  }

  /** @param path - where the guest connects. @param stackPath - the stack's socket */
  static async open(path: string, stackPath: string): Promise<FrameProxy> {
    const server = createServer();
    const proxy = new FrameProxy(server, stackPath);
    server.on('connection', (socket) => proxy.#takeGuest(socket));
    server.listen(path);
    await once(server, 'listening');
    return proxy;
  }

  #takeGuest(guest: Socket): void {
    this.#guest = guest;
    const reader = new FrameReader();
    guest.on('error', () => {});
    guest.on('data', (chunk: Buffer) => {
      const frames = reader.take(chunk);
      const stack = this.#stack;
      if (stack === undefined) {
        this.lostBytes += frames.length;
        return;
      }
      this.passedBytes += frames.length;
      if (!stack.write(frames)) guest.pause();
    });
  }

  /** Plugs the cable into the stack. */
  async join(): Promise<void> {
    await waitUntil('the guest to connect', () => this.#guest !== undefined, 20_000);
    const guest = this.#guest!;
    const reader = new FrameReader();
    const stack = connect(this.#stackPath);
    await once(stack, 'connect');
    stack.on('error', () => {});
    stack.on('drain', () => guest.resume());
    guest.on('drain', () => stack.resume());
    stack.on('data', (chunk: Buffer) => {
      const frames = reader.take(chunk);
      this.passedBytes += frames.length;
      if (!guest.write(frames)) stack.pause();
    });
    stack.once('close', () => {
      if (this.#stack === stack) this.#stack = undefined;
      guest.resume();
    });
    this.#stack = stack;
  }

  /** Pulls it out, in the middle of whatever passes. */
  cut(): void {
    this.#stack?.destroy();
    this.#stack = undefined;
    this.#guest?.resume();
  }

  close(): void {
    this.cut();
    this.#guest?.destroy();
    this.#server.close();
  }
}
