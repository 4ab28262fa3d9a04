/**
 * UDP header (RFC 768).
 *
 * The datagram ends where its own length says, which may be before the IP packet does. Checksums are verified by
 * `verifyChecksum` where somebody wants that; a zero field means "none" and is legal on IPv4 only (RFC 8200 §8.1).
 *
 * Not done: length 0 (jumbograms, RFC 2675), checksums over a part (UDP-Lite, RFC 3828).
 */
import { finishChecksum } from './checksum.ts';
import { WIRE_BAD_LENGTH, WIRE_TRUNCATED } from './status.ts';

export const UDP_HEADER_BYTES = 8;

/** @returns 8, WIRE_TRUNCATED or WIRE_BAD_LENGTH */
export function checkUdp(view: DataView, offset: number, end: number): number {
  const available = end - offset;
  if (available < UDP_HEADER_BYTES) return WIRE_TRUNCATED;
  const length = view.getUint16(offset + 4);
  if (length < UDP_HEADER_BYTES) return WIRE_BAD_LENGTH;
  return length > available ? WIRE_TRUNCATED : UDP_HEADER_BYTES;
}

export function getUdpSrcPort(view: DataView, offset: number): number {
  return view.getUint16(offset);
}

export function getUdpDstPort(view: DataView, offset: number): number {
  return view.getUint16(offset + 2);
}

/** Bytes of header and payload (8 … 65535). */
export function getUdpLength(view: DataView, offset: number): number {
  return view.getUint16(offset + 4);
}

export function getUdpChecksum(view: DataView, offset: number): number {
  return view.getUint16(offset + 6);
}

/**
 * Writes the 8-byte header. A checksum that comes out as 0 is sent as 0xffff, since 0 means "none" (RFC 768).
 * @param length bytes of header and payload
 * @param sumOfPseudoAndPayload sum (see checksum.ts) of the pseudo-header, whose length field is `length`, and the payload
 */
export function writeUdpHeader(
  view: DataView,
  offset: number,
  srcPort: number,
  dstPort: number,
  length: number,
  sumOfPseudoAndPayload: number,
): void {
  view.setUint16(offset, srcPort);
  view.setUint16(offset + 2, dstPort);
  view.setUint16(offset + 4, length);
  const checksum = finishChecksum(sumOfPseudoAndPayload + srcPort + dstPort + length);
  view.setUint16(offset + 6, checksum === 0 ? 0xffff : checksum);
}
