/**
 * Several guests on one network of `--user-net`: the first has the address where leases start, and each further one the next that is free.
 * Which one that is depends on nothing but the command line, so a guest finds its address again after a restart of either side, whatever its
 * MAC address is. Machines with addresses of their own, by MAC, have them on whichever link they are.
 */
import { PasselError } from '../../base/errors.ts';
import { formatIp, formatIpv4, isLinkLocalIpv6, isMappedIpv4, isSameIp, mapIpv4 } from '../../base/ip-text.ts';
import { isOnLink } from '../../forward/address-map.ts';
import type { UserNet, UserNetV4 } from '../../qemu/user-net/user-net.ts';
import type { NetworkConfig } from '../network-config.ts';
import type { GivenLease } from '../options/guests-options.ts';
import { applyUserNet } from './user-net-config.ts';

/** Addresses that somebody is to have: a guest by its name, or a machine by its MAC. */
export interface StaticLease extends Pick<GivenLease, 'guest' | 'mac' | 'ipv4' | 'ipv6'> {
  /** As it was given, for messages. */
  readonly typed: string;
  readonly text: string;
}

/**
 * What each of the guests is told, in the order of `names`.
 * @param network - without the addresses of `userNet`
 * @throws PasselError when an address cannot be a guest's, or there are none left
 */
export function placeGuests(
  network: NetworkConfig,
  userNet: UserNet,
  resolvers: readonly Uint32Array[],
  names: readonly string[],
  leases: readonly StaticLease[],
): NetworkConfig[] {
  const { ipv4, ipv6 } = userNet;
  checkOwners(leases, names);
  const addresses = ipv4 === undefined ? [] : chooseAddresses(ipv4, reservedAddresses(userNet), names, leases);
  const lease4 = leases.find((lease) => lease.ipv4 !== undefined);
  if (ipv4 === undefined && lease4 !== undefined) refuse(lease4, 'no addresses of IPv4, which is switched off');
  const ownAddresses = [
    ...(ipv4 === undefined ? [] : [mapIpv4(ipv4.host), mapIpv4(ipv4.dns)]),
    ...serverAddresses(userNet),
    ...(ipv6 === undefined ? [] : [ipv6.host, ipv6.dns]),
  ];
  const macLeases = leases.flatMap((lease) =>
    lease.mac === undefined ? [] : [{ macHi: lease.mac.hi, macLo: lease.mac.lo, ipv4: lease.ipv4, ipv6: lease.ipv6 }],
  );
  const placed = names.map((name, number) => {
    const own: UserNet = {
      ...userNet,
      hostname: name,
      ipv4: ipv4 && { ...ipv4, dhcpStart: addresses[number]! },
    };
    const guest = applyUserNet(network, own, resolvers, number);
    return { ...guest, stack: { ...guest.stack, ownAddresses, macLeases } };
  });
  checkAddresses6(leases, placed, ipv6);
  return placed.map((guest, number) => {
    const address = leases.find((lease) => lease.guest === names[number] && lease.ipv6 !== undefined)?.ipv6;
    return address === undefined ? guest : withAddress6(guest, address);
  });
}

function checkOwners(leases: readonly StaticLease[], names: readonly string[]): void {
  for (const [number, lease] of leases.entries()) {
    const { guest, mac } = lease;
    if (guest !== undefined && !names.includes(guest))
      refuse(lease, `a guest's name, ${names.join(', ')}, or a MAC address`);
    const isSame = (other: StaticLease): boolean =>
      guest === undefined ? mac?.hi === other.mac?.hi && mac?.lo === other.mac?.lo : guest === other.guest;
    if (leases.slice(0, number).some(isSame)) refuse(lease, `one ${lease.typed} for each`);
  }
}

/** @throws PasselError for an address of IPv6 that is outside of the network, ours, or anybody else's */
function checkAddresses6(leases: readonly StaticLease[], placed: readonly NetworkConfig[], net: UserNet['ipv6']): void {
  const taken = [...(placed[0]?.stack.ownAddresses ?? [])];
  const leased = leases.filter((lease) => lease.ipv6 !== undefined);
  for (const { stack } of placed) {
    // Who has no address of its own keeps the one of its place.
    const isFixed = leased.some(({ guest }) => guest === stack.hostname);
    if (stack.ipv6 !== undefined && !isFixed) taken.push(stack.ipv6.guestAddress);
  }
  for (const lease of leased) {
    const address = lease.ipv6!;
    if (net === undefined) refuse(lease, 'no addresses of IPv6, which is switched off');
    if (isLinkLocalIpv6(address) || !isOnLink(address, { address: net.network, prefixLength: net.prefixLength })) {
      refuse(lease, `an address of ${formatIp(net.network)}/${net.prefixLength}`);
    }
    if (taken.some((each) => isSameIp(each, address))) refuse(lease, 'an address that nobody else has');
    taken.push(address);
  }
}

function withAddress6(guest: NetworkConfig, address: Uint32Array): NetworkConfig {
  const { stack, addressMap } = guest;
  return {
    ...guest,
    stack: { ...stack, ipv6: stack.ipv6 && { ...stack.ipv6, guestAddress: address } },
    addressMap: { ...addressMap, ipv6: addressMap.ipv6 && { ...addressMap.ipv6, guest: address } },
  };
}

/** Addresses of the network that cannot be a guest's, whoever asks. */
function reservedAddresses(userNet: UserNet): Set<number> {
  const { ipv4 } = userNet;
  if (ipv4 === undefined) return new Set();
  const services = serverAddresses(userNet)
    .filter(isMappedIpv4)
    .map((address) => address[3]!);
  return new Set([ipv4.network, ipv4.host, ipv4.dns, lastAddress(ipv4), ...services]);
}

/** Where services are, 4 words each. */
function serverAddresses({ guestForwards, smbFolder, smbServer }: UserNet): Uint32Array[] {
  return [...guestForwards.map(({ address }) => address), ...(smbFolder === '' ? [] : [smbServer])];
}

function chooseAddresses(
  net: UserNetV4,
  taken: Set<number>,
  names: readonly string[],
  leases: readonly StaticLease[],
): number[] {
  const given = new Map<string, number>();
  for (const lease of leases) {
    const { guest, ipv4: address } = lease;
    if (address === undefined) continue;
    if (address < net.network || address > lastAddress(net)) {
      refuse(lease, `an address of ${formatIpv4(net.network)}/${net.prefixLength}`);
    }
    if (taken.has(address)) refuse(lease, 'an address that nobody else has');
    taken.add(address);
    if (guest !== undefined) given.set(guest, address);
  }
  let next = net.dhcpStart;
  return names.map((name) => {
    const own = given.get(name);
    if (own !== undefined) return own;
    while (taken.has(next)) next++;
    if (next > lastAddress(net)) {
      const values = { option: '--netdev', value: name, expected: `fewer guests: there is no address left for it` };
      throw new PasselError('PASSEL_E_OPTION_VALUE', values);
    }
    return next++;
  });
}

/** The network's broadcast address. */
function lastAddress({ network, prefixLength }: UserNetV4): number {
  return (network | (0xffffffff >>> prefixLength)) >>> 0;
}

function refuse({ typed, text }: StaticLease, expected: string): never {
  throw new PasselError('PASSEL_E_OPTION_VALUE', { option: typed, value: text, expected });
}
