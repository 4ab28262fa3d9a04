/**
 * The only place that joins stack, link, forwards and system: from a configuration to a running stack, and back to nothing.
 *
 * Everything that can fail (sockets, ports, files) is opened before this returns, so that a launcher can say what went wrong; what
 * had been opened is closed again then.
 */
import { createArena } from '../base/arena.ts';
import type { Logger } from '../base/logger.ts';
import type { NameCounters } from '../forward/dns/server.ts';
import { type ForwardListeners, openListeners } from '../forward/listeners.ts';
import { GuestSwitch } from '../link/switch.ts';
import { ENDPOINT_BYTES, KIND_TCP_LISTENER, KIND_UDP_LISTENER } from '../stack/ports.ts';
import { createHostSockets } from '../sys/host-sockets.ts';
import { loadNative } from '../sys/native.ts';
import { createPoller } from '../sys/poller.ts';
import { randomWords } from '../sys/random.ts';
import { createBusyPoll } from './busy-poll.ts';
import type { Captures } from './captures.ts';
import { createForwardRules } from './control/forward-rules.ts';
import type { ControlApi } from './control/routes.ts';
import type { ControlServer } from './control/server.ts';
import type { SpliceViewOptions } from './control/view-splices.ts';
import { createEventStatistics } from './event-statistics.ts';
import { createForwardRouter } from './forward-router.ts';
import { claimForwardPaths, isAbstract, openForwardPath } from './forward-sockets.ts';
import { createGuestSide, createGuestWays, type GuestPlan, type GuestSide } from './guest-side.ts';
import type { NamedGuest } from './names/guest-names.ts';
import type { NetworkNames } from './names/network-names.ts';
import type { NamespaceSplice, NamespaceSpliceConfig } from './namespace-splice.ts';
import { createNetdevTransport } from './netdev-transport.ts';
import type { NetworkConfig } from './network-config.ts';
import type { PasstConfig } from './passt-config.ts';
import { unlinkIfThere } from './pid-file.ts';
import { claimSocketPath } from './socket-path.ts';
import { writeStderr } from './stderr.ts';
import { createStreamTransport, listenAt } from './transport.ts';
import type { ServicesParts } from './user-net/services.ts';

/** Link buffers 1 + 4 MiB, datagram and list areas of the stack; pages never touched cost nothing. */
const ARENA_BYTES_PER_GUEST = 32 * 1024 * 1024;

/** Permissions of the control socket: who may connect may change what the guest is reached by. */
const OWNER_ONLY = 0o600;

/** A stack with its guest socket and listeners, at work. */
export interface RunningStack {
  /** Where guests connect, in their order; none for a socket that we were given. The files are the caller's to remove. */
  readonly socketPaths: readonly string[];
  /** Sockets of forwards; their files are removed with the forwards. */
  readonly forwardPaths: readonly string[];
  /** The control socket; undefined: none. The file is the caller's to remove. */
  readonly controlPath: string | undefined;
  /** Ends everything: closes sockets and files. Harmless when called twice. */
  stop(): Promise<void>;
  /** Resolves with the exit status once the stack has ended by itself: a one-off guest has left (0). */
  readonly ended: Promise<number>;
}

/** What this process is about to become. */
export interface Prospects {
  /** Another user; undefined: nobody else. */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
  /** It is going to leave the file systems of its mount namespace. */
  readonly leavesFiles: boolean;
  /** It goes on in the background. */
  readonly isDaemon: boolean;
  /** Removes the socket of a forward that ends, when that takes more than it did at the start. */
  readonly removeFile?: (path: string) => void;
}

const NO_PROSPECTS: Prospects = { user: undefined, leavesFiles: false, isDaemon: false };

