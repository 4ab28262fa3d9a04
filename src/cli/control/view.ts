/** What the control socket tells, as plain objects. These shapes are version 1 of the interface: fields may be added, not changed. */
import { formatIp, formatIpv4 } from '../../base/ip-text.ts';
import type { NameCounters } from '../../forward/dns/server.ts';
import type { ForwardListeners, OpenForward } from '../../forward/listeners.ts';
import { formatPortForward } from '../../forward/port-spec.ts';
import type { SwitchCounters } from '../../link/switch.ts';
import type { FlowDescription } from '../../stack/flow/description.ts';
import { FLOW_PING, FLOW_TCP, FLOW_UDP } from '../../stack/flow/table.ts';
import type { GuestSide } from '../guest-side.ts';
import { servingPid } from '../serving-pid.ts';
import { VERSION } from '../version.ts';
import { type ImpairmentView, viewImpairment } from './impairments.ts';

const TWO_TO_32 = 0x1_0000_0000;

export interface EndpointView {
  readonly address: string;
  /** For ping: the identifier. */
  readonly port: number;
}

export interface FlowView {
  /** Never the same for two flows of a guest. */
  readonly id: string;
  /** The guest's name, which tells several apart. */
  readonly guestName: string;
  readonly proto: 'tcp' | 'udp' | 'ping';
  readonly state: string;
  readonly startedBy: 'guest' | 'host';
  readonly ageSeconds: number;
  /** Payload. */
  readonly bytesToGuest: number;
  readonly bytesToHost: number;
  /** What the guest sees: its own endpoint and its peer. */
  readonly guest: EndpointView;
  readonly peer: EndpointView;
  /** What the host sees: our socket and its remote; null where there is none. */
  readonly local: EndpointView | null;
  readonly remote: EndpointView | null;
  /** Number of the forward by which the flow's datagrams come and go, or null. */
  readonly forward: number | null;
}

export interface FlowPage {
  readonly flows: readonly FlowView[];
  /** Flows of all protocols now. */
  readonly total: number;
  /** What to ask for as `after` to get the next page; null: this is the last one. */
  readonly next: number | null;
}

export interface ForwardView {
  readonly id: number;
  readonly proto: 'tcp' | 'udp';
  /** A specification that means just this forward. */
  readonly spec: string;
  /** The unix socket that takes the place of a port of the host, which is 0 then; a name behind `@` has no file. */
  readonly bindPath: string | null;
  readonly bindAddress: string | null;
  readonly bindInterface: string | null;
  readonly first: number;
  readonly last: number;
  readonly targetAddress: string | null;
  readonly targetGuest: string | null;
  readonly targetFirst: number;
  /** Ports that could not be bound were left out. */
  readonly weak: boolean;
  /** Open sockets. */
  readonly sockets: number;
}

interface LeaseView {
  readonly address: string;
  /** Who asked for it. */
  readonly mac: string;
  readonly ageSeconds: number;
}

/** What is known of a guest and its network. */
export interface GuestView {
  readonly name: string;
  /** Where it connects; null with --fd. */
  readonly socket: string | null;
  readonly guest: {
    readonly connected: boolean;
    readonly mac: string | null;
    /** Addresses last seen in use. */
    readonly ipv4: string | null;
    readonly ipv6: string | null;
    readonly linkLocal: string | null;
    readonly dhcpLease: LeaseView | null;
    readonly dhcpv6Lease: LeaseView | null;
  };
  readonly network: {
    readonly mtu: number;
    readonly ipv4: FamilyView | null;
    readonly ipv6: FamilyView | null;
    readonly searchDomains: readonly string[];
    readonly hostname: string | null;
  };
  readonly flows: { readonly tcp: number; readonly udp: number; readonly ping: number; readonly capacity: number };
  readonly counters: Readonly<Record<string, number>>;
  /** What it sends to other guests and gets from them; null where it has no others. */
  readonly exchange: SwitchCounters | null;
  /** What its link is made worse by; null: nothing. */
  readonly impairment: ImpairmentView | null;
}

/** The first guest's, and all of them under `guests`. */
export interface StatusView extends GuestView {
  readonly version: string;
  readonly pid: number;
  readonly uptimeSeconds: number;
  /** Open sockets of forwards. */
  readonly listeners: number;
  /** Questions that the network's name server got; null: it has none. */
  readonly names: NameCounters | null;
  readonly guests: readonly GuestView[];
}

interface FamilyView {
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly resolvers: readonly string[];
}

export interface ViewOptions {
  /** At least one. */
  readonly guests: readonly GuestSide[];
  readonly listeners: ForwardListeners;
  /** Undefined: there is no name server. */
  readonly names?: NameCounters | undefined;
}

export function viewStatus({ guests, listeners, names }: ViewOptions): StatusView {
  const views = guests.map(viewGuest);
  return {
    version: VERSION,
    pid: servingPid(),
    uptimeSeconds: toSeconds(process.uptime() * 1000),
    ...views[0]!,
    listeners: listeners.count,
    names: names === undefined ? null : { ...names },
    guests: views,
  };
}

