/**
 * DHCP server for IPv4 (RFC 2131): one guest, one address, for ever.
 *
 * There are no leases to keep: whoever asks, with whatever MAC or client id, gets the configured address, so that the stack may be
 * restarted or the guest's NIC exchanged at any time. A machine for whose MAC an address of its own is configured gets that. A request that names another address, be it new (SELECTING), remembered
 * (INIT-REBOOT) or in use (RENEWING, REBINDING), is refused with a NAK, which makes the client start over and learn
 * the right one; one that names another server is none of our business. Rapid commit (RFC 4039) and plain BOOTP are answered too.
 * DECLINE is logged, since there is no other address to offer; RELEASE changes nothing.
 *
 * All options are sent whether the client lists them or not, the important ones first, as far as the size goes that the client takes;
 * whoever does not know an option ignores it. Only the client's name (81) depends on what it sent, in its encoding.
 *
 * The server's identity and the source of its messages is the gateway's address. Answers go where RFC 2131 §4.1 says: to the
 * address that the client has, else broadcast if it asks for that, else to its MAC and the address that it is given. Relays
 * do not exist on a link with one guest: `giaddr` is copied and not used.
 *
 * A boot file's name stands in the `file` field, where BOOTP has it, and its server is the gateway (`siaddr`).
 *
 * Not done: a lease for each of several machines behind one link; options split over several or hidden in `file` and `sname` when writing.
 */
import { formatIpv4 } from '../base/ip-text.ts';
import { createLogGate, warnGated } from '../base/logger.ts';
import { pseudoSumIpv4, sumBytes } from '../wire/checksum.ts';
import {
  checkDhcp,
  copyDhcpOption,
  DHCP_ACK,
  DHCP_BOOT_REPLY,
  DHCP_BOOT_REQUEST,
  DHCP_CLIENT_MAC_OFFSET,
  DHCP_CLIENT_PORT,
  DHCP_DECLINE,
  DHCP_DISCOVER,
  DHCP_FLAG_BROADCAST,
  DHCP_FQDN_E,
  DHCP_FQDN_N,
  DHCP_FQDN_O,
  DHCP_FQDN_S,
  DHCP_INFINITE_LEASE_SEC,
  DHCP_INFORM,
  DHCP_MIN_MESSAGE_BYTES,
  DHCP_NAK,
  DHCP_OFFER,
  DHCP_OPTION_CLIENT_ID,
  DHCP_OPTION_DNS,
  DHCP_OPTION_DOMAIN_NAME,
  DHCP_OPTION_FQDN,
  DHCP_OPTION_HOSTNAME,
  DHCP_OPTION_LEASE_TIME,
  DHCP_OPTION_MESSAGE,
  DHCP_OPTION_MESSAGE_TYPE,
  DHCP_OPTION_MTU,
  DHCP_OPTION_RAPID_COMMIT,
  DHCP_OPTION_REQUESTED_ADDRESS,
  DHCP_OPTION_ROUTER,
  DHCP_OPTION_SERVER_ID,
  DHCP_OPTION_SUBNET_MASK,
  DHCP_OPTION_TFTP_SERVER_NAME,
  DHCP_RELEASE,
  DHCP_REQUEST,
  DHCP_SERVER_PORT,
  findDhcpOption,
  getDhcpClientAddress,
  getDhcpFlags,
  getDhcpMaxMessageSize,
  getDhcpMessageType,
  getDhcpOp,
  getDhcpOptionAddress,
  getDhcpOptionLength,
  getDhcpRelayAddress,
  getDhcpXid,
  isDhcpEthernet,
  writeDhcpAddresses,
  writeDhcpClasslessRoutes,
  writeDhcpDomainSearch,
  writeDhcpEmpty,
  writeDhcpEnd,
  writeDhcpFileName,
  writeDhcpFqdn,
  writeDhcpHeader,
  writeDhcpText,
  writeDhcpUint8,
  writeDhcpUint16,
  writeDhcpUint32,
} from '../wire/dhcp.ts';
import { isDnsName } from '../wire/dns-name.ts';
import { getMacHi, getMacLo, MAC_BROADCAST_HI, MAC_BROADCAST_LO } from '../wire/ethernet.ts';
import { IP_PROTOCOL_UDP } from '../wire/ip-protocol.ts';
import { IPV4_BROADCAST, IPV4_HEADER_BYTES, IPV4_MAPPED_WORD } from '../wire/ipv4.ts';
import { UDP_HEADER_BYTES, writeUdpHeader } from '../wire/udp.ts';
import type { Ipv4Config } from './config.ts';
import type { StackContext } from './context.ts';
import { keepIfGood } from './keep-if-good.ts';
import { closeIpPacketTo, openIpPacket } from './output.ts';
import type { PacketMeta } from './packet-meta.ts';
import { leaseIpv4 } from './static-leases.ts';

