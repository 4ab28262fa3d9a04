/**
 * One line of text about a frame, for people who follow the traffic. Reads only what the checks of `wire/` have proved, so any
 * bytes may be given.
 */
import { formatIp, formatIpv4 } from '../base/ip-text.ts';
import { ARP_REQUEST, checkArp, getArpOperation, getArpSenderAddress, getArpTargetAddress } from '../wire/arp.ts';
import {
  checkEthernet,
  ETHERNET_DST_OFFSET,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SRC_OFFSET,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  getEtherType,
  getMacHi,
  getMacLo,
} from '../wire/ethernet.ts';
import { IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6, IP_PROTOCOL_TCP, IP_PROTOCOL_UDP } from '../wire/ip-protocol.ts';
import {
  checkIpv4,
  getIpv4Dst,
  getIpv4Protocol,
  getIpv4Src,
  getIpv4TotalLength,
  isIpv4Fragment,
} from '../wire/ipv4.ts';
import {
  checkIpv6,
  createIpv6Extensions,
  getIpv6PayloadLength,
  IPV6_DST_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_SRC_OFFSET,
  loadIpv6,
  skipIpv6Extensions,
} from '../wire/ipv6.ts';
import {
  checkTcp,
  getTcpAck,
  getTcpDstPort,
  getTcpFlags,
  getTcpHeaderLength,
  getTcpSeq,
  getTcpSrcPort,
  getTcpWindow,
} from '../wire/tcp.ts';
import { checkUdp, getUdpDstPort, getUdpLength, getUdpSrcPort, UDP_HEADER_BYTES } from '../wire/udp.ts';

/** In the order of the bits of the flags byte. */
const TCP_FLAG_LETTERS = 'FSRPAUEC';

/** @param offset - of the Ethernet header in `view` */
export function summarizeFrame(view: DataView, offset: number, lengthBytes: number): string {
  const end = offset + lengthBytes;
  if (checkEthernet(view, offset, end) < 0) return `${lengthBytes} bytes, too short for Ethernet`;
  const from = formatMac(view, offset + ETHERNET_SRC_OFFSET);
  const to = formatMac(view, offset + ETHERNET_DST_OFFSET);
  const l3 = offset + ETHERNET_HEADER_BYTES;
  return `${lengthBytes} bytes ${from} > ${to} ${summarizeL3(view, getEtherType(view, offset), l3, end)}`;
}

function summarizeL3(view: DataView, etherType: number, at: number, end: number): string {
  switch (etherType) {
    case ETHERTYPE_ARP: {
      if (checkArp(view, at, end) < 0) return 'ARP, malformed';
      const sender = formatIpv4(getArpSenderAddress(view, at));
      const target = formatIpv4(getArpTargetAddress(view, at));
      if (getArpOperation(view, at) === ARP_REQUEST) return `ARP who has ${target}, tell ${sender}`;
      return `ARP ${sender} is here, to ${target}`;
    }
    case ETHERTYPE_IPV4: {
      const headerLength = checkIpv4(view, at, end);
      if (headerLength < 0) return 'IPv4, malformed';
      const source = formatIpv4(getIpv4Src(view, at));
      const destination = formatIpv4(getIpv4Dst(view, at));
      if (isIpv4Fragment(view, at)) return `IPv4 ${source} > ${destination} fragment`;
      const packetEnd = at + getIpv4TotalLength(view, at);
      return summarizeL4(view, getIpv4Protocol(view, at), at + headerLength, packetEnd, source, destination);
    }
    case ETHERTYPE_IPV6: {
      if (checkIpv6(view, at, end) < 0) return 'IPv6, malformed';
      const words = new Uint32Array(8);
      loadIpv6(view, at + IPV6_SRC_OFFSET, words, 0);
      loadIpv6(view, at + IPV6_DST_OFFSET, words, 4);
      const source = formatIp(words.subarray(0, 4));
      const destination = formatIp(words.subarray(4));
      const packetEnd = at + IPV6_HEADER_BYTES + getIpv6PayloadLength(view, at);
      const extensions = createIpv6Extensions();
      if (skipIpv6Extensions(view, at, packetEnd, extensions) < 0) return `IPv6 ${source} > ${destination} malformed`;
      if (extensions.fragmentHeaderOffset !== 0) return `IPv6 ${source} > ${destination} fragment`;
      const l4 = extensions.l4Offset;
      return summarizeL4(view, extensions.protocol, l4, packetEnd, `[${source}]`, `[${destination}]`);
    }
    default:
      return `EtherType 0x${etherType.toString(16).padStart(4, '0')}`;
  }
}

function summarizeL4(
  view: DataView,
  protocol: number,
  at: number,
  end: number,
  source: string,
  destination: string,
): string {
  switch (protocol) {
    case IP_PROTOCOL_TCP: {
      if (checkTcp(view, at, end) < 0) break;
      const flags = [...TCP_FLAG_LETTERS].filter((_, bit) => (getTcpFlags(view, at) & (1 << bit)) !== 0).join('');
      const payloadBytes = end - at - getTcpHeaderLength(view, at);
      const ports = `${source}:${getTcpSrcPort(view, at)} > ${destination}:${getTcpDstPort(view, at)}`;
      const numbers = `seq ${getTcpSeq(view, at)} ack ${getTcpAck(view, at)} window ${getTcpWindow(view, at)}`;
      return `TCP ${ports} [${flags}] ${numbers} length ${payloadBytes}`;
    }
    case IP_PROTOCOL_UDP: {
      if (checkUdp(view, at, end) < 0) break;
      const ports = `${source}:${getUdpSrcPort(view, at)} > ${destination}:${getUdpDstPort(view, at)}`;
      return `UDP ${ports} length ${getUdpLength(view, at) - UDP_HEADER_BYTES}`;
    }
    case IP_PROTOCOL_ICMP:
    case IP_PROTOCOL_ICMPV6: {
      if (end - at < 4) break;
      const name = protocol === IP_PROTOCOL_ICMP ? 'ICMP' : 'ICMPv6';
      return `${name} ${source} > ${destination} type ${view.getUint8(at)} code ${view.getUint8(at + 1)}`;
    }
  }
  return `protocol ${protocol} ${source} > ${destination} length ${end - at}`;
}

function formatMac(view: DataView, at: number): string {
  const digits = (getMacHi(view, at) * 0x1_0000_0000 + getMacLo(view, at)).toString(16).padStart(12, '0');
  return digits.replace(/(..)(?!$)/g, '$1:');
}
