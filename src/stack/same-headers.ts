/**
 * Whether a TCP frame continues the flow of the frame before it, told by comparing the two as they lie in memory (as header prediction
 * does, and the merging of segments in network cards).
 *
 * All that was checked of the first one holds for the second when the bytes are the same: addresses, protocol, no options, no fragment. Its
 * header checksum needs no look then: nothing is left in the header that it could be wrong about, but the identification, which is for
 * fragments only. Left over are the lengths, which must agree with the frame's, and TCP's own part.
 */
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts';
import { IPV4_HEADER_BYTES } from '../wire/ipv4.ts';
import { IPV6_HEADER_BYTES } from '../wire/ipv6.ts';

/** Where TCP begins in a frame without IP options. */
export const PLAIN_TCP4_OFFSET = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES;
/** Where TCP begins in a frame without IPv6 extension headers. */
export const PLAIN_TCP6_OFFSET = ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES;

/**
 * @param first - offset of a frame that was found to be good: IPv4 without options, TCP
 * @param next - offset of a frame of `lengthBytes`, of which at least PLAIN_TCP4_OFFSET + 4 are there
 * @returns whether all but lengths, identification and checksum is the same up to and including the ports, and no byte is padding
 */
export function hasSameHeaders4(view: DataView, first: number, next: number, lengthBytes: number): boolean {
  return (
    // The ports, then backwards what changes ever less: most frames of another flow differ in the first comparison.
    view.getInt32(next + 34) === view.getInt32(first + 34) &&
    view.getUint16(next + 16) === lengthBytes - ETHERNET_HEADER_BYTES &&
    view.getInt32(next + 30) === view.getInt32(first + 30) &&
    view.getInt32(next + 26) === view.getInt32(first + 26) &&
    view.getInt32(next + 20) === view.getInt32(first + 20) &&
    hasSameStart(view, first, next)
  );
}

/** As {@link hasSameHeaders4}, for IPv6 without extension headers, and PLAIN_TCP6_OFFSET + 4 bytes. */
export function hasSameHeaders6(view: DataView, first: number, next: number, lengthBytes: number): boolean {
  return (
    view.getInt32(next + 54) === view.getInt32(first + 54) &&
    view.getUint16(next + 18) === lengthBytes - PLAIN_TCP6_OFFSET &&
    view.getInt32(next + 50) === view.getInt32(first + 50) &&
    view.getInt32(next + 46) === view.getInt32(first + 46) &&
    view.getInt32(next + 42) === view.getInt32(first + 42) &&
    view.getInt32(next + 38) === view.getInt32(first + 38) &&
    view.getInt32(next + 34) === view.getInt32(first + 34) &&
    view.getInt32(next + 30) === view.getInt32(first + 30) &&
    view.getInt32(next + 26) === view.getInt32(first + 26) &&
    view.getInt32(next + 22) === view.getInt32(first + 22) &&
    view.getUint16(next + 20) === view.getUint16(first + 20) &&
    view.getUint16(next + 16) === view.getUint16(first + 16) &&
    hasSameStart(view, first, next)
  );
}

/** The Ethernet header and the first two bytes behind it: version, header length and traffic class. */
function hasSameStart(view: DataView, first: number, next: number): boolean {
  return (
    view.getInt32(next + 12) === view.getInt32(first + 12) &&
    view.getInt32(next + 8) === view.getInt32(first + 8) &&
    view.getInt32(next + 4) === view.getInt32(first + 4) &&
    view.getInt32(next) === view.getInt32(first)
  );
}
