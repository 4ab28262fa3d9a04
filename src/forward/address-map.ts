/**
 * Address translation between what the guest uses and what the host is asked for.
 *
 * The guest usually has the host's own address, so three things need another name: the host's loopback, the host itself, and
 * a resolver that only the host can reach. Guest → host, first match wins:
 *
 * 1. destination is a DNS alias and the port is 53 or 853: the resolver behind it;
 * 2. destination is the loopback alias (by default the gateway): 127.0.0.1 or ::1;
 * 3. destination is the guest alias: the host's address that the guest's own one hides;
 * 4. loopback and unspecified destinations: refused, since a guest must not reach the host's loopback by naming it;
 * 5. other destinations in a network that is the guest's own (`-netdev user`): refused, nobody is there;
 * 6. anything else as it is.
 *
 * Where the guest is restricted, all is refused: only what the host begins reaches it.
 *
 * Host → guest (who a connection comes from): loopback appears as the loopback alias, the guest's own address as the guest
 * alias; where there is no alias, as the router, because the guest could not answer either of them. passt(1) has the same
 * rules.
 *
 * These functions run for each new flow, not for each packet, and allocate nothing.
 */
import { isLinkLocalIpv6, isLoopbackIp, isMappedIpv4, isSameIp, isUnspecifiedIp } from '../base/ip-text.ts';
import type { AddressMap } from '../stack/ports.ts';
import { MAP_AS_IS, MAP_REFUSED, MAP_REWRITTEN } from '../stack/ports.ts';

/** RFC 1035 and RFC 7858. */
const PORT_DNS = 53;
const PORT_DNS_TLS = 853;
const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;

/** The addresses of one family; all as 4 words. */
export interface FamilyAddresses {
  /** The guest's configured address. */
  readonly guest: Uint32Array;
  /** Our address on the guest's link: what the host appears as when nothing else fits. */
  readonly router: Uint32Array;
  /** Guest-side name of the host's loopback; undefined: none. */
  readonly loopbackAlias: Uint32Array | undefined;
  /** Guest-side name of the host address that equals the guest's own; undefined: none. */
  readonly guestAlias: Uint32Array | undefined;
  /** Guest-side address whose DNS ports lead to `dnsHost`; undefined: none. */
  readonly dnsAlias: Uint32Array | undefined;
  /** Host-side resolver. May be of the other family: the map rewrites the address as a whole. */
  readonly dnsHost: Uint32Array | undefined;
  /**
   * The guest's network where it is none of the host's: nobody but the names above is in it, nor on the link. The length counts from the
   * first of the 128 bits. Left out: the guest's addresses are among the host's.
   */
  readonly ownNetwork?: { readonly address: Uint32Array; readonly prefixLength: number };
}

export interface AddressMapConfig {
  readonly ipv4: FamilyAddresses | undefined;
  readonly ipv6: FamilyAddresses | undefined;
  /** Interface index for link-local IPv6 destinations on the host side, 0 if none. */
  readonly linkLocalScopeId: number;
  /** The guest may begin nothing. */
  readonly isRestricted?: boolean;
}

/** 127.0.0.1 and ::1. */
const LOOPBACK_V4 = Uint32Array.of(0, 0, 0xffff, 0x7f000001);
const LOOPBACK_V6 = Uint32Array.of(0, 0, 0, 1);

/** Builds the address map of one guest. */
export function createAddressMap(config: AddressMapConfig): AddressMap {
  return {
    linkLocalScopeId: config.linkLocalScopeId,
    toHost: (address, port, protocol) => mapToHost(config, address, port, protocol),
    toGuest: (address) => mapToGuest(config, address),
  };
}

function mapToHost(config: AddressMapConfig, address: Uint32Array, port: number, protocol: number): number {
  if (config.isRestricted === true) return MAP_REFUSED;
  const family = isMappedIpv4(address) ? config.ipv4 : config.ipv6;
  if (family !== undefined) {
    const { dnsAlias, dnsHost, loopbackAlias, guestAlias } = family;
    if (dnsAlias !== undefined && dnsHost !== undefined && isDns(port, protocol) && isSameIp(address, dnsAlias)) {
      address.set(dnsHost);
      return MAP_REWRITTEN;
    }
    if (loopbackAlias !== undefined && isSameIp(address, loopbackAlias)) {
      address.set(isMappedIpv4(address) ? LOOPBACK_V4 : LOOPBACK_V6);
      return MAP_REWRITTEN;
    }
    if (guestAlias !== undefined && isSameIp(address, guestAlias)) {
      address.set(family.guest);
      return MAP_REWRITTEN;
    }
    if (family.ownNetwork !== undefined && isOnLink(address, family.ownNetwork)) return MAP_REFUSED;
  }
  return isLoopbackIp(address) || isUnspecifiedIp(address) ? MAP_REFUSED : MAP_AS_IS;
}

function mapToGuest(config: AddressMapConfig, address: Uint32Array): number {
  const family = isMappedIpv4(address) ? config.ipv4 : config.ipv6;
  // Without this family there is no address that the guest could answer to.
  if (family === undefined || isUnspecifiedIp(address)) return MAP_REFUSED;
  if (isLoopbackIp(address)) {
    address.set(family.loopbackAlias ?? family.router);
    return MAP_REWRITTEN;
  }
  if (isSameIp(address, family.guest)) {
    address.set(family.guestAlias ?? family.router);
    return MAP_REWRITTEN;
  }
  return MAP_AS_IS;
}

/** Whether an address (4 words) is in a network, or link-local. */
export function isOnLink(address: Uint32Array, network: NonNullable<FamilyAddresses['ownNetwork']>): boolean {
  if (isLinkLocalIpv6(address)) return true;
  for (let i = 0; i < 4; i++) {
    const bits = network.prefixLength - 32 * i;
    if (bits <= 0) return true;
    const shift = bits >= 32 ? 0 : 32 - bits;
    if ((address[i]! ^ network.address[i]!) >>> shift !== 0) return false;
  }
  return true;
}

function isDns(port: number, protocol: number): boolean {
  return (port === PORT_DNS || port === PORT_DNS_TLS) && (protocol === IPPROTO_UDP || protocol === IPPROTO_TCP);
}
