/** One valid frame of every kind that a stack for guests reads: the seeds of the malformed-input suites. */
import {
  arp,
  dhcp,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ethernet,
  icmp,
  icmpv6,
  ipv4,
  ipv6,
  ipv6Bytes,
  macBytes,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_ACK,
  TCP_SYN,
  tcp,
  udp,
} from './frames.ts';
import { HOST_NET } from './netns/host.ts';
import { GUEST } from './scripted-guest.ts';

const STACK_MAC = '9a:55:9a:55:9a:55';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const ALL_ROUTERS_MAC = '33:33:00:00:00:02';
const ALL_SERVERS_MAC = '33:33:00:01:00:02';
const { remoteV4, remoteV6, gatewayLinkLocal, gatewayV4 } = HOST_NET;

function v4(protocol: number, payload: Buffer): Buffer {
  return ethernet(STACK_MAC, GUEST.mac, ETHERTYPE_IPV4, ipv4(GUEST.ipv4, remoteV4, protocol, payload));
}

function v6(protocol: number, payload: Buffer): Buffer {
  return ethernet(STACK_MAC, GUEST.mac, ETHERTYPE_IPV6, ipv6(GUEST.ipv6, remoteV6, protocol, payload));
}

function linkLocalV6(mac: string, destination: string, protocol: number, payload: Buffer): Buffer {
  return ethernet(mac, GUEST.mac, ETHERTYPE_IPV6, ipv6(GUEST.linkLocal, destination, protocol, payload));
}

function sourceLinkLayerOption(): Buffer {
  return Buffer.concat([Buffer.from([1, 1]), macBytes(GUEST.mac)]);
}

/** MSS 1460, window scale 7, SACK permitted, padding. */
const SYN_OPTIONS = Buffer.from([2, 4, 5, 0xb4, 3, 3, 7, 4, 2, 1, 1, 1]);
const DHCP_CLIENT = { source: 68, destination: 67 };
const DHCPV6_CLIENT = { source: 546, destination: 547 };

function dhcpFrame(options: number[]): Buffer {
  const message = dhcp(GUEST.mac, 0x12345678, Buffer.from(options));
  const datagram = udp('0.0.0.0', '255.255.255.255', DHCP_CLIENT.source, DHCP_CLIENT.destination, message);
  return ethernet(BROADCAST, GUEST.mac, ETHERTYPE_IPV4, ipv4('0.0.0.0', '255.255.255.255', PROTOCOL_UDP, datagram));
}

