/**
 * Waits for the guest on a listening unix socket: one guest at a time. A second client is accepted and closed at once, so that
 * it sees the end of the stream instead of hanging in a queue; after the guest has gone the next client is it.
 *
 * The socket itself (path, permissions, stale files) is made by the owner.
 */
import { EAGAIN, ECONNABORTED } from '../base/errno.ts';
import { createLogGate, type Logger, warnGated } from '../base/logger.ts';
import { EVENT_EDGE, EVENT_IN, type HostSockets, KIND_LINK_LISTENER } from '../stack/ports.ts';

/** A client that reconnects in a loop must not fill the log. */
const WARN_INTERVAL_MS = 10_000;

/** What the listener needs of a link. */
export interface AttachableLink {
  readonly connected: boolean;
  /** Takes ownership of `fd`. @returns 0 or -errno */
  attach(fd: number): number;
}

export interface LinkListenerOptions {
  readonly sockets: HostSockets;
  readonly link: AttachableLink;
  /** A listening stream socket; the listener owns it. */
  readonly fd: number;
  /** An endpoint record in the arena that `accept` may fill. */
  readonly endpoint: number;
  readonly log: Logger;
  /** The index that events of KIND_LINK_LISTENER carry; default 0. */
  readonly index?: number;
  /** With true, the first guest is the only one; see `guestGone`. */
  readonly oneOff?: boolean;
  /** A guest was attached. */
  readonly onAttach?: () => void;
  /** The only guest of a one-off listener has gone. */
  readonly onEnd?: () => void;
}

export class LinkListener {
  private readonly options: LinkListenerOptions;
  private readonly gate = createLogGate(WARN_INTERVAL_MS);
  private open = true;

  /** @throws Error when the socket cannot be watched */
  constructor(options: LinkListenerOptions) {
    this.options = options;
    const { sockets, fd, index = 0 } = options;
    const result = sockets.watch(fd, (EVENT_IN | EVENT_EDGE) >>> 0, KIND_LINK_LISTENER, index);
    if (result < 0) throw new Error(`the listening socket cannot be watched (errno ${-result})`);
  }

  /** Takes all clients that wait: the first becomes the guest if there is none, the others are turned away. */
  onHostEvent(): void {
    const { sockets, link, fd, endpoint, log, onAttach } = this.options;
    while (this.open) {
      const client = sockets.accept(fd, endpoint);
      if (client === EAGAIN) return;
      if (client === ECONNABORTED) continue;
      if (client < 0) {
        warnGated(
          log,
          this.gate,
          performance.now(),
          `a client of the guest socket cannot be accepted (errno ${-client})`,
        );
        return;
      }
      if (link.connected) {
        sockets.close(client);
        warnGated(log, this.gate, performance.now(), 'a second client of the guest socket was turned away');
        continue;
      }
      const result = link.attach(client);
      if (result < 0) {
        warnGated(log, this.gate, performance.now(), `the guest's socket cannot be watched (errno ${-result})`);
        continue;
      }
      onAttach?.();
    }
  }

  /** The owner says that the link has lost its guest: the end for a one-off listener, else the next client may come. */
  guestGone(): void {
    if (this.options.oneOff === true) {
      this.close();
      this.options.onEnd?.();
      return;
    }
    // Events come once: a client that could not be accepted for want of descriptors is still in the queue.
    this.onHostEvent();
  }

  /** Stops listening; a guest that is attached stays. A second call does nothing. */
  close(): void {
    if (!this.open) return;
    this.open = false;
    this.options.sockets.unwatch(this.options.fd);
    this.options.sockets.close(this.options.fd);
  }
}

/** Starts listening for the guest on `options.fd`. */
export function createLinkListener(options: LinkListenerOptions): LinkListener {
  return new LinkListener(options);
}
