/**
 * DNS over TCP (RFC 7766) for guests: the guest's connection ends in the stack as any other does, with one end of a socket pair as its host
 * side; the other end is here.
 *
 * Several questions may be on their way in one connection, and are answered as the answers come. A connection that says nothing is closed
 * after a while; so is one whose guest does not take its answers.
 */
import { EAGAIN, EMFILE } from '../../base/errno.ts';
import { EVENT_EDGE, EVENT_IN, EVENT_OUT, type HostSockets, KIND_NAMES } from '../../stack/ports.ts';
import type { EventSlots } from './event-slots.ts';
import { firstMessage, frameMessage, LENGTH_BYTES } from './upstream.ts';

const EVENTS = (EVENT_IN | EVENT_OUT | EVENT_EDGE) >>> 0;
const CLIENTS_MAX = 16;
const IDLE_MS = 30_000;
const UNSENT_MAX_BYTES = 256 * 1024;
const READ_BYTES = 16 * 1024;

export interface StreamClientParts {
  readonly sockets: HostSockets;
  readonly bytes: Uint8Array;
  /** At least 16 KiB of the arena. */
  readonly scratch: number;
  readonly slots: EventSlots;
  /** Two connected, non-blocking stream sockets, the caller's, to `fds`. @returns 0 or -errno */
  openPair(fds: Int32Array): number;
  ask(query: Uint8Array, answer: (message: Uint8Array) => void): void;
}

export class StreamClients {
  private readonly parts: StreamClientParts;
  private readonly clients = new Set<StreamClient>();

  constructor(parts: StreamClientParts) {
    this.parts = parts;
  }

  /** Makes a connection. @returns the guest's end, the caller's; or -errno */
  open(): number {
    if (this.clients.size >= CLIENTS_MAX) return EMFILE;
    const fds = new Int32Array(2);
    const status = this.parts.openPair(fds);
    if (status < 0) return status;
    const client = new StreamClient(this.parts, fds[0]!, () => this.clients.delete(client));
    this.clients.add(client);
    return fds[1]!;
  }

  close(): void {
    for (const client of this.clients) client.close();
  }
}

class StreamClient {
  private readonly parts: StreamClientParts;
  private readonly fd: number;
  private readonly onClose: () => void;
  private readonly slot: number;
  private readonly idle: NodeJS.Timeout;
  private received: Buffer = Buffer.alloc(0);
  private unsent: Buffer = Buffer.alloc(0);
  private pending = 0;
  private hasEnded = false;
  private open = true;

  constructor(parts: StreamClientParts, fd: number, onClose: () => void) {
    this.parts = parts;
    this.fd = fd;
    this.onClose = onClose;
    this.slot = parts.slots.add(() => this.onEvent());
    parts.sockets.watch(fd, EVENTS, KIND_NAMES, this.slot);
    this.idle = setTimeout(() => this.close(), IDLE_MS);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    clearTimeout(this.idle);
    this.parts.slots.remove(this.slot);
    this.parts.sockets.close(this.fd);
    this.onClose();
  }

  private onEvent(): void {
    this.write();
    const { sockets, bytes, scratch } = this.parts;
    while (this.open && !this.hasEnded) {
      const length = sockets.receive(this.fd, scratch, READ_BYTES, 0);
      if (length === EAGAIN) return;
      if (length < 0) {
        this.close();
        return;
      }
      if (length === 0) {
        this.hasEnded = true;
        this.closeIfDone();
        return;
      }
      this.idle.refresh();
      this.received = Buffer.concat([this.received, bytes.subarray(scratch, scratch + length)]);
      this.takeMessages();
    }
  }

  private takeMessages(): void {
    for (let message = firstMessage(this.received); message !== undefined && this.open; ) {
      this.received = this.received.subarray(LENGTH_BYTES + message.length);
      this.pending++;
      this.parts.ask(message, (answer) => {
        this.pending--;
        this.send(answer);
      });
      message = firstMessage(this.received);
    }
  }

  private send(message: Uint8Array): void {
    if (!this.open) return;
    this.unsent = Buffer.concat([this.unsent, frameMessage(message)]);
    if (this.unsent.length > UNSENT_MAX_BYTES) this.close();
    else this.write();
  }

  private write(): void {
    while (this.open && this.unsent.length > 0) {
      const sent = this.parts.sockets.sendBuffer(this.fd, this.unsent, 0, this.unsent.length, 0);
      if (sent === EAGAIN) return;
      if (sent < 0) {
        this.close();
        return;
      }
      this.unsent = this.unsent.subarray(sent);
    }
    this.closeIfDone();
  }

  private closeIfDone(): void {
    if (this.hasEnded && this.pending === 0 && this.unsent.length === 0) this.close();
  }
}
