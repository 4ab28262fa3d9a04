/** A DHCP client (RFC 2131) and router discovery with address autoconfiguration (RFC 4861, RFC 4862), for the demo's guest. */
import { formatIp, formatIpv4, mapIpv4 } from '../../../base/ip-text.ts';
import {
  checkDhcp,
  DHCP_ACK,
  DHCP_BOOT_REQUEST,
  DHCP_CLIENT_PORT,
  DHCP_DISCOVER,
  DHCP_OFFER,
  DHCP_OPTION_DNS,
  DHCP_OPTION_MESSAGE_TYPE,
  DHCP_OPTION_MTU,
  DHCP_OPTION_REQUESTED_ADDRESS,
  DHCP_OPTION_ROUTER,
  DHCP_OPTION_SERVER_ID,
  DHCP_OPTION_SUBNET_MASK,
  DHCP_REQUEST,
  DHCP_SERVER_PORT,
  findDhcpOption,
  getDhcpMessageType,
  getDhcpOptionAddress,
  getDhcpOptionLength,
  getDhcpXid,
  getDhcpYourAddress,
  writeDhcpEnd,
  writeDhcpHeader,
  writeDhcpUint8,
  writeDhcpUint32,
} from '../../../wire/dhcp.ts';
import { loadIpv6 } from '../../../wire/ipv6.ts';
import {
  findNdpOption,
  NDP_OPTION_PREFIX,
  NDP_PREFIX_ADDRESS_OFFSET,
  NDP_ROUTER_ADVERTISEMENT,
  NDP_ROUTER_ADVERTISEMENT_BYTES,
  NDP_ROUTER_SOLICITATION_BYTES,
  writeNdpRouterSolicitation,
} from '../../../wire/ndp.ts';
import { type Advertisement, type Lease, withTimeout } from '../demo-guest.ts';
import type { FrameHost } from './frame-host.ts';

const TIMEOUT_MS = 5000;
const TRANSACTION = 0x70617373;
const BROADCAST = mapIpv4(0xffffffff);
const ALL_ROUTERS = Uint32Array.of(0xff020000, 0, 0, 2);

interface Answer {
  readonly type: number;
  readonly address: number;
  readonly serverId: number;
  readonly lease: Lease;
}

/** Discover, offer, request, acknowledgement. The host has the address afterwards. */
export async function leaseAddress(host: FrameHost): Promise<Lease> {
  const offer = await exchange(host, DHCP_DISCOVER, undefined, DHCP_OFFER);
  const answer = await exchange(host, DHCP_REQUEST, offer, DHCP_ACK);
  host.ipv4 = mapIpv4(answer.address);
  host.udpHandlers.delete(DHCP_CLIENT_PORT);
  return answer.lease;
}

function exchange(host: FrameHost, type: number, offer: Answer | undefined, wanted: number): Promise<Answer> {
  const answer = new Promise<Answer>((resolve) => {
    host.udpHandlers.set(DHCP_CLIENT_PORT, (_source, _port, view, at, end) => {
      if (checkDhcp(view, at, end) < 0 || getDhcpXid(view, at) !== TRANSACTION) return;
      const received = readAnswer(view, at, end);
      if (received.type === wanted) resolve(received);
    });
  });
  const bytes = new Uint8Array(576);
  const view = new DataView(bytes.buffer);
  let at = writeDhcpHeader(view, 0, 576, DHCP_BOOT_REQUEST, TRANSACTION, 0, 0, 0, 0, 0, host.macHi, host.macLo);
  at = writeDhcpUint8(view, at, 576, DHCP_OPTION_MESSAGE_TYPE, type);
  if (offer !== undefined) {
    at = writeDhcpUint32(view, at, 576, DHCP_OPTION_REQUESTED_ADDRESS, offer.address);
    at = writeDhcpUint32(view, at, 576, DHCP_OPTION_SERVER_ID, offer.serverId);
  }
  const lengthBytes = writeDhcpEnd(view, 0, at, 576);
  host.sendDatagram(BROADCAST, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, bytes.subarray(0, lengthBytes));
  return withTimeout('DHCP', TIMEOUT_MS, answer);
}

function readAnswer(view: DataView, at: number, end: number): Answer {
  const address = getDhcpYourAddress(view, at);
  const mask = Math.max(0, getDhcpOptionAddress(view, at, end, DHCP_OPTION_SUBNET_MASK));
  const mtu = findDhcpOption(view, at, end, DHCP_OPTION_MTU);
  const dns = findDhcpOption(view, at, end, DHCP_OPTION_DNS);
  const resolvers: string[] = [];
  for (let i = 0; dns > 0 && i + 4 <= getDhcpOptionLength(view, dns); i += 4) {
    resolvers.push(formatIpv4(view.getUint32(dns + i)));
  }
  return {
    type: getDhcpMessageType(view, at, end),
    address,
    serverId: getDhcpOptionAddress(view, at, end, DHCP_OPTION_SERVER_ID),
    lease: {
      address: formatIpv4(address),
      prefixLength: mask.toString(2).replaceAll('0', '').length,
      router: formatIpv4(Math.max(0, getDhcpOptionAddress(view, at, end, DHCP_OPTION_ROUTER))),
      resolvers,
      mtu: mtu > 0 ? view.getUint16(mtu) : 0,
    },
  };
}

/** Router solicitation and advertisement. The host has an address with its prefix afterwards. */
export async function discoverRouter(host: FrameHost): Promise<Advertisement> {
  const prefix = new Promise<Uint32Array>((resolve) => {
    host.onIcmpv6 = (_source, view, at, end) => {
      if (view.getUint8(at) !== NDP_ROUTER_ADVERTISEMENT) return;
      const option = findNdpOption(view, at + NDP_ROUTER_ADVERTISEMENT_BYTES, end, NDP_OPTION_PREFIX);
      if (option === 0) return;
      const words = new Uint32Array(4);
      loadIpv6(view, option + NDP_PREFIX_ADDRESS_OFFSET, words, 0);
      resolve(words);
    };
  });
  host.sendIcmpv6(ALL_ROUTERS, NDP_ROUTER_SOLICITATION_BYTES, writeNdpRouterSolicitation);
  const words = await withTimeout('router solicitation', TIMEOUT_MS, prefix);
  host.ipv6 = Uint32Array.of(words[0]!, words[1]!, host.linkLocal[2]!, host.linkLocal[3]!);
  return { prefix: `${formatIp(words)}/64`, address: formatIp(host.ipv6) };
}
