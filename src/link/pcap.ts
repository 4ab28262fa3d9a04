/**
 * Records every frame of a link, both ways, in a capture file that tcpdump and Wireshark read: the classic format with microseconds
 * (draft-ietf-opsawg-pcap), link type Ethernet. Frames to the guest are recorded when they are committed, which may be a little
 * before they leave.
 *
 * Records are gathered and written in batches: when the buffer is full, a moment after the last write if there is something, and at
 * the end. A file that cannot be written (a full disk) ends the recording, never the traffic.
 */
import { closeSync, writeSync } from 'node:fs';
import type { Arena } from '../base/arena.ts';
import type { GuestLink } from '../stack/ports.ts';

/** Microseconds; this value in our byte order tells the reader which one it is. */
const MAGIC = 0xa1b2c3d4;
const VERSION_MAJOR = 2;
const VERSION_MINOR = 4;
/** Nothing is ever cut off. */
const SNAP_BYTES = 262_144;
const LINKTYPE_ETHERNET = 1;
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;

const BUFFER_BYTES = 512 * 1024;
/** How long records may stay in memory: somebody may be looking at the file while it grows. */
const WRITE_DELAY_MS = 200;

export interface PcapOptions {
  readonly link: GuestLink;
  readonly arena: Arena;
  /** An open file, empty or to be appended to as a pipe; the recorder owns it. */
  readonly fd: number;
  /** The file could not be written: nothing more is recorded. */
  readonly onError?: (error: Error) => void;
  /** Wall-clock time in milliseconds; a test hands in its own. */
  readonly now?: () => number;
}

export class PcapLink implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader: boolean;
  readonly offloads: number;
  readonly maxFrameBytes: number;
  private readonly link: GuestLink;
  private readonly arenaBytes: Uint8Array;
  private readonly fd: number;
  private readonly onError: ((error: Error) => void) | undefined;
  private readonly now: () => number;
  private readonly buffer = new Uint8Array(BUFFER_BYTES);
  private readonly view = new DataView(this.buffer.buffer);
  private filled = 0;
  private recording = true;
  private timer: NodeJS.Timeout | undefined;

  constructor(options: PcapOptions) {
    this.link = options.link;
    this.headroomBytes = options.link.headroomBytes;
    this.hasVnetHeader = options.link.hasVnetHeader;
    this.offloads = options.link.offloads;
    this.maxFrameBytes = options.link.maxFrameBytes;
    this.arenaBytes = options.arena.bytes;
    this.fd = options.fd;
    this.onError = options.onError;
    this.now = options.now ?? (() => performance.timeOrigin + performance.now());
    const { view } = this;
    view.setUint32(0, MAGIC, true);
    view.setUint16(4, VERSION_MAJOR, true);
    view.setUint16(6, VERSION_MINOR, true);
    view.setUint32(16, SNAP_BYTES, true);
    view.setUint32(20, LINKTYPE_ETHERNET, true);
    this.filled = FILE_HEADER_BYTES;
    this.write();
  }

  get connected(): boolean {
    return this.link.connected;
  }

  receive(frames: Int32Array): number {
    const count = this.link.receive(frames);
    if (count > 0 && this.recording) {
      const timeMs = this.now();
      for (let i = 0; i < count; i++) this.record(frames[2 * i]!, frames[2 * i + 1]!, timeMs);
    }
    return count;
  }

  reserve(bytes: number): number {
    return this.link.reserve(bytes);
  }

  roomBytes(): number {
    return this.link.roomBytes();
  }

  commit(offset: number, lengthBytes: number): void {
    this.link.commit(offset, lengthBytes);
    if (this.recording && this.link.connected) this.record(offset, lengthBytes, this.now());
  }

  flush(): number {
    return this.link.flush();
  }

  /** Writes what is gathered and closes the file; the link goes on unrecorded. A second call does nothing. */
  close(): void {
    if (!this.recording) return;
    this.write();
    this.stop();
  }

  private record(offset: number, lengthBytes: number, timeMs: number): void {
    if (this.filled + RECORD_HEADER_BYTES + lengthBytes > BUFFER_BYTES) this.write();
    if (!this.recording) return;
    const { view, filled } = this;
    const seconds = Math.floor(timeMs / 1000);
    view.setUint32(filled, seconds, true);
    view.setUint32(filled + 4, Math.floor((timeMs - seconds * 1000) * 1000), true);
    view.setUint32(filled + 8, lengthBytes, true);
    view.setUint32(filled + 12, lengthBytes, true);
    const data = filled + RECORD_HEADER_BYTES;
    this.buffer.set(this.arenaBytes.subarray(offset, offset + lengthBytes), data);
    this.filled = data + lengthBytes;
    if (this.timer !== undefined) return;
    this.timer = setTimeout(() => this.write(), WRITE_DELAY_MS);
    this.timer.unref();
  }

  private write(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.recording) return;
    try {
      for (let written = 0; written < this.filled; ) {
        written += writeSync(this.fd, this.buffer, written, this.filled - written);
      }
    } catch (error) {
      this.stop();
      this.onError?.(error as Error);
    }
    this.filled = 0;
  }

  private stop(): void {
    this.recording = false;
    clearTimeout(this.timer);
    this.timer = undefined;
    closeSync(this.fd);
  }
}

/** Wraps `options.link` so that its frames are recorded; use the result in its place. */
export function createPcapLink(options: PcapOptions): PcapLink {
  return new PcapLink(options);
}
