/** Joins the name server of a network to the sockets, files and guests that it works with. */
import type { Arena } from '../../base/arena.ts';
import type { Logger } from '../../base/logger.ts';
import { createAddressMap } from '../../forward/address-map.ts';
import { EventSlots } from '../../forward/dns/event-slots.ts';
import { Exchanges } from '../../forward/dns/exchanges.ts';
import { createNameServer, type NameCounters } from '../../forward/dns/server.ts';
import { StreamClients } from '../../forward/dns/stream-clients.ts';
import { type Outbound, SCRATCH_BYTES } from '../../forward/dns/upstream.ts';
import {
  EVENT_IN,
  type GuestServices,
  type HostSockets,
  KIND_NAMES,
  MAP_REFUSED,
  type NameServer,
} from '../../stack/ports.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { UNIX_STREAM } from '../../sys/unix-socket.ts';
import type { Prospects } from '../compose.ts';
import type { EventHandlers, GuestPlan } from '../guest-side.ts';
import type { NamesConfig, NetworkConfig } from '../network-config.ts';
import { createGuestNames, type NamedGuest } from './guest-names.ts';
import { type HostsList, openHostsList } from './hosts-list.ts';
import { serveNamesByTcp } from './tcp-service.ts';

export interface NetworkNamesParts {
  readonly native: NativeAddon;
  readonly arena: Arena;
  readonly sockets: HostSockets;
  readonly log: Logger;
  /** May be filled later. */
  readonly guests: readonly NamedGuest[];
  readonly prospects: Prospects;
  readonly kickTurn: () => void;
}

/** What a guest's stack is to have, so that it finds the names. */
export interface GuestNames {
  readonly nameServer: NameServer;
  readonly services: GuestServices;
}

export interface NetworkNames {
  readonly counters: NameCounters;
  /**
   * @param services - what the guest has else
   * @param onConnection - as `NetworkStack.onServiceAnswer`
   */
  forGuest(
    plan: GuestPlan,
    services: GuestServices | undefined,
    onConnection: (index: number, generation: number, fd: number) => void,
  ): GuestNames;
  install(handlers: EventHandlers): void;
  close(): void;
}

/** @throws PasselError when the list of names cannot be read; nothing is left open then */
export function createNetworkNames(
  config: NamesConfig,
  network: NetworkConfig,
  parts: NetworkNamesParts,
): NetworkNames {
  const { native, arena, sockets, log, guests, prospects, kickTurn } = parts;
  const slots = new EventSlots();
  const shared = { sockets, view: arena.view, bytes: arena.bytes, scratch: arena.allocate(SCRATCH_BYTES), slots };
  const exchanges = new Exchanges({ ...shared, outbound: outboundOf(network), kickTurn });
  const own = createGuestNames(guests, config.domain, config.statics, network.addressMap);
  const counters: NameCounters = { queries: 0, answered: 0, forwarded: 0, refused: 0 };
  let list: HostsList | undefined;
  if (config.hostsPath !== undefined) {
    const { user, leavesFiles: ownMounts, isDaemon: isQuiet } = prospects;
    const map = createAddressMap(network.addressMap);
    list = openHostsList({
      ...{ native, log, user, ownMounts, isQuiet },
      path: config.hostsPath,
      toGuest(address) {
        const words = address.slice();
        return map.toGuest(words, 0, 0) === MAP_REFUSED ? undefined : words;
      },
    });
  }
  const serverParts = { own, list, routes: config.routes, exchanges, counters };
  const allClients: StreamClients[] = [];
  return {
    counters,
    forGuest(plan, services, onConnection) {
      const addresses = serverAddresses(plan);
      const server = createNameServer(serverParts, (address) =>
        addresses.some((own) => own.every((word, i) => word === address[i])),
      );
      const clients = new StreamClients({
        ...shared,
        openPair: (fds) => native.socketPair(UNIX_STREAM, fds),
        ask: server.askByStream,
      });
      allClients.push(clients);
      return { nameServer: server, services: serveNamesByTcp(server, clients, services, onConnection) };
    },
    install(handlers) {
      handlers[KIND_NAMES] = (slot, events) => slots.dispatch(slot, events);
      if (list !== undefined) sockets.watch(list.fd, EVENT_IN, KIND_NAMES, slots.add(list.onReadable));
    },
    close() {
      for (const clients of allClients) clients.close();
      exchanges.close();
      list?.close();
    },
  };
}

/** The addresses that a guest was told, and the one that is kept for questions. */
function serverAddresses({ stack, addressMap }: GuestPlan): Uint32Array[] {
  const { ipv4, ipv6 } = stack;
  const told = [
    ...(ipv4?.resolvers.map((address) => Uint32Array.of(0, 0, 0xffff, address)) ?? []),
    ...(ipv6?.resolvers ?? []),
  ];
  const kept = [addressMap.ipv4?.dnsAlias, addressMap.ipv6?.dnsAlias].filter((each) => each !== undefined);
  return [...told, ...kept];
}

function outboundOf({ stack, addressMap }: NetworkConfig): Outbound {
  const { ipv4, ipv6 } = stack;
  return {
    ipv4: ipv4?.outboundAddress ?? 0,
    ipv6: ipv6?.outboundAddress,
    interface4: ipv4?.outboundInterface ?? '',
    interface6: ipv6?.outboundInterface ?? '',
    linkLocalScopeId: addressMap.linkLocalScopeId,
  };
}
