/** The configuration that stack tests start from; each says only what it wants otherwise. */
import type { StackConfig } from '../../src/stack/config.ts';

type Families = 'ipv4' | 'ipv6';

/** passt's own MAC, MTU 1500, everything switched on, nothing announced; families as given. */
export function makeStackConfig(
  families: Pick<StackConfig, Families>,
  overrides: Omit<Partial<StackConfig>, Families> = {},
): StackConfig {
  return {
    ourMacHi: 0x9a55,
    ourMacLo: 0x9a559a55,
    guestMacHi: 0,
    guestMacLo: 0,
    mtu: 1500,
    advertiseMtu: true,
    searchDomains: [],
    hostname: '',
    fqdn: '',
    tcp: true,
    udp: true,
    icmp: true,
    dhcp: true,
    dhcpv6: true,
    ndp: true,
    routerAdvertisements: true,
    advertiseDns: true,
    advertiseSearch: true,
    ...overrides,
    ...families,
  };
}
