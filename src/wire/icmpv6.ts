/**
 * ICMPv6 (RFC 4443): echo, and the errors a stack sends: unreachable, packet too big, time exceeded, parameter problem.
 * Neighbour discovery, which travels in ICMPv6 messages too, is in ndp.ts.
 *
 * A message is type, code, checksum, four bytes whose meaning depends on the type ("rest"), then a body: data of an echo, or of
 * an error as much of the packet it is about as fits into IPV6_MIN_MTU. The checksum covers a pseudo-header.
 *
 * Not done: node information, extended errors (RFC 4884), multicast listener reports (they are accepted and ignored).
 */
import { addHalves, finishChecksum, sumBytes, verifyChecksum } from './checksum.ts';
import { WIRE_BAD_CHECKSUM, WIRE_TRUNCATED } from './status.ts';

/** RFC 4443 §2.1 has four bytes; every message that the stack knows has at least four more. */
export const ICMPV6_HEADER_BYTES = 8;

export const ICMPV6_DEST_UNREACHABLE = 1;
export const ICMPV6_PACKET_TOO_BIG = 2;
export const ICMPV6_TIME_EXCEEDED = 3;
export const ICMPV6_PARAMETER_PROBLEM = 4;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;

/** Codes of ICMPV6_DEST_UNREACHABLE (RFC 4443 §3.1). */
export const ICMPV6_NO_ROUTE = 0;
export const ICMPV6_ADMIN_PROHIBITED = 1;
export const ICMPV6_ADDRESS_UNREACHABLE = 3;
export const ICMPV6_PORT_UNREACHABLE = 4;

/** Codes of ICMPV6_TIME_EXCEEDED (RFC 4443 §3.3). */
export const ICMPV6_HOP_LIMIT_EXCEEDED = 0;
export const ICMPV6_REASSEMBLY_TIMEOUT = 1;

/** Code of ICMPV6_PARAMETER_PROBLEM: unrecognised next header (RFC 4443 §3.4); the rest is where it stands. */
export const ICMPV6_UNKNOWN_NEXT_HEADER = 1;

/**
 * The whole message is [offset, end).
 * @param pseudoSum `pseudoSumIpv6` of the packet with the length end - offset
 * @returns 8, WIRE_TRUNCATED or WIRE_BAD_CHECKSUM
 */
export function checkIcmpv6(view: DataView, offset: number, end: number, pseudoSum: number): number {
  if (end - offset < ICMPV6_HEADER_BYTES) return WIRE_TRUNCATED;
  return verifyChecksum(view, offset, end - offset, pseudoSum) ? ICMPV6_HEADER_BYTES : WIRE_BAD_CHECKSUM;
}

export function getIcmpv6Type(view: DataView, offset: number): number {
  return view.getUint8(offset);
}

export function getIcmpv6Code(view: DataView, offset: number): number {
  return view.getUint8(offset + 1);
}

/** Identifier of an echo request or reply. */
export function getIcmpv6EchoId(view: DataView, offset: number): number {
  return view.getUint16(offset + 4);
}

/** Sequence number of an echo request or reply. */
export function getIcmpv6EchoSeq(view: DataView, offset: number): number {
  return view.getUint16(offset + 6);
}

/** MTU of "packet too big", a uint32. */
export function getIcmpv6Mtu(view: DataView, offset: number): number {
  return view.getUint32(offset + 4);
}

/**
 * Writes the 8-byte header in front of a body that the caller has placed and summed.
 * @param rest the four bytes after the checksum, a uint32: 0 for most errors, the MTU for "packet too big"
 * @param sumOfPseudoAndBody sum (see checksum.ts) of the pseudo-header and everything behind the header
 */
export function writeIcmpv6Header(
  view: DataView,
  offset: number,
  type: number,
  code: number,
  rest: number,
  sumOfPseudoAndBody: number,
): void {
  const typeAndCode = (type << 8) | code;
  view.setUint16(offset, typeAndCode);
  view.setUint16(offset + 2, finishChecksum(sumOfPseudoAndBody + typeAndCode + addHalves(rest)));
  view.setUint32(offset + 4, rest);
}

/** Writes the header of an echo request or reply, see `writeIcmpv6Header`. */
export function writeIcmpv6Echo(
  view: DataView,
  offset: number,
  type: number,
  id: number,
  seq: number,
  sumOfPseudoAndBody: number,
): void {
  writeIcmpv6Header(view, offset, type, 0, (id << 16) | seq, sumOfPseudoAndBody);
}

/**
 * Fills in the checksum of a message that is complete otherwise; for messages built piece by piece, as in ndp.ts.
 * @param length bytes of the whole message
 * @param pseudoSum `pseudoSumIpv6` of the packet with that length
 */
export function writeIcmpv6Checksum(view: DataView, offset: number, length: number, pseudoSum: number): void {
  view.setUint16(offset + 2, 0);
  view.setUint16(offset + 2, finishChecksum(sumBytes(view, offset, length, pseudoSum)));
}
