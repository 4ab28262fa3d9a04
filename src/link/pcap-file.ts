/**
 * A capture file that grows: records of one or more links, gathered and written in batches: when the buffer is full, a moment after the last
 * write if there is something, and at the end.
 *
 * A file that cannot be written (a full disk), or has got as large as it may, ends the recording, never the traffic.
 */
import { closeSync, writeSync } from 'node:fs';
import type { Arena } from '../base/arena.ts';
import { type CaptureFormat, SNAP_MAX_BYTES } from './pcap-format.ts';

const BUFFER_BYTES = 512 * 1024;
/** How long records may stay in memory: somebody may be looking at the file while it grows. */
const WRITE_DELAY_MS = 200;

const FULL = 'the file has got as large as it may';

/** Why a recording has ended by itself. */
export type CaptureEnd = { readonly kind: 'error'; readonly error: Error } | { readonly kind: 'full' };

export interface CaptureOptions {
  /** An open file, empty or to be appended to as a pipe; the recorder owns it. */
  readonly fd: number;
  readonly format: CaptureFormat;
  /** Names of the links; `record` has their numbers. Exactly one if the format is the classic one. */
  readonly interfaces: readonly string[];
  readonly arena: Arena;
  /** Bytes that are kept of each frame; default all. */
  readonly snapBytes?: number | undefined;
  /** The file does not get larger than this; default no limit. */
  readonly maxBytes?: number | undefined;
  /** Wall-clock milliseconds at 0 of the times that `record` is given. */
  readonly originMs?: number;
  readonly comment?: string;
}

export class CaptureFile {
  /** Frames that were recorded, and bytes of the file, those included that still wait to be written. */
  frames = 0;
  bytes = 0;
  /** Nothing more is recorded. Called once, unless `close` was; not from inside the constructor. */
  onEnd: (end: CaptureEnd) => void = () => {};
  private readonly fd: number;
  private readonly format: CaptureFormat;
  private readonly arenaBytes: Uint8Array;
  private readonly snapBytes: number;
  private readonly maxBytes: number;
  private readonly originMs: number;
  private readonly counts: number[];
  private readonly buffer = new Uint8Array(BUFFER_BYTES);
  private readonly view = new DataView(this.buffer.buffer);
  private filled = 0;
  private recording = true;
  /** When the last frame was recorded. */
  private lastMs = performance.now();
  private timer: NodeJS.Timeout | undefined;

  /** @throws Error when not even the header can be written; `fd` is closed then */
  constructor(options: CaptureOptions) {
    const { fd, format, interfaces, arena, snapBytes, maxBytes, originMs, comment = '' } = options;
    this.fd = fd;
    this.format = format;
    this.arenaBytes = arena.bytes;
    this.snapBytes = Math.min(snapBytes ?? SNAP_MAX_BYTES, SNAP_MAX_BYTES);
    this.originMs = originMs ?? wallClockOrigin();
    this.counts = interfaces.map(() => 0);
    this.maxBytes = (maxBytes ?? Number.POSITIVE_INFINITY) - this.trailer(FULL).length;
    this.append(format.header(interfaces, this.snapBytes, comment));
    const error = this.writeOut();
    if (error === undefined) return;
    this.stop();
    throw error;
  }

  get isRecording(): boolean {
    return this.recording;
  }

  /**
   * Records a frame that lies in the arena.
   * @param link - number of its interface
   * @param timeMs - of the clock that `originMs` belongs to
   */
  record(link: number, offset: number, lengthBytes: number, timeMs: number, isToGuest: boolean): void {
    if (!this.recording) return;
    const captured = Math.min(lengthBytes, this.snapBytes);
    const most = captured + this.format.recordOverhead;
    if (this.bytes + most > this.maxBytes) {
      this.finish(FULL);
      this.onEnd({ kind: 'full' });
      return;
    }
    if (this.filled + most > BUFFER_BYTES) this.write();
    if (!this.recording) return;
    const { view, format, filled } = this;
    this.lastMs = timeMs;
    // The origin has its fraction apart: together they have more digits than a number.
    const wholeMs = Math.floor(this.originMs) + Math.floor(timeMs);
    const fractionMs = this.originMs - Math.floor(this.originMs) + timeMs - Math.floor(timeMs);
    const seconds = Math.floor(wholeMs / 1000);
    const nanoseconds = Math.min(999_999_999, Math.floor((wholeMs - seconds * 1000 + fractionMs) * 1e6));
    const data = format.begin(view, filled, link, seconds, nanoseconds, captured, lengthBytes);
    this.buffer.set(this.arenaBytes.subarray(offset, offset + captured), data);
    this.filled = format.end(view, data + captured, captured, isToGuest);
    this.bytes += this.filled - filled;
    this.frames++;
    this.counts[link] = this.counts[link]! + 1;
    if (this.timer !== undefined) return;
    this.timer = setTimeout(() => this.write(), WRITE_DELAY_MS);
    this.timer.unref();
  }

  /** Writes what is gathered and closes the file. A second call does nothing. */
  close(comment = 'it was stopped'): void {
    if (this.recording) this.finish(comment);
  }

  private finish(comment: string): void {
    const trailer = this.trailer(comment);
    if (this.filled + trailer.length > BUFFER_BYTES) this.write();
    if (!this.recording) return;
    this.append(trailer);
    this.write();
    this.stop();
  }

  private trailer(comment: string): Uint8Array {
    const wallMs = this.originMs + this.lastMs;
    const seconds = Math.floor(wallMs / 1000);
    const nanoseconds = Math.floor((wallMs - seconds * 1000) * 1e6);
    return this.format.trailer(this.counts, seconds, nanoseconds, `The recording has ended: ${comment}.`);
  }

  private append(bytes: Uint8Array): void {
    this.buffer.set(bytes, this.filled);
    this.filled += bytes.length;
    this.bytes += bytes.length;
  }

  private write(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.recording) return;
    const error = this.writeOut();
    if (error === undefined) return;
    this.stop();
    this.onEnd({ kind: 'error', error });
  }

  private writeOut(): Error | undefined {
    try {
      for (let written = 0; written < this.filled; ) {
        written += writeSync(this.fd, this.buffer, written, this.filled - written);
      }
      return undefined;
    } catch (error) {
      return error as Error;
    } finally {
      this.filled = 0;
    }
  }

  private stop(): void {
    if (!this.recording) return;
    this.recording = false;
    clearTimeout(this.timer);
    this.timer = undefined;
    closeSync(this.fd);
  }
}

/** Wall-clock time at 0 of `performance.now()`, which goes on evenly when somebody sets the clock: what it was set to by now. */
function wallClockOrigin(): number {
  const originMs = Date.now() - performance.now();
  return Math.abs(originMs - performance.timeOrigin) < 50 ? performance.timeOrigin : originMs;
}
