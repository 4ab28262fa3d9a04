/**
 * What the host's network looks like, for giving the guest the same: the interface with the default route, its addresses,
 * router, and the resolvers. Read once at start-up from /proc and /etc; no netlink, so that a sandbox needs no exception for
 * it, and nothing of /sys, which shows the network namespace that it was mounted in and not the one that this process is in.
 *
 * Like passt(1), the interface is chosen for each family on its own, `--interface` overrules both, and a family without a
 * default route has no template: callers then fall back to link-local addresses.
 */
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { parseIpv4 } from '../base/ip-text.ts';
import { parseIpv6Addresses } from './proc-addresses.ts';
import { parseIpv4DefaultRoutes, parseIpv6DefaultRoutes } from './proc-routes.ts';
import { parseResolvConf, type ResolverConfig } from './resolv-conf.ts';

interface TemplateInterface {
  readonly interfaceName: string;
  readonly prefixLength: number;
}

export interface Ipv4Facts extends TemplateInterface {
  /** uint32 */
  readonly address: number;
  /** uint32; undefined for a route without a gateway. */
  readonly gateway: number | undefined;
}

export interface Ipv6Facts extends TemplateInterface {
  readonly interfaceIndex: number;
  /** A global or unique-local address, 4 words. */
  readonly address: Uint32Array;
  readonly gateway: Uint32Array | undefined;
  /** The interface's own link-local address. */
  readonly linkLocal: Uint32Array | undefined;
}

export interface HostFacts extends ResolverConfig {
  /** Undefined: no template for this family. */
  readonly ipv4: Ipv4Facts | undefined;
  readonly ipv6: Ipv6Facts | undefined;
}

export interface Ipv4InterfaceAddress {
  /** uint32 */
  readonly address: number;
  readonly prefixLength: number;
}

/** Where facts come from; tests hand in their own. */
export interface HostSources {
  /** The text of a file, or undefined when there is none. */
  readText(path: string): string | undefined;
  /** IPv4 addresses of an interface, primary first. */
  listIpv4(interfaceName: string): readonly Ipv4InterfaceAddress[];
}

export interface HostFactsOptions {
  /** `--interface`, or `--outbound-if4/6` per family: take this interface instead of the one with the default route. */
  readonly interface4?: string;
  readonly interface6?: string;
}

/** Sources of the running host. */
export const systemSources: HostSources = {
  readText(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
  },
  listIpv4(interfaceName) {
    return (networkInterfaces()[interfaceName] ?? [])
      .filter((entry) => entry.family === 'IPv4')
      .map((entry) => ({ address: parseIpv4(entry.address)!, prefixLength: Number(entry.cidr?.split('/')[1] ?? 32) }));
  },
};

/** Collects the facts. Never throws: what cannot be read is absent. */
export function readHostFacts(options: HostFactsOptions = {}, sources: HostSources = systemSources): HostFacts {
  return {
    ipv4: readIpv4Facts(options.interface4, sources),
    ipv6: readIpv6Facts(options.interface6, sources),
    ...parseResolvConf(sources.readText('/etc/resolv.conf') ?? ''),
  };
}

/** Whether the host has an interface of this name. */
export function hasInterface(name: string, sources: HostSources = systemSources): boolean {
  const lines = (sources.readText('/proc/net/dev') ?? '').split('\n');
  return lines.some((line) => line.trimStart().startsWith(`${name}:`));
}

function readIpv4Facts(wanted: string | undefined, sources: HostSources): Ipv4Facts | undefined {
  const routes = parseIpv4DefaultRoutes(sources.readText('/proc/net/route') ?? '');
  const route = routes.find((r) => wanted === undefined || r.interfaceName === wanted);
  const interfaceName = wanted ?? route?.interfaceName;
  if (interfaceName === undefined) return undefined;
  const primary = sources.listIpv4(interfaceName)[0];
  if (primary === undefined) return undefined;
  return { interfaceName, ...primary, gateway: route?.gateway };
}

function readIpv6Facts(wanted: string | undefined, sources: HostSources): Ipv6Facts | undefined {
  const routes = parseIpv6DefaultRoutes(sources.readText('/proc/net/ipv6_route') ?? '');
  const route = routes.find((r) => wanted === undefined || r.interfaceName === wanted);
  const interfaceName = wanted ?? route?.interfaceName;
  if (interfaceName === undefined) return undefined;
  const all = parseIpv6Addresses(sources.readText('/proc/net/if_inet6') ?? '').filter(
    (a) => a.interfaceName === interfaceName,
  );
  // The most specific address is one that somebody assigned to this host (DHCPv6 leases are /128), so it goes first, as in C.
  const [best] = all.filter((a) => !a.isLinkLocal).sort((a, b) => b.prefixLength - a.prefixLength);
  if (best === undefined) return undefined;
  return {
    interfaceName,
    interfaceIndex: best.interfaceIndex,
    address: best.address,
    prefixLength: best.prefixLength,
    gateway: route?.gateway,
    linkLocal: all.find((a) => a.isLinkLocal)?.address,
  };
}
