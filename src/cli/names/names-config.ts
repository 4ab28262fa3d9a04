/** What options and host facts mean for the names of a network. Pure. */
import { isSameIp, mapIpv4 } from '../../base/ip-text.ts';
import { createAddressMap } from '../../forward/address-map.ts';
import type { DnsRoute, DnsServer } from '../../forward/dns/routes.ts';
import type { UserNet } from '../../qemu/user-net/user-net.ts';
import { DNS_PORT } from '../../stack/dns.ts';
import { MAP_REFUSED } from '../../stack/ports.ts';
import type { HostFacts } from '../../sys/host-facts.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ip-protocol.ts';
import type { NamesConfig, NetworkConfig } from '../network-config.ts';
import type { GivenOptions } from '../options/definition.ts';
import type { PasstOptionTable } from '../options/passt-options.ts';

type Given = GivenOptions<PasstOptionTable>;

const HOSTS_PATH = '/etc/hosts';

/** @returns undefined when nothing asks for names of the network's own: the guest then asks the host's resolvers itself */
export function buildNames(
  given: Given,
  network: NetworkConfig,
  facts: HostFacts,
  userNet: UserNet | undefined,
): NamesConfig | undefined {
  const leased = given.all('lease').flatMap(({ parsed: { dnsName, ipv4, ipv6 } }) =>
    dnsName === undefined
      ? []
      : [...(ipv4 === undefined ? [] : [mapIpv4(ipv4)]), ...(ipv6 === undefined ? [] : [ipv6])].map((address) => ({
          name: dnsName,
          address,
        })),
  );
  const statics = [...given.all('dns-record').map(({ parsed }) => parsed), ...leased];
  const hosts = given.last('dns-hosts');
  const isSeveral = given.all('netdev').length > 1;
  const asksForHosts = hosts !== undefined && hosts !== 'none';
  if (!isSeveral && statics.length === 0 && !given.gave('dns-server') && !asksForHosts) return undefined;
  // Who may reach nothing is told nothing about the host either, unless somebody says so.
  const isRestricted = network.addressMap.isRestricted === true;
  const hostsPath = hosts ?? (isRestricted ? 'none' : HOSTS_PATH);
  return {
    domain: userNet?.domainName ?? '',
    statics,
    routes: buildRoutes(given, network, facts, userNet !== undefined),
    hostsPath: hostsPath === 'none' ? undefined : hostsPath,
  };
}

function buildRoutes(given: Given, network: NetworkConfig, facts: HostFacts, isUserNet: boolean): DnsRoute[] {
  const servers = new Map<string, DnsServer[]>();
  for (const { parsed } of given.all('dns-server')) {
    const { domain, server } = parsed;
    servers.set(domain, server === undefined ? [] : [...(servers.get(domain) ?? []), server]);
  }
  const isRestricted = network.addressMap.isRestricted === true;
  if (!isRestricted && !servers.has('')) servers.set('', hostResolvers(given, network, facts, isUserNet));
  const routes = [...servers].map(([domain, list]) => ({ domain, servers: list }));
  return isRestricted ? routes.filter((route) => route.servers.length === 0) : routes;
}

/** What the guest would reach at the addresses that it was told; behind the one address of `--user-net`, all resolvers of the host. */
function hostResolvers(given: Given, network: NetworkConfig, facts: HostFacts, isUserNet: boolean): DnsServer[] {
  const { ipv4, ipv6 } = network.stack;
  const map = createAddressMap(network.addressMap);
  const told = [
    ...(ipv4?.resolvers ?? []).map((address) => Uint32Array.of(0, 0, 0xffff, address)),
    ...(ipv6?.resolvers ?? []),
  ];
  const found: Uint32Array[] = [];
  const add = (address: Uint32Array): void => {
    if (!found.some((each) => isSameIp(each, address))) found.push(address);
  };
  for (const each of told) {
    const address = each.slice();
    if (map.toHost(address, DNS_PORT, IP_PROTOCOL_UDP) !== MAP_REFUSED) add(address);
  }
  if (isUserNet && !given.gave('dns-host')) facts.resolvers.forEach(add);
  return found.map((address) => ({ address, port: DNS_PORT }));
}
