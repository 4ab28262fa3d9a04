/**
 * IPv6 addresses from /proc/net/if_inet6: unlike what Node lists, with the flags that tell a usable address from a
 * deprecated or duplicate one.
 */
import { parseHexIpv6 } from './proc-routes.ts';

export interface Ipv6InterfaceAddress {
  readonly interfaceName: string;
  readonly interfaceIndex: number;
  readonly address: Uint32Array;
  readonly prefixLength: number;
  /** fe80::/10 */
  readonly isLinkLocal: boolean;
}

// Scope and flag values: linux/ipv6.h, linux/if_addr.h.
const SCOPE_GLOBAL = 0x00;
const SCOPE_LINK = 0x20;
const IFA_F_DADFAILED = 0x08;
const IFA_F_DEPRECATED = 0x20;

/** Usable global and link-local addresses. Columns: address, interface index, prefix length, scope, flags, name. */
export function parseIpv6Addresses(table: string): Ipv6InterfaceAddress[] {
  const addresses: Ipv6InterfaceAddress[] = [];
  for (const line of table.split('\n')) {
    const match = /^([0-9a-f]{32})\s+([0-9a-f]+)\s+([0-9a-f]+)\s+([0-9a-f]+)\s+([0-9a-f]+)\s+(\S+)$/i.exec(line.trim());
    if (match === null) continue;
    const scope = Number.parseInt(match[4]!, 16);
    const flags = Number.parseInt(match[5]!, 16);
    if (scope !== SCOPE_GLOBAL && scope !== SCOPE_LINK) continue;
    if (flags & (IFA_F_DADFAILED | IFA_F_DEPRECATED)) continue;
    addresses.push({
      interfaceName: match[6]!,
      interfaceIndex: Number.parseInt(match[2]!, 16),
      address: parseHexIpv6(match[1]!),
      prefixLength: Number.parseInt(match[3]!, 16),
      isLinkLocal: scope === SCOPE_LINK,
    });
  }
  return addresses;
}
