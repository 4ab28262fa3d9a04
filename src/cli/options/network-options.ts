/** Options about what the guest is given and how its traffic leaves the host. Shared by passel-passt and passel-pasta. */
import { flag, value, values } from './definition.ts';
import {
  parseAddressWithPrefix,
  parseAnyAddress,
  parseBusyPoll,
  parseDomainName,
  parseInterfaceName,
  parseMac,
  parseMtu,
  parseNetmask,
  parseResolverOrNone,
  parseSearchList,
  parseText,
  parseUnicast,
  parseUnicastOrNone,
} from './values.ts';

export const GUEST = "The guest's network:";
const NAMES = 'Names:';
export const OUTBOUND = 'From guest to host:';
const INBOUND = 'From host to guest:';
const SERVICES = 'Services:';
const PERFORMANCE = 'Performance:';

/** Of `--busy-poll`: some two wake-ups of a thread. */
export const DEFAULT_BUSY_POLL_US = 50;

export const NETWORK_OPTIONS = {
  mtu: value({
    short: 'm',
    group: GUEST,
    valueName: 'BYTES',
    defaultText: '65520',
    help: 'MTU told to the guest by DHCP and router advertisements; 0 tells none',
    parse: parseMtu,
  }),
  address: values({
    short: 'a',
    group: GUEST,
    valueName: 'ADDRESS[/LENGTH]',
    defaultText: "the host's own",
    help: "The guest's IPv4 or IPv6 address; once for each",
    parse: parseAddressWithPrefix,
  }),
  netmask: value({
    short: 'n',
    group: GUEST,
    valueName: 'MASK',
    defaultText: "the host's, or that of the address class",
    help: 'IPv4 netmask, dotted or in bits',
    parse: parseNetmask,
  }),
  gateway: values({
    short: 'g',
    group: GUEST,
    valueName: 'ADDRESS',
    defaultText: "the host's own",
    help: "The guest's IPv4 or IPv6 router; once for each",
    parse: parseUnicast,
  }),
  'mac-addr': value({
    short: 'M',
    group: GUEST,
    valueName: 'MAC',
    defaultText: '9a:55:9a:55:9a:55',
    help: 'Our MAC address on the link',
    parse: parseMac,
  }),
  interface: value({
    short: 'i',
    group: GUEST,
    valueName: 'NAME',
    defaultText: 'those of --outbound-if4/6, else with the default route',
    help: 'Host interface whose addresses and router the guest gets',
    parse: parseInterfaceName,
  }),
  'ipv4-only': flag({ short: '4', group: GUEST, help: 'No IPv6' }),
  'ipv6-only': flag({ short: '6', group: GUEST, help: 'No IPv4' }),

  dns: values({
    short: 'D',
    group: NAMES,
    valueName: 'ADDRESS',
    defaultText: 'those of /etc/resolv.conf',
    help: "A resolver told to the guest; repeatable; 'none' tells none",
    parse: parseResolverOrNone,
  }),
  'dns-forward': values({
    group: NAMES,
    valueName: 'ADDRESS',
    help: 'Send DNS queries that the guest addresses here to the resolver of --dns-host; once for IPv4 and IPv6',
    parse: parseUnicast,
  }),
  'dns-host': values({
    group: NAMES,
    valueName: 'ADDRESS',
    defaultText: 'the first of /etc/resolv.conf',
    help: 'Host-side resolver behind --dns-forward; once for IPv4 and IPv6',
    parse: parseAnyAddress,
  }),
  search: values({
    short: 'S',
    group: NAMES,
    valueName: 'LIST',
    defaultText: 'that of /etc/resolv.conf',
    help: "Search domains separated by spaces; repeatable; 'none' tells none",
    parse: parseSearchList,
  }),
  hostname: value({
    short: 'H',
    group: NAMES,
    valueName: 'NAME',
    help: "The guest's host name, DHCP option 12",
    parse: parseDomainName,
  }),
  fqdn: value({
    group: NAMES,
    valueName: 'NAME',
    help: "The guest's full name, DHCP option 81 and DHCPv6 option 39",
    parse: parseDomainName,
  }),

  outbound: values({
    short: 'o',
    group: OUTBOUND,
    valueName: 'ADDRESS',
    help: 'Source address of outgoing traffic; once for IPv4 and IPv6',
    parse: parseUnicast,
  }),
  'outbound-if4': value({
    group: OUTBOUND,
    valueName: 'NAME',
    help: 'Host interface that outgoing IPv4 traffic is bound to',
    parse: parseInterfaceName,
  }),
  'outbound-if6': value({
    group: OUTBOUND,
    valueName: 'NAME',
    help: 'Host interface that outgoing IPv6 traffic is bound to',
    parse: parseInterfaceName,
  }),
  'map-host-loopback': values({
    group: OUTBOUND,
    valueName: 'ADDRESS',
    defaultText: 'the gateway',
    help: "Address under which the guest reaches the host's loopback; once for IPv4 and IPv6; 'none'",
    parse: parseUnicastOrNone,
  }),
  'no-map-gw': flag({ group: OUTBOUND, help: "The gateway's address does not lead to the host's loopback" }),
  'map-guest-addr': values({
    group: OUTBOUND,
    valueName: 'ADDRESS',
    defaultText: 'none',
    help: "Address under which the guest reaches the host address that equals its own; once for IPv4 and IPv6; 'none'",
    parse: parseUnicastOrNone,
  }),

  'tcp-ports': values({
    short: 't',
    group: INBOUND,
    valueName: 'SPEC',
    defaultText: 'none',
    help: "TCP ports of the host that lead to the guest: 'none', 'all' or [ADDRESS[%IF]/]PORT[-PORT][:[ADDRESS/]PORT[-PORT]],~PORT[-PORT],...; repeatable",
    parse: parseText,
  }),
  'udp-ports': values({
    short: 'u',
    group: INBOUND,
    valueName: 'SPEC',
    defaultText: 'none',
    help: 'UDP ports, in the same way; repeatable',
    parse: parseText,
  }),
  freebind: flag({ group: INBOUND, help: 'Forwards may be bound to addresses that the host does not have yet' }),

  'no-tcp': flag({ group: SERVICES, help: 'No TCP' }),
  'no-udp': flag({ group: SERVICES, help: 'No UDP' }),
  'no-icmp': flag({ group: SERVICES, help: 'No ICMP and ICMPv6, neighbour discovery included' }),
  'no-dhcp': flag({ group: SERVICES, help: 'No DHCP server' }),
  'no-dhcpv6': flag({ group: SERVICES, help: 'No DHCPv6 server' }),
  'no-ndp': flag({ group: SERVICES, help: 'No answers to neighbour and router solicitations' }),
  'no-ra': flag({ group: SERVICES, help: 'No router advertisements' }),
  'busy-poll': value({
    group: PERFORMANCE,
    valueName: 'MICROSECONDS',
    defaultText: String(DEFAULT_BUSY_POLL_US),
    help: 'Look for the answer to a short message for so long before sleeping; 0: sleep at once',
    parse: parseBusyPoll,
  }),
} as const;

/** For virtual machines, which are told about names unless somebody objects. */
export const NAMES_OFF_OPTIONS = {
  'no-dhcp-dns': flag({ group: NAMES, help: 'Tell no resolvers by DHCP, DHCPv6 and router advertisements' }),
  'no-dhcp-search': flag({ group: NAMES, help: 'Tell no search list by DHCP, DHCPv6 and router advertisements' }),
} as const;

/** For namespaces, which have the host's files, and thereby its names. */
export const NAMES_ON_OPTIONS = {
  'dhcp-dns': flag({ group: NAMES, help: 'Tell resolvers by DHCP, DHCPv6 and router advertisements' }),
  'dhcp-search': flag({ group: NAMES, help: 'Tell the search list by DHCP, DHCPv6 and router advertisements' }),
} as const;
