/**
 * Hosts files (hosts(5)): names with their addresses, as the host itself has them.
 *
 * What a name leads to is what the guest reaches it by: an address of the host's that the guest cannot use as such, loopback above all, is
 * replaced by the one that stands for it. Names of loopback itself (`localhost` and its kin) are left out: every machine has its own.
 */
import { formatIp, parseIp } from '../../base/ip-text.ts';
import type { NameRecords } from './own-names.ts';

/** Lines that name loopback itself, with the suffixes that distributions have. */
const LOOPBACK_NAME = /^(localhost|ip6-localhost|ip6-loopback)(\d|\.|$)/;
const NAME = /^[a-z\d_]([a-z\d_.-]{0,251}[a-z\d_])?$/;
/** More is no list that somebody made for machines to be found by. */
const ENTRIES_MAX = 200_000;

/**
 * Reads a hosts file. Lines that are none are passed over, as the C library does.
 * @param toGuest - the address by which the guest reaches what the host reaches by this one; undefined: it cannot
 */
export function parseHosts(text: string, toGuest: (address: Uint32Array) => Uint32Array | undefined): NameRecords {
  const addresses = new Map<string, Uint32Array[]>();
  const names = new Map<string, string>();
  let count = 0;
  for (const line of text.split('\n')) {
    if (count >= ENTRIES_MAX) break;
    const [addressText, ...words] = line.replace(/#.*/, '').trim().toLowerCase().split(/\s+/);
    const given = parseIp(addressText ?? '');
    const address = given === undefined ? undefined : toGuest(given);
    if (address === undefined) continue;
    for (const word of words) {
      const name = word.replace(/\.$/, '');
      if (!NAME.test(name) || LOOPBACK_NAME.test(name)) continue;
      count++;
      const known = addresses.get(name);
      if (known === undefined) addresses.set(name, [address]);
      else known.push(address);
      // The first name of an address is its own, the others are aliases.
      const key = formatIp(address);
      if (!names.has(key)) names.set(key, name);
    }
  }
  return {
    addressesOf: (name) => addresses.get(name),
    nameOf: (address) => names.get(formatIp(address)),
  };
}
