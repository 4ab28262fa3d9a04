/**
 * The only place that joins stack, link, forwards and system: from a configuration to a running stack, and back to nothing.
 *
 * Everything that can fail (sockets, ports, files) is opened before this returns, so that a launcher can say what went wrong; what
 * had been opened is closed again then.
 */
import { randomFillSync } from 'node:crypto';
import { openSync } from 'node:fs';
import { createArena } from '../base/arena.ts';
import { systemClock } from '../base/clock.ts';
import { PasselError, reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { createAddressMap } from '../forward/address-map.ts';
import { type ForwardListeners, openListeners } from '../forward/listeners.ts';
import { createLinkListener, type LinkListener } from '../link/listener.ts';
import { createPcapLink, type PcapLink } from '../link/pcap.ts';
import { createStreamLink, type GoneReason } from '../link/stream.ts';
import { createTraceLink } from '../link/trace.ts';
import {
  ENDPOINT_BYTES,
  type GuestLink,
  KIND_LINK,
  KIND_LINK_LISTENER,
  KIND_PING,
  KIND_TCP,
  KIND_TCP_LISTENER,
  KIND_UDP,
  KIND_UDP_LISTENER,
} from '../stack/ports.ts';
import { NetworkStack } from '../stack/stack.ts';
import { createHostSockets } from '../sys/host-sockets.ts';
import { loadNative, type NativeAddon } from '../sys/native.ts';
import { createPoller } from '../sys/poller.ts';
import { listenUnix } from '../sys/unix-socket.ts';
import { createForwardRules } from './control/forward-rules.ts';
import type { ControlApi } from './control/routes.ts';
import type { ControlServer } from './control/server.ts';
import { createEventStatistics } from './event-statistics.ts';
import type { PasstConfig } from './passt-config.ts';
import { unlinkIfThere } from './pid-file.ts';
import { createRawEcho, type OpenRawEcho } from './raw-echo.ts';
import { claimSocketPath } from './socket-path.ts';
import { writeStderr } from './stderr.ts';

/** Link buffers 1 + 4 MiB, datagram and list areas of the stack; pages never touched cost nothing. */
const ARENA_BYTES = 32 * 1024 * 1024;

/** Permissions of the control socket: who may connect may change what the guest is reached by. */
const OWNER_ONLY = 0o600;

/** A stack with its guest socket and listeners, at work. */
export interface RunningStack {
  /** Where a guest connects; undefined with a socket that we were given. The file is the caller's to remove. */
  readonly socketPath: string | undefined;
  /** The control socket; undefined: none. The file is the caller's to remove. */
  readonly controlPath: string | undefined;
  /** Ends everything: closes sockets and files. Harmless when called twice. */
  stop(): Promise<void>;
  /** Resolves with the exit status once the stack has ended by itself: a one-off guest has left (0). */
  readonly ended: Promise<number>;
  readonly stack: NetworkStack;
}

/**
 * Starts the stack of `config`.
 * @throws PasselError when a socket, port or file cannot be opened; nothing is left open then
 */
export async function startPasst(config: PasstConfig, log: Logger): Promise<RunningStack> {
  const native = loadNative();
  const arena = createArena(ARENA_BYTES);
  const poller = createPoller(native, arena);
  const sockets = createHostSockets(native, arena, poller.fd);
  const endpoint = arena.allocate(ENDPOINT_BYTES);

  let forwards: ForwardListeners | undefined;
  let pcap: PcapLink | undefined;
  let listener: LinkListener | undefined;
  let rawEcho: OpenRawEcho | undefined;
  let stack: NetworkStack | undefined;
  let socketPath: string | undefined;
  let controlFd = -1;
  let control: ControlServer | undefined;
  let statistics: NodeJS.Timeout | undefined;
  const stream = createStreamLink({ arena, sockets });

  let stopped = false;
  const stop = async (): Promise<void> => {
    if (stopped) return;
    stopped = true;
    poller.stop();
    clearInterval(statistics);
    control?.close();
    if (control === undefined && controlFd >= 0) native.close(controlFd);
    stack?.close();
    listener?.close();
    stream.detach();
    forwards?.closeAll();
    rawEcho?.close();
    pcap?.close();
    poller.close();
  };

  let end: (status: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });

  try {
    if (config.controlPath !== undefined) {
      const path = await claimSocketPath(config.controlPath, '--conf-path');
      controlFd = listenAt(native, path, '--conf-path', OWNER_ONLY);
    }
    const listeners = openListeners(config.forwards, {
      sockets,
      view: arena.view,
      scratchOffset: endpoint,
      logger: log,
      ipv4: config.stack.ipv4 !== undefined,
      ipv6: config.stack.ipv6 !== undefined,
      freebind: config.freebind,
    });
    forwards = listeners;
    let link: GuestLink = stream;
    if (config.pcapPath !== undefined) {
      pcap = createPcapLink({
        link,
        arena,
        fd: openPcap(config.pcapPath),
        onError: (error) => log.warn(`--pcap: recording ended: ${reasonOf(error)}`),
      });
      link = pcap;
    }
    if (log.isEnabled('trace')) link = createTraceLink(link, arena, log);
    if (config.stack.icmp) rawEcho = createRawEcho(sockets, log, () => stack?.endTurn());
    const running = new NetworkStack({
      arena,
      config: config.stack,
      link,
      sockets,
      map: createAddressMap(config.addressMap),
      forwards,
      clock: systemClock,
      log,
      secret: randomFillSync(new Uint32Array(8)),
      rawEcho,
    });
    stack = running;

    poller.handlers[KIND_LINK] = (_index, events) => {
      if (stream.onHostEvent(events)) running.onLinkReadable();
    };
    poller.handlers[KIND_LINK_LISTENER] = () => listener?.onHostEvent();
    poller.handlers[KIND_TCP] = (index, events) => running.onFlowEvent(KIND_TCP, index, events);
    poller.handlers[KIND_UDP] = (index, events) => running.onFlowEvent(KIND_UDP, index, events);
    poller.handlers[KIND_PING] = (index, events) => running.onFlowEvent(KIND_PING, index, events);
    poller.handlers[KIND_TCP_LISTENER] = (index) => running.onTcpListener(index);
    poller.handlers[KIND_UDP_LISTENER] = (index) => running.onUdpListener(index);
    poller.onTurnEnd = () => running.endTurn();

    const attached = (): void => {
      log.info('guest connected');
      running.onGuestConnected();
    };
    stream.onRoom = () => running.onLinkRoom();
    stream.onGone = (reason, error) => {
      if (stopped) return;
      logGone(log, reason, error);
      running.onGuestGone();
      if (listener !== undefined) listener.guestGone();
      else end(0);
    };
    if (config.transport.kind === 'fd') {
      const { fd } = config.transport;
      const status = stream.attach(fd);
      if (status < 0) throw new PasselError('PASSEL_E_FD', { value: fd, reason: `errno ${-status}` });
      attached();
    } else {
      socketPath = await claimSocketPath(config.transport.path);
      listener = createLinkListener({
        sockets,
        link: stream,
        fd: listenAt(native, socketPath, '--socket'),
        endpoint,
        log,
        oneOff: config.oneOff,
        onAttach: attached,
        onEnd: () => end(0),
      });
    }
    if (controlFd >= 0) {
      const api = createControlApi(config, running, listeners, socketPath, log);
      // Loaded only where it is wanted: HTTP takes its time to load.
      const { openControlServer } = await import('./control/server.ts');
      control = await openControlServer(controlFd, api, log);
    }
    if (config.statsSeconds !== undefined) {
      const table = createEventStatistics();
      table.count(poller.handlers);
      statistics = setInterval(() => writeStderr(table.takeLine() ?? ''), config.statsSeconds * 1000);
    }
    listeners.watchAll();
    poller.start();
  } catch (error) {
    await stop();
    if (controlFd >= 0) unlinkIfThere(config.controlPath!);
    throw error;
  }
  return { socketPath, controlPath: config.controlPath, stop, ended, stack };
}

