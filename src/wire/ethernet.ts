/**
 * Ethernet II frames (IEEE 802.3 clause 3.2.6), without preamble and frame check sequence, as netdevs and taps carry them.
 *
 * A MAC address is a pair of integers: `hi`, its first two bytes, and `lo`, its last four as a uint32.
 *
 * Not done: VLAN tags (802.1Q) and length-field (LLC) frames; both have an EtherType that nothing here answers to.
 */
import { WIRE_TRUNCATED } from './status.ts';

export const ETHERNET_HEADER_BYTES = 14;
/** Shortest legal frame without its check sequence (IEEE 802.3 clause 4.2.3.3); shorter ones are padded with zeros. */
export const ETHERNET_MIN_FRAME_BYTES = 60;
export const MAC_BYTES = 6;

/** Where the destination MAC stands in the header. */
export const ETHERNET_DST_OFFSET = 0;
/** Where the source MAC stands in the header. */
export const ETHERNET_SRC_OFFSET = 6;
const TYPE_OFFSET = 12;

/** RFC 894. */
export const ETHERTYPE_IPV4 = 0x0800;
/** RFC 826. */
export const ETHERTYPE_ARP = 0x0806;
/** IEEE 802.1Q tag. */
export const ETHERTYPE_VLAN = 0x8100;
/** RFC 2464 §3. */
export const ETHERTYPE_IPV6 = 0x86dd;

export const MAC_BROADCAST_HI = 0xffff;
export const MAC_BROADCAST_LO = 0xffffffff;
/** First two bytes of an IPv6 multicast MAC; the last four are the last word of the address (RFC 2464 §7). */
export const MAC_IPV6_MULTICAST_HI = 0x3333;

/** @returns 14, or WIRE_TRUNCATED */
export function checkEthernet(_view: DataView, offset: number, end: number): number {
  return end - offset < ETHERNET_HEADER_BYTES ? WIRE_TRUNCATED : ETHERNET_HEADER_BYTES;
}

/** EtherType, or, below 0x600, the length of an LLC frame. */
export function getEtherType(view: DataView, offset: number): number {
  return view.getUint16(offset + TYPE_OFFSET);
}

/** First two bytes of the MAC address at `offset`. */
export function getMacHi(view: DataView, offset: number): number {
  return view.getUint16(offset);
}

/** Last four bytes of the MAC address at `offset`, a uint32. */
export function getMacLo(view: DataView, offset: number): number {
  return view.getUint32(offset + 2);
}

/** Writes a MAC address at `offset`. */
export function setMac(view: DataView, offset: number, hi: number, lo: number): void {
  view.setUint16(offset, hi);
  view.setUint32(offset + 2, lo);
}

/** Group bit of the first byte: multicast, and broadcast too (IEEE 802 §8.2). */
export function isMulticastMac(hi: number): boolean {
  return (hi & 0x0100) !== 0;
}

/** Writes the 14 bytes of the header. */
export function writeEthernetHeader(
  view: DataView,
  offset: number,
  dstHi: number,
  dstLo: number,
  srcHi: number,
  srcLo: number,
  etherType: number,
): void {
  view.setUint16(offset, dstHi);
  view.setUint32(offset + 2, dstLo);
  view.setUint16(offset + 6, srcHi);
  view.setUint32(offset + 8, srcLo);
  view.setUint16(offset + 12, etherType);
}
