/** The client's side of the helper protocol, with every way to break it. Written apart from src/scsi, so that a fault there shows. */
import { constants } from 'node:fs';
import { loadNative } from '../../../src/sys/native.ts';
import { connectUnix } from '../../../src/sys/unix-socket.ts';

const native = loadNative();
const EAGAIN = -11;
const ECONNRESET = -104;
const HEADER_BYTES = 104;

/** PERSISTENT RESERVE IN, padded to what the protocol sends. */
export function reserveIn(serviceAction = 0, allocationBytes = 8192): Buffer {
  return command(0x5e, serviceAction, allocationBytes);
}

/** PERSISTENT RESERVE OUT without its parameters. */
export function reserveOut(serviceAction = 0, parameterBytes = 24): Buffer {
  return command(0x5f, serviceAction, parameterBytes);
}

/** Any opcode. @param lengthBytes - of 32 bits; bytes 5 and 6 of the CDB are its upper half */
export function command(opcode: number, serviceAction: number, lengthBytes: number): Buffer {
  const cdb = Buffer.alloc(16);
  cdb[0] = opcode;
  cdb[1] = serviceAction;
  cdb.writeUInt32BE(lengthBytes, 5);
  return cdb;
}

/** Bytes of one sendmsg(2), and how many copies of the device's descriptor go with them. */
export interface Message {
  readonly bytes: Uint8Array;
  readonly fds?: number;
}

/** An answer in short: `STATUS KEY/ASC/ASCQ SIZE`, in hexadecimal. */
export type Answer = string;

/** A connection to a helper. It waits by asking again: a blocked test could not see the helper end. */
export class Wire {
  private readonly fd: number;
  private isClosed = false;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** Connects; where the listener's queue is full, as soon as it is not. */
  static async connect(path: string): Promise<Wire> {
    for (;;) {
      try {
        return new Wire(connectUnix(native, path));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        await pause();
      }
    }
  }

  /** The same, and features agreed on. */
  static async open(path: string): Promise<Wire> {
    const wire = await Wire.connect(path);
    const features = await wire.receive(4);
    if (features === undefined || features.some((byte) => byte !== 0)) throw new Error(`features: ${features}`);
    wire.send({ bytes: Buffer.alloc(4) });
    return wire;
  }

  /** @returns false when the helper has closed */
  send(message: Message, device = -1): boolean {
    const fds = new Int32Array(message.fds ?? 0).fill(device);
    const sent = native.sendFds(this.fd, message.bytes, 0, message.bytes.length, fds, fds.length);
    if (sent >= 0 && sent !== message.bytes.length) throw new Error(`sent ${sent} of ${message.bytes.length} bytes`);
    return sent > 0;
  }

  /** Exactly so many bytes. @returns undefined when the helper has closed, in either of the forms that this has */
  async receive(lengthBytes: number): Promise<Buffer | undefined> {
    const bytes = Buffer.alloc(lengthBytes);
    for (let have = 0; have < lengthBytes; ) {
      const got = this.take(bytes, have);
      if (got === EAGAIN) await pause();
      else if (got > 0) have += got;
      else if (got === 0 || got === ECONNRESET) return undefined;
      else throw new Error(`errno ${-got}`);
    }
    return bytes;
  }

  /** Nothing has come and nothing has ended, right now. */
  isSilent(): boolean {
    return this.take(Buffer.alloc(1), 0) === EAGAIN;
  }

  /** @returns undefined when the helper has closed */
  async answer(): Promise<Answer | undefined> {
    const header = await this.receive(HEADER_BYTES);
    if (header === undefined) return undefined;
    const status = header.readUInt32BE(0);
    const sizeBytes = header.readUInt32BE(4);
    if (sizeBytes > 0) await this.receive(sizeBytes);
    const sense = [header[10]! & 15, header[20]!, header[21]!].map((byte) => byte.toString(16)).join('/');
    return `${status} ${sense} ${sizeBytes}`;
  }

  close(): void {
    if (!this.isClosed) native.close(this.fd);
    this.isClosed = true;
  }

  private take(bytes: Uint8Array, have: number): number {
    return native.receiveFds(this.fd, bytes, have, bytes.length - have, new Int32Array(1), new Int32Array(3));
  }
}

/** O_PATH of open(2), which Node has no name for. */
export const O_PATH = 0o10000000 | constants.O_RDONLY;

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}
