/**
 * ICMP for IPv4 (RFC 792): echo, and the errors a stack sends: unreachable, fragmentation needed (RFC 1191 §4), time exceeded.
 *
 * A message is type, code, checksum, four bytes whose meaning depends on the type ("rest"), then a body: data of an echo, or of
 * an error the IP header of the packet it is about and at least eight bytes more, at most so much that the whole stays below
 * 576 bytes (RFC 1812 §4.3.2.3).
 *
 * Not done: redirects, timestamps, address masks, extended errors (RFC 4884).
 */
import { addHalves, finishChecksum, verifyChecksum } from './checksum.ts';
import { WIRE_BAD_CHECKSUM, WIRE_TRUNCATED } from './status.ts';

export const ICMP_HEADER_BYTES = 8;
/** Longest IP packet that carries an ICMP error (RFC 1812 §4.3.2.3). */
export const ICMP_MAX_ERROR_PACKET_BYTES = 576;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_DEST_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_TIME_EXCEEDED = 11;
export const ICMP_PARAMETER_PROBLEM = 12;

/** Codes of ICMP_DEST_UNREACHABLE (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1). */
export const ICMP_NET_UNREACHABLE = 0;
export const ICMP_HOST_UNREACHABLE = 1;
export const ICMP_PROTOCOL_UNREACHABLE = 2;
export const ICMP_PORT_UNREACHABLE = 3;
/** Fragmentation needed but not allowed; the next hop's MTU is in the rest (RFC 1191 §4). */
export const ICMP_FRAGMENTATION_NEEDED = 4;
export const ICMP_ADMIN_PROHIBITED = 13;

/** Codes of ICMP_TIME_EXCEEDED. */
export const ICMP_TTL_EXCEEDED = 0;
export const ICMP_REASSEMBLY_TIMEOUT = 1;

/** The whole message is [offset, end). @returns 8, WIRE_TRUNCATED or WIRE_BAD_CHECKSUM */
export function checkIcmp(view: DataView, offset: number, end: number): number {
  if (end - offset < ICMP_HEADER_BYTES) return WIRE_TRUNCATED;
  return verifyChecksum(view, offset, end - offset, 0) ? ICMP_HEADER_BYTES : WIRE_BAD_CHECKSUM;
}

export function getIcmpType(view: DataView, offset: number): number {
  return view.getUint8(offset);
}

export function getIcmpCode(view: DataView, offset: number): number {
  return view.getUint8(offset + 1);
}

/** Identifier of an echo request or reply. */
export function getIcmpEchoId(view: DataView, offset: number): number {
  return view.getUint16(offset + 4);
}

/** Sequence number of an echo request or reply. */
export function getIcmpEchoSeq(view: DataView, offset: number): number {
  return view.getUint16(offset + 6);
}

/** Next hop's MTU of "fragmentation needed"; 0 from routers older than RFC 1191. */
export function getIcmpMtu(view: DataView, offset: number): number {
  return view.getUint16(offset + 6);
}

/**
 * Writes the 8-byte header in front of a body that the caller has placed and summed.
 * @param rest the four bytes after the checksum, a uint32: 0 for most errors, the MTU for "fragmentation needed"
 * @param bodySum sum (see checksum.ts) of everything behind the header
 */
export function writeIcmpHeader(
  view: DataView,
  offset: number,
  type: number,
  code: number,
  rest: number,
  bodySum: number,
): void {
  const typeAndCode = (type << 8) | code;
  view.setUint16(offset, typeAndCode);
  view.setUint16(offset + 2, finishChecksum(bodySum + typeAndCode + addHalves(rest)));
  view.setUint32(offset + 4, rest);
}

/** Writes the header of an echo request or reply, see `writeIcmpHeader`. */
export function writeIcmpEcho(
  view: DataView,
  offset: number,
  type: number,
  id: number,
  seq: number,
  bodySum: number,
): void {
  writeIcmpHeader(view, offset, type, 0, (id << 16) | seq, bodySum);
}
