/** Whose addresses there are on a link with several guests. */
import { isSameIp } from '../base/ip-text.ts';

const IPV6_LINK_LOCAL_BITS = 10;
const IPV6_LINK_LOCAL = Uint32Array.of(0xfe80_0000, 0, 0, 0);

/**
 * Whether an address is one that only its owner answers for: it lies in the guest's network or is link-local, and is not ours.
 * @param network - 4 words; those bits behind the prefix do not matter
 * @param prefixLength - 0 … 128; an IPv4 network counts from bit 96
 * @param own - addresses that are ours; undefined: the guest is alone, and nobody else answers for anything
 */
export function isNeighbours(
  address: Uint32Array,
  network: Uint32Array,
  prefixLength: number,
  own: readonly Uint32Array[] | undefined,
): boolean {
  if (own === undefined) return false;
  const isOnLink =
    sharesPrefix(address, network, prefixLength) || sharesPrefix(address, IPV6_LINK_LOCAL, IPV6_LINK_LOCAL_BITS);
  return isOnLink && !own.some((each) => isSameIp(each, address));
}

function sharesPrefix(a: Uint32Array, b: Uint32Array, prefixLength: number): boolean {
  for (let i = 0, left = prefixLength; i < 4 && left > 0; i++, left -= 32) {
    const mask = left >= 32 ? 0xffffffff : ~(0xffffffff >>> left);
    if (((a[i]! ^ b[i]!) & mask) !== 0) return false;
  }
  return true;
}
