/** Writes one line per frame of a link to the log, at level trace. Without that level it costs one call per frame. */
import type { Arena } from '../base/arena.ts';
import type { Logger } from '../base/logger.ts';
import type { GuestLink } from '../stack/ports.ts';
import { summarizeFrame } from './frame-summary.ts';

export class TraceLink implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader: boolean;
  readonly offloads: number;
  readonly maxFrameBytes: number;
  private readonly link: GuestLink;
  private readonly view: DataView;
  private readonly log: Logger;

  constructor(link: GuestLink, arena: Arena, log: Logger) {
    this.link = link;
    this.view = arena.view;
    this.log = log;
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
    if (count > 0 && this.log.isEnabled('trace')) {
      for (let i = 0; i < count; i++) this.trace('from guest', frames[2 * i]!, frames[2 * i + 1]!);
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
    if (this.log.isEnabled('trace')) this.trace('to guest', offset, lengthBytes);
  }

  flush(): number {
    return this.link.flush();
  }

  private trace(direction: string, offset: number, lengthBytes: number): void {
    this.log.trace(`${direction}: ${summarizeFrame(this.view, offset, lengthBytes)}`);
  }
}

/** Wraps `link` so that its frames are logged; use the result in its place. */
export function createTraceLink(link: GuestLink, arena: Arena, log: Logger): TraceLink {
  return new TraceLink(link, arena, log);
}
