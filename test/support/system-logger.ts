/** A stand-in for the system's logger: listens on a unix datagram socket as at /dev/log. */
import { chmodSync } from 'node:fs';
import { createRequire } from 'node:module';

interface DatagramSocket {
  bind(path: string): void;
  send(message: Buffer, offset: number, length: number, path: string): void;
  close(): void;
}
interface DatagramPackage {
  createSocket(type: 'unix_dgram', onMessage?: (message: Buffer) => void): DatagramSocket;
}

export interface SystemLogger {
  /** Every message so far, as it came. */
  readonly messages: string[];
  /** Resolves when all that was sent before this call is among the messages. */
  settle(): Promise<void>;
  close(): void;
}

/** Any user may send to it. */
export function openSystemLogger(path: string): SystemLogger {
  const messages: string[] = [];
  const waiting = new Map<string, () => void>();
  const { createSocket } = createRequire(import.meta.url)('unix-dgram') as DatagramPackage;
  const socket = createSocket('unix_dgram', (message) => {
    const text = message.toString();
    const resolve = waiting.get(text);
    if (resolve === undefined) messages.push(text);
    else resolve();
  });
  socket.bind(path);
  chmodSync(path, 0o666);
  let marks = 0;
  return {
    messages,
    settle: () =>
      // A socket gives datagrams in the order in which they were sent.
      new Promise((resolve) => {
        const mark = `mark ${++marks}`;
        const sender = createSocket('unix_dgram');
        waiting.set(mark, () => {
          waiting.delete(mark);
          sender.close();
          resolve();
        });
        sender.send(Buffer.from(mark), 0, mark.length, path);
      }),
    close: () => socket.close(),
  };
}
