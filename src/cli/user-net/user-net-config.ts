/**
 * From the options of `-netdev user` to what a stack needs to know: the world of QEMU's own user-mode network, which is the same on every
 * host. The guest's network is one of its own: host and name server are the only addresses in it that anybody stands behind.
 */
import { formatIp, mapIpv4 } from '../../base/ip-text.ts';
import type { FamilyAddresses } from '../../forward/address-map.ts';
import type { PortForwardRule } from '../../forward/port-spec.ts';
import { type UserNet, type UserNetV4, type UserNetV6, withLabel } from '../../qemu/user-net/user-net.ts';
import type { Ipv4Config, Ipv6Config, StackConfig } from '../../stack/config.ts';
import type { NetworkConfig } from '../network-config.ts';

/** Who router advertisements come from, as in QEMU. */
const ROUTER_LINK_LOCAL = Uint32Array.of(0xfe800000, 0, 0, 2);
/** The last label of the address that DHCPv6 leases: as that of IPv4 ends. */
const LEASE_LABEL = 0x15;

/**
 * `network` with the addresses, names and forwards of `userNet` in place of the host's.
 * @param number - the guest's, from 0: its address of IPv6 is so many further on
 */
export function applyUserNet(
  network: NetworkConfig,
  userNet: UserNet,
  resolvers: readonly Uint32Array[],
  number = 0,
): NetworkConfig {
  const { stack, addressMap } = network;
  // The first resolver of the host's, whatever its family: the map rewrites an address as a whole.
  const resolver = addressMap.ipv4?.dnsHost ?? addressMap.ipv6?.dnsHost ?? resolvers[0];
  const { ipv4, ipv6, tftpFolder, guestForwards, smbFolder, smbServer } = userNet;
  const hasServices = tftpFolder !== '' || guestForwards.length > 0 || smbFolder !== '';
  const smb = smbFolder === '' ? undefined : { folder: smbFolder, server: smbServer };
  return {
    ...network,
    stack: {
      ...stack,
      ipv4: ipv4 && stackV4(ipv4, stack),
      ipv6: ipv6 && stackV6(ipv6, LEASE_LABEL + number, stack),
      searchDomains: userNet.searchDomains,
      hostname: userNet.hostname,
      domainName: userNet.domainName,
      boot: { fileName: userNet.bootFile, serverName: userNet.tftpServerName, url: bootUrl(userNet) },
    },
    addressMap: {
      ...addressMap,
      ipv4: ipv4 && mapV4(ipv4, addressMap.ipv4?.dnsHost ?? resolver),
      ipv6: ipv6 && mapV6(ipv6, LEASE_LABEL + number, addressMap.ipv6?.dnsHost ?? resolver),
      isRestricted: userNet.isRestricted,
    },
    forwards: [...userNet.hostForwards.map(forwardRule), ...network.forwards],
    services: hasServices ? { tftpFolder, guestForwards, smb } : undefined,
    templates: { ipv4: '--user-net', ipv6: '--user-net' },
  };
}

/** Where the file to boot is, as DHCPv6 tells it (RFC 3617 for TFTP); a file that is a URL is told as it is. */
function bootUrl({ bootFile, tftpServerName, ipv6 }: UserNet): string {
  if (bootFile === '' || ipv6 === undefined) return '';
  if (/^[a-z][a-z\d+.-]*:\/\//i.test(bootFile)) return bootFile;
  const server = tftpServerName === '' ? `[${formatIp(ipv6.host)}]` : tftpServerName;
  return `tftp://${server}/${encodeURI(bootFile.replace(/^\//, ''))}`;
}

function stackV4({ dhcpStart, prefixLength, host, dns }: UserNetV4, stack: StackConfig): Ipv4Config {
  return {
    guestAddress: dhcpStart,
    prefixLength,
    gateway: host,
    resolvers: [dns],
    outboundAddress: stack.ipv4?.outboundAddress ?? 0,
    outboundInterface: stack.ipv4?.outboundInterface ?? '',
  };
}

function stackV6({ network, prefixLength, host, dns }: UserNetV6, label: number, stack: StackConfig): Ipv6Config {
  return {
    guestAddress: withLabel(network, label),
    prefixLength,
    gateway: host,
    ourLinkLocal: ROUTER_LINK_LOCAL,
    resolvers: [dns],
    outboundAddress: stack.ipv6?.outboundAddress,
    outboundInterface: stack.ipv6?.outboundInterface ?? '',
  };
}

function mapV4(net: UserNetV4, dnsHost: Uint32Array | undefined): FamilyAddresses {
  const host = mapIpv4(net.host);
  return {
    guest: mapIpv4(net.dhcpStart),
    router: host,
    loopbackAlias: host,
    guestAlias: undefined,
    dnsAlias: mapIpv4(net.dns),
    dnsHost,
    // An IPv4 address begins behind 96 bits of its mapped form.
    ownNetwork: { address: mapIpv4(net.network), prefixLength: 96 + net.prefixLength },
  };
}

function mapV6(net: UserNetV6, label: number, dnsHost: Uint32Array | undefined): FamilyAddresses {
  return {
    guest: withLabel(net.network, label),
    router: net.host,
    loopbackAlias: net.host,
    guestAlias: undefined,
    dnsAlias: net.dns,
    dnsHost,
    ownNetwork: { address: net.network, prefixLength: net.prefixLength },
  };
}

function forwardRule(forward: UserNet['hostForwards'][number]): PortForwardRule {
  const { hostPath, guestAddress } = forward;
  return {
    proto: forward.proto,
    ...(hostPath === undefined ? { bindAddress: forward.hostAddress } : { bindPath: hostPath }),
    first: forward.hostPort,
    last: forward.hostPort,
    ...(guestAddress === undefined ? {} : { targetAddress: guestAddress }),
    targetFirst: forward.guestPort,
    weak: false,
    scan: false,
    option: '--user-net hostfwd',
  };
}
