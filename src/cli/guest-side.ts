/**
 * One guest of a network: the way to it, what its link is wrapped in, and the stack that serves it.
 *
 * Guests share the poller, the arena, and the host's sockets that listen for them. Each has a stack of its own, and its events have
 * kinds of their own, so that no stack knows of another and a flow costs the same however many guests there are.
 */
import type { Arena } from '../base/arena.ts';
import { systemClock } from '../base/clock.ts';
import { type Logger, prefixLogger } from '../base/logger.ts';
import { type AddressMapConfig, createAddressMap } from '../forward/address-map.ts';
import type { ForwardListeners } from '../forward/listeners.ts';
import type { ImpairLink } from '../link/impair.ts';
import type { Impairment } from '../link/impairment.ts';
import type { CaptureSink } from '../link/pcap.ts';
import type { CaptureFile } from '../link/pcap-file.ts';
import { watchForSilence } from '../link/silence.ts';
import type { GuestSwitch, SwitchCounters } from '../link/switch.ts';
import type { StackConfig } from '../stack/config.ts';
import {
  EVENT_IN,
  type ForwardLookup,
  type HostSockets,
  KIND_LINK,
  KIND_LINK_LISTENER,
  KIND_PING,
  KIND_SERVICES,
  KIND_TCP,
  KIND_UDP,
  type LoopbackBypass,
} from '../stack/ports.ts';
import { NetworkStack } from '../stack/stack.ts';
import { GuestWrapping } from './guest-wrapping.ts';
import type { NetworkNames } from './names/network-names.ts';
import { createRawEcho } from './raw-echo.ts';
import type { GuestTransport, TransportParts } from './transport.ts';
import type { OpenServices, ServicesParts } from './user-net/services.ts';

/** What a guest is to have. */
export interface GuestPlan {
  /** Unique; what people and forwards call it. */
  readonly name: string;
  readonly stack: StackConfig;
  readonly addressMap: AddressMapConfig;
  readonly createTransport: (parts: TransportParts) => GuestTransport;
  /** Record all frames here; undefined: do not. */
  readonly pcapPath: string | undefined;
  /** What the link is to be at first; undefined: as good as it is. */
  readonly impairment: Impairment | undefined;
  /** Opens what the guest meets at addresses of its network; left out: nothing. @throws PasselError */
  readonly openServices?: (parts: ServicesParts) => OpenServices;
}

/** The way to a guest, with what is the guest's own of the parts that all use. */
export interface GuestWay {
  readonly plan: GuestPlan;
  /** The first of its kinds of events. */
  readonly kindBase: number;
  readonly sockets: HostSockets;
  /** Says whom it is about, where there are several. */
  readonly log: Logger;
  readonly transport: GuestTransport;
}

/** What guests share. */
export interface NetworkParts {
  readonly native: TransportParts['native'];
  /** Eight random words for this guest's stack. */
  readonly secret: Uint32Array;
  readonly arena: Arena;
  readonly forwards: ForwardListeners;
  /** The guest that the forward of a listener leads to. */
  readonly guestOf: (index: number) => GuestSide;
  /** Undefined with one guest. */
  readonly bridge: GuestSwitch | undefined;
  readonly bypass: LoopbackBypass | undefined;
  /** Undefined: no names are the network's own. */
  readonly names: NetworkNames | undefined;
  /** How long a guest may be silent on a link on which nobody says that it is gone; undefined: for ever. */
  readonly silenceMs: number | undefined;
}

/** By kind, as the poller has them. */
export type EventHandlers = (((index: number, events: number) => void) | undefined)[];

export interface GuestSide {
  readonly plan: GuestPlan;
  readonly stack: NetworkStack;
  /** Where it connects; undefined: nowhere. */
  readonly socketPath: string | undefined;
  /** What passed the switch; undefined with one guest. */
  readonly exchange: SwitchCounters | undefined;
  /** What its link is made worse by; undefined: nothing so far. */
  readonly impair: ImpairLink | undefined;
  /** Makes its link so from here on. */
  setImpairment(impairment: Impairment): void;
  /** Records its frames from here on. */
  startCapture(sink: CaptureSink): void;
  /** Records its frames in this file no more, which stays the caller's to close. */
  stopCapture(file: CaptureFile): void;
  /** Sets the handlers of the events that only this guest has. */
  install(handlers: EventHandlers): void;
  /** Lets the guest in. @param onEnd - there will be no other on this link @throws PasselError */
  open(onEnd: (status: number) => void): Promise<void>;
  /** Ends its flows and closes their sockets, and its files; resolves when nothing is left of its services. */
  close(): Promise<void>;
}

/** Room for KIND_… numbers per guest: guest number i, from 0, has those from i times this on. */
export const KINDS_PER_GUEST = 16;

/**
 * The host's sockets as one guest's link and stack see them: what they watch comes under the guest's kinds.
 * @param kindBase - 0 gives `sockets` themselves
 */
