/**
 * Neighbour discovery (RFC 4861) and stateless configuration (RFC 4862, RFC 8106): we are the only router and, to the guest, every
 * other neighbour as well.
 *
 * Neighbours. A solicitation for any address is answered with our MAC, except for the guest's own ones: the leased address and
 * those it was seen to use. A solicitation from `::` is duplicate address detection (RFC 4862 §5.4) and is answered only for what
 * is really ours, our link-local address and the gateway, so that the guest can take any other. All advertisements carry the
 * router flag: a neighbour that drops the flag is thrown out of the guest's list of default routers (RFC 4861 §7.2.5).
 *
 * Router. An advertisement answers each solicitation, and comes unasked: three times within 16 s after a guest has been connected,
 * then at random intervals of 198 … 600 s (RFC 4861 §6.2.1, §6.2.4). Unasked ones need a guest that has been seen, or they
 * would pile up in front of a machine that has not booted yet. It says: default router, the /64 of the guest's address for
 * stateless configuration, MTU, resolvers, search list, our MAC; and, with DHCPv6 on, that addresses can be had there.
 *
 * Not done: redirects; neighbour cache and unreachability detection on our side (the guest's MAC is the source of its frames);
 * secure neighbour discovery.
 */
import { isSameIp } from '../base/ip-text.ts';
import { createLogGate, warnGated } from '../base/logger.ts';
import { pseudoSumIpv6 } from '../wire/checksum.ts';
import { isDnsName } from '../wire/dns-name.ts';
import { MAC_IPV6_MULTICAST_HI } from '../wire/ethernet.ts';
import { checkIcmpv6, getIcmpv6Type, writeIcmpv6Checksum } from '../wire/icmpv6.ts';
import { IP_PROTOCOL_ICMPV6 } from '../wire/ip-protocol.ts';
import {
  IPV6_HEADER_BYTES,
  IPV6_MIN_MTU,
  isIpv6LinkLocal,
  isIpv6Multicast,
  isIpv6Unspecified,
  loadIpv6,
} from '../wire/ipv6.ts';
import {
  checkNdp,
  findNdpOption,
  NDP_HOP_LIMIT,
  NDP_INFINITE_LIFETIME_SEC,
  NDP_NA_OVERRIDE,
  NDP_NA_ROUTER,
  NDP_NA_SOLICITED,
  NDP_NEIGHBOR_SOLICITATION,
  NDP_OPTION_SOURCE_LINK_ADDRESS,
  NDP_OPTION_TARGET_LINK_ADDRESS,
  NDP_PREFIX_AUTONOMOUS,
  NDP_PREFIX_ON_LINK,
  NDP_RA_MANAGED,
  NDP_ROUTER_SOLICITATION,
  NDP_TARGET_OFFSET,
  writeNdpDnssl,
  writeNdpLinkAddress,
  writeNdpMtu,
  writeNdpNeighborAdvertisement,
  writeNdpNeighborSolicitation,
  writeNdpPrefix,
  writeNdpRdnss,
  writeNdpRouterAdvertisement,
} from '../wire/ndp.ts';
import type { Ipv6Config } from './config.ts';
import type { StackContext } from './context.ts';
import { keepIfGood } from './keep-if-good.ts';
import { isNeighbours } from './on-link.ts';
import { closeIpPacketTo, openIpPacket } from './output.ts';
import type { PacketMeta } from './packet-meta.ts';

/** Neighbour solicitation or advertisement with a link-layer address. */
const NEIGHBOR_WITH_ADDRESS_BYTES = 32;
/** Most bytes of an advertisement: what is left of the smallest MTU, since neighbour discovery is never fragmented (RFC 6980). */
const RA_MAX_BYTES = IPV6_MIN_MTU - IPV6_HEADER_BYTES;
/** The default for hosts; also the limit that all we send has. */
const ADVERTISED_HOP_LIMIT = 255;
/** RFC 8319 §4: the field's full range may be used. */
const ROUTER_LIFETIME_SEC = 65_535;
/** The prefix of stateless configuration with 64-bit interface ids (RFC 4291 §2.5.1). */
const SLAAC_PREFIX_LENGTH = 64;

