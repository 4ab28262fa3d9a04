/** What the guest is told and how the stack behaves: fixed for the life of a stack. Addresses are 4 words (IPv4 v4-mapped). */
import type { MacLease } from './static-leases.ts';

export interface StackConfig {
  /** Our MAC address, (first 16 bits, last 32 bits). passt's default is 9a:55:9a:55:9a:55. */
  readonly ourMacHi: number;
  readonly ourMacLo: number;
  /** The guest's MAC if it is known beforehand (0, 0: learn it). */
  readonly guestMacHi: number;
  readonly guestMacLo: number;
  /** IP MTU towards the guest, 68…65520. */
  readonly mtu: number;
  /** False with `--mtu 0`: the MTU is used, not advertised. */
  readonly advertiseMtu: boolean;

  /** How long the flows of a guest whose link is gone are kept for it; left out: until their own timers end them. */
  readonly reconnectGraceMs?: number;

  readonly ipv4: Ipv4Config | undefined;
  readonly ipv6: Ipv6Config | undefined;
  /**
   * The guest has others on its link, which answer for themselves: of its own network and of link-local addresses, only these and
   * the router's are behind our MAC. Left out: all are, but the guest's own.
   */
  readonly ownAddresses?: readonly Uint32Array[];

  /** Left out: all get the addresses of their link. */
  readonly macLeases?: readonly MacLease[];

  readonly searchDomains: readonly string[];
  /** DHCP option 12; empty: none. */
  readonly hostname: string;
  /** DHCP option 81 and DHCPv6 option 39; empty: none. */
  readonly fqdn: string;
  /** DHCP option 15; empty or left out: none. */
  readonly domainName?: string;
  /** What a client that boots from the network is told by DHCP; the server is the gateway. Left out: nothing. */
  readonly boot?: BootConfig;

  readonly tcp: boolean;
  readonly udp: boolean;
  readonly icmp: boolean;
  readonly dhcp: boolean;
  readonly dhcpv6: boolean;
  readonly ndp: boolean;
  readonly routerAdvertisements: boolean;
  /** Advertise resolvers / search list by DHCP, DHCPv6 and RA. */
  readonly advertiseDns: boolean;
  readonly advertiseSearch: boolean;
}

export interface BootConfig {
  /** At most 127 characters; empty: none. */
  readonly fileName: string;
  /** DHCP option 66: a server other than the gateway, by name; empty: none. */
  readonly serverName: string;
  /** Where the file is, for DHCPv6: ASCII characters; empty: nowhere. */
  readonly url: string;
}

export interface Ipv4Config {
  /** The address leased to the guest, uint32. */
  readonly guestAddress: number;
  readonly prefixLength: number;
  /** Our address as router, uint32: DHCP option 3, ARP answer, source of ICMP errors. */
  readonly gateway: number;
  /** Resolvers told to the guest, uint32 each. */
  readonly resolvers: readonly number[];
  /** Source address for outgoing connections on the host (`--outbound`), uint32; 0: the kernel's choice. */
  readonly outboundAddress: number;
  /** SO_BINDTODEVICE for outgoing sockets; empty: none. */
  readonly outboundInterface: string;
}

export interface Ipv6Config {
  /** The address leased by DHCPv6; its /64 prefix is what RA announces. 4 words. */
  readonly guestAddress: Uint32Array;
  readonly prefixLength: number;
  /** The router as the guest sees it: source of RA if link-local, and mapped to the host. 4 words. */
  readonly gateway: Uint32Array;
  /** Our link-local address: source of RA, NA, DHCPv6. 4 words. */
  readonly ourLinkLocal: Uint32Array;
  readonly resolvers: readonly Uint32Array[];
  readonly outboundAddress: Uint32Array | undefined;
  readonly outboundInterface: string;
}
