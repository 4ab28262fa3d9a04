/** The helper under test as a process inside the guest. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { Connection } from './connection.ts';
import { waitFor } from './lio.ts';

export class HelperProcess {
  readonly child: ChildProcess;
  readonly socketPath: string;
  #messages = '';
  readonly #ended: Promise<string>;

  private constructor(child: ChildProcess, socketPath: string) {
    this.child = child;
    this.socketPath = socketPath;
    const collect = (chunk: Buffer): void => {
      this.#messages += chunk.toString();
    };
    child.stdout?.on('data', collect);
    child.stderr?.on('data', collect);
    this.#ended = new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve(code === null ? String(signal) : `status ${code}`));
    });
  }

  /** Starts a helper on a socket and waits until it listens there. */
  static async start(program: string, ...options: string[]): Promise<HelperProcess> {
    const socketPath = '/run/helper.sock';
    rmSync(socketPath, { force: true });
    const child = spawn(program, ['-k', socketPath, ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
    const helper = new HelperProcess(child, socketPath);
    await waitFor('the socket of the helper', () => {
      if (child.exitCode !== null) throw new Error(`${program} ended at start: ${helper.messages}`);
      return existsSync(socketPath);
    });
    // Between bind and listen the socket is there already, and refuses.
    for (;;) {
      try {
        (await Connection.connect(socketPath)).close();
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED' || child.exitCode !== null) throw error;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
    return helper;
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** What it wrote. */
  get messages(): string {
    return this.#messages;
  }

  connect(): Promise<Connection> {
    return Connection.open(this.socketPath);
  }

  /** How it ended: `status N` or a signal's name. */
  waitEnd(): Promise<string> {
    return this.#ended;
  }

  /** Ends it, and says how it ended. */
  async stop(): Promise<string> {
    this.child.kill('SIGTERM');
    return this.#ended;
  }

  /** Number of its open fds. */
  countFds(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  /** Some thread of it waits in the kernel and cannot be interrupted: a command is with a device. */
  isInDevice(): boolean {
    return this.#tasks().some((status) => /^State:\s+D/m.test(status));
  }

  #tasks(): string[] {
    return readdirSync(`/proc/${this.pid}/task`).map((task) => {
      try {
        return readFileSync(`/proc/${this.pid}/task/${task}/status`, 'utf8');
      } catch {
        return ''; // Ended meanwhile.
      }
    });
  }
}
