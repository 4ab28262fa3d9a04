/**
 * The error queue of a host socket (ip(7), IP_RECVERR), read one entry at a time and passed on to the guest as the ICMP or
 * ICMPv6 error it was, or, where it came from the host itself, as the one it amounts to.
 *
 * Who the error comes from is translated as any other address: the remote itself is shown as the peer the guest has named, the host as
 * whatever stands for it; where there is nothing, it is our router address. Redirects, source quench and parameter problems are not
 * passed on: a guest can do nothing about them.
 */
import { IPV4_HEADER_BYTES } from '../../wire/ipv4.ts';
import { IPV6_HEADER_BYTES } from '../../wire/ipv6.ts';
import type { StackContext } from '../context.ts';
import { loadEndpointAddress } from '../endpoint.ts';
import {
  MAP_REFUSED,
  SOCKET_ERROR_BYTES,
  SOCKET_ERROR_CODE,
  SOCKET_ERROR_DESTINATION,
  SOCKET_ERROR_ERRNO,
  SOCKET_ERROR_INFO,
  SOCKET_ERROR_OFFENDER,
  SOCKET_ERROR_ORIGIN,
  SOCKET_ERROR_TYPE,
} from '../ports.ts';
import { type IcmpErrorSender, MAX_QUOTED_PAYLOAD_BYTES, type QuotedDatagram } from './errors.ts';
import { codeOfReason, REASON_TOO_BIG, reasonOfErrno, reasonOfIcmp, typeOfReason } from './reasons.ts';

/** Origins of `struct sock_extended_err` (linux/errqueue.h). */
const ORIGIN_LOCAL = 1;
const ORIGIN_ICMP = 2;
const ORIGIN_ICMPV6 = 3;

/** What IPv6 headers are longer than IPv4 ones: MTUs of the other family differ by it (RFC 7915 §4.2). */
const FAMILY_MTU_DIFFERENCE = IPV6_HEADER_BYTES - IPV4_HEADER_BYTES;

export class SocketErrors {
  /** Where the payload of the entry last taken stands. */
  readonly payloadOffset: number;
  private readonly ctx: StackContext;
  private readonly sender: IcmpErrorSender;
  private readonly record: number;
  private readonly offender = new Uint32Array(4);

  constructor(ctx: StackContext, sender: IcmpErrorSender) {
    this.ctx = ctx;
    this.sender = sender;
    this.record = ctx.arena.allocate(SOCKET_ERROR_BYTES);
    this.payloadOffset = ctx.arena.allocate(MAX_QUOTED_PAYLOAD_BYTES);
  }

  /** Takes one entry off the queue of `fd`. @returns payload bytes of the datagram it is about (may be 0), or -errno */
  take(fd: number): number {
    return this.ctx.sockets.receiveError(fd, this.record, this.payloadOffset, MAX_QUOTED_PAYLOAD_BYTES);
  }

  /** The endpoint record of where the datagram of the entry last taken was sent to. */
  get destination(): number {
    return this.record + SOCKET_ERROR_DESTINATION;
  }

  /**
   * Tells the guest about the entry last taken.
   * @param datagram all fields filled
   * @param remote 4 words at `remoteAt`: the datagram's destination as the host knows it
   * @param guest 4 words at `guestAt`, `peer` at `peerAt`: source and destination as the guest knows them
   */
  tell(
    datagram: QuotedDatagram,
    remote: Uint32Array,
    remoteAt: number,
    guest: Uint32Array,
    guestAt: number,
    peer: Uint32Array,
    peerAt: number,
  ): void {
    const { record } = this;
    const { view } = this.ctx;
    const { family } = datagram;
    const origin = view.getUint8(record + SOCKET_ERROR_ORIGIN);
    let type = view.getUint8(record + SOCKET_ERROR_TYPE);
    let code = view.getUint8(record + SOCKET_ERROR_CODE);
    let reason: number;
    let isTranslated = true;
    if (origin === ORIGIN_ICMP || origin === ORIGIN_ICMPV6) {
      const errorFamily = origin === ORIGIN_ICMP ? 4 : 6;
      reason = reasonOfIcmp(errorFamily, type, code);
      isTranslated = errorFamily !== family;
    } else if (origin === ORIGIN_LOCAL) {
      reason = reasonOfErrno(view.getUint32(record + SOCKET_ERROR_ERRNO, true));
    } else {
      return;
    }
    if (reason < 0) return;
    let rest = 0;
    if (reason === REASON_TOO_BIG) {
      rest = view.getUint32(record + SOCKET_ERROR_INFO, true);
      if (isTranslated && origin === ORIGIN_ICMP) rest += FAMILY_MTU_DIFFERENCE;
      if (isTranslated && origin === ORIGIN_ICMPV6) rest -= FAMILY_MTU_DIFFERENCE;
    }
    if (isTranslated) {
      type = typeOfReason(family, reason);
      code = codeOfReason(family, reason);
    }
    const offender = this.loadOffender(datagram, remote, remoteAt, peer, peerAt) ? this.offender : undefined;
    this.sender.sendForDatagram(datagram, type, code, rest, offender, guest, guestAt, peer, peerAt);
  }

  private loadOffender(
    datagram: QuotedDatagram,
    remote: Uint32Array,
    remoteAt: number,
    peer: Uint32Array,
    peerAt: number,
  ): boolean {
    const { ctx, offender } = this;
    if (loadEndpointAddress(ctx.view, this.record + SOCKET_ERROR_OFFENDER, offender, 0) === 0) return false;
    if (
      offender[3] === remote[remoteAt + 3] &&
      offender[2] === remote[remoteAt + 2] &&
      offender[1] === remote[remoteAt + 1] &&
      offender[0] === remote[remoteAt]
    ) {
      for (let i = 0; i < 4; i++) offender[i] = peer[peerAt + i]!;
      return true;
    }
    if (ctx.map.toGuest(offender, 0, datagram.protocol) === MAP_REFUSED) return false;
    const isIpv4 = offender[0] === 0 && offender[1] === 0 && offender[2] === 0xffff;
    return isIpv4 === (datagram.family === 4);
  }
}
