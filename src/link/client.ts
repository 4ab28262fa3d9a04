/**
 * Connects a stream link to a guest that listens, once or again whenever the guest has gone.
 *
 * The first try after a failure or a loss comes soon, each further one after twice the time, up to the longest that the owner named. A name with
 * several addresses has them tried one after the other without waiting in between.
 *
 * How a connection is made is the dialer's business: by ourselves, or by a process that may what we may not any more.
 */
import { EINPROGRESS } from '../base/errno.ts';
import type { Logger } from '../base/logger.ts';
import type { AttachableLink } from './listener.ts';

/** What a dialer answers while it does not know yet. */
export const DIAL_PENDING = EINPROGRESS;

/** Makes connections, one at a time. */
export interface Dialer {
  /** For messages: what is connected to. */
  readonly target: string;
  /** How many addresses there are; each `begin` takes the next one. */
  readonly alternatives: number;
  /** Starts a connection. @returns a connected socket, {@link DIAL_PENDING} or another -errno */
  begin(): number;
  /** Asks for the one that was started; the poller says when there is an answer. @returns as `begin` */
  poll(): number;
  /** Gives up what was started, and everything else. */
  close(): void;
}

const FIRST_DELAY_MS = 100;

export interface LinkClientOptions {
  readonly link: AttachableLink;
  readonly dialer: Dialer;
  readonly log: Logger;
  /** The longest time between two tries; undefined: there is one only. */
  readonly reconnectMs: number | undefined;
  /** Ends with the first guest whatever `reconnectMs` is. */
  readonly oneOff: boolean;
  readonly onAttach: () => void;
  /** There will be no other guest. */
  readonly onEnd: () => void;
}

export class LinkClient {
  private readonly options: LinkClientOptions;
  private timer: NodeJS.Timeout | undefined;
  private delayMs = FIRST_DELAY_MS;
  private untried = 0;
  private dialing = false;
  private closed = false;
  /** A failure is told once per loss. */
  private told = false;

  constructor(options: LinkClientOptions) {
    this.options = options;
  }

  /**
   * Tries once, every address.
   * @returns 0, {@link DIAL_PENDING} or another -errno: that of the last address; further tries then follow if there are to be any
   */
  start(): number {
    this.untried = this.options.dialer.alternatives;
    return this.goOn(this.options.dialer.begin());
  }

  /** The dialer may have an answer. @returns as `start`; 0 when nothing was asked */
  onHostEvent(): number {
    return this.dialing ? this.goOn(this.options.dialer.poll()) : 0;
  }

  /** The link has lost its guest. */
  guestGone(): void {
    const { reconnectMs, oneOff, onEnd } = this.options;
    if (reconnectMs === undefined || oneOff) onEnd();
    else this.waitAndRetry();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.timer);
    this.options.dialer.close();
  }

  private goOn(first: number): number {
    const { link, dialer, onAttach } = this.options;
    let result = first;
    for (;;) {
      this.dialing = result === DIAL_PENDING;
      if (this.dialing) return result;
      if (result >= 0) {
        const status = link.attach(result);
        if (status >= 0) {
          this.delayMs = FIRST_DELAY_MS;
          this.told = false;
          onAttach();
          return 0;
        }
        result = status;
      }
      if (--this.untried <= 0) break;
      result = dialer.begin();
    }
    this.fail(result);
    return result;
  }

  private fail(error: number): void {
    const { log, dialer, reconnectMs } = this.options;
    if (reconnectMs === undefined) return;
    if (!this.told) log.info(`nobody listens at ${dialer.target} (errno ${-error}): trying again until somebody does`);
    this.told = true;
    this.waitAndRetry();
  }

  private waitAndRetry(): void {
    if (this.closed) return;
    const longest = this.options.reconnectMs ?? FIRST_DELAY_MS;
    this.timer = setTimeout(() => void this.start(), Math.min(this.delayMs, longest));
    this.delayMs = Math.min(2 * this.delayMs, longest);
  }
}

/** Makes a client; `start` sets it going. */
export function createLinkClient(options: LinkClientOptions): LinkClient {
  return new LinkClient(options);
}
