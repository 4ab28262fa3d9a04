/**
 * ICMP and ICMPv6 errors to the guest (RFC 792, RFC 1122 §3.2.2, RFC 1812 §4.3, RFC 4443).
 *
 * Two kinds. About a packet from the guest that is at hand, when the stack itself cannot deliver it: the packet is quoted as it
 * came. About a datagram or echo that the host has sent for the guest, when the host's socket reports an error (ip(7), IP_RECVERR):
 * the socket remembers only the payload's start, so the headers are written anew, with the addresses that the *guest* used;
 * anything else would not match its sockets.
 *
 * Quotes are as long as the RFCs let them be: the whole ICMPv4 packet at most 576 bytes, the ICMPv6 one at most 1280.
 * No error is sent about an ICMP error, about anything but a first fragment, about multicast or broadcast, or to an address that
 * is not one host's. A token bucket bounds the rate (RFC 4443 §2.4 f): 1000 a second, bursts of 50.
 *
 * Not done: redirects, source quench, RFC 4884 extensions.
 */
import { finishChecksum, pseudoSumIpv4, pseudoSumIpv6, sumBytes } from '../../wire/checksum.ts';
import {
  ICMP_DEST_UNREACHABLE,
  ICMP_HEADER_BYTES,
  ICMP_MAX_ERROR_PACKET_BYTES,
  writeIcmpHeader,
} from '../../wire/icmp.ts';
import { ICMPV6_HEADER_BYTES, writeIcmpv6Header } from '../../wire/icmpv6.ts';
import { IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6, IP_PROTOCOL_UDP } from '../../wire/ip-protocol.ts';
import {
  getIpv4FragmentOffset,
  getIpv4TotalLength,
  IPV4_BROADCAST,
  IPV4_DONT_FRAGMENT,
  IPV4_HEADER_BYTES,
  writeIpv4Header,
} from '../../wire/ipv4.ts';
import {
  getIpv6PayloadLength,
  IPV6_HEADER_BYTES,
  IPV6_MIN_MTU,
  isIpv6LinkLocal,
  isIpv6Multicast,
  isIpv6Unspecified,
  writeIpv6Header,
} from '../../wire/ipv6.ts';
import { UDP_HEADER_BYTES } from '../../wire/udp.ts';
import type { StackContext } from '../context.ts';
import { closeIpPacket, openIpPacket } from '../output.ts';
import type { PacketMeta } from '../packet-meta.ts';
import { codeOfReason, REASON_PORT, REASON_PROTOCOL, REASON_TOO_BIG, typeOfReason } from './reasons.ts';

const MAX_QUOTE_BYTES_4 = ICMP_MAX_ERROR_PACKET_BYTES - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES;
const MAX_QUOTE_BYTES_6 = IPV6_MIN_MTU - IPV6_HEADER_BYTES - ICMPV6_HEADER_BYTES;
/** The most bytes of a datagram's payload that any error quotes: what to read from an error queue. */
export const MAX_QUOTED_PAYLOAD_BYTES = MAX_QUOTE_BYTES_6;

const TOKENS_PER_MS = 1;
const MAX_TOKENS = 50;

/** The datagram that an error is about, as the guest sent it. One record, reused. */
export interface QuotedDatagram {
  family: number;
  /** IP_PROTOCOL_UDP, or IP_PROTOCOL_ICMP(V6): the payload then starts with the ICMP header. */
  protocol: number;
  guestPort: number;
  peerPort: number;
  /** TTL or hop limit it is shown with. */
  hopLimit: number;
  /** Payload behind the UDP header (or the ICMP message) as far as known, in the arena. */
  payloadOffset: number;
  payloadBytes: number;
  /** Payload bytes that were sent, at least `payloadBytes`. */
  fullPayloadBytes: number;
}

export function createQuotedDatagram(): QuotedDatagram {
  return {
    family: 0,
    protocol: 0,
    guestPort: 0,
    peerPort: 0,
    hopLimit: 64,
    payloadOffset: 0,
    payloadBytes: 0,
    fullPayloadBytes: 0,
  };
}

