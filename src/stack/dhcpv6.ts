/**
 * DHCPv6 server (RFC 8415): one guest, one address, for ever, as dhcp.ts does it for IPv4.
 *
 * The first identity association for a non-temporary address (IA_NA) in a message gets the configured address with infinite
 * lifetimes; further ones, temporary addresses and delegated prefixes get the status that says that there are none. An address
 * that is not the configured one is "not on link" in Confirm and Request; in Renew and Rebind it is taken away with
 * lifetimes of 0 and the right one comes with it, so that the guest changes over without starting again. Rapid commit, and a
 * preference of 255 in advertisements, spare the client a second's wait for other servers that do not exist.
 *
 * The server's DUID is made of our MAC, so it is the same after a restart. Messages for another server are ignored, those that
 * break the rules of RFC 8415 §16 dropped. Resolvers and search list are always sent, the client's name and the file to boot (RFC 5970) when it asks for them.
 * Answers go from our link-local address to the address that the message came from.
 *
 * Not done: relays, reconfiguration, authentication, prefix delegation, temporary addresses.
 */
import { formatIp, isSameIp } from '../base/ip-text.ts';
import { createLogGate, warnGated } from '../base/logger.ts';
import { pseudoSumIpv6, sumBytes, verifyChecksum } from '../wire/checksum.ts';
import {
  beginDhcpv6IaNa,
  checkDhcpv6,
  copyDhcpv6Option,
  DHCPV6_ADVERTISE,
  DHCPV6_CLIENT_PORT,
  DHCPV6_CONFIRM,
  DHCPV6_DECLINE,
  DHCPV6_FQDN_N,
  DHCPV6_FQDN_O,
  DHCPV6_FQDN_S,
  DHCPV6_HEADER_BYTES,
  DHCPV6_IA_NA_BYTES,
  DHCPV6_INFINITE_LIFETIME_SEC,
  DHCPV6_INFORMATION_REQUEST,
  DHCPV6_OPTION_BOOT_FILE_URL,
  DHCPV6_OPTION_CLIENT_ID,
  DHCPV6_OPTION_FQDN,
  DHCPV6_OPTION_IA_ADDRESS,
  DHCPV6_OPTION_IA_NA,
  DHCPV6_OPTION_IA_TA,
  DHCPV6_OPTION_PREFERENCE,
  DHCPV6_OPTION_RAPID_COMMIT,
  DHCPV6_OPTION_REQUEST,
  DHCPV6_OPTION_SERVER_ID,
  DHCPV6_REBIND,
  DHCPV6_RELEASE,
  DHCPV6_RENEW,
  DHCPV6_REPLY,
  DHCPV6_REQUEST,
  DHCPV6_SERVER_PORT,
  DHCPV6_SOLICIT,
  DHCPV6_STATUS_NO_ADDRS_AVAIL,
  DHCPV6_STATUS_NO_BINDING,
  DHCPV6_STATUS_NO_PREFIX_AVAIL,
  DHCPV6_STATUS_NOT_ON_LINK,
  DHCPV6_STATUS_SUCCESS,
  endDhcpv6Option,
  findDhcpv6Option,
  getDhcpv6Iaid,
  getDhcpv6OptionLength,
  getDhcpv6Type,
  getDhcpv6Xid,
  isDhcpv6DuidLl,
  isDhcpv6OptionRequested,
  writeDhcpv6BootFileUrl,
  writeDhcpv6Dns,
  writeDhcpv6DuidLl,
  writeDhcpv6Empty,
  writeDhcpv6Fqdn,
  writeDhcpv6Header,
  writeDhcpv6IaAddress,
  writeDhcpv6Search,
  writeDhcpv6Status,
  writeDhcpv6Uint8,
} from '../wire/dhcpv6.ts';
import { isDnsName } from '../wire/dns-name.ts';
import { IP_PROTOCOL_UDP } from '../wire/ip-protocol.ts';
import { IPV6_HEADER_BYTES, IPV6_MIN_MTU, isIpv6Multicast, loadIpv6 } from '../wire/ipv6.ts';
import { UDP_HEADER_BYTES, writeUdpHeader } from '../wire/udp.ts';
import type { Ipv6Config } from './config.ts';
import type { StackContext } from './context.ts';
import {
  getAssociationCode,
  getAssociationFixedBytes,
  nextAssociation,
  writeRefusedAssociation,
} from './dhcpv6-association.ts';
import { keepIfGood } from './keep-if-good.ts';
import { closeIpPacketTo, openIpPacket } from './output.ts';
import type { PacketMeta } from './packet-meta.ts';
import { leaseIpv6 } from './static-leases.ts';