/** Starts the stack of a virtual machine: see {@link startStack}. */
export async function startPasst(
  config: PasstConfig,
  log: Logger,
  prospects: Prospects = NO_PROSPECTS,
): Promise<RunningStack> {
  const { services, oneOff } = config;
  const { user, leavesFiles: ownMounts, isDaemon: isQuiet } = prospects;
  // Loaded only where it is wanted.
  const opener = services === undefined ? undefined : await import('./user-net/services.ts');
  const plans = config.guests.map(
    ({ name, transport, stack, addressMap, pcapPath, impairment }): GuestPlan => ({
      name,
      stack,
      addressMap,
      pcapPath,
      impairment,
      createTransport: (parts) =>
        transport.kind === 'netdev'
          ? createNetdevTransport(transport.netdev, oneOff, parts)
          : createStreamTransport(transport, oneOff, parts),
      ...(services === undefined || opener === undefined
        ? {}
        : {
            openServices: (parts: ServicesParts) =>
              opener.openServices(services, { ...parts, user, ownMounts, isQuiet }),
          }),
    }),
  );
  return startStack(config, plans, log, undefined, prospects);
}

/**
 * Starts a network with its guests.
 * @param plans - one or more; with several, a switch joins them
 * @param spliceConfig - the only guest is a namespace: how its loopback and the host's are joined
 * @throws PasselError when a socket, port or file cannot be opened; nothing is left open then
 */
