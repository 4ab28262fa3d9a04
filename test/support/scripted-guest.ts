/**
 * A guest that sends whatever bytes a test wants on the stack's stream socket: frames that no Linux would send, streams that no
 * emulator would write.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { arp, ETHERTYPE_ARP, ethernet, ipv4Bytes } from './frames.ts';
import { HOST_NET } from './netns/host.ts';

/** What the guest is: as QEMU's first network card, with the address that the stack gives to guests of the test host. */
export const GUEST = {
  mac: '52:54:00:12:34:56',
  ipv4: HOST_NET.hostV4,
  ipv6: HOST_NET.hostV6,
  linkLocal: 'fe80::5054:ff:fe12:3456',
} as const;

const BROADCAST = 'ff:ff:ff:ff:ff:ff';

/** A frame behind its length, as QEMU's `-netdev stream` sends it. */
export function withLength(frame: Uint8Array, length = frame.length): Buffer {
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32BE(length >>> 0);
  return Buffer.concat([prefix, frame]);
}

interface Waiter {
  accept(frame: Buffer): boolean;
  resolve(frame: Buffer): void;
}

/** A connected guest. */
export class ScriptedGuest {
  /** Every frame received so far, without length. */
  readonly received: Buffer[] = [];
  /** Resolves when the stack has closed the socket. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #waiters: Waiter[] = [];
  #pending: Buffer = Buffer.alloc(0);
  #isClosed = false;

  /** Takes a connected socket, such as one end of a pair whose other end the stack was started with. */
  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isClosed = true;
        resolve();
      });
    });
  }

  /** Connects to the socket at `path`, trying again while it is not there yet. */
  static async connect(path: string, timeoutMs = 5_000): Promise<ScriptedGuest> {
    const deadlineMs = performance.now() + timeoutMs;
    for (;;) {
      const socket = connect(path);
      try {
        await once(socket, 'connect');
        return new ScriptedGuest(socket);
      } catch (error) {
        socket.destroy();
        if (performance.now() > deadlineMs) throw error;
        await sleep(10);
      }
    }
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Sends bytes as they are, length and all; resolves when the kernel has them. */
  async sendBytes(bytes: Uint8Array): Promise<void> {
    if (this.#isClosed) throw new Error('the stack has closed the socket');
    if (!this.#socket.write(bytes)) await Promise.race([once(this.#socket, 'drain'), this.closed]);
  }

  /** Sends one frame behind its length. */
  sendFrame(frame: Uint8Array): Promise<void> {
    return this.sendBytes(withLength(frame));
  }

  /** Stops taking what the stack sends; its socket fills up. */
  pauseReading(): void {
    this.#socket.pause();
  }

  resumeReading(): void {
    this.#socket.resume();
  }

  /** The next frame from now on that `accept` takes. */
  nextFrame(what: string, accept: (frame: Buffer) => boolean, timeoutMs = 3_000): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const remove = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
      };
      const timer = setTimeout(() => {
        remove();
        reject(
          new Error(`no ${what} within ${timeoutMs} ms${this.#isClosed ? '; the stack has closed the socket' : ''}`),
        );
      }, timeoutMs);
      const waiter: Waiter = {
        accept,
        resolve: (frame) => {
          clearTimeout(timer);
          remove();
          resolve(frame);
        },
      };
      this.#waiters.push(waiter);
    });
  }

  /** An ARP request for an address; any stack answers it for the gateway. */
  arpRequest(target: string = HOST_NET.gatewayV4): Buffer {
    const request = arp(1, GUEST.mac, GUEST.ipv4, '00:00:00:00:00:00', target);
    return ethernet(BROADCAST, GUEST.mac, ETHERTYPE_ARP, request);
  }

  /** Asks for the gateway's MAC address and waits for the answer: the proof that the stack is alive and in step. */
  async checkAlive(timeoutMs = 3_000): Promise<string> {
    const answer = this.nextFrame('ARP reply', isArpReplyFor(HOST_NET.gatewayV4), timeoutMs);
    await Promise.all([this.sendFrame(this.arpRequest()), answer]);
    return (await answer).subarray(22, 28).toString('hex').match(/../g)?.join(':') ?? '';
  }

  /** Closes the socket: the guest is unplugged. */
  async close(): Promise<void> {
    this.#socket.destroy();
    await this.closed;
  }

  #take(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    for (;;) {
      if (this.#pending.length < 4) return;
      const length = this.#pending.readUInt32BE(0);
      if (this.#pending.length < 4 + length) return;
      const frame = this.#pending.subarray(4, 4 + length);
      this.#pending = this.#pending.subarray(4 + length);
      this.received.push(frame);
      this.#waiters.find((waiter) => waiter.accept(frame))?.resolve(frame);
    }
  }
}

/** Whether a frame is an ARP reply that tells the MAC address of `address`. */
export function isArpReplyFor(address: string): (frame: Buffer) => boolean {
  const bytes = ipv4Bytes(address);
  return (frame) =>
    frame.length >= 42 &&
    frame.readUInt16BE(12) === ETHERTYPE_ARP &&
    frame.readUInt16BE(20) === 2 &&
    frame.subarray(28, 32).equals(bytes);
}

/** Resolves after so many milliseconds. */
export function sleep(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
