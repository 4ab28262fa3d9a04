/**
 * Several guests on one network of `--user-net`: the first has the address where leases start, and each further one the next that is free.
 * Which one that is depends on nothing but the command line, so a guest finds its address again after a restart of either side, whatever its
 * MAC address is.
 */
import { PasselError } from '../../base/errors.ts';
import { formatIpv4, mapIpv4 } from '../../base/ip-text.ts';
import type { UserNet, UserNetV4 } from '../../qemu/user-net/user-net.ts';
import type { NetworkConfig } from '../network-config.ts';
import { applyUserNet } from './user-net-config.ts';

/** An address that a guest is to have, by its name. */
export interface StaticLease {
  readonly name: string;
  /** uint32 */
  readonly address: number;
  /** As it was given, for messages. */
  readonly typed: string;
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
  const addresses = ipv4 === undefined ? [] : chooseAddresses(ipv4, reservedAddresses(userNet), names, leases);
  if (ipv4 === undefined && leases[0] !== undefined) refuse(leases[0], 'no addresses of IPv4, which is switched off');
  const ownAddresses = [
    ...(ipv4 === undefined ? [] : [mapIpv4(ipv4.host), mapIpv4(ipv4.dns)]),
    ...userNet.guestForwards.map(({ address }) => mapIpv4(address)),
    ...(ipv6 === undefined ? [] : [ipv6.host, ipv6.dns]),
  ];
  return names.map((name, number) => {
    const own: UserNet = {
      ...userNet,
      hostname: name,
      ipv4: ipv4 && { ...ipv4, dhcpStart: addresses[number]! },
    };
    const placed = applyUserNet(network, own, resolvers, number);
    return { ...placed, stack: { ...placed.stack, ownAddresses } };
  });
}

/** Addresses of the network that cannot be a guest's, whoever asks. */
function reservedAddresses({ ipv4, guestForwards }: UserNet): Set<number> {
  if (ipv4 === undefined) return new Set();
  const services = guestForwards.map(({ address }) => address);
  return new Set([ipv4.network, ipv4.host, ipv4.dns, lastAddress(ipv4), ...services]);
}

function chooseAddresses(
  net: UserNetV4,
  taken: Set<number>,
  names: readonly string[],
  leases: readonly StaticLease[],
): number[] {
  const given = new Map<string, number>();
  for (const lease of leases) {
    const { name, address } = lease;
    if (!names.includes(name)) refuse(lease, `a guest's name: ${names.join(', ')}`);
    if (given.has(name)) refuse(lease, 'one address for a guest');
    if (address < net.network || address > lastAddress(net)) {
      refuse(lease, `an address of ${formatIpv4(net.network)}/${net.prefixLength}`);
    }
    if (taken.has(address)) refuse(lease, 'an address that nobody else has');
    taken.add(address);
    given.set(name, address);
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

function refuse({ typed, name, address }: StaticLease, expected: string): never {
  throw new PasselError('PASSEL_E_OPTION_VALUE', { option: typed, value: `${name}=${formatIpv4(address)}`, expected });
}
