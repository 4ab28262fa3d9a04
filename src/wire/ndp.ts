/**
 * Neighbour discovery for IPv6 (RFC 4861): router and neighbour solicitations and advertisements, with the options for
 * link-layer addresses, prefixes and MTU, and those for resolvers and search lists (RFC 8106).
 *
 * They are ICMPv6 messages: `checkIcmpv6` proves the checksum first, `checkNdp` then the message's size and the framing of its
 * options, a length of 0 and wrong sizes of known options included. The caller still has to see that the hop limit is 255 and,
 * in solicitations, that the target is not multicast (RFC 4861 §6.1, §7.1).
 *
 * Building: write the message, append options (see room.ts), then `writeIcmpv6Checksum`.
 *
 * Not done: redirects, route information (RFC 4191), nonces and signatures (RFC 3971).
 */
import { writeDnsNameList } from './dns-name.ts';
import { storeIpv6 } from './ipv6.ts';
import { checkRoom } from './room.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION, WIRE_BAD_VERSION, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from './status.ts';

export const NDP_ROUTER_SOLICITATION = 133;
export const NDP_ROUTER_ADVERTISEMENT = 134;
export const NDP_NEIGHBOR_SOLICITATION = 135;
export const NDP_NEIGHBOR_ADVERTISEMENT = 136;

/** Hop limit that proves that a message has not crossed a router (RFC 4861 §6.1). */
export const NDP_HOP_LIMIT = 255;

/** Bytes before the options (RFC 4861 §4.1 … §4.4). */
export const NDP_ROUTER_SOLICITATION_BYTES = 8;
export const NDP_ROUTER_ADVERTISEMENT_BYTES = 16;
export const NDP_NEIGHBOR_BYTES = 24;
/** Where the target address of a neighbour message stands. */
export const NDP_TARGET_OFFSET = 8;

/** Flags of a router advertisement (RFC 4861 §4.2): addresses, other configuration, by DHCPv6. */
export const NDP_RA_MANAGED = 0x80;
export const NDP_RA_OTHER = 0x40;
/** Flags of a neighbour advertisement, first byte of the rest (RFC 4861 §4.4). */
export const NDP_NA_ROUTER = 0x80;
export const NDP_NA_SOLICITED = 0x40;
export const NDP_NA_OVERRIDE = 0x20;
/** Flags of a prefix (RFC 4861 §4.6.2). */
export const NDP_PREFIX_ON_LINK = 0x80;
export const NDP_PREFIX_AUTONOMOUS = 0x40;

/** Lifetime in seconds that means "for ever". */
export const NDP_INFINITE_LIFETIME_SEC = 0xffffffff;

/** Options (RFC 4861 §4.6, RFC 8106 §5). */
export const NDP_OPTION_SOURCE_LINK_ADDRESS = 1;
export const NDP_OPTION_TARGET_LINK_ADDRESS = 2;
export const NDP_OPTION_PREFIX = 3;
export const NDP_OPTION_MTU = 5;
export const NDP_OPTION_RDNSS = 25;
export const NDP_OPTION_DNSSL = 31;

/** Where the value of these options stands, from the start of the option. */
export const NDP_LINK_ADDRESS_MAC_OFFSET = 2;
export const NDP_PREFIX_ADDRESS_OFFSET = 16;
export const NDP_RDNSS_ADDRESS_OFFSET = 8;
export const NDP_DNSSL_NAMES_OFFSET = 8;

/** A length byte counts units of eight. */
const MAX_OPTION_BYTES = 255 << 3;

function isOptionSizeLegal(type: number, units: number): boolean {
  switch (type) {
    case NDP_OPTION_SOURCE_LINK_ADDRESS:
    case NDP_OPTION_TARGET_LINK_ADDRESS:
    case NDP_OPTION_MTU:
      return units === 1;
    case NDP_OPTION_PREFIX:
      return units === 4;
    case NDP_OPTION_RDNSS:
      return units >= 3 && (units & 1) === 1;
    case NDP_OPTION_DNSSL:
      return units >= 2;
    default:
      return true;
  }
}

/**
 * Checks a message whose ICMPv6 header has been accepted; it is the whole of [offset, end).
 * @returns bytes before the options (8, 16 or 24), WIRE_TRUNCATED, WIRE_BAD_VERSION (code not 0), WIRE_BAD_OPTION, or
 * WIRE_UNSUPPORTED for other ICMPv6 messages
 */
