/**
 * IPv6 header (RFC 8200 §3) and the extension headers between it and the upper layer (§4).
 *
 * An address is four uint32 words in a Uint32Array. Header fields that hold addresses are found at IPV6_SRC_OFFSET and
 * IPV6_DST_OFFSET.
 *
 * The walk over extension headers ends at the first thing that is not one, or at the header of a real fragment, since what
 * follows that makes sense only after reassembly. An atomic fragment (offset 0, none following) is a whole packet (RFC 6946)
 * and is walked through.
 *
 * Not done: jumbograms (RFC 2675): a payload length of 0 means no payload. AH and ESP end the walk as upper layers. A routing
 * header with segments left is refused, since a host behind NAT is never a waypoint.
 */
import {
  IP_PROTOCOL_DESTINATION_OPTIONS,
  IP_PROTOCOL_FRAGMENT,
  IP_PROTOCOL_HOP_BY_HOP,
  IP_PROTOCOL_NONE,
  IP_PROTOCOL_ROUTING,
} from './ip-protocol.ts';
import { WIRE_BAD_OPTION, WIRE_BAD_VERSION, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from './status.ts';

export const IPV6_HEADER_BYTES = 40;
/** Every IPv6 link carries at least this (RFC 8200 §5); ICMPv6 errors stay below it (RFC 4443 §2.4 c). */
export const IPV6_MIN_MTU = 1280;
/** Where the source address stands in the header. */
export const IPV6_SRC_OFFSET = 8;
/** Where the destination address stands in the header. */
export const IPV6_DST_OFFSET = 24;

/** Bytes of a fragment header (RFC 8200 §4.5). */
export const IPV6_FRAGMENT_HEADER_BYTES = 8;
/** More extension headers than this in one packet have no honest use; the limit keeps one packet's walk short (RFC 8504 §5.3). */
export const IPV6_MAX_EXTENSION_HEADERS = 8;

const OPTION_PAD1 = 0;
/** Bits of an option's type that say what to do with it if it is unknown; 0 means skip (RFC 8200 §4.2). */
const OPTION_ACTION_MASK = 0xc0;
/** Router alert (RFC 2711), tunnel limit and the like have action 0; home address (RFC 6275) and jumbo payload do not. */
const OPTION_ACTION_SKIP = 0x00;

/** @returns 40, WIRE_TRUNCATED or WIRE_BAD_VERSION */
export function checkIpv6(view: DataView, offset: number, end: number): number {
  const available = end - offset;
  if (available < IPV6_HEADER_BYTES) return WIRE_TRUNCATED;
  if (view.getUint8(offset) >> 4 !== 6) return WIRE_BAD_VERSION;
  if (view.getUint16(offset + 4) > available - IPV6_HEADER_BYTES) return WIRE_TRUNCATED;
  return IPV6_HEADER_BYTES;
}

/** DSCP and ECN. */
export function getIpv6TrafficClass(view: DataView, offset: number): number {
  return (view.getUint16(offset) >> 4) & 0xff;
}

/** 20 bits (RFC 6437). */
export function getIpv6FlowLabel(view: DataView, offset: number): number {
  return view.getUint32(offset) & 0xfffff;
}

/** Bytes after the fixed header, extension headers included. */
export function getIpv6PayloadLength(view: DataView, offset: number): number {
  return view.getUint16(offset + 4);
}

/** Protocol number of what follows the fixed header, see ip-protocol.ts. */
export function getIpv6NextHeader(view: DataView, offset: number): number {
  return view.getUint8(offset + 6);
}

export function getIpv6HopLimit(view: DataView, offset: number): number {
  return view.getUint8(offset + 7);
}

/** Reads the address at `offset` (of the address itself, not of the header) into words[at … at + 3]. */
export function loadIpv6(view: DataView, offset: number, words: Uint32Array, at: number): void {
  words[at] = view.getUint32(offset);
  words[at + 1] = view.getUint32(offset + 4);
  words[at + 2] = view.getUint32(offset + 8);
  words[at + 3] = view.getUint32(offset + 12);
}

/** Writes words[at … at + 3] as the address at `offset`. */
export function storeIpv6(view: DataView, offset: number, words: Uint32Array, at: number): void {
  view.setUint32(offset, words[at]!);
  view.setUint32(offset + 4, words[at + 1]!);
  view.setUint32(offset + 8, words[at + 2]!);
  view.setUint32(offset + 12, words[at + 3]!);
}

/** What `skipIpv6Extensions` found; one record is reused for all packets. */
export interface Ipv6Extensions {
  /** 0, or the negative status that `skipIpv6Extensions` returned; the other fields are valid only with 0. */
  status: number;
  /** Protocol of what stands at `l4Offset`; for a fragment, of the first byte of the reassembled payload. */
  protocol: number;
  /** Absolute offset of the upper-layer header; for a fragment, of its piece of the payload. */
  l4Offset: number;
  /** Absolute offset of the fragment header; 0 if this is a whole packet, and then the three below are 0 or false. */
  fragmentHeaderOffset: number;
  /** Where this piece stands in the whole payload, in bytes (0 … 65528). */
  fragmentOffset: number;
  moreFragments: boolean;
  /** uint32 that ties fragments together. */
  fragmentId: number;
}

/** Makes the record that `skipIpv6Extensions` fills. */
export function createIpv6Extensions(): Ipv6Extensions {
  return {
    status: 0,
    protocol: IP_PROTOCOL_NONE,
    l4Offset: 0,
    fragmentHeaderOffset: 0,
    fragmentOffset: 0,
    moreFragments: false,
    fragmentId: 0,
  };
}

/** Checks the options in [at, end). @returns 0, WIRE_BAD_OPTION, or WIRE_UNSUPPORTED for one that must not be skipped. */
function checkIpv6Options(view: DataView, at: number, end: number): number {
  let next = at;
  while (next < end) {
    const type = view.getUint8(next);
    if (type === OPTION_PAD1) {
      next++;
      continue;
    }
    if (next + 2 > end) return WIRE_BAD_OPTION;
    if ((type & OPTION_ACTION_MASK) !== OPTION_ACTION_SKIP) return WIRE_UNSUPPORTED;
    next += 2 + view.getUint8(next + 1);
  }
  return next === end ? 0 : WIRE_BAD_OPTION;
}

/**
 * Walks the extension headers of the packet whose IPv6 header, accepted by `checkIpv6`, stands at `offset`.
 * @param end end of the packet: offset + 40 + payload length
 * @param result filled; an `l4Offset` equal to `end` means that nothing follows
 * @returns 0, WIRE_TRUNCATED, WIRE_BAD_OPTION (options malformed, hop-by-hop not first, too many headers), WIRE_UNSUPPORTED
 */
export function skipIpv6Extensions(view: DataView, offset: number, end: number, result: Ipv6Extensions): number {
  result.fragmentHeaderOffset = 0;
  result.fragmentOffset = 0;
  result.moreFragments = false;
  result.fragmentId = 0;
  let protocol = view.getUint8(offset + 6);
  let at = offset + IPV6_HEADER_BYTES;
  let status = 0;
  for (let count = 0; ; count++) {
    const isOptions = protocol === IP_PROTOCOL_HOP_BY_HOP || protocol === IP_PROTOCOL_DESTINATION_OPTIONS;
    if (!isOptions && protocol !== IP_PROTOCOL_ROUTING && protocol !== IP_PROTOCOL_FRAGMENT) break;
    if (count === IPV6_MAX_EXTENSION_HEADERS || (protocol === IP_PROTOCOL_HOP_BY_HOP && count !== 0)) {
      status = WIRE_BAD_OPTION;
      break;
    }
    if (at + 8 > end) {
      status = WIRE_TRUNCATED;
      break;
    }
    const next = view.getUint8(at);
    if (protocol === IP_PROTOCOL_FRAGMENT) {
      const offsetAndMore = view.getUint16(at + 2);
      protocol = next;
      at += IPV6_FRAGMENT_HEADER_BYTES;
      if ((offsetAndMore & 0xfff9) === 0) continue;
      result.fragmentHeaderOffset = at - IPV6_FRAGMENT_HEADER_BYTES;
      result.fragmentOffset = offsetAndMore & 0xfff8;
      result.moreFragments = (offsetAndMore & 1) !== 0;
      result.fragmentId = view.getUint32(at - 4);
      break;
    }
    const length = (view.getUint8(at + 1) + 1) << 3;
    if (at + length > end) {
      status = WIRE_TRUNCATED;
      break;
    }
    if (isOptions) status = checkIpv6Options(view, at + 2, at + length);
    else if (view.getUint8(at + 3) !== 0) status = WIRE_UNSUPPORTED;
    if (status !== 0) break;
    protocol = next;
    at += length;
  }
  result.protocol = protocol;
  result.l4Offset = at;
  result.status = status;
  return status;
}

/**
 * Writes a fragment header (RFC 8200 §4.5).
 * @param nextHeader protocol of the first byte of the whole payload
 * @param fragmentOffset where this piece stands in the whole payload, in bytes, a multiple of 8
 * @param id uint32, the same in all pieces
 */
export function writeIpv6FragmentHeader(
  view: DataView,
  offset: number,
  nextHeader: number,
  fragmentOffset: number,
  moreFragments: boolean,
  id: number,
): void {
  view.setUint16(offset, nextHeader << 8);
  view.setUint16(offset + 2, fragmentOffset | (moreFragments ? 1 : 0));
  view.setUint32(offset + 4, id);
}

/** ff00::/8 (RFC 4291 §2.7). */
export function isIpv6Multicast(words: Uint32Array, at: number): boolean {
  return words[at]! >>> 24 === 0xff;
}

/** fe80::/10 (RFC 4291 §2.5.6). */
export function isIpv6LinkLocal(words: Uint32Array, at: number): boolean {
  return words[at]! >>> 22 === 0xfe80 >> 6;
}

/** The unspecified address, `::`. */
export function isIpv6Unspecified(words: Uint32Array, at: number): boolean {
  return (words[at]! | words[at + 1]! | words[at + 2]! | words[at + 3]!) === 0;
}

/**
 * Writes the 40-byte header.
 * @param payloadLength bytes after the header, 0 … 65535
 * @param src holds the source address at `srcAt`, `dst` the destination address at `dstAt`
 */
export function writeIpv6Header(
  view: DataView,
  offset: number,
  payloadLength: number,
  nextHeader: number,
  hopLimit: number,
  src: Uint32Array,
  srcAt: number,
  dst: Uint32Array,
  dstAt: number,
  trafficClass: number,
  flowLabel: number,
): void {
  view.setUint32(offset, 0x6000_0000 | (trafficClass << 20) | flowLabel);
  view.setUint16(offset + 4, payloadLength);
  view.setUint16(offset + 6, (nextHeader << 8) | hopLimit);
  view.setUint32(offset + 8, src[srcAt]!);
  view.setUint32(offset + 12, src[srcAt + 1]!);
  view.setUint32(offset + 16, src[srcAt + 2]!);
  view.setUint32(offset + 20, src[srcAt + 3]!);
  view.setUint32(offset + 24, dst[dstAt]!);
  view.setUint32(offset + 28, dst[dstAt + 1]!);
  view.setUint32(offset + 32, dst[dstAt + 2]!);
  view.setUint32(offset + 36, dst[dstAt + 3]!);
}
