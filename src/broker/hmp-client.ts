/**
 * A client of QEMU's monitor for people (HMP), for virtual machines that have no other: it can be given a descriptor with `getfd`, which works on the
 * monitor's own socket only, not through QMP's human-monitor-command.
 *
 * What comes is meant for a terminal: each letter typed is echoed with the movements of the cursor, then the output of the command, then
 * the prompt. There are no codes: a command that prints nothing has worked, as far as `getfd` and `closefd` are concerned.
 */
import type { NativeAddon } from '../sys/native-addon.ts';
import { MonitorError, MonitorSocket } from './monitor-socket.ts';

/** What the monitor printed when it refused. */
export class HmpError extends Error {
  override readonly name = 'HmpError';
}

const PROMPT = '(qemu) ';
const OUTPUT_MAX = 1024 * 1024;

/** One connection to a readline monitor; one command at a time. */
export class HmpClient {
  private readonly socket: MonitorSocket;
  private readonly timeoutMs: number;
  private text = '';
  private waiting: { resolve(text: string): void; reject(error: Error): void } | undefined;

  private constructor(native: NativeAddon, path: string, timeoutMs: number) {
    this.timeoutMs = timeoutMs;
    this.socket = new MonitorSocket(native, path, {
      onBytes: (bytes) => this.onBytes(bytes),
      onEnd: (error) => this.waiting?.reject(error),
    });
  }

  /**
   * Connects to the monitor at `path` ('@' in front: an abstract name) and waits for its prompt.
   * @param timeoutMs - limit for that, and for each command; default 30 000
   * @throws ENOENT, ECONNREFUSED, EACCES …; MonitorError when no such monitor answers
   */
  static async connect(native: NativeAddon, path: string, timeoutMs = 30_000): Promise<HmpClient> {
    const client = new HmpClient(native, path, timeoutMs);
    try {
      await client.waitForPrompt();
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  /**
   * Gives QEMU a descriptor under a name.
   * @param fd - stays the caller's
   * @throws HmpError with what QEMU printed; RangeError for a name that would be more than a word; MonitorError
   */
  async getFd(name: string, fd: number): Promise<void> {
    const output = await this.execute(`getfd ${checkWord(name)}`, fd);
    if (output !== '') throw new HmpError(output);
  }

  /** Closes what `getfd` gave under `name`. @throws as {@link getFd} */
  async closeFd(name: string): Promise<void> {
    const output = await this.execute(`closefd ${checkWord(name)}`, undefined);
    if (output !== '') throw new HmpError(output);
  }

  close(): void {
    this.socket.close();
  }

  /** @returns what the command printed */
  private async execute(command: string, fd: number | undefined): Promise<string> {
    this.text = '';
    this.socket.send(`${command}\n`, fd);
    const printed = await this.waitForPrompt();
    // The echo ends with the line that was typed.
    return printed.slice(printed.indexOf('\n') + 1).trim();
  }

  private waitForPrompt(): Promise<string> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.socket.close(new MonitorError('timeout', `no prompt within ${this.timeoutMs / 1000} s`));
      }, this.timeoutMs);
      const done = (): void => {
        clearTimeout(timer);
        this.waiting = undefined;
      };
      this.waiting = {
        resolve: (text) => {
          done();
          resolve(text);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
    });
  }

  private onBytes(bytes: Uint8Array): void {
    // Its messages are ASCII; a name in other letters is only echoed.
    this.text += Buffer.from(bytes).toString('latin1');
    if (this.text.startsWith('{')) throw new MonitorError('not-a-monitor', 'it speaks QMP');
    if (this.text.length > OUTPUT_MAX) throw new MonitorError('not-a-monitor', 'its output has no end');
    if (this.text.endsWith(PROMPT)) this.waiting?.resolve(this.text.slice(0, -PROMPT.length));
  }
}

function checkWord(name: string): string {
  if (!/^[A-Za-z0-9_.:+-]+$/.test(name)) throw new RangeError(`not a word for the monitor: '${name}'`);
  return name;
}
