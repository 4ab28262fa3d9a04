/** A helper within this process, and what its tests send it. Nothing here needs privileges: /dev/null refuses SG_IO to everybody. */
import { closeSync, openSync } from 'node:fs';
import { silentLogger } from '../../../src/base/logger.ts';
import { openPrManager, type PrManagerClient } from '../../../src/scsi/client.ts';
import type { AccessEntry } from '../../../src/scsi/describe.ts';
import { createPrHelperServer, type PrHelperServer, type PrHelperServerOptions } from '../../../src/scsi/server.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { createSocketPair } from '../../../src/sys/unix-socket.ts';

export const native = loadNative();

export interface Rig {
  readonly server: PrHelperServer;
  readonly accesses: AccessEntry[];
  /** A client that has agreed on features. */
  connect(): Promise<PrManagerClient>;
  /** A socket whose other end the server has. */
  attach(): number;
}

export function startServer(options: Partial<PrHelperServerOptions> = {}): Rig {
  const accesses: AccessEntry[] = [];
  const server = createPrHelperServer({
    native,
    log: silentLogger,
    onAccess: (entry) => accesses.push(entry),
    ...options,
  });
  const attach = (): number => {
    const [ours, theirs] = createSocketPair(native);
    server.attach(theirs);
    return ours;
  };
  return { server, accesses, attach, connect: () => openPrManager(native, attach()) };
}

/** Runs `use` with a descriptor open. */
export async function withFile<T>(path: string, flags: string, use: (fd: number) => Promise<T>): Promise<T> {
  const fd = openSync(path, flags);
  try {
    return await use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Sends bytes with descriptors; they stay the caller's. */
export function send(fd: number, bytes: Uint8Array, fds: readonly number[] = []): void {
  const sent = native.sendFds(fd, bytes, 0, bytes.length, Int32Array.from(fds), fds.length);
  if (sent !== bytes.length) throw new Error(`sent ${sent} of ${bytes.length} bytes`);
}

/** The next bytes of a socket, at least one; empty at its end. */
export async function receive(fd: number, maxBytes = 16384): Promise<Uint8Array> {
  const bytes = new Uint8Array(maxBytes);
  for (;;) {
    const got = native.receiveFds(fd, bytes, 0, maxBytes, new Int32Array(1), new Int32Array(3));
    // The end, in either form: bytes that the server has not read make it a reset.
    if (got === 0 || got === -104) return new Uint8Array(0);
    if (got > 0) return bytes.subarray(0, got);
    if (got !== -11) throw new Error(`errno ${-got}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Exactly so many bytes. */
export async function receiveExactly(fd: number, lengthBytes: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let have = 0; have < lengthBytes; ) {
    const part = await receive(fd, lengthBytes - have);
    if (part.length === 0) throw new Error(`the stream ended after ${have} bytes`);
    parts.push(part);
    have += part.length;
  }
  return Buffer.concat(parts);
}
