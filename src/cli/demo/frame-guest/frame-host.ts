/**
 * The smallest network host that can be a guest: one address of each family, answers to ARP and neighbour solicitations,
 * UDP by port, TCP by connection. Everything leaves through the router. Built on the same codecs as the stack, but in the
 * role of the other side and written for clarity.
 */
import { isMappedIpv4, isSameIp, mapIpv4 } from '../../../base/ip-text.ts';
import {
  ARP_REPLY,
  ARP_REQUEST,
  checkArp,
  getArpOperation,
  getArpSenderAddress,
  getArpTargetAddress,
  writeArp,
} from '../../../wire/arp.ts';
import { pseudoSumIpv4, pseudoSumIpv6, sumBytes } from '../../../wire/checksum.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_SRC_OFFSET,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  getEtherType,
  getMacHi,
  getMacLo,
  MAC_BROADCAST_HI,
  MAC_BROADCAST_LO,
  MAC_IPV6_MULTICAST_HI,
  writeEthernetHeader,
} from '../../../wire/ethernet.ts';
import { writeIcmpv6Checksum } from '../../../wire/icmpv6.ts';
import { IP_PROTOCOL_ICMPV6, IP_PROTOCOL_TCP, IP_PROTOCOL_UDP } from '../../../wire/ip-protocol.ts';
import {
  checkIpv4,
  getIpv4Protocol,
  getIpv4Src,
  getIpv4TotalLength,
  IPV4_HEADER_BYTES,
  writeIpv4Header,
} from '../../../wire/ipv4.ts';
import {
  checkIpv6,
  getIpv6NextHeader,
  getIpv6PayloadLength,
  IPV6_HEADER_BYTES,
  IPV6_SRC_OFFSET,
  loadIpv6,
  writeIpv6Header,
} from '../../../wire/ipv6.ts';
import {
  checkNdp,
  NDP_HOP_LIMIT,
  NDP_NA_OVERRIDE,
  NDP_NA_SOLICITED,
  NDP_NEIGHBOR_SOLICITATION,
  NDP_OPTION_TARGET_LINK_ADDRESS,
  NDP_TARGET_OFFSET,
  writeNdpLinkAddress,
  writeNdpNeighborAdvertisement,
} from '../../../wire/ndp.ts';
import { checkUdp, getUdpDstPort, getUdpSrcPort, UDP_HEADER_BYTES, writeUdpHeader } from '../../../wire/udp.ts';
import type { FramePort } from './frame-port.ts';

/** The largest frame, and then some. */
const SCRATCH_BYTES = 1 << 17;
const IPV4_TTL = 64;
const UNSPECIFIED_V6 = new Uint32Array(4);

/** Payload [offset, end) of `view` came from `source`. */
export type PayloadHandler = (
  source: Uint32Array,
  sourcePort: number,
  view: DataView,
  offset: number,
  end: number,
) => void;
/** An upper-layer packet [offset, end). */
export type PacketHandler = (source: Uint32Array, view: DataView, offset: number, end: number) => void;

export class FrameHost {
  /** 52:54:00:70:61:73 */
  readonly macHi = 0x5254;
  readonly macLo = 0x00706173;
  /** fe80::5054:ff:fe70:6173, of that MAC (RFC 4291, appendix A). */
  readonly linkLocal = Uint32Array.of(0xfe800000, 0, 0x505400ff, 0xfe706173);
  /** 4 words each; undefined until configured. */
  ipv4: Uint32Array | undefined;
  ipv6: Uint32Array | undefined;
  readonly udpHandlers = new Map<number, PayloadHandler>();
  onTcp: PacketHandler = () => {};
  /** Router advertisements and the like: ICMPv6 messages that this host does not answer by itself. */
  onIcmpv6: PacketHandler = () => {};

