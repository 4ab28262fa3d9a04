/**
 * One guest of a network: the way to it, what its link is wrapped in, and the stack that serves it.
 *
 * Guests share the poller, the arena, and the host's sockets that listen for them. Each has a stack of its own, and its events have
 * kinds of their own, so that no stack knows of another and a flow costs the same however many guests there are.
 */
import { randomFillSync } from 'node:crypto';
import { openSync } from 'node:fs';
import type { Arena } from '../base/arena.ts';
import { systemClock } from '../base/clock.ts';
import { PasselError, reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { createPcapLink, type PcapLink } from '../link/pcap.ts';
import { createTraceLink } from '../link/trace.ts';
import type { StackConfig } from '../stack/config.ts';
import {
  type AddressMap,
  type ForwardLookup,
  type GuestLink,
  type HostSockets,
  KIND_LINK,
  KIND_LINK_LISTENER,
  KIND_PING,
  KIND_TCP,
  KIND_UDP,
  type LoopbackBypass,
} from '../stack/ports.ts';
import { NetworkStack } from '../stack/stack.ts';
import { createRawEcho } from './raw-echo.ts';
import type { GuestTransport } from './transport.ts';

export interface GuestSideOptions {
  readonly arena: Arena;
  /** From {@link guestSockets}. */
  readonly sockets: HostSockets;
  /** The first of the guest's kinds, as there. */
  readonly kindBase: number;
  readonly config: StackConfig;
  readonly transport: GuestTransport;
  readonly map: AddressMap;
  readonly forwards: ForwardLookup;
  readonly bypass: LoopbackBypass | undefined;
  /** Record all frames here; undefined: do not. */
  readonly pcapPath: string | undefined;
  readonly log: Logger;
}

/** By kind, as the poller has them. */
export type EventHandlers = (((index: number, events: number) => void) | undefined)[];

export interface GuestSide {
  readonly stack: NetworkStack;
  readonly transport: GuestTransport;
  /** Sets the handlers of the events that only this guest has. */
  install(handlers: EventHandlers): void;
  /** Lets the guest in. @param onEnd - there will be no other on this link @throws PasselError */
  open(onEnd: (status: number) => void): Promise<void>;
  /** Ends its flows and closes its sockets and files. */
  close(): void;
}

/** Room for KIND_… numbers per guest. */
const KINDS_PER_GUEST = 16;

/** The first kind of the events of guest number `index`, from 0. */
export function kindBaseOf(index: number): number {
  return index * KINDS_PER_GUEST;
}

/**
 * The host's sockets as one guest's link and stack see them: what they watch comes under the guest's kinds.
 * @param kindBase - from {@link kindBaseOf}; 0 gives `sockets` themselves
 */
export function guestSockets(sockets: HostSockets, kindBase: number): HostSockets {
  if (kindBase === 0) return sockets;
  return {
    ...sockets,
    watch: (fd, events, kind, index) => sockets.watch(fd, events, kindBase + kind, index),
    rewatch: (fd, events, kind, index) => sockets.rewatch(fd, events, kindBase + kind, index),
  };
}

/** @throws PasselError when its capture file cannot be made; nothing is left open then */
export function createGuestSide(options: GuestSideOptions): GuestSide {
  const { arena, sockets, kindBase, config, transport, map, forwards, bypass, pcapPath, log } = options;
  let pcap: PcapLink | undefined;
  let link: GuestLink = transport.link;
  if (pcapPath !== undefined) {
    pcap = createPcapLink({
      link,
      arena,
      fd: openPcap(pcapPath),
      onError: (error) => log.warn(`--pcap: recording ended: ${reasonOf(error)}`),
    });
    link = pcap;
  }
  if (log.isEnabled('trace')) link = createTraceLink(link, arena, log);
  const rawEcho = config.icmp ? createRawEcho(sockets, log, () => stack.endTurn()) : undefined;
  const secret = randomFillSync(new Uint32Array(8));
  const parts = { arena, config, link, sockets, map, forwards, clock: systemClock, log, secret, rawEcho, bypass };
  const stack = new NetworkStack(parts);
  return {
    stack,
    transport,
    install(handlers) {
      handlers[kindBase + KIND_LINK] = (_index, events) => {
        if (transport.onHostEvent(events)) stack.onLinkReadable();
      };
      handlers[kindBase + KIND_LINK_LISTENER] = () => transport.onListenerEvent();
      for (const kind of [KIND_TCP, KIND_UDP, KIND_PING])
        handlers[kindBase + kind] = (index, events) => stack.onFlowEvent(kind, index, events);
    },
    open: (onEnd) =>
      transport.open({
        onRoom: () => stack.onLinkRoom(),
        onAttach: () => stack.onGuestConnected(),
        onGone: () => stack.onGuestGone(),
        onEnd,
      }),
    close() {
      stack.close();
      rawEcho?.close();
      pcap?.close();
    },
  };
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
