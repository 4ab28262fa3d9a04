/**
 * A client of QEMU's monitor for programs (QMP), which can give it descriptors.
 *
 * QEMU greets, the client leaves the negotiation (`qmp_capabilities`), then one command at a time is sent and its answer awaited; events may come at
 * any time. Of the descriptors that arrive QEMU keeps one, for the next `getfd` or `add-fd`, and a newer one takes its place: therefore exactly one goes
 * with a command, in the same message as the whole line, and nothing is sent before the answer is there. A monitor that does not answer in
 * time is given up, because what became of the command, and of its descriptor, cannot be known.
 *
 * QEMU clears O_NONBLOCK of what it gets, which everybody sees who shares the open file. Names of `getfd` belong to the monitor, not to the connection,
 * and end with their first use, even one that fails.
 *
 * Source: QEMU Machine Protocol Specification; observed with QEMU 7.2.
 */
import type { NativeAddon } from '../sys/native-addon.ts';
import { MonitorError, MonitorSocket } from './monitor-socket.ts';

export { MonitorError, type MonitorErrorCode } from './monitor-socket.ts';

/** What QEMU said when it refused a command. */
export class QmpError extends Error {
  override readonly name = 'QmpError';
  /** QEMU's class of the error: `GenericError`, `DeviceNotFound`, `CommandNotFound` … */
  readonly class: string;
  /** QEMU's text, as it is. */
  readonly desc: string;

  constructor(errorClass: string, desc: string) {
    super(desc);
    this.class = errorClass;
    this.desc = desc;
  }
}

/** Something that QEMU told without having been asked. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export interface QmpConnectOptions {
  /** Limit for the greeting, and for each answer that has none of its own; default 30 000. */
  readonly timeoutMs?: number;
}

export interface QmpExecuteOptions {
  /** Sent with the command; it stays the caller's. */
  readonly fd?: number;
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;
/** The longest answers (query-qmp-schema) have less than a fiftieth of this. */
const LINE_MAX_BYTES = 16 * 1024 * 1024;

interface Waiting {
  take(message: Readonly<Record<string, unknown>>): void;
  fail(error: Error): void;
}

/** One connection to a QMP monitor. Commands wait for each other. */
export class QmpClient {
  /** Of the QEMU at the other end. */
  version: QmpVersion = { major: 0, minor: 0, micro: 0 };
  private readonly socket: MonitorSocket;
  private readonly timeoutMs: number;
  private readonly listeners = new Set<(event: QmpEvent) => void>();
  private readonly endListeners = new Set<(error: Error) => void>();
  private parts: Uint8Array[] = [];
  private partBytes = 0;
  private waiting: Waiting | undefined;
  private last: Promise<unknown> = Promise.resolve();
  private nextId = 1;

  private constructor(native: NativeAddon, path: string, timeoutMs: number) {
    this.timeoutMs = timeoutMs;
    this.socket = new MonitorSocket(native, path, {
      onBytes: (bytes) => this.onBytes(bytes),
      onEnd: (error) => this.onEnd(error),
    });
  }

