/**
 * IPv4 header (RFC 791 §3.1).
 *
 * `checkIpv4` proves version, header length, total length and header checksum; the payload then is
 * [offset + header length, offset + getIpv4TotalLength), which may end before the frame does: short frames are padded.
 * In memory an address is a uint32, or, beside IPv6, the four words of its v4-mapped form (RFC 4291 §2.5.5.2).
 *
 * Options are skipped, never read: nothing in a user-mode stack routes by them. None are written.
 */
import { addHalves, finishChecksum, foldChecksum, sumBytes } from './checksum.ts';
import { WIRE_BAD_CHECKSUM, WIRE_BAD_LENGTH, WIRE_BAD_VERSION, WIRE_TRUNCATED } from './status.ts';

/** Without options; all headers written here are this long. */
export const IPV4_HEADER_BYTES = 20;
/** Where the source address stands in the header. */
export const IPV4_SRC_OFFSET = 12;
/** Where the destination address stands in the header. */
export const IPV4_DST_OFFSET = 16;

/** "Don't fragment" in the flags-and-fragment word. */
export const IPV4_DONT_FRAGMENT = 0x4000;
/** "More fragments" in the flags-and-fragment word. */
export const IPV4_MORE_FRAGMENTS = 0x2000;
const FRAGMENT_OFFSET_MASK = 0x1fff;

export const IPV4_BROADCAST = 0xffffffff;
/** Third word of a v4-mapped IPv6 address. */
export const IPV4_MAPPED_WORD = 0x0000ffff;

/** @returns the header's length (20 … 60), WIRE_TRUNCATED, WIRE_BAD_VERSION, WIRE_BAD_LENGTH or WIRE_BAD_CHECKSUM */
export function checkIpv4(view: DataView, offset: number, end: number): number {
  const available = end - offset;
  if (available < IPV4_HEADER_BYTES) return WIRE_TRUNCATED;
  const first = view.getUint8(offset);
  if (first >> 4 !== 4) return WIRE_BAD_VERSION;
  const headerLength = (first & 15) << 2;
  if (headerLength < IPV4_HEADER_BYTES) return WIRE_BAD_LENGTH;
  const totalLength = view.getUint16(offset + 2);
  if (totalLength < headerLength) return WIRE_BAD_LENGTH;
  if (totalLength > available) return WIRE_TRUNCATED;
  if (foldChecksum(sumBytes(view, offset, headerLength, 0)) !== 0xffff) return WIRE_BAD_CHECKSUM;
  return headerLength;
}

/** Bytes of header and options (20 … 60). */
export function getIpv4HeaderLength(view: DataView, offset: number): number {
  return (view.getUint8(offset) & 15) << 2;
}

/** DSCP and ECN, the byte once called type of service (RFC 2474, RFC 3168). */
export function getIpv4Tos(view: DataView, offset: number): number {
  return view.getUint8(offset + 1);
}

/** Bytes of header and payload. */
export function getIpv4TotalLength(view: DataView, offset: number): number {
  return view.getUint16(offset + 2);
}

/** Identification, which ties fragments together. */
export function getIpv4Id(view: DataView, offset: number): number {
  return view.getUint16(offset + 4);
}

/** The raw flags-and-fragment word, see IPV4_DONT_FRAGMENT and IPV4_MORE_FRAGMENTS. */
export function getIpv4FlagsFragment(view: DataView, offset: number): number {
  return view.getUint16(offset + 6);
}

/** Where this fragment's payload stands in the whole one, in bytes (0 … 65528). */
export function getIpv4FragmentOffset(view: DataView, offset: number): number {
  return (view.getUint16(offset + 6) & FRAGMENT_OFFSET_MASK) << 3;
}

/** Whether fragments follow this one. */
export function hasIpv4MoreFragments(view: DataView, offset: number): boolean {
  return (view.getUint16(offset + 6) & IPV4_MORE_FRAGMENTS) !== 0;
}

/** Whether this is a fragment (first, middle or last) and not a whole packet. */
export function isIpv4Fragment(view: DataView, offset: number): boolean {
  return (view.getUint16(offset + 6) & (IPV4_MORE_FRAGMENTS | FRAGMENT_OFFSET_MASK)) !== 0;
}

export function getIpv4Ttl(view: DataView, offset: number): number {
  return view.getUint8(offset + 8);
}

/** Protocol number, see ip-protocol.ts. */
export function getIpv4Protocol(view: DataView, offset: number): number {
  return view.getUint8(offset + 9);
}

/** Source address, a uint32. */
export function getIpv4Src(view: DataView, offset: number): number {
  return view.getUint32(offset + IPV4_SRC_OFFSET);
}

/** Destination address, a uint32. */
export function getIpv4Dst(view: DataView, offset: number): number {
  return view.getUint32(offset + IPV4_DST_OFFSET);
}

/** Puts an IPv4 address (uint32) in its v4-mapped form into words[at … at + 3]. */
export function storeIpv4Mapped(words: Uint32Array, at: number, address: number): void {
  words[at] = 0;
  words[at + 1] = 0;
  words[at + 2] = IPV4_MAPPED_WORD;
  words[at + 3] = address;
}

/** Whether words[at … at + 3] are a v4-mapped IPv4 address. */
export function isIpv4Mapped(words: Uint32Array, at: number): boolean {
  return words[at + 2] === IPV4_MAPPED_WORD && words[at] === 0 && words[at + 1] === 0;
}

/**
 * Writes a 20-byte header with its checksum.
 * @param totalLength bytes of header and payload, 20 … 65535
 * @param flagsFragment flags and fragment offset *in units of 8 bytes*, as on the wire
 */
export function writeIpv4Header(
  view: DataView,
  offset: number,
  totalLength: number,
  id: number,
  flagsFragment: number,
  ttl: number,
  protocol: number,
  src: number,
  dst: number,
  tos: number,
): void {
  const versionAndTos = 0x4500 | tos;
  const ttlAndProtocol = (ttl << 8) | protocol;
  view.setUint16(offset, versionAndTos);
  view.setUint16(offset + 2, totalLength);
  view.setUint16(offset + 4, id);
  view.setUint16(offset + 6, flagsFragment);
  view.setUint16(offset + 8, ttlAndProtocol);
  const fixedSum = versionAndTos + totalLength + id + flagsFragment + ttlAndProtocol;
  view.setUint16(offset + 10, finishChecksum(fixedSum + addHalves(src) + addHalves(dst)));
  view.setUint32(offset + 12, src);
  view.setUint32(offset + 16, dst);
}