/** What getDhcpMessageType gives for a message without a type: BOOTP (RFC 951). */
const BOOTP = 0;
const PACKET_HEADER_BYTES = IPV4_HEADER_BYTES + UDP_HEADER_BYTES;
/** Every host takes this much (RFC 2132 §9.10), also where the MTU is smaller. */
const MIN_MAX_MESSAGE_BYTES = 576;
/** No answer needs more, whatever the client would take. */
const MAX_MESSAGE_BYTES = 1500;
/** An option holds 255 bytes. */
const MAX_RESOLVERS = 63;
/** Host route to the gateway, then the default route through it. */
const ROUTE_COUNT = 2;
const IPV4_TTL = 255;
/** Site-specific range, never used (RFC 2132 §2, RFC 3942). */
const UNASSIGNED_OPTION = 254;
const WARN_INTERVAL_MS = 10_000;

export class DhcpModule {
  private readonly ctx: StackContext;
  private readonly source = Uint32Array.of(0, 0, IPV4_MAPPED_WORD, 0);
  private readonly destination = Uint32Array.of(0, 0, IPV4_MAPPED_WORD, 0);
  private readonly netmask: number;
  private readonly router: Uint32Array;
  private readonly resolvers: Uint32Array;
  private readonly searchDomains: readonly string[];
  /** For option 121; empty when the gateway is on the guest's own subnet. */
  private readonly routes: Uint32Array;
  private readonly malformedGate = createLogGate(WARN_INTERVAL_MS);
  private readonly declineGate = createLogGate(WARN_INTERVAL_MS);
  private readonly nakGate = createLogGate(WARN_INTERVAL_MS);

  constructor(ctx: StackContext) {
    this.ctx = ctx;
    const { config } = ctx;
    const { ipv4 } = config;
    const gateway = ipv4?.gateway ?? 0;
    const prefixLength = ipv4?.prefixLength ?? 32;
    this.netmask = prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
    this.source[3] = gateway;
    this.router = Uint32Array.of(gateway);
    const isOnLink = ipv4 === undefined || ((gateway ^ ipv4.guestAddress) & this.netmask) === 0;
    this.routes = isOnLink ? new Uint32Array(0) : Uint32Array.of(gateway, 32, 0, 0, 0, gateway);
    this.resolvers = Uint32Array.from(config.advertiseDns ? (ipv4?.resolvers ?? []).slice(0, MAX_RESOLVERS) : []);
    this.searchDomains = config.advertiseSearch ? config.searchDomains.filter(isDnsName) : [];
  }