/** Client identifier (DUID-LL), IA_NA, elapsed time, option request (RFC 8415). */
function dhcpv6Frame(type: number): Buffer {
  const duid = Buffer.concat([Buffer.from([0, 3, 0, 1]), macBytes(GUEST.mac)]);
  const message = Buffer.concat([
    Buffer.from([type, 0x12, 0x34, 0x56]),
    Buffer.from([0, 1, 0, duid.length]),
    duid,
    Buffer.from([0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    Buffer.from([0, 8, 0, 2, 0, 0]),
    Buffer.from([0, 6, 0, 4, 0, 23, 0, 24]),
  ]);
  const datagram = udp(GUEST.linkLocal, 'ff02::1:2', DHCPV6_CLIENT.source, DHCPV6_CLIENT.destination, message);
  return linkLocalV6(ALL_SERVERS_MAC, 'ff02::1:2', PROTOCOL_UDP, datagram);
}

/** Name and frame. Ports 9 (discard) and up are closed on the test host: nothing they carry goes anywhere. */
export const SAMPLE_FRAMES: readonly { name: string; frame: Buffer }[] = [
  {
    name: 'ARP request',
    frame: ethernet(BROADCAST, GUEST.mac, ETHERTYPE_ARP, arp(1, GUEST.mac, GUEST.ipv4, '00:00:00:00:00:00', gatewayV4)),
  },
  {
    name: 'TCP SYN over IPv4',
    frame: v4(
      PROTOCOL_TCP,
      tcp(GUEST.ipv4, remoteV4, {
        sourcePort: 40_000,
        destinationPort: 9,
        seq: 1,
        flags: TCP_SYN,
        options: SYN_OPTIONS,
      }),
    ),
  },
  {
    name: 'TCP data over IPv4',
    frame: v4(
      PROTOCOL_TCP,
      tcp(GUEST.ipv4, remoteV4, {
        sourcePort: 40_001,
        destinationPort: 9,
        seq: 2,
        ack: 1,
        flags: TCP_ACK,
        payload: Buffer.from('some payload'),
      }),
    ),
  },
  {
    name: 'TCP SYN over IPv6',
    frame: v6(
      PROTOCOL_TCP,
      tcp(GUEST.ipv6, remoteV6, {
        sourcePort: 40_002,
        destinationPort: 9,
        seq: 1,
        flags: TCP_SYN,
        options: SYN_OPTIONS,
      }),
    ),
  },
  { name: 'UDP over IPv4', frame: v4(PROTOCOL_UDP, udp(GUEST.ipv4, remoteV4, 40_003, 9, Buffer.from('datagram'))) },
  { name: 'UDP over IPv6', frame: v6(PROTOCOL_UDP, udp(GUEST.ipv6, remoteV6, 40_004, 9, Buffer.from('datagram'))) },
  {
    name: 'IPv4 fragment',
    frame: ethernet(
      STACK_MAC,
      GUEST.mac,
      ETHERTYPE_IPV4,
      ipv4(GUEST.ipv4, remoteV4, PROTOCOL_UDP, Buffer.alloc(64, 7), { id: 77, fragment: 0x2000 | 8 }),
    ),
  },
  {
    name: 'IPv6 fragment',
    frame: v6(44, Buffer.concat([Buffer.from([PROTOCOL_UDP, 0, 0, 65, 0, 0, 0, 77]), Buffer.alloc(64, 7)])),
  },
  {
    name: 'IPv6 with hop-by-hop options',
    frame: v6(
      0,
      Buffer.concat([
        Buffer.from([PROTOCOL_UDP, 0, 1, 4, 0, 0, 0, 0]),
        udp(GUEST.ipv6, remoteV6, 40_005, 9, Buffer.from('x')),
      ]),
    ),
  },
  { name: 'ICMP echo', frame: v4(PROTOCOL_ICMP, icmp(8, 0, Buffer.from([0, 7, 0, 1, 1, 2, 3, 4]))) },
  {
    name: 'ICMPv6 echo',
    frame: v6(PROTOCOL_ICMPV6, icmpv6(GUEST.ipv6, remoteV6, 128, 0, Buffer.from([0, 7, 0, 1, 1, 2, 3, 4]))),
  },
  {
    name: 'neighbour solicitation',
    frame: linkLocalV6(
      '33:33:ff:01:00:01',
      'ff02::1:ff01:1',
      PROTOCOL_ICMPV6,
      icmpv6(
        GUEST.linkLocal,
        'ff02::1:ff01:1',
        135,
        0,
        Buffer.concat([Buffer.alloc(4), ipv6Bytes(gatewayLinkLocal), sourceLinkLayerOption()]),
      ),
    ),
  },
  {
    name: 'router solicitation',
    frame: linkLocalV6(
      ALL_ROUTERS_MAC,
      'ff02::2',
      PROTOCOL_ICMPV6,
      icmpv6(GUEST.linkLocal, 'ff02::2', 133, 0, Buffer.concat([Buffer.alloc(4), sourceLinkLayerOption()])),
    ),
  },
  { name: 'DHCP discover', frame: dhcpFrame([53, 1, 1, 55, 4, 1, 3, 6, 26]) },
  { name: 'DHCP request', frame: dhcpFrame([53, 1, 3, 50, 4, 192, 0, 2, 15, 12, 2, 0x68, 0x69]) },
  { name: 'DHCPv6 solicit', frame: dhcpv6Frame(1) },
  { name: 'DHCPv6 request', frame: dhcpv6Frame(3) },
];
