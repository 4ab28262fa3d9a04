/**
 * What may be wrong with a packet, without regard to family, and the types and codes that say so in ICMP and ICMPv6. Errors that
 * the host hears of come in the family of its socket, which with a resolver of the other family (`--dns-host`) is not
 * the guest's: then they are translated through the reason (RFC 7915 §4.2 and §5.2 have the table).
 */
import {
  ICMP_ADMIN_PROHIBITED,
  ICMP_DEST_UNREACHABLE,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HOST_UNREACHABLE,
  ICMP_NET_UNREACHABLE,
  ICMP_PORT_UNREACHABLE,
  ICMP_PROTOCOL_UNREACHABLE,
  ICMP_REASSEMBLY_TIMEOUT,
  ICMP_TIME_EXCEEDED,
  ICMP_TTL_EXCEEDED,
} from '../../wire/icmp.ts';
import {
  ICMPV6_ADDRESS_UNREACHABLE,
  ICMPV6_ADMIN_PROHIBITED,
  ICMPV6_DEST_UNREACHABLE,
  ICMPV6_HOP_LIMIT_EXCEEDED,
  ICMPV6_NO_ROUTE,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_PARAMETER_PROBLEM,
  ICMPV6_PORT_UNREACHABLE,
  ICMPV6_REASSEMBLY_TIMEOUT,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_UNKNOWN_NEXT_HEADER,
} from '../../wire/icmpv6.ts';

export const REASON_NET = 0;
export const REASON_HOST = 1;
export const REASON_PORT = 2;
export const REASON_PROTOCOL = 3;
export const REASON_PROHIBITED = 4;
export const REASON_TOO_BIG = 5;
export const REASON_HOP_LIMIT = 6;
export const REASON_REASSEMBLY = 7;

const TYPES_4 = [
  ICMP_DEST_UNREACHABLE,
  ICMP_DEST_UNREACHABLE,
  ICMP_DEST_UNREACHABLE,
  ICMP_DEST_UNREACHABLE,
  ICMP_DEST_UNREACHABLE,
  ICMP_DEST_UNREACHABLE,
  ICMP_TIME_EXCEEDED,
  ICMP_TIME_EXCEEDED,
] as const;
const CODES_4 = [
  ICMP_NET_UNREACHABLE,
  ICMP_HOST_UNREACHABLE,
  ICMP_PORT_UNREACHABLE,
  ICMP_PROTOCOL_UNREACHABLE,
  ICMP_ADMIN_PROHIBITED,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_TTL_EXCEEDED,
  ICMP_REASSEMBLY_TIMEOUT,
] as const;
const TYPES_6 = [
  ICMPV6_DEST_UNREACHABLE,
  ICMPV6_DEST_UNREACHABLE,
  ICMPV6_DEST_UNREACHABLE,
  ICMPV6_PARAMETER_PROBLEM,
  ICMPV6_DEST_UNREACHABLE,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_TIME_EXCEEDED,
] as const;
const CODES_6 = [
  ICMPV6_NO_ROUTE,
  ICMPV6_ADDRESS_UNREACHABLE,
  ICMPV6_PORT_UNREACHABLE,
  ICMPV6_UNKNOWN_NEXT_HEADER,
  ICMPV6_ADMIN_PROHIBITED,
  0,
  ICMPV6_HOP_LIMIT_EXCEEDED,
  ICMPV6_REASSEMBLY_TIMEOUT,
] as const;

/** ICMP(v6) type of a reason. */
export function typeOfReason(family: number, reason: number): number {
  return (family === 4 ? TYPES_4 : TYPES_6)[reason]!;
}

/** ICMP(v6) code of a reason. */
export function codeOfReason(family: number, reason: number): number {
  return (family === 4 ? CODES_4 : CODES_6)[reason]!;
}

/** The reason behind a type and code; what has no name here counts as an unreachable host. @returns -1 for what is no error */
export function reasonOfIcmp(family: number, type: number, code: number): number {
  if (family === 4) {
    if (type === ICMP_TIME_EXCEEDED) return code === ICMP_TTL_EXCEEDED ? REASON_HOP_LIMIT : REASON_REASSEMBLY;
    if (type !== ICMP_DEST_UNREACHABLE) return -1;
    switch (code) {
      case ICMP_NET_UNREACHABLE:
      case 6: // destination network unknown (RFC 1122 §3.2.2.1)
      case 11: // network unreachable for this type of service
        return REASON_NET;
      case ICMP_PROTOCOL_UNREACHABLE:
        return REASON_PROTOCOL;
      case ICMP_PORT_UNREACHABLE:
        return REASON_PORT;
      case ICMP_FRAGMENTATION_NEEDED:
        return REASON_TOO_BIG;
      case 9: // network administratively prohibited
      case 10: // host administratively prohibited
      case ICMP_ADMIN_PROHIBITED:
        return REASON_PROHIBITED;
      default:
        return REASON_HOST;
    }
  }
  if (type === ICMPV6_PACKET_TOO_BIG) return REASON_TOO_BIG;
  if (type === ICMPV6_TIME_EXCEEDED) return code === ICMPV6_HOP_LIMIT_EXCEEDED ? REASON_HOP_LIMIT : REASON_REASSEMBLY;
  if (type === ICMPV6_PARAMETER_PROBLEM) return code === ICMPV6_UNKNOWN_NEXT_HEADER ? REASON_PROTOCOL : -1;
  if (type !== ICMPV6_DEST_UNREACHABLE) return -1;
  switch (code) {
    case ICMPV6_NO_ROUTE:
      return REASON_NET;
    case ICMPV6_ADMIN_PROHIBITED:
    case 5: // source address failed a policy (RFC 4443 §3.1)
    case 6: // reject route
      return REASON_PROHIBITED;
    case ICMPV6_PORT_UNREACHABLE:
      return REASON_PORT;
    default:
      return REASON_HOST;
  }
}

// Linux errno values (errno(3)) that a send or a local entry of an error queue may carry.
const EPERM = 1;
const EACCES = 13;
const EMSGSIZE = 90;
const ENETDOWN = 100;
const ENETUNREACH = 101;
const ECONNREFUSED = 111;
const EHOSTDOWN = 112;
const EHOSTUNREACH = 113;

/** The reason behind a positive errno of a system call that sends; -1 for errors that say nothing about the destination. */
export function reasonOfErrno(errno: number): number {
  switch (errno) {
    case ENETUNREACH:
    case ENETDOWN:
      return REASON_NET;
    case EHOSTUNREACH:
    case EHOSTDOWN:
      return REASON_HOST;
    case ECONNREFUSED:
      return REASON_PORT;
    case EMSGSIZE:
      return REASON_TOO_BIG;
    case EACCES:
    case EPERM:
      return REASON_PROHIBITED;
    default:
      return -1;
  }
}