export async function startStack(
  config: NetworkConfig,
  plans: readonly GuestPlan[],
  log: Logger,
  spliceConfig?: NamespaceSpliceConfig,
  prospects: Prospects = NO_PROSPECTS,
): Promise<RunningStack> {
  const native = loadNative();
  const arena = createArena(ARENA_BYTES_PER_GUEST * plans.length);
  const poller = createPoller(native, arena);
  const sockets = createHostSockets(native, arena, poller.fd);
  const endpoint = arena.allocate(ENDPOINT_BYTES);

  let forwards: ForwardListeners | undefined;
  const ways = createGuestWays(plans, { native, arena, sockets, endpoint, log });
  const guests: GuestSide[] = [];
  let loopback: NamespaceSplice | undefined;
  let names: NetworkNames | undefined;
  let captures: Captures | undefined;
  let controlFd = -1;
  let control: ControlServer | undefined;
  let statistics: NodeJS.Timeout | undefined;

  let stopped = false;
  const stop = async (): Promise<void> => {
    if (stopped) return;
    stopped = true;
    poller.stop();
    clearInterval(statistics);
    control?.close();
    if (control === undefined && controlFd >= 0) native.close(controlFd);
    const left = guests.map((guest) => guest.close());
    captures?.stop();
    loopback?.close();
    names?.close();
    for (const { transport } of ways) transport.close();
    forwards?.closeAll();
    await Promise.all(left);
    poller.close();
  };

  let end: (status: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });
  let linksLeft = plans.length;
  const onLinkEnd = (status: number): void => {
    if (--linksLeft === 0 || status !== 0) end(status);
  };

  try {
    if (config.controlPath !== undefined) {
      const path = await claimSocketPath(config.controlPath, '--conf-path');
      controlFd = listenAt(native, path, '--conf-path', { mode: OWNER_ONLY });
    }
    await claimForwardPaths(config.forwards);
    const listeners = openListeners(config.forwards, {
      sockets,
      view: arena.view,
      scratchOffset: endpoint,
      logger: log,
      ipv4: config.stack.ipv4 !== undefined,
      ipv6: config.stack.ipv6 !== undefined,
      freebind: config.freebind,
      openPath: (rule, backlog) => openForwardPath(native, rule, backlog),
      onPathClosed(path) {
        if (!isAbstract(path)) (prospects.removeFile ?? unlinkIfThere)(path);
      },
    });
    forwards = listeners;
    const guestOf = createForwardRouter(listeners, guests);
    const onForwardRemoved = (index: number): void => guestOf(index).stack.onForwardRemoved(index);
    if (spliceConfig !== undefined) {
      const kickTurn = (): void => poller.kickTurn();
      const parts = { native, arena, sockets, forwards, log, kickTurn, onHostClose: onForwardRemoved };
      // Loaded only for namespaces.
      const { createNamespaceSplice } = await import('./namespace-splice.ts');
      loopback = createNamespaceSplice(spliceConfig, parts);
    }
    const { splice, bypass } = loopback ?? {};
    const { ourMacHi, ourMacLo } = config.stack;
    const bridge = plans.length === 1 ? undefined : new GuestSwitch({ arena, ourMacHi, ourMacLo });
    const named: NamedGuest[] = [];
    if (config.names !== undefined) {
      // Loaded only where there are names.
      const { createNetworkNames } = await import('./names/network-names.ts');
      const kickTurn = (): void => poller.kickTurn();
      const parts = { native, arena, sockets, log, guests: named, prospects, kickTurn };
      names = createNetworkNames(config.names, config, parts);
      names.install(poller.handlers);
    }
    const silenceMs = config.silenceSeconds === undefined ? undefined : config.silenceSeconds * 1000;
    for (const way of ways) {
      const secret = randomWords(native, 8);
      const guest = createGuestSide(way, {
        native,
        arena,
        secret,
        forwards,
        guestOf,
        bridge,
        bypass,
        names,
        silenceMs,
      });
      guests.push(guest);
      named.push({ name: way.plan.name.toLowerCase(), stack: guest.stack });
      guest.install(poller.handlers);
    }
    poller.handlers[KIND_TCP_LISTENER] = (index) => guestOf(index).stack.onTcpListener(index);
    poller.handlers[KIND_UDP_LISTENER] = (index) => guestOf(index).stack.onUdpListener(index);
    splice?.install(poller.handlers);
    const endTurn = (): void => {
      for (const guest of guests) guest.stack.endTurn();
    };
    poller.onTurnEnd = () => {
      endTurn();
      splice?.endTurn();
    };

    if (config.busyPollUs > 0) poller.busyPollUs = createBusyPoll(guests, config.busyPollUs);

    if (controlFd >= 0 || plans.some(({ pcapPath }) => pcapPath !== undefined)) {
      // Loaded only where something may be recorded.
      const { Captures } = await import('./captures.ts');
      captures = new Captures(arena, log);
      captures.openAll(guests, config.captureLimits);
    }
    for (const guest of guests) await guest.open(onLinkEnd);
    if (controlFd >= 0 && captures !== undefined) {
      const splices = splice === undefined ? undefined : { splice, sockets, view: arena.view, scratch: endpoint };
      const api = createControlApi(
        config,
        guests,
        captures,
        listeners,
        names?.counters,
        log,
        splices,
        onForwardRemoved,
      );
      // Loaded only where it is wanted: HTTP takes its time to load.
      const { openControlServer } = await import('./control/server.ts');
      const { createNetworkAnswerer } = await import('./control/routes.ts');
      control = await openControlServer(controlFd, createNetworkAnswerer(api), log, native);
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
  const socketPaths = guests.map(({ socketPath }) => socketPath).filter((path) => path !== undefined);
  const forwardPaths = config.forwards.flatMap(({ bindPath }) =>
    bindPath === undefined || isAbstract(bindPath) ? [] : bindPath,
  );
  return { socketPaths, forwardPaths, controlPath: config.controlPath, stop, ended };
}

function createControlApi(
  config: NetworkConfig,
  guests: readonly GuestSide[],
  captures: Captures,
  listeners: ForwardListeners,
  names: NameCounters | undefined,
  log: Logger,
  splices: SpliceViewOptions | undefined,
  onForwardRemoved: (index: number) => void,
): ControlApi {
  const { ipv4, ipv6, tcp, udp } = config.stack;
  const forwards = createForwardRules({
    listeners,
    ephemeral: config.ephemeral,
    guests: guests.length === 1 ? [] : guests.map(({ plan }) => plan.name),
    log,
    has: { ipv4: ipv4 !== undefined, ipv6: ipv6 !== undefined, tcp, udp },
    onRemove(index) {
      splices?.splice.onListenerClosed(index, false);
      onForwardRemoved(index);
    },
    endTurn() {
      for (const guest of guests) guest.stack.endTurn();
    },
  });
  return { view: { guests, listeners, names }, forwards, captures, splices };
}