  /**
   * Connects to the monitor at `path` ('@' in front: an abstract name) and makes it take commands.
   * @throws ENOENT, ECONNREFUSED, EACCES …; MonitorError when what answers is no QMP monitor, or does not answer
   */
  static async connect(native: NativeAddon, path: string, options: QmpConnectOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(native, path, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    try {
      const greeting = await client.waitForMessage(client.timeoutMs, 'greeting');
      client.version = readVersion(greeting);
      await client.execute('qmp_capabilities');
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  /**
   * Executes one command after those that were asked for before.
   * @returns what QEMU returned, `{}` for most commands
   * @throws QmpError when QEMU refuses; MonitorError, after which the connection is closed
   */
  execute(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    options: QmpExecuteOptions = {},
  ): Promise<unknown> {
    const run = (): Promise<unknown> => this.executeNow(command, args, options);
    const answer = this.last.then(run, run);
    this.last = answer;
    return answer;
  }

  /** Calls `listener` for each event from now on. @returns ends that */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * Waits for the first event from now on that `matches`: ask before the command that leads to it.
   * @returns `event`, which rejects with MonitorError at the time limit or when the connection ends, and `stop`, after which it never settles
   */
  watchEvent(matches: (event: QmpEvent) => boolean, timeoutMs: number): { event: Promise<QmpEvent>; stop(): void } {
    let stop = (): void => {};
    const event = new Promise<QmpEvent>((resolve, reject) => {
      const fail = (error: Error): void => {
        stop();
        reject(error);
      };
      const timer = setTimeout(
        () => fail(new MonitorError('timeout', `no event within ${timeoutMs / 1000} s`)),
        timeoutMs,
      );
      const remove = this.onEvent((seen) => {
        if (!matches(seen)) return;
        stop();
        resolve(seen);
      });
      this.endListeners.add(fail);
      // Between answers the connection does not keep the process alive; the timer does.
      stop = () => {
        clearTimeout(timer);
        remove();
        this.endListeners.delete(fail);
      };
    });
    // Whoever never comes to await it, because the command failed, has not lost an error.
    event.catch(() => {});
    return { event, stop };
  }

  /** Ends the connection; commands that wait are refused. Names given by `getfd` stay with QEMU. */
  close(): void {
    this.socket.close();
  }

  private async executeNow(
    command: string,
    args: Readonly<Record<string, unknown>> | undefined,
    { fd, timeoutMs = this.timeoutMs }: QmpExecuteOptions,
  ): Promise<unknown> {
    const id = this.nextId++;
    const line = JSON.stringify(
      args === undefined ? { execute: command, id } : { execute: command, arguments: args, id },
    );
    this.socket.send(`${line}\n`, fd);
    const message = await this.waitForMessage(timeoutMs, `answer to ${command}`);
    const { error } = message;
    if (isObject(error)) throw new QmpError(String(error['class']), String(error['desc']));
    if (message['id'] !== id || !('return' in message)) {
      const doubt = new MonitorError('not-a-monitor', `what came is no answer to ${command}`);
      this.socket.close(doubt);
      throw doubt;
    }
    return message['return'];
  }

  private waitForMessage(timeoutMs: number, what: string): Promise<Readonly<Record<string, unknown>>> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.socket.close(new MonitorError('timeout', `no ${what} within ${timeoutMs / 1000} s`));
      }, timeoutMs);
      const done = (): void => {
        clearTimeout(timer);
        this.waiting = undefined;
        this.socket.setRef(false);
      };
      this.waiting = {
        take: (message) => {
          done();
          resolve(message);
        },
        fail: (error) => {
          done();
          reject(error);
        },
      };
      this.socket.setRef(true);
    });
  }

  private onBytes(bytes: Uint8Array): void {
    let start = 0;
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, start)) {
      this.parts.push(bytes.subarray(start, end));
      start = end + 1;
      const line = Buffer.concat(this.parts).toString();
      this.parts = [];
      this.partBytes = 0;
      this.onLine(line);
    }
    if (start === bytes.length) return;
    this.parts.push(bytes.subarray(start));
    this.partBytes += bytes.length - start;
    const looksWrong = (this.parts[0] as Uint8Array)[0] !== 0x7b;
    if (looksWrong) throw new MonitorError('not-a-monitor', 'it does not speak QMP');
    if (this.partBytes > LINE_MAX_BYTES) throw new MonitorError('not-a-monitor', 'its line has no end');
  }

  private onLine(line: string): void {
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      throw new MonitorError('not-a-monitor', 'it does not speak QMP');
    }
    if (!isObject(message)) throw new MonitorError('not-a-monitor', 'it does not speak QMP');
    if (typeof message['event'] !== 'string') {
      this.waiting?.take(message);
      return;
    }
    const event = { event: message['event'], data: isObject(message['data']) ? message['data'] : {} };
    for (const listener of [...this.listeners]) listener(event);
  }

  private onEnd(error: Error): void {
    this.waiting?.fail(error);
    for (const listener of [...this.endListeners]) listener(error);
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function readVersion(greeting: Readonly<Record<string, unknown>>): QmpVersion {
  const qmp = greeting['QMP'];
  const version = isObject(qmp) ? qmp['version'] : undefined;
  const qemu = isObject(version) ? version['qemu'] : undefined;
  if (!isObject(qemu)) throw new MonitorError('not-a-monitor', 'its greeting is not that of QMP');
  return { major: Number(qemu['major']), minor: Number(qemu['minor']), micro: Number(qemu['micro']) };
}
