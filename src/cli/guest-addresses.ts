/**
 * Which addresses the guest gets and what its special addresses stand for: options first, then the host's own, then fixed
 * link-local ones.
 *
 * - A family exists if the host has an address on the template interface, or the user gave one. If neither family does, the
 *   guest gets 169.254.2.1/16 with router 169.254.2.2, so that forwards and the host's loopback work on a host that is offline.
 * - The router is the host's; a template without one (a tunnel) gives 169.254.2.2 or fe80::1, which we answer for.
 * - A resolver that the guest could not reach as such (loopback, or the host address that the guest itself has) is told to
 *   the guest as the loopback alias, whose DNS ports then lead to it.
 */
import { PasselError } from '../base/errors.ts';
import { isLinkLocalIpv6, isLoopbackIp, isMappedIpv4, isSameIp, mapIpv4 } from '../base/ip-text.ts';
import type { FamilyAddresses } from '../forward/address-map.ts';
import type { Ipv4Config, Ipv6Config } from '../stack/config.ts';
import type { HostFacts } from '../sys/host-facts.ts';
import type { GivenOptions, Occurrence } from './options/definition.ts';
import type { NETWORK_OPTIONS } from './options/network-options.ts';

type Given = GivenOptions<typeof NETWORK_OPTIONS>;

export interface Families {
  readonly stack4: Ipv4Config | undefined;
  readonly stack6: Ipv6Config | undefined;
  readonly map4: FamilyAddresses | undefined;
  readonly map6: FamilyAddresses | undefined;
}

/** 169.254.2.1/16 and 169.254.2.2, passt's addresses for a host without a default route. */
const FALLBACK_ADDRESS_V4 = mapIpv4(0xa9fe0201);
const FALLBACK_ROUTER_V4 = mapIpv4(0xa9fe0202);
const FALLBACK_PREFIX_V4 = 16;
/** fe80::1 */
const FALLBACK_ROUTER_V6 = Uint32Array.of(0xfe800000, 0, 0, 1);
/** SLAAC works with /64 only (RFC 4862, 5.5.3 with RFC 4291, 2.5.1). */
const PREFIX_V6 = 64;

type Family = 4 | 6;
interface Basics {
  readonly address: Uint32Array;
  readonly prefixLength: number;
  readonly router: Uint32Array;
}

/** @throws PasselError PASSEL_E_NO_ADDRESS_FAMILY */
export function buildFamilies(given: Given, facts: HostFacts): Families {
  const basics4 = given.has('ipv6-only') ? undefined : pickBasics4(given, facts);
  const basics6 = given.has('ipv4-only') ? undefined : pickBasics6(given, facts);
  const offline = basics4 === undefined && basics6 === undefined;
  if (offline && given.has('ipv6-only')) {
    throw new PasselError(
      'PASSEL_E_NO_ADDRESS_FAMILY',
      { option: given.typed('ipv6-only'), family: 'IPv6', reason: 'no default route and no global address' },
      { hint: 'give the guest an address with --address' },
    );
  }
  const ipv4 = offline
    ? {
        address: FALLBACK_ADDRESS_V4,
        prefixLength: FALLBACK_PREFIX_V4,
        router: pickLast(given, 'gateway', 4) ?? FALLBACK_ROUTER_V4,
      }
    : basics4;
  const names4 = ipv4 && buildNames(given, facts, 4, ipv4);
  const names6 = basics6 && buildNames(given, facts, 6, basics6);
  return {
    map4: names4?.map,
    map6: names6?.map,
    stack4: ipv4 && {
      guestAddress: ipv4.address[3]!,
      prefixLength: ipv4.prefixLength,
      gateway: ipv4.router[3]!,
      resolvers: names4!.resolvers.map((words) => words[3]!),
      outboundAddress: pickLast(given, 'outbound', 4)?.[3] ?? 0,
      outboundInterface: given.last('outbound-if4') ?? '',
    },
    stack6: basics6 && {
      guestAddress: basics6.address,
      prefixLength: basics6.prefixLength,
      gateway: basics6.router,
      ourLinkLocal: isLinkLocalIpv6(basics6.router) ? basics6.router : (facts.ipv6?.linkLocal ?? FALLBACK_ROUTER_V6),
      resolvers: names6!.resolvers,
      outboundAddress: pickLast(given, 'outbound', 6),
      outboundInterface: given.last('outbound-if6') ?? '',
    },
  };
}

