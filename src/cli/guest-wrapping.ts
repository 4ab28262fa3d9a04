/**
 * What stands between the transport of a guest and its stack: recorder, impairment, switch, trace, in this order. Recorder and impairment come
 * and go while the guest is at work, and cost nothing while they are not there.
 *
 * The recorder is next to the transport: it sees what the guest sends and what reaches it.
 */
import type { Arena } from '../base/arena.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/logger.ts';
import { createImpairLink, type ImpairLink } from '../link/impair.ts';
import type { Impairment } from '../link/impairment.ts';
import { type CaptureSink, createPcapLink, type PcapLink } from '../link/pcap.ts';
import type { CaptureFile } from '../link/pcap-file.ts';
import type { SwitchPort } from '../link/switch.ts';
import { createTraceLink } from '../link/trace.ts';
import type { GuestLink } from '../stack/ports.ts';

export interface GuestWrappingOptions {
  readonly transport: GuestLink;
  readonly arena: Arena;
  readonly clock: Clock;
  readonly log: Logger;
  /** Undefined with one guest. Its link is set here. */
  readonly port: SwitchPort | undefined;
}

export class GuestWrapping {
  /** What the stack is to use. */
  top: GuestLink;
  /** Undefined: there has never been any. */
  impair: ImpairLink | undefined;
  /** The link that the stack is to use is another one. */
  onChange: (top: GuestLink) => void = () => {};
  /** The link may have frames, or room, of which no event tells. Ends its turn. */
  onWake: () => void = () => {};
  private readonly options: GuestWrappingOptions;
  private recorder: PcapLink | undefined;

  constructor(options: GuestWrappingOptions) {
    this.options = options;
    this.top = options.transport;
    this.relink();
  }

  /** @param impairment - in place of the one that there is. What is under way may be due now: to be followed by {@link wake} */
  setImpairment(impairment: Impairment): void {
    const { transport, arena, clock } = this.options;
    const isNone = impairment.toGuest === undefined && impairment.fromGuest === undefined;
    if (this.impair === undefined) {
      if (isNone) return;
      const impair = createImpairLink({ link: transport, arena, clock });
      impair.onWake = () => this.wake();
      this.impair = impair;
    }
    this.impair.configure(impairment);
    this.relink();
  }

  /** Passes on what is due. */
  wake(): void {
    this.onWake();
    if (this.impair?.isIdle) this.relink();
  }

  /** Records its frames from here on. */
  startCapture(sink: CaptureSink): void {
    this.recorder ??= createPcapLink({ link: this.options.transport, clock: this.options.clock });
    this.recorder.add(sink);
    this.relink();
  }

  /** Records its frames in this file no more, which stays the caller's to close. */
  stopCapture(file: CaptureFile): void {
    if (this.recorder === undefined || this.recorder.remove(file)) return;
    this.recorder = undefined;
    this.relink();
  }

  /** The guest has gone: nothing that was under way to it or from it arrives. */
  clear(): void {
    this.impair?.clear();
    this.options.port?.clear();
  }

  private relink(): void {
    const { transport, arena, log, port } = this.options;
    let link: GuestLink = this.recorder ?? transport;
    const impair = this.impair?.isIdle === false ? this.impair : undefined;
    if (impair !== undefined) {
      impair.useLink(link);
      link = impair;
    }
    if (port !== undefined) {
      port.useLink(link, impair?.keptBytes);
      link = port;
    }
    if (log.isEnabled('trace')) link = createTraceLink(link, arena, log);
    this.top = link;
    this.onChange(link);
  }
}