  /**
   * Takes a UDP datagram to port 67.
   * @returns whether it was for the server; false lets it go on its way as any other datagram
   */
  input(meta: PacketMeta): boolean {
    const { ctx } = this;
    const { view } = ctx;
    const { ipv4 } = ctx.config;
    if (ipv4 === undefined) return false;
    const at = meta.l4Offset + UDP_HEADER_BYTES;
    const end = meta.l4Offset + view.getUint16(meta.l4Offset + 4);
    // Looking for an option that nobody sends walks the whole list.
    if (
      checkDhcp(view, at, end) < 0 ||
      !isDhcpEthernet(view, at) ||
      findDhcpOption(view, at, end, UNASSIGNED_OPTION) < 0
    ) {
      ctx.counters.badDhcp++;
      warnGated(
        ctx.log,
        this.malformedGate,
        ctx.nowMs,
        `malformed DHCP message from the guest dropped, ${end - at} bytes`,
      );
      return true;
    }
    if (getDhcpOp(view, at) !== DHCP_BOOT_REQUEST) return false;
    const macHi = getMacHi(view, at + DHCP_CLIENT_MAC_OFFSET);
    const macLo = getMacLo(view, at + DHCP_CLIENT_MAC_OFFSET);
    this.dispatch(at, end, meta, leaseIpv4(ctx.config, ipv4, macHi, macLo));
    return true;
  }

  private dispatch(at: number, end: number, meta: PacketMeta, ipv4: Ipv4Config): void {
    const { ctx } = this;
    const { view } = ctx;
    const server = getDhcpOptionAddress(view, at, end, DHCP_OPTION_SERVER_ID);
    switch (getDhcpMessageType(view, at, end)) {
      case BOOTP:
        // Present, but not a type: neither protocol.
        if (findDhcpOption(view, at, end, DHCP_OPTION_MESSAGE_TYPE) !== 0) ctx.counters.badDhcp++;
        else this.reply(at, end, meta, BOOTP, ipv4);
        return;
      case DHCP_DISCOVER: {
        const isRapid = findDhcpOption(view, at, end, DHCP_OPTION_RAPID_COMMIT) > 0;
        this.reply(at, end, meta, isRapid ? DHCP_ACK : DHCP_OFFER, ipv4);
        return;
      }
      case DHCP_REQUEST:
        // The client has chosen another server's offer.
        if (server !== -1 && server !== ipv4.gateway) return;
        this.onRequest(at, end, meta, ipv4);
        return;
      case DHCP_INFORM:
        this.reply(at, end, meta, DHCP_ACK, ipv4);
        return;
      case DHCP_DECLINE:
        warnGated(
          ctx.log,
          this.declineGate,
          ctx.nowMs,
          `the guest says that its address ${formatIpv4(ipv4.guestAddress)} is in use by somebody else, but there is no other`,
        );
        return;
      case DHCP_RELEASE:
        ctx.log.debug('the guest released its IPv4 address');
        return;
      default:
        ctx.counters.badDhcp++;
    }
  }

  private onRequest(at: number, end: number, meta: PacketMeta, ipv4: Ipv4Config): void {
    const { ctx } = this;
    const { view } = ctx;
    const requested = getDhcpOptionAddress(view, at, end, DHCP_OPTION_REQUESTED_ADDRESS);
    const inUse = getDhcpClientAddress(view, at);
    const wanted = requested !== -1 ? requested : inUse;
    // A client that names no address at all (which RFC 2131 §4.3.2 does not foresee) cannot have a wrong one in mind.
    if (wanted === 0 || wanted === ipv4.guestAddress) {
      this.reply(at, end, meta, DHCP_ACK, ipv4);
      return;
    }
    const line = `the guest asked for ${formatIpv4(wanted)} by DHCP, but its address is ${formatIpv4(ipv4.guestAddress)}`;
    warnGated(ctx.log, this.nakGate, ctx.nowMs, line);
    this.reply(at, end, meta, DHCP_NAK, ipv4);
  }