/** RFC 4861 §6.2.1 (defaults) and §10. */
const MAX_INTERVAL_MS = 600_000;
const MIN_INTERVAL_MS = 198_000;
const MAX_INITIAL_INTERVAL_MS = 16_000;
const MAX_INITIAL_ADVERTISEMENTS = 3;
/** Unasked ones keep this distance from the one before (RFC 4861 §10, MIN_DELAY_BETWEEN_RAS). */
const MIN_GAP_MS = 3_000;

/** RFC 4291 §2.7.1: all nodes on the link. */
const ALL_NODES = Uint32Array.of(0xff02_0000, 0, 0, 1);
const WARN_INTERVAL_MS = 10_000;

export class NdpModule {
  private readonly ctx: StackContext;
  /** Returns 0 ≤ x < 1. */
  private readonly random: () => number;
  private readonly target = new Uint32Array(4);
  private readonly prefix = new Uint32Array(4);
  /** Resolvers, 4 words each. */
  private readonly resolvers: Uint32Array;
  private readonly searchDomains: readonly string[];
  private readonly routerSource: Uint32Array;
  private readonly gate = createLogGate(WARN_INTERVAL_MS);
  private dueMs = Number.POSITIVE_INFINITY;
  private initialLeft = 0;

  constructor(ctx: StackContext, random: () => number = Math.random) {
    this.ctx = ctx;
    this.random = random;
    const { config } = ctx;
    const { ipv6 } = config;
    const resolvers = ipv6 !== undefined && config.advertiseDns ? ipv6.resolvers : [];
    this.resolvers = new Uint32Array(resolvers.length * 4);
    for (let i = 0; i < resolvers.length; i++) this.resolvers.set(resolvers[i]!, 4 * i);
    this.searchDomains = config.advertiseSearch ? config.searchDomains.filter(isDnsName) : [];
    this.routerSource = ipv6 === undefined ? this.prefix : routerAddress(ipv6);
    if (ipv6 !== undefined) {
      this.prefix[0] = ipv6.guestAddress[0]!;
      this.prefix[1] = ipv6.guestAddress[1]!;
    }
  }

  /** Takes an ICMPv6 message of type 133 … 136. */
  input(meta: PacketMeta): void {
    const { ctx } = this;
    const { view, config, counters } = ctx;
    const { ipv6 } = config;
    if (ipv6 === undefined) return;
    const at = meta.l4Offset;
    const end = at + meta.l4Length;
    const { source, destination } = meta;
    const pseudoSum = pseudoSumIpv6(source, 0, destination, 0, IP_PROTOCOL_ICMPV6, meta.l4Length);
    let optionsAt = meta.hopLimit === NDP_HOP_LIMIT ? checkIcmpv6(view, at, end, pseudoSum) : -1;
    if (optionsAt > 0) optionsAt = checkNdp(view, at, end);
    if (optionsAt < 0) {
      counters.badIcmp++;
      warnGated(
        ctx.log,
        this.gate,
        ctx.nowMs,
        `malformed neighbour discovery from the guest dropped, ${meta.l4Length} bytes`,
      );
      return;
    }
    const type = getIcmpv6Type(view, at);
    if (type === NDP_ROUTER_SOLICITATION) this.onRouterSolicitation(at + optionsAt, end, meta);
    else if (type === NDP_NEIGHBOR_SOLICITATION) this.onNeighborSolicitation(at, at + optionsAt, end, meta, ipv6);
    // Advertisements need no look: the source of every packet has been noted already.
  }

  /** When `advance` is to be called next, in monotonic milliseconds; Infinity: not before the next call of this module. */
  nextDueMs(): number {
    return this.dueMs;
  }

  /** Sends the advertisement that is due, if it is. */
  advance(nowMs: number): void {
    if (nowMs < this.dueMs) return;
    const { link, guest } = this.ctx;
    if (!link.connected) {
      this.dueMs = Number.POSITIVE_INFINITY;
      return;
    }
    const seen = guest.macHi !== 0xffff;
    if (seen) {
      this.advertise(ALL_NODES, MAC_IPV6_MULTICAST_HI, ALL_NODES[3]!);
      if (this.initialLeft > 0) this.initialLeft--;
    }
    this.schedule(nowMs);
  }