function openPcap(path: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_FILE',
      { option: '--pcap', value: path, reason: reasonOf(error) },
      { cause: error },
    );
  }
}

function createControlApi(
  config: PasstConfig,
  stack: NetworkStack,
  listeners: ForwardListeners,
  socketPath: string | undefined,
  log: Logger,
): ControlApi {
  const { ipv4, ipv6, tcp, udp } = config.stack;
  const forwards = createForwardRules({
    listeners,
    ephemeral: config.ephemeral,
    log,
    has: { ipv4: ipv4 !== undefined, ipv6: ipv6 !== undefined, tcp, udp },
    onRemove: (index) => stack.onForwardRemoved(index),
    endTurn: () => stack.endTurn(),
  });
  return { view: { stack, config: config.stack, listeners, socketPath }, forwards };
}

/** @param mode - permissions of the socket's file, less the umask; -1: only the umask counts */
function listenAt(native: NativeAddon, path: string, option: string, mode = -1): number {
  try {
    return listenUnix(native, path, { mode });
  } catch (error) {
    throw new PasselError('PASSEL_E_SOCKET_PATH', { option, value: path, reason: reasonOf(error) }, { cause: error });
  }
}

function logGone(log: Logger, reason: GoneReason, error: number): void {
  if (reason === 'bad-length') log.warn('the guest socket sent a frame of impossible length: connection reset');
  else if (reason === 'error') log.warn(`guest disconnected: error ${-error} on its socket`);
  else log.info('guest disconnected');
}