/** What an answer may be long: one packet of the smallest MTU. */
const MAX_MESSAGE_BYTES = IPV6_MIN_MTU - IPV6_HEADER_BYTES - UDP_HEADER_BYTES;
/** Clients stop waiting for other servers at once (RFC 8415 §18.2.1). */
const HIGHEST_PREFERENCE = 255;
/** Associations beyond these are left out of the answer: it has to fit one packet. */
const MAX_ASSOCIATIONS = 8;
const WARN_INTERVAL_MS = 10_000;

export class Dhcpv6Module {
  private readonly ctx: StackContext;
  private readonly resolvers: Uint32Array;
  private readonly searchDomains: readonly string[];
  private readonly named = new Uint32Array(4);
  /** The answer that is being written has the address in it. */
  private hasGiven = false;
  private readonly malformedGate = createLogGate(WARN_INTERVAL_MS);
  private readonly declineGate = createLogGate(WARN_INTERVAL_MS);
  private readonly wrongGate = createLogGate(WARN_INTERVAL_MS);

  constructor(ctx: StackContext) {
    this.ctx = ctx;
    const { config } = ctx;
    const resolvers = config.advertiseDns ? (config.ipv6?.resolvers ?? []) : [];
    this.resolvers = new Uint32Array(resolvers.length * 4);
    for (let i = 0; i < resolvers.length; i++) this.resolvers.set(resolvers[i]!, 4 * i);
    this.searchDomains = config.advertiseSearch ? config.searchDomains.filter(isDnsName) : [];
  }

  /**
   * Takes a UDP datagram to port 547.
   * @returns whether it was for the server; false lets it go on its way as any other datagram
   */
  input(meta: PacketMeta): boolean {
    const { ctx } = this;
    const { view, config } = ctx;
    const { ipv6 } = config;
    if (ipv6 === undefined) return false;
    const { source, destination } = meta;
    if (!isIpv6Multicast(destination, 0) && !isSameIp(destination, ipv6.ourLinkLocal)) {
      if (!isSameIp(destination, ipv6.gateway)) return false;
    }
    const udpBytes = view.getUint16(meta.l4Offset + 4);
    const at = meta.l4Offset + UDP_HEADER_BYTES;
    const end = meta.l4Offset + udpBytes;
    const pseudoSum = pseudoSumIpv6(source, 0, destination, 0, IP_PROTOCOL_UDP, udpBytes);
    if (
      !(meta.isChecksumTrusted || verifyChecksum(view, meta.l4Offset, udpBytes, pseudoSum)) ||
      checkDhcpv6(view, at, end) < 0 ||
      !this.areIdsLegal(at, end)
    ) {
      ctx.counters.badDhcp++;
      warnGated(
        ctx.log,
        this.malformedGate,
        ctx.nowMs,
        `malformed DHCPv6 message from the guest dropped, ${end - at} bytes`,
      );
      return true;
    }
    if (this.isForOther(at, end)) return true;
    this.answer(at, end, meta, leaseIpv6(config, ipv6, meta.sourceMacHi, meta.sourceMacLo));
    return true;
  }

  /** RFC 8415 §16.2 … §16.12; types that no client sends are not legal either. */
  private areIdsLegal(at: number, end: number): boolean {
    const { view } = this.ctx;
    const options = at + DHCPV6_HEADER_BYTES;
    const hasClientId = findDhcpv6Option(view, options, end, DHCPV6_OPTION_CLIENT_ID) !== 0;
    const hasServerId = findDhcpv6Option(view, options, end, DHCPV6_OPTION_SERVER_ID) !== 0;
    switch (getDhcpv6Type(view, at)) {
      case DHCPV6_SOLICIT:
      case DHCPV6_CONFIRM:
      case DHCPV6_REBIND:
        return hasClientId && !hasServerId;
      case DHCPV6_REQUEST:
      case DHCPV6_RENEW:
      case DHCPV6_RELEASE:
      case DHCPV6_DECLINE:
        return hasClientId && hasServerId;
      case DHCPV6_INFORMATION_REQUEST:
        return nextAssociation(view, options, end) === 0;
      default:
        return false;
    }
  }

