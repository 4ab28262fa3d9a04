/**
 * The service manager that started us, if one did: sd_notify(3). What it is told goes through the `unix-dgram` package where its socket has a path; an abstract
 * name, and descriptors, go through the addon.
 */
import { EAGAIN } from '../base/errno.ts';
import type { StoreManager } from '../broker/fd-store.ts';
import { createSystemError } from '../sys/errors.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { NotifySocket } from '../sys/notify-socket.ts';
import { type DatagramSocket, openDatagramSocket } from './datagram-socket.ts';

export interface ServiceManager {
  /** Descriptors that it keeps for us at most; 0: it keeps none. */
  readonly fdStoreSize: number;
  readonly store: StoreManager;
  /** Sends assignments such as `READY=1`; what it cannot take now is lost. */
  tell(...assignments: readonly string[]): void;
  /** Tells that we live, as often as it wants to hear. */
  startWatchdog(): void;
  close(): void;
}

/** How long the program stands still, at most, while the manager does not take a descriptor. */
const PUSH_WAIT_MS = 2000;
const RETRY_MS = 1000;

/**
 * Takes NOTIFY_SOCKET and what belongs to it out of `env`, so that no child takes them for its own.
 * @param eventOffset - NOTIFY_ARENA_BYTES in the addon's arena
 * @returns undefined: there is none
 * @throws Error: it cannot be reached
 */
export function takeServiceManager(
  native: NativeAddon,
  env: NodeJS.ProcessEnv,
  eventOffset: number,
): ServiceManager | undefined {
  const { NOTIFY_SOCKET, FDSTORE, WATCHDOG_USEC, WATCHDOG_PID } = env;
  for (const name of ['NOTIFY_SOCKET', 'FDSTORE', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete env[name];
  if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return undefined;
  const socket = new NotifySocket(native, NOTIFY_SOCKET, eventOffset);
  const datagrams = NOTIFY_SOCKET.startsWith('/') ? connectDatagrams(NOTIFY_SOCKET) : undefined;
  const store = new FdStoreQueue(socket);
  const tell = (...assignments: readonly string[]): void => {
    const text = assignments.join('\n');
    if (datagrams !== undefined && sendDatagram(datagrams, text)) return;
    try {
      socket.send(text);
    } catch {
      // It has gone, and nobody can be told.
    }
  };
  let watchdog: NodeJS.Timeout | undefined;
  const isOurs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === process.pid;
  const watchdogMs = isOurs ? Number(WATCHDOG_USEC ?? 0) / 1000 : 0;
  return {
    fdStoreSize: /^\d{1,9}$/.test(FDSTORE ?? '') ? Number(FDSTORE) : 0,
    store,
    tell,
    startWatchdog() {
      // Half of it, as sd_watchdog_enabled(3) advises.
      if (watchdogMs > 0) watchdog = setInterval(() => tell('WATCHDOG=1'), Math.max(1, watchdogMs / 2)).unref();
    },
    close() {
      clearInterval(watchdog);
      store.close();
      socket.close();
      datagrams?.close();
    },
  };
}

function connectDatagrams(path: string): DatagramSocket | undefined {
  const socket = openDatagramSocket();
  let connected = false;
  socket?.once('connect', () => {
    connected = true;
  });
  socket?.connect(path);
  if (connected) return socket;
  socket?.close();
  return undefined;
}

function sendDatagram(socket: DatagramSocket, text: string): boolean {
  let failure: Error | undefined;
  socket.send(Buffer.from(text), (error) => {
    failure = error;
  });
  return failure === undefined;
}

/** FDSTORE and FDSTOREREMOVE, in order: the manager counts what it holds. */
class FdStoreQueue implements StoreManager {
  private readonly socket: NotifySocket;
  private readonly removals: string[] = [];
  private retry: NodeJS.Timeout | undefined;

  constructor(socket: NotifySocket) {
    this.socket = socket;
  }

  push(key: string, fd: number): void {
    // FDPOLL=0: what has hung up may have something to read, and a socket that is not connected yet has hung up too.
    const sent = this.flush(PUSH_WAIT_MS) && this.socket.send(`FDSTORE=1\nFDPOLL=0\nFDNAME=${key}`, [fd], PUSH_WAIT_MS);
    if (!sent) throw createSystemError('sendmsg', EAGAIN);
  }

  remove(key: string): void {
    this.removals.push(key);
    this.tell();
  }

  close(): void {
    clearTimeout(this.retry);
  }

  /** Tells what has room now, and the rest when there is more. */
  private tell(): void {
    clearTimeout(this.retry);
    try {
      if (!this.flush(0)) this.socket.onRoom(() => this.tell());
    } catch {
      // It is not there now. What it is never told is a leftover that the next start finds.
      this.retry = setTimeout(() => this.tell(), RETRY_MS).unref();
    }
  }

  private flush(waitMs: number): boolean {
    for (let key = this.removals[0]; key !== undefined; key = this.removals[0]) {
      if (!this.socket.send(`FDSTOREREMOVE=1\nFDNAME=${key}`, [], waitMs)) return false;
      this.removals.shift();
    }
    return true;
  }
}
