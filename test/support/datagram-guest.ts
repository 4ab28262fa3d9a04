/** A guest whose frames are datagrams on a unix socket that is not connected, as QEMU's are; by the `unix-dgram` package. */
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arp, ETHERTYPE_ARP, ethernet } from './frames.ts';
import { HOST_NET } from './netns/host.ts';
import { GUEST, isArpReplyFor } from './scripted-guest.ts';

interface PackageSocket {
  bind(path: string): void;
  on(event: 'message', listener: (bytes: Buffer) => void): void;
  send(bytes: Buffer, offset: number, length: number, path: string, done: (error?: { code: number }) => void): void;
  close(): void;
}

const { createSocket } = createRequire(import.meta.url)('unix-dgram') as {
  createSocket(type: 'unix_dgram'): PackageSocket;
};

const RESEND_MS = 100;

/** A guest's question for the gateway's MAC address. */
export function arpRequest(): Uint8Array {
  const request = arp(1, GUEST.mac, GUEST.ipv4, '00:00:00:00:00:00', HOST_NET.gatewayV4);
  return ethernet('ff:ff:ff:ff:ff:ff', GUEST.mac, ETHERTYPE_ARP, request);
}

export class DatagramGuest {
  readonly #socket = createSocket('unix_dgram');
  readonly #remote: string;
  readonly #path: string;
  #onFrame: (frame: Buffer) => void = () => {};
  /** Whether an empty datagram came, which QEMU would take for the end. */
  gotEmpty = false;

  /** @param path - our own name; a file that is left there is replaced, as QEMU does it */
  constructor(path: string, remote: string) {
    rmSync(path, { force: true });
    this.#path = path;
    this.#remote = remote;
    this.#socket.bind(path);
    this.#socket.on('message', (frame) => {
      if (frame.length === 0) this.gotEmpty = true;
      this.#onFrame(frame);
    });
  }

  /** @returns 0 or -errno */
  send(bytes: Uint8Array): number {
    let status = 0;
    this.#socket.send(Buffer.from(bytes), 0, bytes.length, this.#remote, (error) => {
      if (error !== undefined) status = -Math.abs(error.code);
    });
    return status;
  }

  /** Asks for the gateway's MAC address, again and again, until the answer comes. */
  async checkAlive(timeoutMs = 10_000): Promise<void> {
    const frame = arpRequest();
    const isReply = isArpReplyFor(HOST_NET.gatewayV4);
    await new Promise<void>((resolve, reject) => {
      const timer = setInterval(() => this.send(frame), RESEND_MS);
      const limit = setTimeout(() => {
        clearInterval(timer);
        reject(new Error(`no ARP reply within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#onFrame = (got) => {
        if (!isReply(got)) return;
        clearInterval(timer);
        clearTimeout(limit);
        resolve();
      };
      this.send(frame);
    });
  }

  /** Leaves the file behind, as a process that is killed does. */
  close(): void {
    this.#socket.close();
  }

  remove(): void {
    rmSync(this.#path, { force: true });
  }
}