  private isForOther(at: number, end: number): boolean {
    const { view, config } = this.ctx;
    const serverId = findDhcpv6Option(view, at + DHCPV6_HEADER_BYTES, end, DHCPV6_OPTION_SERVER_ID);
    return serverId !== 0 && !isDhcpv6DuidLl(view, serverId, config.ourMacHi, config.ourMacLo);
  }

  private answer(at: number, end: number, meta: PacketMeta, ipv6: Ipv6Config): void {
    const { ctx } = this;
    const { view, config } = ctx;
    const options = at + DHCPV6_HEADER_BYTES;
    const type = getDhcpv6Type(view, at);
    // A Confirm without an address asks nothing (RFC 8415 §18.3.3).
    if (type === DHCPV6_CONFIRM && this.countAddresses(options, end) === 0) return;
    const isRapid = type === DHCPV6_SOLICIT && findDhcpv6Option(view, options, end, DHCPV6_OPTION_RAPID_COMMIT) !== 0;
    const isAdvertise = type === DHCPV6_SOLICIT && !isRapid;

    const udp = openIpPacket(ctx, 6, UDP_HEADER_BYTES + MAX_MESSAGE_BYTES);
    if (udp < 0) return;
    const start = udp + UDP_HEADER_BYTES;
    const limit = start + MAX_MESSAGE_BYTES;
    let next = writeDhcpv6Header(
      view,
      start,
      limit,
      isAdvertise ? DHCPV6_ADVERTISE : DHCPV6_REPLY,
      getDhcpv6Xid(view, at),
    );
    const clientId = findDhcpv6Option(view, options, end, DHCPV6_OPTION_CLIENT_ID);
    if (clientId !== 0) next = copyDhcpv6Option(view, next, limit, DHCPV6_OPTION_CLIENT_ID, clientId);
    next = writeDhcpv6DuidLl(view, next, limit, DHCPV6_OPTION_SERVER_ID, config.ourMacHi, config.ourMacLo);
    if (isAdvertise) next = writeDhcpv6Uint8(view, next, limit, DHCPV6_OPTION_PREFERENCE, HIGHEST_PREFERENCE);
    if (isRapid) next = writeDhcpv6Empty(view, next, limit, DHCPV6_OPTION_RAPID_COMMIT);
    this.hasGiven = false;

    switch (type) {
      case DHCPV6_CONFIRM:
        next = this.writeConfirmation(options, end, next, limit, ipv6);
        break;
      case DHCPV6_RELEASE:
      case DHCPV6_DECLINE:
        next = this.writeGoodbye(type, options, end, next, limit, ipv6);
        break;
      case DHCPV6_INFORMATION_REQUEST:
        break;
      default:
        next = this.writeAssociations(type, options, end, next, limit, ipv6);
    }
    if (type !== DHCPV6_RELEASE && type !== DHCPV6_DECLINE) next = this.writeConfiguration(options, end, next, limit);
    if (next <= 0) return;
    if (this.hasGiven && !isAdvertise) {
      ctx.guest.noteLease6(ipv6.guestAddress, meta.sourceMacHi, meta.sourceMacLo, ctx.nowMs);
    }
    this.send(udp, next, meta, ipv6);
  }