  /**
   * Answers the request in [at, end).
   * @param type DHCP_OFFER, DHCP_ACK, DHCP_NAK or BOOTP
   */
  private reply(at: number, end: number, meta: PacketMeta, type: number, ipv4: Ipv4Config): void {
    const { ctx } = this;
    const { view, config } = ctx;
    // A BOOTP client has a fixed field of 64 bytes for options (RFC 1533 §2).
    const roomBytes =
      type === BOOTP
        ? DHCP_MIN_MESSAGE_BYTES
        : Math.max(
            MIN_MAX_MESSAGE_BYTES,
            Math.min(getDhcpMaxMessageSize(view, at, end), config.mtu, MAX_MESSAGE_BYTES),
          ) - PACKET_HEADER_BYTES;
    const udp = openIpPacket(ctx, 4, UDP_HEADER_BYTES + roomBytes);
    if (udp < 0) return;
    const start = udp + UDP_HEADER_BYTES;
    const isNak = type === DHCP_NAK;
    const isInform = getDhcpMessageType(view, at, end) === DHCP_INFORM;
    const inUse = getDhcpClientAddress(view, at);
    const flags = getDhcpFlags(view, at);
    const yours = isNak || isInform ? 0 : ipv4.guestAddress;
    const macHi = getMacHi(view, at + DHCP_CLIENT_MAC_OFFSET);
    const macLo = getMacLo(view, at + DHCP_CLIENT_MAC_OFFSET);
    const limit = start + roomBytes;
    const options = writeDhcpHeader(
      view,
      start,
      limit,
      DHCP_BOOT_REPLY,
      getDhcpXid(view, at),
      flags,
      type === DHCP_ACK || type === BOOTP ? inUse : 0,
      yours,
      config.boot === undefined || isNak ? 0 : ipv4.gateway,
      getDhcpRelayAddress(view, at),
      macHi,
      macLo,
    );
    if (config.boot !== undefined && !isNak) writeDhcpFileName(view, start, config.boot.fileName);
    // One byte is kept for the end mark.
    const behind = this.writeOptions(at, end, options, limit - 1, type, isInform);
    const messageEnd = writeDhcpEnd(view, start, behind, limit);
    const { destination } = this;
    if (isNak || (inUse === 0 && ((flags & DHCP_FLAG_BROADCAST) !== 0 || yours === 0))) {
      destination[3] = IPV4_BROADCAST;
      this.send(udp, messageEnd, MAC_BROADCAST_HI, MAC_BROADCAST_LO);
    } else {
      destination[3] = inUse !== 0 ? inUse : yours;
      this.send(udp, messageEnd, meta.sourceMacHi, meta.sourceMacLo);
    }
    if (type === DHCP_ACK && !isInform) {
      ctx.guest.noteLease4(yours, macHi, macLo, ctx.nowMs);
      ctx.log.debug(`leased ${formatIpv4(yours)} to the guest by DHCP`);
    }
  }