function viewGuest(side: GuestSide): GuestView {
  const { plan, stack, socketPath, exchange } = side;
  const { guest, flows } = stack;
  const config = plan.stack;
  const now = stack.nowMs();
  const { ipv4, ipv6 } = config;
  const lease = (sinceMs: number, address: string, mac: number): LeaseView | null =>
    Number.isNaN(sinceMs)
      ? null
      : { address, mac: formatMac(Math.floor(mac / TWO_TO_32), mac % TWO_TO_32), ageSeconds: toSeconds(now - sinceMs) };
  return {
    name: plan.name,
    socket: socketPath ?? null,
    guest: {
      connected: stack.isGuestConnected,
      mac: guest.isMacKnown ? formatMac(guest.macHi, guest.macLo) : null,
      ipv4: ipv4 === undefined ? null : formatIp(guest.ipv4),
      ipv6: ipv6 === undefined ? null : formatIp(guest.ipv6),
      linkLocal: guest.linkLocal[0] === 0 ? null : formatIp(guest.linkLocal),
      dhcpLease: ipv4 === undefined ? null : lease(guest.leased4Ms, formatIpv4(guest.leased4), guest.leased4Mac),
      dhcpv6Lease: ipv6 === undefined ? null : lease(guest.leased6Ms, formatIp(guest.leased6), guest.leased6Mac),
    },
    network: {
      mtu: config.mtu,
      ipv4:
        ipv4 === undefined
          ? null
          : {
              address: formatIpv4(ipv4.guestAddress),
              prefixLength: ipv4.prefixLength,
              gateway: formatIpv4(ipv4.gateway),
              resolvers: ipv4.resolvers.map(formatIpv4),
            },
      ipv6:
        ipv6 === undefined
          ? null
          : {
              address: formatIp(ipv6.guestAddress),
              prefixLength: ipv6.prefixLength,
              gateway: formatIp(ipv6.gateway),
              resolvers: ipv6.resolvers.map(formatIp),
            },
      searchDomains: config.searchDomains,
      hostname: config.hostname === '' ? null : config.hostname,
    },
    flows: {
      tcp: flows.live[FLOW_TCP]!,
      udp: flows.live[FLOW_UDP]!,
      ping: flows.live[FLOW_PING]!,
      capacity: flows.capacity,
    },
    counters: { ...stack.counters },
    exchange: exchange === undefined ? null : { ...exchange },
    impairment: viewImpairment(side),
  };
}

/** Where the flows of all guests end, as positions that {@link viewFlows} counts by: one table behind the other. */
export function countPositions({ guests }: ViewOptions): number {
  return guests.reduce((sum, { stack }) => sum + stack.flows.capacity, 0);
}

/**
 * One page of the flows: guest by guest, in the order of their tables.
 * @param after - position of the last flow of the page before; -1: from the beginning
 */
export function viewFlows(
  { guests, listeners }: ViewOptions,
  after: number,
  limit: number,
  proto: FlowView['proto'] | undefined,
): FlowPage {
  const kind = proto === undefined ? undefined : { tcp: FLOW_TCP, udp: FLOW_UDP, ping: FLOW_PING }[proto];
  const page: FlowView[] = [];
  let next: number | null = null;
  let last = after;
  let base = 0;
  for (const { plan, stack } of guests) {
    const { flows } = stack;
    for (let index = Math.max(0, after + 1 - base); index < flows.bound && next === null; index++) {
      if (!flows.isLive(index) || (kind !== undefined && flows.kind[index] !== kind)) continue;
      if (page.length === limit) {
        next = last;
        break;
      }
      const flow = stack.describeFlow(index);
      if (flow !== undefined) page.push(viewFlow(flow, plan.name, listeners));
      last = base + index;
    }
    base += flows.capacity;
  }
  return { flows: page, total: guests.reduce((sum, { stack }) => sum + stack.flows.count, 0), next };
}

function viewFlow(flow: FlowDescription, guestName: string, listeners: ForwardListeners): FlowView {
  const { listener } = flow;
  const localPort = listener < 0 ? flow.localPort : listeners.portOf(listener);
  return {
    id: `${flow.index}.${flow.generation}`,
    guestName,
    proto: flow.proto,
    state: flow.state,
    startedBy: flow.startedBy,
    ageSeconds: toSeconds(flow.ageMs),
    bytesToGuest: flow.bytesToGuest,
    bytesToHost: flow.bytesToHost,
    guest: { address: formatIp(flow.guestAddress), port: flow.guestPort },
    peer: { address: formatIp(flow.peerAddress), port: flow.peerPort },
    local: viewHostEndpoint(flow.localAddress, localPort),
    remote: viewHostEndpoint(flow.remoteAddress, flow.remotePort),
    forward: listener < 0 ? null : listeners.idOf(listener),
  };
}

function viewHostEndpoint(address: Uint32Array, port: number): EndpointView | null {
  const isKnown = port !== 0 || address.some((word) => word !== 0);
  return isKnown ? { address: formatIp(address), port } : null;
}

export function viewForward({ id, rule, sockets }: OpenForward): ForwardView {
  return {
    id,
    proto: rule.proto,
    spec: formatPortForward(rule),
    bindPath: rule.bindPath ?? null,
    bindAddress: rule.bindAddress ?? null,
    bindInterface: rule.bindInterface ?? null,
    first: rule.first,
    last: rule.last,
    targetAddress: rule.targetAddress ?? null,
    targetGuest: rule.targetGuest ?? null,
    targetFirst: rule.targetFirst,
    weak: rule.weak,
    sockets,
  };
}

function toSeconds(ms: number): number {
  return Math.round(ms) / 1000;
}

function formatMac(hi: number, lo: number): string {
  const hex = (hi * 2 ** 32 + lo).toString(16).padStart(12, '0');
  return hex.replace(/..(?!$)/g, '$&:');
}
