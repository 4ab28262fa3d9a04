/**
 * Bounds for builders that append piece by piece (options of NDP, DHCP and DHCPv6, DNS names).
 *
 * Every such writer takes the offset `at` where it shall write and the exclusive `end` of the room, and returns the offset behind
 * what it wrote, or a negative status. A negative `at` is passed through untouched, so a chain of writers needs one check at its
 * end; keep the last good offset to leave out just the piece that did not fit.
 */
import { WIRE_BAD_LENGTH } from './status.ts';

/** @returns `at` if `needed` bytes fit below `end`, WIRE_BAD_LENGTH if not, `at` itself if it is a status already */
export function checkRoom(at: number, end: number, needed: number): number {
  return at >= 0 && end - at < needed ? WIRE_BAD_LENGTH : at;
}