export class IcmpErrorSender {
  private readonly ctx: StackContext;
  private tokens = MAX_TOKENS;
  private refilledMs = 0;
  private readonly source = new Uint32Array(4);

  constructor(ctx: StackContext) {
    this.ctx = ctx;
  }

  /**
   * Tells the guest why its packet, the one in `meta`, goes nowhere.
   * @param reason REASON_… of reasons.ts
   * @param mtu for REASON_TOO_BIG: the next hop's MTU
   */
  sendAbout(meta: PacketMeta, reason: number, mtu: number): void {
    const { ctx, source } = this;
    const { family, l3Offset } = meta;
    if (meta.protocol === IP_PROTOCOL_ICMP || meta.protocol === IP_PROTOCOL_ICMPV6) {
      // Only echo requests come this far, and everything else might be an error.
      if (!isEchoRequest(ctx.view, family, meta.l4Offset, meta.l4Length)) return;
    }
    // What cannot take a packet speaks for itself as far as ports go; for everything else the router does.
    if (reason === REASON_PORT || reason === REASON_PROTOCOL) copyWords(meta.destination, 0, source);
    else this.setRouter(family, meta.source, 0);
    const l3Bytes =
      family === 4
        ? getIpv4TotalLength(ctx.view, l3Offset)
        : IPV6_HEADER_BYTES + getIpv6PayloadLength(ctx.view, l3Offset);
    this.sendQuote(family, reason, mtu, l3Offset, l3Bytes, meta.source, 0, meta.destination, 0);
  }

  /**
   * As `sendAbout`, for an IP packet that stands anywhere in the arena with its first `l3Bytes` bytes.
   * @param guest its source address, 4 words at `guestAt`; `destination` likewise
   */
  sendAboutPacket(
    family: number,
    reason: number,
    l3Offset: number,
    l3Bytes: number,
    guest: Uint32Array,
    guestAt: number,
    destination: Uint32Array,
    destinationAt: number,
  ): void {
    this.setRouter(family, guest, guestAt);
    this.sendQuote(family, reason, 0, l3Offset, l3Bytes, guest, guestAt, destination, destinationAt);
  }

  /**
   * Passes on an error that a host socket has reported.
   * @param type ICMP(v6) type, `code` its code, `rest` the four bytes behind the checksum (the MTU, or 0)
   * @param offender 4 words: who says so, as the guest knows them; undefined: our router address
   * @param guest 4 words at `guestAt`, `peer` 4 words at `peerAt`: the datagram's source and destination as the guest sent it
   */
  sendForDatagram(
    datagram: QuotedDatagram,
    type: number,
    code: number,
    rest: number,
    offender: Uint32Array | undefined,
    guest: Uint32Array,
    guestAt: number,
    peer: Uint32Array,
    peerAt: number,
  ): void {
    const { ctx } = this;
    const { family } = datagram;
    if (!this.mayTell(family, guest, guestAt, peer, peerAt)) return;
    const isUdp = datagram.protocol === IP_PROTOCOL_UDP;
    const ipBytes = family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
    const headerBytes = ipBytes + (isUdp ? UDP_HEADER_BYTES : 0);
    const maxBytes = family === 4 ? MAX_QUOTE_BYTES_4 : MAX_QUOTE_BYTES_6;
    const payloadBytes = Math.min(datagram.payloadBytes, maxBytes - headerBytes);
    const messageBytes = ICMP_HEADER_BYTES + headerBytes + payloadBytes;
    const l4Offset = openIpPacket(ctx, family, messageBytes);
    if (l4Offset < 0) return;
    const quote = l4Offset + ICMP_HEADER_BYTES;
    const payload = quote + headerBytes;
    ctx.arena.bytes.copyWithin(payload, datagram.payloadOffset, datagram.payloadOffset + payloadBytes);
    writeQuotedIpHeader(ctx.view, quote, datagram, guest, guestAt, peer, peerAt);
    if (isUdp) writeQuotedUdpHeader(ctx.view, quote + ipBytes, datagram, payload, guest, guestAt, peer, peerAt);
    if (offender === undefined) this.setRouter(family, guest, guestAt);
    else copyWords(offender, 0, this.source);
    this.finish(family, type, code, rest, l4Offset, messageBytes, guest, guestAt);
  }