  /** Appends what is the same for every association: resolvers, search list, the file to boot, the client's name; what does not fit is left out. */
  private writeConfiguration(options: number, end: number, at: number, limit: number): number {
    const { ctx, resolvers } = this;
    const { view, config } = ctx;
    if (at < 0) return at;
    let next = keepIfGood(writeDhcpv6Dns(view, at, limit, resolvers, 0, resolvers.length >> 2), at);
    next = keepIfGood(writeDhcpv6Search(view, next, limit, this.searchDomains), next);
    const wanted = findDhcpv6Option(view, options, end, DHCPV6_OPTION_REQUEST);
    const bootUrl = config.boot?.url ?? '';
    if (bootUrl !== '' && wanted !== 0 && isDhcpv6OptionRequested(view, wanted, DHCPV6_OPTION_BOOT_FILE_URL)) {
      next = keepIfGood(writeDhcpv6BootFileUrl(view, next, limit, bootUrl), next);
    }
    if (config.fqdn === '') return next;
    const sent = findDhcpv6Option(view, options, end, DHCPV6_OPTION_FQDN);
    const isWanted = sent !== 0 || (wanted !== 0 && isDhcpv6OptionRequested(view, wanted, DHCPV6_OPTION_FQDN));
    if (!isWanted) return next;
    // Nobody updates DNS here, whatever the client would like (RFC 4704 §6).
    const isOverride = sent !== 0 && (view.getUint8(sent) & DHCPV6_FQDN_S) !== 0;
    const flags = DHCPV6_FQDN_N | (isOverride ? DHCPV6_FQDN_O : 0);
    return keepIfGood(writeDhcpv6Fqdn(view, next, limit, flags, config.fqdn), next);
  }

  /** Appends an answer to each association of a Solicit, Request, Renew or Rebind. */
  private writeAssociations(
    type: number,
    options: number,
    end: number,
    at: number,
    limit: number,
    ipv6: Ipv6Config,
  ): number {
    const { view } = this.ctx;
    let next = at;
    let left = MAX_ASSOCIATIONS;
    let isGiven = false;
    for (let option = options; option < end && left > 0; left--) {
      const data = nextAssociation(view, option, end);
      if (data === 0) break;
      option = data + getDhcpv6OptionLength(view, data);
      const code = getAssociationCode(view, data);
      const isNew = type === DHCPV6_SOLICIT || type === DHCPV6_REQUEST;
      if (code === DHCPV6_OPTION_IA_NA) {
        next = isGiven
          ? writeRefusedAssociation(
              view,
              next,
              limit,
              data,
              isNew ? DHCPV6_STATUS_NO_ADDRS_AVAIL : DHCPV6_STATUS_NO_BINDING,
            )
          : this.writeLease(type, data, next, limit, ipv6);
        isGiven = true;
      } else if (code === DHCPV6_OPTION_IA_TA) {
        const status = isNew ? DHCPV6_STATUS_NO_ADDRS_AVAIL : DHCPV6_STATUS_NO_BINDING;
        next = writeRefusedAssociation(view, next, limit, data, status);
      } else {
        const status = isNew ? DHCPV6_STATUS_NO_PREFIX_AVAIL : DHCPV6_STATUS_NO_BINDING;
        next = writeRefusedAssociation(view, next, limit, data, status);
      }
    }
    return next;
  }

  /** Appends the answer to the IA_NA at `data`. */
  private writeLease(type: number, data: number, at: number, limit: number, ipv6: Ipv6Config): number {
    const { ctx, named } = this;
    const { view } = ctx;
    const inner = data + DHCPV6_IA_NA_BYTES;
    const iaEnd = data + getDhcpv6OptionLength(view, data);
    const wrong = this.findWrongAddress(inner, iaEnd, ipv6);
    if (wrong !== 0) {
      const line = `the guest asked for ${formatIp(named)} by DHCPv6, but its address is ${formatIp(ipv6.guestAddress)}`;
      // A hint in a Solicit is a wish, nothing that anybody got wrong (RFC 8415 §18.3.1).
      if (type !== DHCPV6_SOLICIT) warnGated(ctx.log, this.wrongGate, ctx.nowMs, line);
      if (type === DHCPV6_REQUEST) {
        return writeRefusedAssociation(view, at, limit, data, DHCPV6_STATUS_NOT_ON_LINK);
      }
    }
    const forEver = DHCPV6_INFINITE_LIFETIME_SEC;
    let next = beginDhcpv6IaNa(view, at, limit, getDhcpv6Iaid(view, data), forEver, forEver);
    next = writeDhcpv6IaAddress(view, next, limit, ipv6.guestAddress, 0, forEver, forEver);
    if (wrong !== 0 && type !== DHCPV6_SOLICIT) {
      loadIpv6(view, wrong, named, 0);
      next = writeDhcpv6IaAddress(view, next, limit, named, 0, 0, 0);
    }
    this.hasGiven = true;
    ctx.log.debug(`offered or leased ${formatIp(ipv6.guestAddress)} to the guest by DHCPv6`);
    return endDhcpv6Option(view, at, next);
  }