  /** Appends all options that fit, the ones a client cannot do without first. @returns the offset behind them */
  private writeOptions(at: number, end: number, start: number, limit: number, type: number, isInform: boolean): number {
    const { view, config } = this.ctx;
    let next = start;
    if (type !== BOOTP) {
      next = writeDhcpUint8(view, next, limit, DHCP_OPTION_MESSAGE_TYPE, type);
      next = writeDhcpUint32(view, next, limit, DHCP_OPTION_SERVER_ID, this.source[3]!);
      // RFC 6842: a client on a shared MAC knows its answers by this.
      const clientId = findDhcpOption(view, at, end, DHCP_OPTION_CLIENT_ID);
      if (clientId > 0) next = keepIfGood(copyDhcpOption(view, next, limit, DHCP_OPTION_CLIENT_ID, clientId), next);
      if (type === DHCP_NAK) return writeDhcpText(view, next, limit, DHCP_OPTION_MESSAGE, 'wrong address');
      if (!isInform) {
        next = writeDhcpUint32(view, next, limit, DHCP_OPTION_LEASE_TIME, DHCP_INFINITE_LEASE_SEC);
        const isRapid = type === DHCP_ACK && findDhcpOption(view, at, end, DHCP_OPTION_RAPID_COMMIT) > 0;
        // An acknowledgement of a request is none of a discovery: only the latter has the option in its answer (RFC 4039 §4).
        if (isRapid && getDhcpMessageType(view, at, end) === DHCP_DISCOVER) {
          next = writeDhcpEmpty(view, next, limit, DHCP_OPTION_RAPID_COMMIT);
        }
      }
    }
    next = writeDhcpUint32(view, next, limit, DHCP_OPTION_SUBNET_MASK, this.netmask);
    if (this.routes.length !== 0)
      next = keepIfGood(writeDhcpClasslessRoutes(view, next, limit, this.routes, ROUTE_COUNT), next);
    next = keepIfGood(writeDhcpAddresses(view, next, limit, DHCP_OPTION_ROUTER, this.router, 1), next);
    next = this.writeResolvers(next, limit);
    if (config.advertiseMtu) next = keepIfGood(writeDhcpUint16(view, next, limit, DHCP_OPTION_MTU, config.mtu), next);
    if (config.hostname !== '') {
      next = keepIfGood(writeDhcpText(view, next, limit, DHCP_OPTION_HOSTNAME, config.hostname), next);
    }
    const { domainName = '' } = config;
    if (domainName !== '')
      next = keepIfGood(writeDhcpText(view, next, limit, DHCP_OPTION_DOMAIN_NAME, domainName), next);
    const serverName = config.boot?.serverName ?? '';
    if (serverName !== '')
      next = keepIfGood(writeDhcpText(view, next, limit, DHCP_OPTION_TFTP_SERVER_NAME, serverName), next);
    if (config.fqdn !== '') next = keepIfGood(this.writeFqdn(at, end, next, limit), next);
    return keepIfGood(writeDhcpDomainSearch(view, next, limit, this.searchDomains), next);
  }

  /** As many resolvers as fit. */
  private writeResolvers(next: number, limit: number): number {
    const { resolvers } = this;
    const count = Math.min(resolvers.length, (limit - next - 2) >> 2);
    if (count <= 0) return next;
    return writeDhcpAddresses(this.ctx.view, next, limit, DHCP_OPTION_DNS, resolvers, count);
  }

  /** The name as the client is to know it; nobody updates DNS here, which the flags say (RFC 4702 §4). */
  private writeFqdn(at: number, end: number, next: number, limit: number): number {
    const { view, config } = this.ctx;
    const sent = findDhcpOption(view, at, end, DHCP_OPTION_FQDN);
    const sentFlags = sent > 0 && getDhcpOptionLength(view, sent) >= 1 ? view.getUint8(sent) : DHCP_FQDN_E;
    const isOverride = (sentFlags & DHCP_FQDN_S) !== 0;
    const flags = (sentFlags & DHCP_FQDN_E) | DHCP_FQDN_N | (isOverride ? DHCP_FQDN_O : 0);
    return writeDhcpFqdn(view, next, limit, flags, config.fqdn);
  }

  /** Sends the message behind the UDP header at `udp`, which ends at `end`, to `this.destination`. */
  private send(udp: number, end: number, macHi: number, macLo: number): void {
    const { ctx, source, destination } = this;
    const { view } = ctx;
    const length = end - udp;
    const payloadBytes = length - UDP_HEADER_BYTES;
    const sum = sumBytes(
      view,
      udp + UDP_HEADER_BYTES,
      payloadBytes,
      pseudoSumIpv4(source[3]!, destination[3]!, IP_PROTOCOL_UDP, length),
    );
    writeUdpHeader(view, udp, DHCP_SERVER_PORT, DHCP_CLIENT_PORT, length, sum);
    closeIpPacketTo(ctx, 4, IP_PROTOCOL_UDP, udp, length, source, 0, destination, 0, IPV4_TTL, macHi, macLo);
  }
}