  /** As `sendForDatagram`, from our router address and by a REASON_… of reasons.ts: the host could not send it. */
  sendReason(
    datagram: QuotedDatagram,
    reason: number,
    guest: Uint32Array,
    guestAt: number,
    peer: Uint32Array,
    peerAt: number,
  ): void {
    const type = typeOfReason(datagram.family, reason);
    const code = codeOfReason(datagram.family, reason);
    this.sendForDatagram(datagram, type, code, 0, undefined, guest, guestAt, peer, peerAt);
  }

  private sendQuote(
    family: number,
    reason: number,
    mtu: number,
    l3Offset: number,
    l3Bytes: number,
    guest: Uint32Array,
    guestAt: number,
    destination: Uint32Array,
    destinationAt: number,
  ): void {
    const { ctx } = this;
    if (family === 4 && getIpv4FragmentOffset(ctx.view, l3Offset) !== 0) return;
    if (!this.mayTell(family, guest, guestAt, destination, destinationAt)) return;
    const quoteBytes = Math.min(l3Bytes, family === 4 ? MAX_QUOTE_BYTES_4 : MAX_QUOTE_BYTES_6);
    const messageBytes = ICMP_HEADER_BYTES + quoteBytes;
    const l4Offset = openIpPacket(ctx, family, messageBytes);
    if (l4Offset < 0) return;
    ctx.arena.bytes.copyWithin(l4Offset + ICMP_HEADER_BYTES, l3Offset, l3Offset + quoteBytes);
    const rest = reason === REASON_TOO_BIG ? mtu : 0;
    this.finish(
      family,
      typeOfReason(family, reason),
      codeOfReason(family, reason),
      rest,
      l4Offset,
      messageBytes,
      guest,
      guestAt,
    );
  }

  private finish(
    family: number,
    type: number,
    code: number,
    rest: number,
    l4Offset: number,
    messageBytes: number,
    guest: Uint32Array,
    guestAt: number,
  ): void {
    const { ctx, source } = this;
    const { view } = ctx;
    const bodySum = sumBytes(view, l4Offset + ICMP_HEADER_BYTES, messageBytes - ICMP_HEADER_BYTES, 0);
    let protocol: number;
    if (family === 4) {
      protocol = IP_PROTOCOL_ICMP;
      // The MTU field has 16 bits here (RFC 1191 §4).
      const rest4 = type === ICMP_DEST_UNREACHABLE ? Math.min(rest, 0xffff) : rest;
      writeIcmpHeader(view, l4Offset, type, code, rest4, bodySum);
    } else {
      protocol = IP_PROTOCOL_ICMPV6;
      const pseudo = pseudoSumIpv6(source, 0, guest, guestAt, protocol, messageBytes);
      writeIcmpv6Header(view, l4Offset, type, code, rest, bodySum + pseudo);
    }
    closeIpPacket(ctx, family, protocol, l4Offset, messageBytes, source, 0, guest, guestAt);
  }

  /** Our address as router; a link-local one for a guest that has used its own, or it could not tell the link. */
  private setRouter(family: number, guest: Uint32Array, guestAt: number): void {
    const { source } = this;
    const { ipv4, ipv6 } = this.ctx.config;
    if (family === 4) {
      source[0] = 0;
      source[1] = 0;
      source[2] = 0xffff;
      source[3] = ipv4 === undefined ? 0 : ipv4.gateway;
    } else if (ipv6 !== undefined) {
      copyWords(isIpv6LinkLocal(guest, guestAt) ? ipv6.ourLinkLocal : ipv6.gateway, 0, source);
    }
  }

