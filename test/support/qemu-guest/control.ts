/**
 * Host side of the two channels to a guest: the command loop of guest-files.ts and QMP. Both are unix sockets on which
 * we listen and to which QEMU connects, so nobody has to wait for a socket to appear.
 */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';

/** Buffers a socket's bytes and hands them out by line or by count. */
class ByteReader {
  #buffered = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #error: Error | undefined;

  constructor(socket: Socket, name: string) {
    socket.on('data', (chunk: Buffer) => {
      this.#buffered = Buffer.concat([this.#buffered, chunk]);
      this.#wake?.();
    });
    const fail = (): void => {
      this.#error ??= new Error(`the ${name} channel to the guest closed`);
      this.#wake?.();
    };
    socket.on('close', fail);
    socket.on('error', fail);
  }

  async readLine(): Promise<string> {
    for (;;) {
      const end = this.#buffered.indexOf(0x0a);
      if (end >= 0)
        return this.#take(end + 1)
          .toString()
          .trimEnd();
      await this.#wait();
    }
  }

  async readBytes(count: number): Promise<Buffer> {
    while (this.#buffered.length < count) await this.#wait();
    return this.#take(count);
  }

  #take(count: number): Buffer {
    const taken = this.#buffered.subarray(0, count);
    this.#buffered = this.#buffered.subarray(count);
    return taken;
  }

  async #wait(): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = undefined;
  }
}

/** Listens on a unix socket for exactly one connection. */
export async function listenOnce(path: string): Promise<{ server: Server; connection: Promise<Socket> }> {
  const server = createServer();
  const connection = once(server, 'connection').then(([socket]) => {
    server.close();
    return socket as Socket;
  });
  // Awaited by whoever needs it; a guest that never came up must not become an unhandled rejection as well.
  connection.catch(() => {});
  server.listen(path);
  await once(server, 'listening');
  return { server, connection };
}

/** What a command in the guest did; `stdout` holds its standard output and error in the order written. */
export interface ExecResult {
  status: number;
  stdout: string;
}

/** Sends commands to a guest, one after another. */
export class CommandChannel {
  readonly #socket: Socket;
  readonly #reader: ByteReader;
  #lastId = 0;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#reader = new ByteReader(socket, 'control');
  }

  /** Resolves when the guest's command loop runs. */
  async waitReady(): Promise<void> {
    while ((await this.#reader.readLine()) !== 'ready');
  }

  /** Runs a shell script; the guest kills it after `timeoutMs` (status 137), rounded up to a second. */
  exec(script: string, timeoutMs: number): Promise<ExecResult> {
    const result = this.#queue.then(() => this.#exec(script, timeoutMs));
    this.#queue = result.catch(() => {});
    return result;
  }

  async #exec(script: string, timeoutMs: number): Promise<ExecResult> {
    const id = ++this.#lastId;
    const seconds = Math.ceil(timeoutMs / 1000);
    this.#socket.write(`${id} ${seconds} ${Buffer.from(script).toString('base64')}\n`);
    const [answerId, status, length] = (await this.#reader.readLine()).split(' ').map(Number);
    if (answerId !== id) throw new Error(`the guest answered command ${answerId} instead of ${id}`);
    const output = await this.#reader.readBytes(length as number);
    return { status: status as number, stdout: output.toString() };
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** A QMP session: commands with their answers, events collected by name. */
export class QmpChannel {
  /** Events in the order seen. */
  readonly events: { event: string; data: unknown }[] = [];
  readonly #socket: Socket;
  readonly #pending: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    void this.#readAll(new ByteReader(socket, 'QMP'));
  }

  /** Takes a fresh connection through the greeting. */
  static async open(socket: Socket): Promise<QmpChannel> {
    const channel = new QmpChannel(socket);
    await channel.execute('qmp_capabilities');
    return channel;
  }

  /** Executes one command; rejects with QEMU's description when it refuses. */
  execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  /** Runs a command of the human monitor and returns what it prints. */
  async executeHuman(commandLine: string): Promise<string> {
    return (await this.execute('human-monitor-command', { 'command-line': commandLine })) as string;
  }

  close(): void {
    this.#socket.destroy();
  }

  async #readAll(reader: ByteReader): Promise<void> {
    try {
      for (;;) this.#take(JSON.parse(await reader.readLine()));
    } catch (error) {
      for (const { reject } of this.#pending.splice(0)) reject(error as Error);
    }
  }

  #take(message: { event?: string; data?: unknown; return?: unknown; error?: { desc: string } }): void {
    if (message.event !== undefined) this.events.push({ event: message.event, data: message.data });
    else if (message.error !== undefined) this.#pending.shift()?.reject(new Error(message.error.desc));
    else if (message.return !== undefined) this.#pending.shift()?.resolve(message.return);
  }
}