  /** Appends whether all addresses in a Confirm are right. */
  private writeConfirmation(options: number, end: number, at: number, limit: number, ipv6: Ipv6Config): number {
    const { ctx } = this;
    const { view } = ctx;
    for (let option = options; option < end; ) {
      const data = nextAssociation(view, option, end);
      if (data === 0) break;
      option = data + getDhcpv6OptionLength(view, data);
      if (this.findWrongAddress(data + getAssociationFixedBytes(view, data), option, ipv6) !== 0) {
        return writeDhcpv6Status(view, at, limit, DHCPV6_STATUS_NOT_ON_LINK, 'wrong address');
      }
    }
    return writeDhcpv6Status(view, at, limit, DHCPV6_STATUS_SUCCESS, '');
  }

  /** Appends the answer to a Release or Decline: success, and which associations we know nothing of (RFC 8415 §18.3.7, §18.3.8). */
  private writeGoodbye(
    type: number,
    options: number,
    end: number,
    at: number,
    limit: number,
    ipv6: Ipv6Config,
  ): number {
    const { ctx } = this;
    const { view } = ctx;
    if (type === DHCPV6_DECLINE) {
      const address = formatIp(ipv6.guestAddress);
      const line = `the guest says that its address ${address} is in use by somebody else, but there is no other`;
      warnGated(ctx.log, this.declineGate, ctx.nowMs, line);
    } else {
      ctx.log.debug('the guest released its IPv6 address');
    }
    let next = writeDhcpv6Status(view, at, limit, DHCPV6_STATUS_SUCCESS, '');
    let left = MAX_ASSOCIATIONS;
    for (let option = options; option < end && left > 0; left--) {
      const data = nextAssociation(view, option, end);
      if (data === 0) break;
      option = data + getDhcpv6OptionLength(view, data);
      const code = getAssociationCode(view, data);
      const isOurs =
        code === DHCPV6_OPTION_IA_NA && this.findWrongAddress(data + DHCPV6_IA_NA_BYTES, option, ipv6) === 0;
      if (!isOurs) next = writeRefusedAssociation(view, next, limit, data, DHCPV6_STATUS_NO_BINDING);
    }
    return next;
  }

  /** @returns the data of the first address in [at, end) that is not the guest's (it is in `this.named` too), or 0 */
  private findWrongAddress(at: number, end: number, ipv6: Ipv6Config): number {
    const { view } = this.ctx;
    for (let next = at; next < end; ) {
      const data = findDhcpv6Option(view, next, end, DHCPV6_OPTION_IA_ADDRESS);
      if (data === 0) return 0;
      loadIpv6(view, data, this.named, 0);
      if (!isSameIp(this.named, ipv6.guestAddress)) return data;
      next = data + getDhcpv6OptionLength(view, data);
    }
    return 0;
  }

  /** Addresses in all associations of the message. */
  private countAddresses(options: number, end: number): number {
    const { view } = this.ctx;
    let count = 0;
    for (let option = options; option < end; ) {
      const data = nextAssociation(view, option, end);
      if (data === 0) break;
      option = data + getDhcpv6OptionLength(view, data);
      if (findDhcpv6Option(view, data + getAssociationFixedBytes(view, data), option, DHCPV6_OPTION_IA_ADDRESS) !== 0)
        count++;
    }
    return count;
  }

  private send(udp: number, end: number, meta: PacketMeta, ipv6: Ipv6Config): void {
    const { ctx } = this;
    const { view } = ctx;
    const length = end - udp;
    const source = ipv6.ourLinkLocal;
    const pseudoSum = pseudoSumIpv6(source, 0, meta.source, 0, IP_PROTOCOL_UDP, length);
    const sum = sumBytes(view, udp + UDP_HEADER_BYTES, length - UDP_HEADER_BYTES, pseudoSum);
    writeUdpHeader(view, udp, DHCPV6_SERVER_PORT, DHCPV6_CLIENT_PORT, length, sum);
    closeIpPacketTo(
      ctx,
      6,
      IP_PROTOCOL_UDP,
      udp,
      length,
      source,
      0,
      meta.source,
      0,
      255,
      meta.sourceMacHi,
      meta.sourceMacLo,
    );
  }
}
