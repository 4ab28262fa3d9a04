/**
 * What a service manager does for a service of Type=notify with a descriptor store, by sd_notify(3), systemd.service(5) and sd_listen_fds(3): it listens on NOTIFY_SOCKET,
 * keeps what FDSTORE gives it, lets go of what FDSTOREREMOVE names, and hands all of it to the next start, behind the sockets of activation.
 * As systemd's, it drops a second descriptor of an open file that it has, and what is beyond FileDescriptorStoreMax=, without telling.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { loadNative } from '../../src/sys/native.ts';
import type { PollHandle } from '../../src/sys/native-addon.ts';
import { passCredentials, receiveWithFds } from '../../src/sys/scm.ts';
import { stopChild, waitUntil } from './netns/process.ts';

const native = loadNative();
const FAMILY_UNIX = 1;
const DATAGRAM = 2;

interface Stored {
  readonly name: string;
  readonly fd: number;
  /** Without FDPOLL=0 it is let go when it hangs up. */
  readonly polled: boolean;
}

export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Listening sockets of activation, which stay the caller's. */
  readonly sockets?: readonly { readonly name: string; readonly fd: number }[];
  /** Without FDSTORE in the environment the service knows of no store. Default: the manager's. */
  readonly announcedMax?: number;
}

export interface Service {
  readonly child: ChildProcess;
  log(): string;
}

export class StandInManager {
  readonly stored: Stored[] = [];
  /** Assignments, in order of arrival. */
  readonly told: string[] = [];
  readonly senders = new Set<number>();
  readonly address: string;
  private readonly storeMax: number;
  private readonly fd: number;
  private poll: PollHandle | undefined;
  private readonly running: ChildProcess[] = [];

  /** @param address - of NOTIFY_SOCKET: a path, or '@' and an abstract name */
  constructor(address: string, storeMax = 4096) {
    this.address = address;
    this.storeMax = storeMax;
    this.fd = native.open(FAMILY_UNIX, DATAGRAM, 0);
    const status = native.unixBind(this.fd, address.replace(/^@/, '\0'), 0o600);
    if (status < 0) throw new Error(`bind ${address}: ${status}`);
    passCredentials(native, this.fd);
    this.read();
  }

  /** Reads messages as they come (as from the start). */
  read(): void {
    const poll = native.startPoll(this.fd, () => this.drain());
    if (typeof poll === 'number') throw new Error(`poll: ${poll}`);
    native.unrefPoll(poll);
    this.poll = poll;
  }

  /** Lets messages pile up. */
  pause(): void {
    if (this.poll !== undefined) native.stopPoll(this.poll);
    this.poll = undefined;
  }

  /** Keys of all that is kept but for the journal. */
  keptKeys(): string[] {
    return this.stored.map(({ name }) => name).filter((name) => !name.startsWith('passel-state-'));
  }

  /** Starts the service; it has not said that it is ready yet. */
  launch(command: readonly string[], options: StartOptions = {}): Service {
    const { env = {}, sockets = [], announcedMax = this.storeMax } = options;
    this.drain();
    this.told.length = 0;
    const given = [...sockets, ...this.stored];
    // exec keeps the pid.
    const child = spawn('sh', ['-c', 'LISTEN_PID=$$ exec "$@"', 'sh', ...command], {
      env: {
        ...process.env,
        NOTIFY_SOCKET: this.address,
        ...(announcedMax > 0 ? { FDSTORE: String(announcedMax) } : {}),
        ...(given.length === 0
          ? {}
          : { LISTEN_FDS: String(given.length), LISTEN_FDNAMES: given.map(({ name }) => name).join(':') }),
        ...env,
      },
      stdio: ['ignore', 'ignore', 'pipe', ...given.map(({ fd }) => fd)],
    });
    this.running.push(child);
    let log = '';
    child.stderr!.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    return { child, log: () => log };
  }

  /** Starts the service and waits for READY=1. */
  async start(command: readonly string[], options: StartOptions = {}): Promise<Service> {
    const service = this.launch(command, options);
    await this.waitFor('READY=1', service);
    return service;
  }

  async waitFor(assignment: string, { child, log }: Service): Promise<void> {
    await waitUntil(
      `'${assignment}' of ${log()}`,
      () => {
        if (child.exitCode !== null || child.signalCode !== null) throw new Error(`it has ended: ${log()}`);
        return this.told.includes(assignment);
      },
      30_000,
    );
  }

  async close(): Promise<void> {
    await Promise.all(this.running.splice(0).map((child) => stopChild(child)));
    this.pause();
    this.drain();
    for (const { fd } of this.stored.splice(0)) native.close(fd);
    native.close(this.fd);
  }

  /** All that has arrived, also from a service that has ended since. */
  drain(): void {
    for (;;) {
      const message = receiveWithFds(native, this.fd, 4096);
      if (message === undefined) return;
      if (message.credentials !== undefined) this.senders.add(message.credentials.pid);
      this.take(Buffer.from(message.bytes).toString().split('\n'), message.fds);
    }
  }

  private take(lines: readonly string[], fds: readonly number[]): void {
    this.told.push(...lines);
    const name = lines.find((line) => line.startsWith('FDNAME='))?.slice(7) ?? 'stored';
    if (name.length > 255 || !/^[!-9;-~]+$/.test(name)) throw new Error(`no name for systemd: '${name}'`);
    if (lines.includes('FDSTOREREMOVE=1')) {
      for (const each of this.stored.filter((stored) => stored.name === name)) {
        native.close(each.fd);
        this.stored.splice(this.stored.indexOf(each), 1);
      }
    }
    for (const fd of fds) {
      const same = this.stored.some((stored) => native.compareFiles(stored.fd, fd) === 0);
      const keep = lines.includes('FDSTORE=1') && !same && this.stored.length < this.storeMax;
      if (keep) this.stored.push({ name, fd, polled: !lines.includes('FDPOLL=0') });
      else native.close(fd);
    }
  }
}
