/**
 * Records every frame of a link, both ways, in capture files (pcap-file.ts). Frames to the guest are recorded when they are committed, which may
 * be a little before they leave.
 */
import { type Clock, systemClock } from '../base/clock.ts';
import type { GuestLink } from '../stack/ports.ts';
import type { CaptureFile } from './pcap-file.ts';

/** Where frames are recorded. */
export interface CaptureSink {
  readonly file: CaptureFile;
  /** Number of this link among the file's interfaces. */
  readonly link: number;
}

export interface PcapOptions {
  readonly link: GuestLink;
  readonly sinks?: readonly CaptureSink[];
  /** The one that the files' origin belongs to. */
  readonly clock?: Clock;
}

export class PcapLink implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader: boolean;
  readonly offloads: number;
  readonly maxFrameBytes: number;
  private readonly link: GuestLink;
  private readonly clock: Clock;
  private sinks: readonly CaptureSink[];

  constructor({ link, sinks = [], clock = systemClock }: PcapOptions) {
    this.link = link;
    this.clock = clock;
    this.sinks = sinks;
    this.headroomBytes = link.headroomBytes;
    this.hasVnetHeader = link.hasVnetHeader;
    this.offloads = link.offloads;
    this.maxFrameBytes = link.maxFrameBytes;
  }

  get connected(): boolean {
    return this.link.connected;
  }

  receive(frames: Int32Array): number {
    const count = this.link.receive(frames);
    if (count > 0) {
      const { sinks } = this;
      const timeMs = this.clock.nowMs();
      for (let s = 0; s < sinks.length; s++) {
        const { file, link } = sinks[s]!;
        for (let i = 0; i < count; i++) file.record(link, frames[2 * i]!, frames[2 * i + 1]!, timeMs, false);
      }
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
    if (!this.link.connected) return;
    const { sinks } = this;
    const timeMs = this.clock.nowMs();
    for (let s = 0; s < sinks.length; s++) {
      const { file, link } = sinks[s]!;
      file.record(link, offset, lengthBytes, timeMs, true);
    }
  }

  flush(): number {
    return this.link.flush();
  }

  /** Records in this file too. */
  add(sink: CaptureSink): void {
    this.sinks = [...this.sinks, sink];
  }

  /** Records in this file no more, which is not closed. @returns whether there are others */
  remove(file: CaptureFile): boolean {
    this.sinks = this.sinks.filter((sink) => sink.file !== file);
    return this.sinks.length > 0;
  }
}

/** Wraps `options.link` so that its frames are recorded; use the result in its place. */
export function createPcapLink(options: PcapOptions): PcapLink {
  return new PcapLink(options);
}