function pickBasics4(given: Given, facts: HostFacts): Basics | undefined {
  const chosen = given.all('address').findLast((a) => isMappedIpv4(a.parsed.address))?.parsed;
  const host = facts.ipv4;
  const address = chosen?.address ?? (host && mapIpv4(host.address));
  if (address === undefined) return undefined;
  const isHosts = host !== undefined && host.address === address[3];
  const prefixLength =
    chosen?.prefixLength ?? given.last('netmask') ?? (isHosts ? host.prefixLength : classPrefix(address[3]!));
  const hostRouter = host?.gateway === undefined ? undefined : mapIpv4(host.gateway);
  return { address, prefixLength, router: pickLast(given, 'gateway', 4) ?? hostRouter ?? FALLBACK_ROUTER_V4 };
}

function pickBasics6(given: Given, facts: HostFacts): Basics | undefined {
  const chosen = given.all('address').findLast((a) => !isMappedIpv4(a.parsed.address))?.parsed;
  const address = chosen?.address ?? facts.ipv6?.address;
  if (address === undefined) return undefined;
  const router = pickLast(given, 'gateway', 6) ?? facts.ipv6?.gateway ?? FALLBACK_ROUTER_V6;
  return { address, prefixLength: chosen?.prefixLength ?? PREFIX_V6, router };
}

/** The prefix of the address's historical class, which is what C falls back to. */
function classPrefix(address: number): number {
  if (address >>> 31 === 0) return 8;
  if (address >>> 30 === 2) return 16;
  return address >>> 29 === 6 ? 24 : 32;
}

type AddressOption = 'gateway' | 'outbound' | 'dns-forward' | 'dns-host';

function isOfFamily(words: Uint32Array, family: Family): boolean {
  return isMappedIpv4(words) === (family === 4);
}

/** The last value of this family; the options that may be given once per family all work like that. */
function pickLast(given: Given, name: AddressOption, family: Family): Uint32Array | undefined {
  return given.all(name).findLast((o) => isOfFamily(o.parsed, family))?.parsed;
}

/** As {@link pickLast} for options that also take `none`, which switches both families off unless a later value follows. */
function pickAlias(
  occurrences: readonly Occurrence<Uint32Array | undefined>[],
  family: Family,
): Uint32Array | null | undefined {
  const last = occurrences.findLast((o) => o.parsed === undefined || isOfFamily(o.parsed, family));
  return last === undefined ? undefined : (last.parsed ?? null);
}

interface Names {
  readonly map: FamilyAddresses;
  readonly resolvers: readonly Uint32Array[];
}

function buildNames(given: Given, facts: HostFacts, family: Family, basics: Basics): Names {
  const loopbackOption = pickAlias(given.all('map-host-loopback'), family);
  const defaultAlias = given.has('no-map-gw') ? undefined : basics.router;
  const loopbackAlias = loopbackOption === null ? undefined : (loopbackOption ?? defaultAlias);
  const guestAlias = pickAlias(given.all('map-guest-addr'), family) ?? undefined;

  const hostResolvers = facts.resolvers.filter((words) => isOfFamily(words, family));
  const isHidden = (words: Uint32Array): boolean => isLoopbackIp(words) || isSameIp(words, basics.address);
  const dnsForward = pickLast(given, 'dns-forward', family);
  const chosen = given.all('dns');
  const hidden = chosen.length === 0 ? hostResolvers.find(isHidden) : undefined;
  // The alias of a hidden resolver: the user's own DNS address where there is one, else that of loopback.
  const hiddenAlias = dnsForward ?? loopbackAlias;
  const dnsAlias = dnsForward ?? (hidden === undefined ? undefined : hiddenAlias);
  const dnsHost =
    pickLast(given, 'dns-host', family) ?? (dnsForward === undefined ? hidden : undefined) ?? hostResolvers[0];

  const resolvers: Uint32Array[] = [];
  const addResolver = (words: Uint32Array | undefined): void => {
    if (words !== undefined && !resolvers.some((r) => isSameIp(r, words))) resolvers.push(words);
  };
  if (chosen.length > 0) for (const words of chosenResolvers(chosen)) if (isOfFamily(words, family)) addResolver(words);
  if (chosen.length === 0) for (const words of hostResolvers) addResolver(isHidden(words) ? hiddenAlias : words);

  return {
    map: { guest: basics.address, router: basics.router, loopbackAlias, guestAlias, dnsAlias, dnsHost },
    resolvers,
  };
}

/** `none` clears what came before it. */
function chosenResolvers(chosen: readonly Occurrence<Uint32Array | undefined>[]): Uint32Array[] {
  let list: Uint32Array[] = [];
  for (const { parsed } of chosen) list = parsed === undefined ? [] : [...list, parsed];
  return list;
}
