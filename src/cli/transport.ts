/** The ways to a guest, as compose.ts uses them: a stream socket, listening or inherited, or a tap device. */
import type { Arena } from '../base/arena.ts';
import { PasselError, reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { DatagramGoneReason } from '../link/datagram.ts';
import { type AttachableLink, createLinkListener, type LinkListener } from '../link/listener.ts';
import { createStreamLink, type GoneReason, type StreamLink } from '../link/stream.ts';
import { createTapLink } from '../link/tap.ts';
import type { GuestLink, HostSockets } from '../stack/ports.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { prepareTapOffloads } from '../sys/tap.ts';
import { listenUnix, type UnixListenOptions } from '../sys/unix-socket.ts';
import type { TransportConfig } from './guests-config.ts';
import { claimSocketPath } from './socket-path.ts';

/** What a transport tells. */
export interface TransportEvents {
  /** The link takes frames again after it was full. */
  onRoom(): void;
  /** A guest is there. */
  onAttach(): void;
  /** It has gone. @param isSure - false: it has only been silent */
  onGone(isSure: boolean): void;
  /** There will be no other. @param status - exit status for the process */
  onEnd(status: number): void;
}

export interface GuestTransport {
  readonly link: GuestLink;
  /** Events of KIND_LINK. @returns whether there is something to receive */
  onHostEvent(events: number): boolean;
  /** Events of KIND_LINK_LISTENER: of what brings the guest. */
  onListenerEvent(): void;
  /** Where nobody says that the guest has gone: takes it to be so until its next frame. */
  presumeGone?(): void;
  /** Where guests connect; undefined: nowhere. */
  readonly socketPath: string | undefined;
  /** Begins: attaches the guest or listens for one. @throws PasselError */
  open(events: TransportEvents): Promise<void>;
  close(): void;
}

/** What transports are made from. */
export interface TransportParts {
  readonly native: NativeAddon;
  readonly arena: Arena;
  readonly sockets: HostSockets;
  /** An endpoint record in the arena to work in. */
  readonly endpoint: number;
  readonly log: Logger;
}

/** A unix socket for QEMU, at `--socket` or inherited. */
export function createStreamTransport(
  config: Exclude<TransportConfig, { readonly kind: 'netdev' }>,
  oneOff: boolean,
  parts: TransportParts,
): GuestTransport {
  if (config.kind === 'fd') return createInheritedTransport(config.fd, parts);
  const listen = async (): Promise<Listening> => {
    const path = await claimSocketPath(config.path);
    return { fd: listenAt(parts.native, path, '--socket'), path };
  };
  return createListeningTransport({ listen }, oneOff, parts);
}

/** A socket that listens. */
export interface Listening {
  readonly fd: number;
  /** Its file; left out: it has none. */
  readonly path?: string;
}

export interface ListeningPlan {
  /** @throws PasselError */
  readonly listen: () => Promise<Listening>;
  /** The link as guests are attached to it; left out: as it is. */
  readonly wrap?: (link: AttachableLink) => AttachableLink;
}

/** Has a stream link tell its events. @param afterGone - what else follows when the guest has gone; not when the link is given up */
export function watchStream(
  stream: StreamLink,
  { onRoom, onGone }: TransportEvents,
  log: Logger,
  afterGone: () => void,
): void {
  stream.onRoom = onRoom;
  stream.onGone = (reason, error) => {
    if (reason === 'detached') return;
    logGone(log, reason, error);
    onGone(true);
    afterGone();
  };
}

/** Listens; one guest at a time. @param oneOff - end when the first guest has left */
export function createListeningTransport(plan: ListeningPlan, oneOff: boolean, parts: TransportParts): GuestTransport {
  const { arena, sockets, endpoint, log } = parts;
  const stream = createStreamLink({ arena, sockets });
  let listener: LinkListener | undefined;
  let socketPath: string | undefined;
  return {
    link: stream,
    onHostEvent: (events) => stream.onHostEvent(events),
    onListenerEvent: () => listener?.onHostEvent(),
    get socketPath() {
      return socketPath;
    },
    async open(events) {
      watchStream(stream, events, log, () => listener?.guestGone());
      const { fd, path } = await plan.listen();
      socketPath = path;
      listener = createLinkListener({
        sockets,
        link: plan.wrap?.(stream) ?? stream,
        fd,
        endpoint,
        log,
        oneOff,
        onAttach: () => {
          log.info('guest connected');
          events.onAttach();
        },
        onEnd: () => events.onEnd(0),
      });
    },
    close() {
      listener?.close();
      stream.detach();
    },
  };
}

/** A connected stream socket; its guest is the only one. @param fd - becomes the transport's when it is opened */
export function createInheritedTransport(fd: number, { arena, sockets, log }: TransportParts): GuestTransport {
  const stream = createStreamLink({ arena, sockets });
  return {
    link: stream,
    onHostEvent: (events) => stream.onHostEvent(events),
    onListenerEvent: () => {},
    socketPath: undefined,
    async open(events) {
      watchStream(stream, events, log, () => events.onEnd(0));
      const status = stream.attach(fd);
      if (status < 0) throw new PasselError('PASSEL_E_FD', { value: fd, reason: `errno ${-status}` });
      log.info('guest connected');
      events.onAttach();
    },
    close() {
      stream.detach();
    },
  };
}

export interface ListenAtOptions extends UnixListenOptions {
  /** The path as people write it, if not as the system has it. */
  readonly shown?: string;
}

export function listenAt(native: NativeAddon, path: string, option: string, options: ListenAtOptions = {}): number {
  try {
    return listenUnix(native, path, options);
  } catch (error) {
    const values = { option, value: options.shown ?? path, reason: reasonOf(error) };
    throw new PasselError('PASSEL_E_SOCKET_PATH', values, { cause: error });
  }
}

export function logGone(log: Logger, reason: GoneReason | DatagramGoneReason, error: number): void {
  if (reason === 'bad-length') log.warn('the guest socket sent a frame of impossible length: connection reset');
  else if (reason === 'error') log.warn(`guest disconnected: error ${-error} on its socket`);
  else if (reason === 'silent')
    log.info('the guest has been silent for long and does not answer: it is taken to be gone');
  else log.info('guest disconnected');
}

/** A tap device in a namespace. @param fd - becomes the transport's */
export function createTapTransport(fd: number, { native, arena, sockets, log }: TransportParts): GuestTransport {
  const tap = createTapLink({ arena, sockets, native, ...prepareTapOffloads(native, fd) });
  let attached = false;
  return {
    link: tap,
    onHostEvent: (events) => tap.onHostEvent(events),
    onListenerEvent: () => {},
    socketPath: undefined,
    async open({ onRoom, onAttach, onGone, onEnd }) {
      tap.onRoom = onRoom;
      tap.onGone = (reason, error) => {
        if (reason === 'detached') return;
        log.info(reason === 'error' ? `the interface failed: error ${-error}` : 'the interface is gone');
        onGone(true);
        onEnd(0);
      };
      attached = true;
      const status = tap.attach(fd);
      if (status < 0)
        throw new PasselError('PASSEL_E_INTERNAL', { reason: `the tap cannot be watched: errno ${-status}` });
      onAttach();
    },
    close() {
      if (attached) tap.detach();
      else native.close(fd);
    },
  };
}

/** Loopback only: there is no interface, and nobody on it. */
export function createNoTransport(): GuestTransport {
  const link: GuestLink = {
    headroomBytes: 0,
    hasVnetHeader: false,
    offloads: 0,
    maxFrameBytes: 0,
    connected: false,
    receive: () => 0,
    reserve: () => -1,
    roomBytes: () => 0,
    commit: () => {},
    flush: () => 0,
  };
  return {
    link,
    onHostEvent: () => false,
    onListenerEvent: () => {},
    socketPath: undefined,
    open: async () => {},
    close: () => {},
  };
}