export function checkNdp(view: DataView, offset: number, end: number): number {
  const available = end - offset;
  if (available < NDP_ROUTER_SOLICITATION_BYTES) return WIRE_TRUNCATED;
  let fixedBytes = 0;
  switch (view.getUint8(offset)) {
    case NDP_ROUTER_SOLICITATION:
      fixedBytes = NDP_ROUTER_SOLICITATION_BYTES;
      break;
    case NDP_ROUTER_ADVERTISEMENT:
      fixedBytes = NDP_ROUTER_ADVERTISEMENT_BYTES;
      break;
    case NDP_NEIGHBOR_SOLICITATION:
    case NDP_NEIGHBOR_ADVERTISEMENT:
      fixedBytes = NDP_NEIGHBOR_BYTES;
      break;
    default:
      return WIRE_UNSUPPORTED;
  }
  if (available < fixedBytes) return WIRE_TRUNCATED;
  if (view.getUint8(offset + 1) !== 0) return WIRE_BAD_VERSION;
  let at = offset + fixedBytes;
  while (at < end) {
    if (at + 2 > end) return WIRE_BAD_OPTION;
    const units = view.getUint8(at + 1);
    if (units === 0 || at + (units << 3) > end) return WIRE_BAD_OPTION;
    if (!isOptionSizeLegal(view.getUint8(at), units)) return WIRE_BAD_OPTION;
    at += units << 3;
  }
  return fixedBytes;
}

/**
 * Looks for an option of a checked message.
 * @param at start of the options, or of the option behind which to go on
 * @returns the option's offset, 0 if there is none
 */
export function findNdpOption(view: DataView, at: number, end: number, type: number): number {
  let next = at;
  while (next < end) {
    if (view.getUint8(next) === type) return next;
    next += view.getUint8(next + 1) << 3;
  }
  return 0;
}

/** Bytes of the option at `option`, its type and length included. */
export function getNdpOptionBytes(view: DataView, option: number): number {
  return view.getUint8(option + 1) << 3;
}

/** Flags NDP_RA_MANAGED and NDP_RA_OTHER of a router advertisement. */
export function getNdpRouterFlags(view: DataView, offset: number): number {
  return view.getUint8(offset + 5);
}

/** How long the router is a default router, in seconds; 0: it is not one. */
export function getNdpRouterLifetimeSec(view: DataView, offset: number): number {
  return view.getUint16(offset + 6);
}

/** Flags NDP_NA_… of a neighbour advertisement. */
export function getNdpNeighborFlags(view: DataView, offset: number): number {
  return view.getUint8(offset + 4);
}

/** MTU of the MTU option at `option`. */
export function getNdpMtu(view: DataView, option: number): number {
  return view.getUint32(option + 4);
}

/** Prefix length of the prefix option at `option`. */
export function getNdpPrefixLength(view: DataView, option: number): number {
  return view.getUint8(option + 2);
}

/** Flags NDP_PREFIX_… of the prefix option at `option`. */
export function getNdpPrefixFlags(view: DataView, option: number): number {
  return view.getUint8(option + 3);
}

/** Writes a router solicitation. @returns the offset behind it */
export function writeNdpRouterSolicitation(view: DataView, at: number, end: number): number {
  const start = checkRoom(at, end, NDP_ROUTER_SOLICITATION_BYTES);
  if (start < 0) return start;
  view.setUint32(start, NDP_ROUTER_SOLICITATION << 24);
  view.setUint32(start + 4, 0);
  return start + NDP_ROUTER_SOLICITATION_BYTES;
}

/**
 * Writes a router advertisement; reachable time and retransmission timer are left unspecified.
 * @param hopLimit for the guest to use, 0: unspecified
 * @param lifetimeSec how long we are a default router, 0 … 65535
 * @returns the offset behind it
 */
export function writeNdpRouterAdvertisement(
  view: DataView,
  at: number,
  end: number,
  hopLimit: number,
  flags: number,
  lifetimeSec: number,
): number {
  const start = checkRoom(at, end, NDP_ROUTER_ADVERTISEMENT_BYTES);
  if (start < 0) return start;
  view.setUint32(start, NDP_ROUTER_ADVERTISEMENT << 24);
  view.setUint8(start + 4, hopLimit);
  view.setUint8(start + 5, flags);
  view.setUint16(start + 6, lifetimeSec);
  view.setUint32(start + 8, 0);
  view.setUint32(start + 12, 0);
  return start + NDP_ROUTER_ADVERTISEMENT_BYTES;
}

function writeNeighbor(
  view: DataView,
  at: number,
  end: number,
  type: number,
  flags: number,
  words: Uint32Array,
  targetAt: number,
): number {
  const start = checkRoom(at, end, NDP_NEIGHBOR_BYTES);
  if (start < 0) return start;
  view.setUint32(start, type << 24);
  view.setUint32(start + 4, flags << 24);
  storeIpv6(view, start + NDP_TARGET_OFFSET, words, targetAt);
  return start + NDP_NEIGHBOR_BYTES;
}

