/**
 * What a namespace is given besides one address and a default route: the other addresses and the other routes of the host's template
 * interface. Read from /proc; no netlink.
 */
import { endianness } from 'node:os';
import { formatIp, formatIpv4 } from '../base/ip-text.ts';
import type { HostSources } from './host-facts.ts';
import type { TapAddress, TapRoute } from './namespace.ts';
import { parseIpv6Addresses } from './proc-addresses.ts';
import { parseHexIpv6 } from './proc-routes.ts';

// Flags of linux/route.h and linux/ipv6_route.h.
const RTF_UP = 0x0001;
const RTF_GATEWAY = 0x0002;
const RTF_REJECT = 0x0200;
const RTF_ADDRCONF = 0x0004_0000;
const RTF_CACHE = 0x0100_0000;
const RTF_LOCAL = 0x8000_0000;
/** The kernel keeps link-local and multicast routes of each interface itself. */
const OWN_V6 = /^f[ef]/;

/** All IPv4 addresses of an interface. */
export function listIpv4Addresses(interfaceName: string, sources: HostSources): TapAddress[] {
  return sources
    .listIpv4(interfaceName)
    .map(({ address, prefixLength }) => ({ address: formatIpv4(address), prefixLength }));
}

/** All IPv6 addresses of an interface but link-local ones. */
export function listIpv6Addresses(interfaceName: string, sources: HostSources): TapAddress[] {
  return parseIpv6Addresses(sources.readText('/proc/net/if_inet6') ?? '')
    .filter((entry) => entry.interfaceName === interfaceName && !entry.isLinkLocal)
    .map(({ address, prefixLength }) => ({ address: formatIp(address), prefixLength }));
}

/**
 * Routes of an interface but default routes and those that come with its addresses; those on link first, since gateways are reached by
 * them. Columns: see proc-routes.ts.
 */
export function listIpv4Routes(interfaceName: string, sources: HostSources): TapRoute[] {
  const routes: TapRoute[] = [];
  const own = sources.listIpv4(interfaceName).map(({ address, prefixLength }) => {
    const network = prefixLength === 0 ? 0 : address & (-1 << (32 - prefixLength));
    return `${formatIpv4(network >>> 0)}/${prefixLength}`;
  });
  for (const line of (sources.readText('/proc/net/route') ?? '').split('\n').slice(1)) {
    const columns = line.trim().split(/\s+/);
    const [name, destination = '', gateway = '', flagsHex = '', , , metric, mask = ''] = columns;
    const flags = Number.parseInt(flagsHex, 16);
    const prefixLength = countOnes(Number.parseInt(mask, 16));
    if (name !== interfaceName || !(flags & RTF_UP) || flags & RTF_REJECT || prefixLength === 0) continue;
    const address = readMachineIpv4(destination);
    if (!(flags & RTF_GATEWAY) && own.includes(`${address}/${prefixLength}`)) continue;
    routes.push({
      address,
      prefixLength,
      gateway: flags & RTF_GATEWAY ? readMachineIpv4(gateway) : undefined,
      metric: Number(metric),
      optional: true,
    });
  }
  return routes.sort(byDirectness);
}

/** As {@link listIpv4Routes}; those that the kernel or router advertisements made are left out. */
export function listIpv6Routes(interfaceName: string, sources: HostSources): TapRoute[] {
  const routes: TapRoute[] = [];
  for (const line of (sources.readText('/proc/net/ipv6_route') ?? '').split('\n')) {
    const [destination = '', length = '', , , nextHop = '', metric = '', , , flagsHex = '', name] = line
      .trim()
      .split(/\s+/);
    const flags = Number.parseInt(flagsHex, 16);
    const prefixLength = Number.parseInt(length, 16);
    if (name !== interfaceName || !(flags & RTF_UP) || prefixLength === 0 || OWN_V6.test(destination)) continue;
    if (flags & (RTF_REJECT | RTF_ADDRCONF | RTF_CACHE | RTF_LOCAL)) continue;
    routes.push({
      address: formatIp(parseHexIpv6(destination)),
      prefixLength,
      gateway: flags & RTF_GATEWAY ? formatIp(parseHexIpv6(nextHop)) : undefined,
      metric: Number.parseInt(metric, 16),
      optional: true,
    });
  }
  return routes.sort(byDirectness);
}

function byDirectness(a: TapRoute, b: TapRoute): number {
  return Number(a.gateway !== undefined) - Number(b.gateway !== undefined);
}

function countOnes(mask: number): number {
  let ones = 0;
  for (let rest = mask >>> 0; rest !== 0; rest >>>= 1) ones += rest & 1;
  return ones;
}

function readMachineIpv4(hex: string): string {
  const bytes = hex.match(/../g) ?? [];
  if (endianness() === 'LE') bytes.reverse();
  return bytes.map((byte) => Number.parseInt(byte, 16)).join('.');
}