  /** A guest was attached to the link: unasked advertisements begin. */
  onGuestConnected(): void {
    const { ctx } = this;
    if (ctx.config.ipv6 === undefined || !this.isRouter()) return;
    this.initialLeft = MAX_INITIAL_ADVERTISEMENTS;
    this.schedule(ctx.nowMs);
  }

  private isRouter(): boolean {
    return this.ctx.config.ndp && this.ctx.config.routerAdvertisements;
  }

  private schedule(nowMs: number): void {
    const initial = this.initialLeft > 0;
    const least = initial ? MIN_GAP_MS : MIN_INTERVAL_MS;
    const most = initial ? MAX_INITIAL_INTERVAL_MS : MAX_INTERVAL_MS;
    this.dueMs = nowMs + least + this.random() * (most - least);
  }

  private onRouterSolicitation(optionsAt: number, end: number, meta: PacketMeta): void {
    const { ctx } = this;
    if (!this.isRouter()) return;
    if (!isIpv6Unspecified(meta.source, 0)) {
      this.advertise(meta.source, meta.sourceMacHi, meta.sourceMacLo);
      return;
    }
    // RFC 4861 §6.1.1: without an address there is nothing that a link-layer address could belong to.
    if (findNdpOption(ctx.view, optionsAt, end, NDP_OPTION_SOURCE_LINK_ADDRESS) !== 0) {
      ctx.counters.badIcmp++;
      return;
    }
    this.advertise(ALL_NODES, MAC_IPV6_MULTICAST_HI, ALL_NODES[3]!);
  }

  private onNeighborSolicitation(at: number, optionsAt: number, end: number, meta: PacketMeta, ipv6: Ipv6Config): void {
    const { ctx, target } = this;
    const { view, guest } = ctx;
    loadIpv6(view, at + NDP_TARGET_OFFSET, target, 0);
    const isProbe = isIpv6Unspecified(meta.source, 0);
    // RFC 4861 §7.1.1.
    if (
      isIpv6Multicast(target, 0) ||
      (isProbe && findNdpOption(view, optionsAt, end, NDP_OPTION_SOURCE_LINK_ADDRESS) !== 0)
    ) {
      ctx.counters.badIcmp++;
      return;
    }
    const isOurs = isSameIp(target, ipv6.ourLinkLocal) || isSameIp(target, ipv6.gateway);
    if (!isOurs) {
      if (isProbe || isIpv6Unspecified(target, 0)) return;
      if (isSameIp(target, ipv6.guestAddress) || isSameIp(target, guest.ipv6) || isSameIp(target, guest.linkLocal))
        return;
      if (isSameIp(target, meta.source)) return;
      if (isNeighbours(target, ipv6.guestAddress, ipv6.prefixLength, ctx.config.ownAddresses)) return;
    }
    if (isProbe) {
      this.announce(NDP_NA_ROUTER | NDP_NA_OVERRIDE, ALL_NODES, MAC_IPV6_MULTICAST_HI, ALL_NODES[3]!, ipv6);
    } else {
      const flags = NDP_NA_ROUTER | NDP_NA_SOLICITED | NDP_NA_OVERRIDE;
      this.announce(flags, meta.source, meta.sourceMacHi, meta.sourceMacLo, ipv6);
    }
  }

  /** Asks who has the guest's address; its answer, like any frame, tells its MAC. */
  askGuest(): void {
    const { ctx } = this;
    const { view, config, guest } = ctx;
    const { ipv6 } = config;
    if (ipv6 === undefined) return;
    const start = openIpPacket(ctx, 6, NEIGHBOR_WITH_ADDRESS_BYTES);
    if (start < 0) return;
    const end = start + NEIGHBOR_WITH_ADDRESS_BYTES;
    const behind = writeNdpNeighborSolicitation(view, start, end, guest.ipv6, 0);
    writeNdpLinkAddress(view, behind, end, NDP_OPTION_SOURCE_LINK_ADDRESS, config.ourMacHi, config.ourMacLo);
    const group = Uint32Array.of(0xff02_0000, 0, 1, 0xff00_0000 | (guest.ipv6[3]! & 0xff_ffff));
    this.send(start, NEIGHBOR_WITH_ADDRESS_BYTES, ipv6.ourLinkLocal, group, MAC_IPV6_MULTICAST_HI, group[3]!);
  }

