/** A stand-in for the system's logger: listens on a unix datagram socket as at /dev/log. */
import { chmodSync } from 'node:fs';
import { createRequire } from 'node:module';

interface DatagramSocket {
  bind(path: string): void;
  close(): void;
}
interface DatagramPackage {
  createSocket(type: 'unix_dgram', onMessage: (message: Buffer) => void): DatagramSocket;
}

export interface SystemLogger {
  /** Every message so far, as it came. */
  readonly messages: string[];
  close(): void;
}

/** Any user may send to it. */
export function openSystemLogger(path: string): SystemLogger {
  const messages: string[] = [];
  const { createSocket } = createRequire(import.meta.url)('unix-dgram') as DatagramPackage;
  const socket = createSocket('unix_dgram', (message) => messages.push(message.toString()));
  socket.bind(path);
  chmodSync(path, 0o666);
  return { messages, close: () => socket.close() };
}