  readonly #port: FramePort;
  readonly #bytes = new Uint8Array(SCRATCH_BYTES);
  /** Where packets are built: an upper layer writes at `payloadAt` after {@link beginPacket}. */
  readonly view = new DataView(this.#bytes.buffer);
  payloadAt = 0;
  #packetEnd = 0;
  /** Everybody we talk to is behind the router; its MAC is that of whatever sends to us. */
  #routerHi = MAC_BROADCAST_HI;
  #routerLo = MAC_BROADCAST_LO;

  constructor(port: FramePort) {
    this.#port = port;
    port.onFrame = (view, offset, end) => this.#receive(view, offset, end);
  }

  /**
   * Starts a packet of `lengthBytes` after the IP header; the caller fills it at `payloadAt` and calls {@link sendPacket}.
   * @returns the sum of the pseudo-header
   */
  beginPacket(destination: Uint32Array, protocol: number, lengthBytes: number, hopLimit = IPV4_TTL): number {
    const ip = ETHERNET_HEADER_BYTES;
    if (isMappedIpv4(destination)) {
      const source = this.ipv4?.[3] ?? 0;
      const target = destination[3]!;
      const broadcast = target === 0xffffffff;
      this.#writeEthernet(
        broadcast ? MAC_BROADCAST_HI : this.#routerHi,
        broadcast ? MAC_BROADCAST_LO : this.#routerLo,
        ETHERTYPE_IPV4,
      );
      writeIpv4Header(this.view, ip, IPV4_HEADER_BYTES + lengthBytes, 0, 0, hopLimit, protocol, source, target, 0);
      this.payloadAt = ip + IPV4_HEADER_BYTES;
      this.#packetEnd = this.payloadAt + lengthBytes;
      return pseudoSumIpv4(source, target, protocol, lengthBytes);
    }
    const source = this.#sourceFor(destination);
    const multicast = destination[0]! >>> 24 === 0xff;
    this.#writeEthernet(
      multicast ? MAC_IPV6_MULTICAST_HI : this.#routerHi,
      multicast ? destination[3]! : this.#routerLo,
      ETHERTYPE_IPV6,
    );
    writeIpv6Header(this.view, ip, lengthBytes, protocol, hopLimit, source, 0, destination, 0, 0, 0);
    this.payloadAt = ip + IPV6_HEADER_BYTES;
    this.#packetEnd = this.payloadAt + lengthBytes;
    return pseudoSumIpv6(source, 0, destination, 0, protocol, lengthBytes);
  }

  sendPacket(): void {
    this.#port.send(this.#bytes, 0, this.#packetEnd);
  }

  /** Copies payload into the packet that was begun. @returns the payload's sum */
  putPayload(at: number, payload: Uint8Array): number {
    this.#bytes.set(payload, at);
    return sumBytes(this.view, at, payload.length, 0);
  }

  sendDatagram(destination: Uint32Array, sourcePort: number, destinationPort: number, payload: Uint8Array): void {
    const lengthBytes = UDP_HEADER_BYTES + payload.length;
    const pseudoSum = this.beginPacket(destination, IP_PROTOCOL_UDP, lengthBytes);
    const sum = pseudoSum + this.putPayload(this.payloadAt + UDP_HEADER_BYTES, payload);
    writeUdpHeader(this.view, this.payloadAt, sourcePort, destinationPort, lengthBytes, sum);
    this.sendPacket();
  }

  /** Sends an ICMPv6 message that `write` builds; it gets the place and returns the end. */
  sendIcmpv6(
    destination: Uint32Array,
    lengthBytes: number,
    write: (view: DataView, at: number, end: number) => void,
  ): void {
    const pseudoSum = this.beginPacket(destination, IP_PROTOCOL_ICMPV6, lengthBytes, NDP_HOP_LIMIT);
    write(this.view, this.payloadAt, this.payloadAt + lengthBytes);
    writeIcmpv6Checksum(this.view, this.payloadAt, lengthBytes, pseudoSum);
    this.sendPacket();
  }

  #sourceFor(destination: Uint32Array): Uint32Array {
    const isLocal = destination[0]! >>> 22 === 0x3fa || destination[0]! >>> 24 === 0xff;
    return isLocal ? this.linkLocal : (this.ipv6 ?? UNSPECIFIED_V6);
  }

  #writeEthernet(hi: number, lo: number, etherType: number): void {
    writeEthernetHeader(this.view, 0, hi, lo, this.macHi, this.macLo, etherType);
  }

  #receive(view: DataView, offset: number, end: number): void {
    if (end - offset < ETHERNET_HEADER_BYTES) return;
    this.#routerHi = getMacHi(view, offset + ETHERNET_SRC_OFFSET);
    this.#routerLo = getMacLo(view, offset + ETHERNET_SRC_OFFSET);
    const at = offset + ETHERNET_HEADER_BYTES;
    const etherType = getEtherType(view, offset);
    if (etherType === ETHERTYPE_ARP) this.#receiveArp(view, at, end);
    else if (etherType === ETHERTYPE_IPV4) this.#receiveIpv4(view, at, end);
    else if (etherType === ETHERTYPE_IPV6) this.#receiveIpv6(view, at, end);
  }

  #receiveArp(view: DataView, at: number, end: number): void {
    if (checkArp(view, at, end) < 0 || getArpOperation(view, at) !== ARP_REQUEST) return;
    const own = this.ipv4?.[3];
    if (own === undefined || getArpTargetAddress(view, at) !== own) return;
    const sender = getArpSenderAddress(view, at);
    this.#writeEthernet(this.#routerHi, this.#routerLo, ETHERTYPE_ARP);
    writeArp(
      this.view,
      ETHERNET_HEADER_BYTES,
      ARP_REPLY,
      this.macHi,
      this.macLo,
      own,
      this.#routerHi,
      this.#routerLo,
      sender,
    );
    this.#packetEnd = ETHERNET_HEADER_BYTES + 28;
    this.sendPacket();
  }

  #receiveIpv4(view: DataView, at: number, end: number): void {
    const headerBytes = checkIpv4(view, at, end);
    if (headerBytes < 0) return;
    const source = mapIpv4(getIpv4Src(view, at));
    this.#dispatch(getIpv4Protocol(view, at), source, view, at + headerBytes, at + getIpv4TotalLength(view, at));
  }

  #receiveIpv6(view: DataView, at: number, end: number): void {
    if (checkIpv6(view, at, end) < 0) return;
    const source = new Uint32Array(4);
    loadIpv6(view, at + IPV6_SRC_OFFSET, source, 0);
    const start = at + IPV6_HEADER_BYTES;
    this.#dispatch(getIpv6NextHeader(view, at), source, view, start, start + getIpv6PayloadLength(view, at));
  }

  #dispatch(protocol: number, source: Uint32Array, view: DataView, at: number, end: number): void {
    if (protocol === IP_PROTOCOL_TCP) this.onTcp(source, view, at, end);
    else if (protocol === IP_PROTOCOL_UDP) this.#receiveUdp(source, view, at, end);
    else if (protocol === IP_PROTOCOL_ICMPV6) this.#receiveIcmpv6(source, view, at, end);
  }

  #receiveUdp(source: Uint32Array, view: DataView, at: number, end: number): void {
    if (checkUdp(view, at, end) < 0) return;
    const handler = this.udpHandlers.get(getUdpDstPort(view, at));
    handler?.(source, getUdpSrcPort(view, at), view, at + UDP_HEADER_BYTES, end);
  }

  #receiveIcmpv6(source: Uint32Array, view: DataView, at: number, end: number): void {
    if (checkNdp(view, at, end) < 0) return;
    if (view.getUint8(at) !== NDP_NEIGHBOR_SOLICITATION) {
      this.onIcmpv6(source, view, at, end);
      return;
    }
    const target = new Uint32Array(4);
    loadIpv6(view, at + NDP_TARGET_OFFSET, target, 0);
    if (!isSameIp(target, this.linkLocal) && !(this.ipv6 !== undefined && isSameIp(target, this.ipv6))) return;
    this.sendIcmpv6(source, 32, (out, start, outEnd) => {
      const flags = NDP_NA_SOLICITED | NDP_NA_OVERRIDE;
      const options = writeNdpNeighborAdvertisement(out, start, outEnd, flags, target, 0);
      writeNdpLinkAddress(out, options, outEnd, NDP_OPTION_TARGET_LINK_ADDRESS, this.macHi, this.macLo);
    });
  }
}