/** Writes a neighbour solicitation for words[targetAt …]. @returns the offset behind it */
export function writeNdpNeighborSolicitation(
  view: DataView,
  at: number,
  end: number,
  words: Uint32Array,
  targetAt: number,
): number {
  return writeNeighbor(view, at, end, NDP_NEIGHBOR_SOLICITATION, 0, words, targetAt);
}

/** Writes a neighbour advertisement for words[targetAt …]. @param flags NDP_NA_… @returns the offset behind it */
export function writeNdpNeighborAdvertisement(
  view: DataView,
  at: number,
  end: number,
  flags: number,
  words: Uint32Array,
  targetAt: number,
): number {
  return writeNeighbor(view, at, end, NDP_NEIGHBOR_ADVERTISEMENT, flags, words, targetAt);
}

/** Appends a source or target link-layer address. @param type NDP_OPTION_SOURCE_LINK_ADDRESS or …_TARGET_… */
export function writeNdpLinkAddress(
  view: DataView,
  at: number,
  end: number,
  type: number,
  macHi: number,
  macLo: number,
): number {
  const start = checkRoom(at, end, 8);
  if (start < 0) return start;
  view.setUint8(start, type);
  view.setUint8(start + 1, 1);
  view.setUint16(start + 2, macHi);
  view.setUint32(start + 4, macLo);
  return start + 8;
}

/** Appends the link's MTU in bytes. */
export function writeNdpMtu(view: DataView, at: number, end: number, mtu: number): number {
  const start = checkRoom(at, end, 8);
  if (start < 0) return start;
  view.setUint32(start, (NDP_OPTION_MTU << 24) | (1 << 16));
  view.setUint32(start + 4, mtu);
  return start + 8;
}

/**
 * Appends a prefix.
 * @param prefixLength 0 … 128; bits behind it must be 0 in the address
 * @param flags NDP_PREFIX_…
 * @param validSec @param preferredSec lifetimes in seconds, uint32
 */
export function writeNdpPrefix(
  view: DataView,
  at: number,
  end: number,
  prefixLength: number,
  flags: number,
  validSec: number,
  preferredSec: number,
  words: Uint32Array,
  wordsAt: number,
): number {
  const start = checkRoom(at, end, 32);
  if (start < 0) return start;
  view.setUint32(start, (NDP_OPTION_PREFIX << 24) | (4 << 16) | (prefixLength << 8) | flags);
  view.setUint32(start + 4, validSec);
  view.setUint32(start + 8, preferredSec);
  view.setUint32(start + 12, 0);
  storeIpv6(view, start + NDP_PREFIX_ADDRESS_OFFSET, words, wordsAt);
  return start + 32;
}

/**
 * Appends resolver addresses (RFC 8106 §5.1).
 * @param lifetimeSec uint32
 * @param words `count` addresses from `wordsAt` on; with none, nothing is appended
 */
export function writeNdpRdnss(
  view: DataView,
  at: number,
  end: number,
  lifetimeSec: number,
  words: Uint32Array,
  wordsAt: number,
  count: number,
): number {
  if (count === 0) return at;
  const bytes = 8 + (count << 4);
  const start = bytes > MAX_OPTION_BYTES && at >= 0 ? WIRE_BAD_LENGTH : checkRoom(at, end, bytes);
  if (start < 0) return start;
  view.setUint32(start, (NDP_OPTION_RDNSS << 24) | ((bytes >> 3) << 16));
  view.setUint32(start + 4, lifetimeSec);
  for (let i = 0; i < count; i++) storeIpv6(view, start + 8 + (i << 4), words, wordsAt + (i << 2));
  return start + bytes;
}

/** Appends a search list (RFC 8106 §5.2), padded with zeros. @param lifetimeSec uint32; without names, nothing is appended */
export function writeNdpDnssl(
  view: DataView,
  at: number,
  end: number,
  lifetimeSec: number,
  names: readonly string[],
): number {
  if (names.length === 0) return at;
  const start = checkRoom(at, end, 8);
  if (start < 0) return start;
  const behindNames = writeDnsNameList(view, start + 8, end, names);
  if (behindNames < 0) return behindNames;
  const bytes = (behindNames - start + 7) & ~7;
  if (bytes > MAX_OPTION_BYTES || start + bytes > end) return WIRE_BAD_LENGTH;
  view.setUint32(start, (NDP_OPTION_DNSSL << 24) | ((bytes >> 3) << 16));
  view.setUint32(start + 4, lifetimeSec);
  for (let i = behindNames; i < start + bytes; i++) view.setUint8(i, 0);
  return start + bytes;
}