  /** RFC 1122 §3.2.2, RFC 4443 §2.4 e: whether an error about this may be sent at all, and now. */
  private mayTell(
    family: number,
    guest: Uint32Array,
    guestAt: number,
    destination: Uint32Array,
    destinationAt: number,
  ): boolean {
    if (family === 4) {
      if (!isIpv4Unicast(guest[guestAt + 3]!) || !isIpv4Unicast(destination[destinationAt + 3]!)) return false;
    } else if (
      isIpv6Multicast(guest, guestAt) ||
      isIpv6Unspecified(guest, guestAt) ||
      isIpv6Multicast(destination, destinationAt)
    ) {
      return false;
    }
    const { nowMs } = this.ctx;
    const refill = (nowMs - this.refilledMs) * TOKENS_PER_MS;
    this.refilledMs = nowMs;
    this.tokens = Math.min(MAX_TOKENS, this.tokens + refill);
    if (this.tokens < 1) {
      this.ctx.counters.icmpErrorsSuppressed++;
      return false;
    }
    this.tokens--;
    return true;
  }
}

function isIpv4Unicast(address: number): boolean {
  return address !== 0 && address >>> 28 !== 0xe && address !== IPV4_BROADCAST;
}

function isEchoRequest(view: DataView, family: number, l4Offset: number, l4Length: number): boolean {
  return l4Length > 0 && view.getUint8(l4Offset) === (family === 4 ? 8 : 128);
}

function copyWords(from: Uint32Array, at: number, to: Uint32Array): void {
  to[0] = from[at]!;
  to[1] = from[at + 1]!;
  to[2] = from[at + 2]!;
  to[3] = from[at + 3]!;
}

function writeQuotedIpHeader(
  view: DataView,
  offset: number,
  datagram: QuotedDatagram,
  guest: Uint32Array,
  guestAt: number,
  peer: Uint32Array,
  peerAt: number,
): void {
  const { family, protocol, hopLimit } = datagram;
  const l4Bytes = datagram.fullPayloadBytes + (protocol === IP_PROTOCOL_UDP ? UDP_HEADER_BYTES : 0);
  if (family === 4) {
    const total = IPV4_HEADER_BYTES + l4Bytes;
    const source = guest[guestAt + 3]!;
    writeIpv4Header(view, offset, total, 0, IPV4_DONT_FRAGMENT, hopLimit, protocol, source, peer[peerAt + 3]!, 0);
  } else {
    writeIpv6Header(view, offset, l4Bytes, protocol, hopLimit, guest, guestAt, peer, peerAt, 0, 0);
  }
}

/** The checksum is right where the whole payload is known, and 0 where only its start is. */
function writeQuotedUdpHeader(
  view: DataView,
  offset: number,
  datagram: QuotedDatagram,
  payload: number,
  guest: Uint32Array,
  guestAt: number,
  peer: Uint32Array,
  peerAt: number,
): void {
  const { guestPort, peerPort, payloadBytes, fullPayloadBytes } = datagram;
  const udpBytes = UDP_HEADER_BYTES + fullPayloadBytes;
  view.setUint16(offset, guestPort);
  view.setUint16(offset + 2, peerPort);
  view.setUint16(offset + 4, udpBytes);
  view.setUint16(offset + 6, 0);
  if (payloadBytes !== fullPayloadBytes) return;
  const pseudo =
    datagram.family === 4
      ? pseudoSumIpv4(guest[guestAt + 3]!, peer[peerAt + 3]!, IP_PROTOCOL_UDP, udpBytes)
      : pseudoSumIpv6(guest, guestAt, peer, peerAt, IP_PROTOCOL_UDP, udpBytes);
  const sum = sumBytes(view, payload, payloadBytes, pseudo + guestPort + peerPort + udpBytes);
  view.setUint16(offset + 6, finishChecksum(sum) || 0xffff);
}
