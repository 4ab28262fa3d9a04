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
import { createPcapLink, type PcapLink } from '../link/pcap.ts';
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
import { loadNative } from '../sys/native.ts';
import { createPoller } from '../sys/poller.ts';
import { createForwardRules } from './control/forward-rules.ts';
import type { ControlApi } from './control/routes.ts';
import type { ControlServer } from './control/server.ts';
import type { SpliceViewOptions } from './control/view-splices.ts';
import { createEventStatistics } from './event-statistics.ts';
import type { NamespaceSplice, NamespaceSpliceConfig } from './namespace-splice.ts';
import type { NetworkConfig } from './network-config.ts';
import type { PasstConfig } from './passt-config.ts';
import { unlinkIfThere } from './pid-file.ts';
import { createRawEcho, type OpenRawEcho } from './raw-echo.ts';
import { claimSocketPath } from './socket-path.ts';
import { writeStderr } from './stderr.ts';
import { createStreamTransport, type GuestTransport, listenAt, type TransportParts } from './transport.ts';

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

/** Starts the stack of a virtual machine: see {@link startStack}. */
export function startPasst(config: PasstConfig, log: Logger): Promise<RunningStack> {
  return startStack(config, log, (parts) => createStreamTransport(config.transport, config.oneOff, parts));
}

/**
 * Starts the stack of `config`.
 * @param createTransport - the way to its guest
 * @param spliceConfig - the guest is a namespace: how its loopback and the host's are joined
 * @throws PasselError when a socket, port or file cannot be opened; nothing is left open then
 */
export async function startStack(
  config: NetworkConfig,
  log: Logger,
  createTransport: (parts: TransportParts) => GuestTransport,
  spliceConfig?: NamespaceSpliceConfig,
): Promise<RunningStack> {
  const native = loadNative();
  const arena = createArena(ARENA_BYTES);
  const poller = createPoller(native, arena);
  const sockets = createHostSockets(native, arena, poller.fd);
  const endpoint = arena.allocate(ENDPOINT_BYTES);

  let forwards: ForwardListeners | undefined;
  let pcap: PcapLink | undefined;
  let rawEcho: OpenRawEcho | undefined;
  let stack: NetworkStack | undefined;
  let loopback: NamespaceSplice | undefined;
  let controlFd = -1;
  let control: ControlServer | undefined;
  let statistics: NodeJS.Timeout | undefined;
  const transport = createTransport({ native, arena, sockets, endpoint, log });

  let stopped = false;
  const stop = async (): Promise<void> => {
    if (stopped) return;
    stopped = true;
    poller.stop();
    clearInterval(statistics);
    control?.close();
    if (control === undefined && controlFd >= 0) native.close(controlFd);
    stack?.close();
    loopback?.close();
    transport.close();
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
    if (spliceConfig !== undefined) {
      const onHostClose = (index: number): void => stack?.onForwardRemoved(index);
      const parts = { native, arena, sockets, forwards, log, kickTurn: () => poller.kickTurn(), onHostClose };
      // Loaded only for namespaces.
      const { createNamespaceSplice } = await import('./namespace-splice.ts');
      loopback = createNamespaceSplice(spliceConfig, parts);
    }
    const { splice } = loopback ?? {};
    let link: GuestLink = transport.link;
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
      bypass: loopback?.bypass,
    });
    stack = running;

    poller.handlers[KIND_LINK] = (_index, events) => {
      if (transport.onHostEvent(events)) running.onLinkReadable();
    };
    poller.handlers[KIND_LINK_LISTENER] = () => transport.onListenerEvent();
    poller.handlers[KIND_TCP] = (index, events) => running.onFlowEvent(KIND_TCP, index, events);
    poller.handlers[KIND_UDP] = (index, events) => running.onFlowEvent(KIND_UDP, index, events);
    poller.handlers[KIND_PING] = (index, events) => running.onFlowEvent(KIND_PING, index, events);
    poller.handlers[KIND_TCP_LISTENER] = (index) => running.onTcpListener(index);
    poller.handlers[KIND_UDP_LISTENER] = (index) => running.onUdpListener(index);
    splice?.install(poller.handlers);
    poller.onTurnEnd = () => {
      running.endTurn();
      splice?.endTurn();
    };

    await transport.open({
      onRoom: () => running.onLinkRoom(),
      onAttach: () => running.onGuestConnected(),
      onGone: () => running.onGuestGone(),
      onEnd: end,
    });
    const { socketPath } = transport;
    if (controlFd >= 0) {
      const splices = splice === undefined ? undefined : { splice, sockets, view: arena.view, scratch: endpoint };
      const api = createControlApi(config, running, listeners, socketPath, log, splices);
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
    loopback?.start();
    poller.start();
  } catch (error) {
    await stop();
    if (controlFd >= 0) unlinkIfThere(config.controlPath!);
    throw error;
  }
  return { socketPath: transport.socketPath, controlPath: config.controlPath, stop, ended, stack };
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
  config: NetworkConfig,
  stack: NetworkStack,
  listeners: ForwardListeners,
  socketPath: string | undefined,
  log: Logger,
  splices: SpliceViewOptions | undefined,
): ControlApi {
  const { ipv4, ipv6, tcp, udp } = config.stack;
  const forwards = createForwardRules({
    listeners,
    ephemeral: config.ephemeral,
    log,
    has: { ipv4: ipv4 !== undefined, ipv6: ipv6 !== undefined, tcp, udp },
    onRemove(index) {
      splices?.splice.onListenerClosed(index, false);
      stack.onForwardRemoved(index);
    },
    endTurn: () => stack.endTurn(),
  });
  return { view: { stack, config: config.stack, listeners, socketPath }, forwards, splices };
}