export function guestSockets(sockets: HostSockets, kindBase: number): HostSockets {
  if (kindBase === 0) return sockets;
  return {
    ...sockets,
    watch: (fd, events, kind, index) => sockets.watch(fd, events, kindBase + kind, index),
    rewatch: (fd, events, kind, index) => sockets.rewatch(fd, events, kindBase + kind, index),
  };
}

/** Makes the ways to all guests; nothing is opened yet. */
export function createGuestWays(plans: readonly GuestPlan[], parts: TransportParts): GuestWay[] {
  return plans.map((plan, index) => {
    const kindBase = index * KINDS_PER_GUEST;
    const sockets = guestSockets(parts.sockets, kindBase);
    const log = plans.length === 1 ? parts.log : prefixLogger(parts.log, plan.name);
    return { plan, kindBase, sockets, log, transport: plan.createTransport({ ...parts, sockets, log }) };
  });
}

/**
 * @param way - its transport stays the caller's to close
 * @throws PasselError when the guest's services cannot be had; nothing is left open then
 */
export function createGuestSide(way: GuestWay, parts: NetworkParts): GuestSide {
  const { native, arena, secret, forwards, guestOf, bridge, bypass, names, silenceMs } = parts;
  const { plan, kindBase, sockets, log, transport } = way;
  let stopWatching = (): void => {};
  const services = plan.openServices?.({ native, arena, log });
  const port = bridge?.addPort(transport.link);
  const wrapping = new GuestWrapping({ transport: transport.link, arena, clock: systemClock, log, port });
  const rawEcho = plan.stack.icmp ? createRawEcho(sockets, log, () => stack.endTurn()) : undefined;
  const named = names?.forGuest(plan, services, (flow, generation, fd) => {
    stack.onServiceAnswer(flow, generation, fd);
    stack.endTurn();
  });
  const stack = new NetworkStack({
    arena,
    config: plan.stack,
    link: wrapping.top,
    sockets,
    map: createAddressMap(plan.addressMap),
    forwards: bridge === undefined ? forwards : forwardsOf(forwards, (index) => guestOf(index).plan === plan),
    clock: systemClock,
    log,
    secret,
    rawEcho,
    bypass,
    services: named?.services ?? services,
    nameServer: named?.nameServer,
  });
  wrapping.onChange = (link) => stack.useLink(link);
  const lookAtLink = (): void => {
    stack.onLinkReadable();
    stack.endTurn();
  };
  wrapping.onWake = lookAtLink;
  if (port !== undefined) port.onMore = lookAtLink;
  if (plan.impairment !== undefined) wrapping.setImpairment(plan.impairment);
  return {
    plan,
    stack,
    get socketPath() {
      return transport.socketPath;
    },
    exchange: port?.counters,
    get impair() {
      return wrapping.impair;
    },
    setImpairment(impairment) {
      wrapping.setImpairment(impairment);
      wrapping.wake();
    },
    startCapture: (sink) => wrapping.startCapture(sink),
    stopCapture: (file) => wrapping.stopCapture(file),
    install(handlers) {
      handlers[kindBase + KIND_LINK] = (_index, events) => {
        if (transport.onHostEvent(events)) stack.onLinkReadable();
      };
      handlers[kindBase + KIND_LINK_LISTENER] = () => transport.onListenerEvent();
      for (const kind of [KIND_TCP, KIND_UDP, KIND_PING])
        handlers[kindBase + kind] = (flow, events) => stack.onFlowEvent(kind, flow, events);
      if (services === undefined) return;
      const { fd, takeAnswers } = services;
      handlers[kindBase + KIND_SERVICES] = () =>
        takeAnswers((flow, generation, result) => stack.onServiceAnswer(flow, generation, result));
      sockets.watch(fd, EVENT_IN, KIND_SERVICES, 0);
    },
    async open(onEnd) {
      await transport.open({
        onRoom: () => stack.onLinkRoom(),
        onAttach: () => stack.onGuestConnected(),
        onGone(isSure) {
          wrapping.clear();
          stack.onGuestGone(isSure);
        },
        onEnd,
      });
      if (silenceMs === undefined || transport.presumeGone === undefined) return;
      stopWatching = watchForSilence({
        limitMs: silenceMs,
        isConnected: () => transport.link.connected,
        countFrames: () => stack.counters.guestFrames + (port?.counters.forwarded ?? 0),
        ask: () => stack.probeGuest(),
        onGone: () => {
          transport.presumeGone?.();
          stack.endTurn();
        },
      });
    },
    async close() {
      stopWatching();
      stack.close();
      wrapping.clear();
      rawEcho?.close();
      await services?.close();
    },
  };
}

/** The forwards as the stack of one of several guests may use them: those that lead to it. */
function forwardsOf(forwards: ForwardListeners, isOwn: (index: number) => boolean): ForwardLookup {
  return {
    targetOf: forwards.targetOf,
    fdOf: forwards.fdOf,
    udpListenerAt(port) {
      const index = forwards.udpListenerAt?.(port) ?? -1;
      return index >= 0 && isOwn(index) ? index : -1;
    },
  };
}
