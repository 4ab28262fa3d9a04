/** The `unix-dgram` package, loaded when it is needed: loading it takes milliseconds of a start. */
import { fileURLToPath } from 'node:url';

/** The part of the package that is used here; it has no types of its own. */
export interface DatagramSocket {
  on(event: 'error', listener: (error: Error) => void): void;
  once(event: 'connect', listener: () => void): void;
  /** A path: the package cuts abstract names. Emits `connect` or `error` before it returns. */
  connect(path: string): void;
  /** On a connected socket; the callback is called before it returns. A full queue is an error without a number, 'congestion'. */
  send(message: Buffer, callback: (error?: Error) => void): void;
  close(): void;
}
interface DatagramPackage {
  createSocket(type: 'unix_dgram'): DatagramSocket;
}

/** This file, or the bundle that it became part of (where `import.meta` does not exist). */
const here = typeof __filename === 'undefined' ? fileURLToPath(import.meta.url) : __filename;

/** @returns undefined when the package cannot be loaded */
export function openDatagramSocket(): DatagramSocket | undefined {
  try {
    const { createRequire } = process.getBuiltinModule('node:module');
    const socket = (createRequire(here)('unix-dgram') as DatagramPackage).createSocket('unix_dgram');
    // Without a listener an error would be thrown; what went wrong shows in what follows.
    socket.on('error', () => {});
    return socket;
  } catch {
    return undefined;
  }
}
