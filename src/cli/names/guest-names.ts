/** The names of a network: its guests', with the addresses that they have now, and those that the command line adds. */
import { isSameIp } from '../../base/ip-text.ts';
import { type AddressMapConfig, isOnLink } from '../../forward/address-map.ts';
import type { OwnRecords } from '../../forward/dns/own-names.ts';
import type { GuestSide } from '../guest-side.ts';

/** A guest by its name, in lower case. */
export interface NamedGuest {
  readonly name: string;
  readonly stack: GuestSide['stack'];
}

/** A name of the command line, in lower case. */
export interface StaticName {
  readonly name: string;
  readonly address: Uint32Array;
}

/**
 * @param guests - may be filled later
 * @param domain - a name stands for the same with this behind it; empty: none
 * @param networks - by their own networks, if they have any, it is known which addresses nobody else has names for
 */
export function createGuestNames(
  guests: readonly NamedGuest[],
  domain: string,
  statics: readonly StaticName[],
  { ipv4, ipv6 }: Pick<AddressMapConfig, 'ipv4' | 'ipv6'>,
): OwnRecords {
  const own = [ipv4?.ownNetwork, ipv6?.ownNetwork].filter((network) => network !== undefined);
  const suffix = domain === '' ? '' : `.${domain.toLowerCase()}`;
  const full = (name: string): string => `${name}${name.includes('.') ? '' : suffix}`;
  return {
    domain: domain.toLowerCase(),
    isOwnAddress: (address) => own.some((network) => isOnLink(address, network)),
    addressesOf(asked) {
      const isInDomain = suffix !== '' && asked.endsWith(suffix);
      const name = isInDomain ? asked.slice(0, -suffix.length) : asked;
      const added = statics.filter((each) => each.name === asked || each.name === name).map(({ address }) => address);
      const guest = guests.find((each) => each.name === name);
      if (guest !== undefined) return [...addressesOf(guest.stack), ...added];
      return added.length > 0 ? added : undefined;
    },
    nameOf(address) {
      const guest = guests.find(({ stack }) => addressesOf(stack).some((own) => isSameIp(own, address)));
      const name = guest?.name ?? statics.find((each) => isSameIp(each.address, address))?.name;
      return name === undefined ? undefined : full(name);
    },
  };
}

/** An IPv6 address counts when the guest was seen with it: whether it takes the one of DHCPv6 or makes one is its own choice. */
function addressesOf({ guest, config }: GuestSide['stack']): Uint32Array[] {
  const { ipv4, ipv6 } = config;
  const isSeen = ipv6 !== undefined && (!Number.isNaN(guest.leased6Ms) || !isSameIp(guest.ipv6, ipv6.guestAddress));
  return [...(ipv4 === undefined ? [] : [guest.ipv4]), ...(isSeen ? [guest.ipv6] : [])];
}
