/**
 * What is being recorded: files with the links that go into each. Those of `--pcap` are there from the start; others come and go by the control
 * socket.
 */
import { openSync } from 'node:fs';
import { arch, release, type } from 'node:os';
import type { Arena } from '../base/arena.ts';
import { PasselError, reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { CaptureFile } from '../link/pcap-file.ts';
import { createPcapngFormat, PCAP_FORMAT } from '../link/pcap-format.ts';
import { type CaptureFormatName, captureFormatOf } from './capture-format.ts';
import type { GuestSide } from './guest-side.ts';
import { servingPid } from './serving-pid.ts';
import { VERSION } from './version.ts';

/** How much is recorded; what is left out is not limited. */
export interface CaptureLimits {
  readonly snapBytes?: number | undefined;
  readonly maxBytes?: number | undefined;
}

export interface CaptureRequest extends CaptureLimits {
  /** The file, the recorder's from here on. */
  readonly fd: number;
  /** What it is called in messages. */
  readonly name: string;
  readonly format: CaptureFormatName;
  /** One or more; one only in the classic format. */
  readonly guests: readonly GuestSide[];
}

export interface Capture {
  readonly id: number;
  readonly name: string;
  readonly format: CaptureFormatName;
  readonly guests: readonly string[];
  readonly frames: number;
  /** Of the file, as it will be once all has been written. */
  readonly bytes: number;
}

interface Running {
  readonly id: number;
  readonly request: CaptureRequest;
  readonly file: CaptureFile;
}

export class Captures {
  private readonly arena: Arena;
  private readonly log: Logger;
  private readonly running: Running[] = [];
  private lastId = 0;

  constructor(arena: Arena, log: Logger) {
    this.arena = arena;
    this.log = log;
  }

  /**
   * Opens what `--pcap` asks for: a file for each path that guests have.
   * @throws PasselError PASSEL_E_FILE
   */
  openAll(guests: readonly GuestSide[], limits: CaptureLimits): void {
    const paths = new Set(guests.map(({ plan }) => plan.pcapPath));
    for (const path of paths) {
      if (path === undefined) continue;
      const own = guests.filter(({ plan }) => plan.pcapPath === path);
      const request = { ...limits, fd: openFile(path), name: path, format: captureFormatOf(path), guests: own };
      try {
        this.start(request);
      } catch (error) {
        // The network is worth more than its record.
        this.log.warn(`--pcap: recording ended: ${reasonOf(error)}`);
      }
    }
  }

  /** @throws Error when the file cannot be written; it is closed then */
  start(request: CaptureRequest): Capture {
    const { fd, format, guests, snapBytes, maxBytes, name } = request;
    const file = new CaptureFile({
      ...{ fd, snapBytes, maxBytes, arena: this.arena },
      format: format === 'pcap' ? PCAP_FORMAT : createPcapngFormat(author()),
      interfaces: guests.map(({ plan }) => plan.name),
      comment: `Recorded by process ${servingPid()} from ${new Date().toISOString()} on.`,
    });
    const running: Running = { id: ++this.lastId, request, file };
    file.onEnd = (end) => {
      const reason = end.kind === 'full' ? `the file has its ${maxBytes} bytes` : reasonOf(end.error);
      this.log.warn(`recording of '${name}' ended after ${file.frames} frames: ${reason}`);
      // It may be in the middle of a frame.
      setImmediate(() => this.forget(running));
    };
    for (const [link, guest] of guests.entries()) guest.startCapture({ file, link });
    this.running.push(running);
    return describe(running);
  }

  list(): Capture[] {
    return this.running.filter(({ file }) => file.isRecording).map(describe);
  }

  /** Ends one recording, or all. @returns those that were ended, as they were then */
  stop(id?: number): Capture[] {
    const chosen = this.running.filter((each) => (id === undefined || each.id === id) && each.file.isRecording);
    for (const each of chosen) {
      this.forget(each);
      each.file.close();
    }
    return chosen.map(describe);
  }

  private forget(running: Running): void {
    for (const guest of running.request.guests) guest.stopCapture(running.file);
    const at = this.running.indexOf(running);
    if (at >= 0) this.running.splice(at, 1);
  }
}

function describe({ id, request, file }: Running): Capture {
  const { name, format, guests } = request;
  return { id, name, format, guests: guests.map(({ plan }) => plan.name), frames: file.frames, bytes: file.bytes };
}

function author(): { hardware: string; os: string; application: string } {
  return { hardware: arch(), os: `${type()} ${release()}`, application: `passel ${VERSION}` };
}

function openFile(path: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (error) {
    const values = { option: '--pcap', value: path, reason: reasonOf(error) };
    throw new PasselError('PASSEL_E_FILE', values, { cause: error });
  }
}