  /** Sends a neighbour advertisement for `this.target`. */
  private announce(flags: number, destination: Uint32Array, macHi: number, macLo: number, ipv6: Ipv6Config): void {
    const { ctx, target } = this;
    const { view, config } = ctx;
    const start = openIpPacket(ctx, 6, NEIGHBOR_WITH_ADDRESS_BYTES);
    if (start < 0) return;
    const end = start + NEIGHBOR_WITH_ADDRESS_BYTES;
    const behind = writeNdpNeighborAdvertisement(view, start, end, flags, target, 0);
    writeNdpLinkAddress(view, behind, end, NDP_OPTION_TARGET_LINK_ADDRESS, config.ourMacHi, config.ourMacLo);
    this.send(start, NEIGHBOR_WITH_ADDRESS_BYTES, ipv6.ourLinkLocal, destination, macHi, macLo);
  }

  /** Sends a router advertisement. */
  private advertise(destination: Uint32Array, macHi: number, macLo: number): void {
    const { ctx, prefix, resolvers, searchDomains } = this;
    const { view, config } = ctx;
    const start = openIpPacket(ctx, 6, RA_MAX_BYTES);
    if (start < 0) return;
    const end = start + RA_MAX_BYTES;
    const flags = config.dhcpv6 ? NDP_RA_MANAGED : 0;
    let at = writeNdpRouterAdvertisement(view, start, end, ADVERTISED_HOP_LIMIT, flags, ROUTER_LIFETIME_SEC);
    at = writeNdpLinkAddress(view, at, end, NDP_OPTION_SOURCE_LINK_ADDRESS, config.ourMacHi, config.ourMacLo);
    at = writeNdpPrefix(
      view,
      at,
      end,
      SLAAC_PREFIX_LENGTH,
      NDP_PREFIX_ON_LINK | NDP_PREFIX_AUTONOMOUS,
      NDP_INFINITE_LIFETIME_SEC,
      NDP_INFINITE_LIFETIME_SEC,
      prefix,
      0,
    );
    // Less than IPv6's minimum must not be announced (RFC 4861 §6.3.4).
    if (config.advertiseMtu && config.mtu >= IPV6_MIN_MTU) at = writeNdpMtu(view, at, end, config.mtu);
    // What does not fit is left out: an advertisement without it is better than none.
    const count = resolvers.length >> 2;
    at = keepIfGood(writeNdpRdnss(view, at, end, NDP_INFINITE_LIFETIME_SEC, resolvers, 0, count), at);
    at = keepIfGood(writeNdpDnssl(view, at, end, NDP_INFINITE_LIFETIME_SEC, searchDomains), at);
    this.send(start, at - start, this.routerSource, destination, macHi, macLo);
  }

  private send(
    start: number,
    lengthBytes: number,
    source: Uint32Array,
    destination: Uint32Array,
    macHi: number,
    macLo: number,
  ): void {
    const { ctx } = this;
    const pseudoSum = pseudoSumIpv6(source, 0, destination, 0, IP_PROTOCOL_ICMPV6, lengthBytes);
    writeIcmpv6Checksum(ctx.view, start, lengthBytes, pseudoSum);
    closeIpPacketTo(
      ctx,
      6,
      IP_PROTOCOL_ICMPV6,
      start,
      lengthBytes,
      source,
      0,
      destination,
      0,
      NDP_HOP_LIMIT,
      macHi,
      macLo,
    );
  }
}

/** A router advertisement has to come from a link-local address (RFC 4861 §6.1.2). */
function routerAddress(ipv6: Ipv6Config): Uint32Array {
  return isIpv6LinkLocal(ipv6.gateway, 0) ? ipv6.gateway : ipv6.ourLinkLocal;
}
