/**
 * Where every frame from the guest comes in: checks Ethernet and IP, fills the one PacketMeta, and hands on to the protocol's module.
 *
 * Frames to a unicast MAC that is not ours are overheard traffic (a guest that bridges): they are dropped, and teach us nothing
 * about the guest's address. A frame that continues the TCP flow of the one before it is told by comparing the two (same-headers.ts).
 * IP fragments go through reassembly and come back as whole packets. UDP and ICMP checksums are
 * the modules' business. What is not understood is counted, and logged at most once in a while: a guest must not be able to fill a
 * log.
 */
import { createLogGate, type LogGate, passLogGate, takeSuppressed } from '../base/logger.ts';
import {
  checkEthernet,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SRC_OFFSET,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  getEtherType,
  getMacHi,
  getMacLo,
  isMulticastMac,
} from '../wire/ethernet.ts';
import { checkIcmp, getIcmpType, ICMP_ECHO_REQUEST } from '../wire/icmp.ts';
import { IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6, IP_PROTOCOL_TCP, IP_PROTOCOL_UDP } from '../wire/ip-protocol.ts';
import {
  checkIpv4,
  getIpv4Dst,
  getIpv4Protocol,
  getIpv4Src,
  getIpv4Tos,
  getIpv4TotalLength,
  getIpv4Ttl,
  IPV4_MAPPED_WORD,
  isIpv4Fragment,
} from '../wire/ipv4.ts';
import {
  checkIpv6,
  createIpv6Extensions,
  getIpv6HopLimit,
  getIpv6PayloadLength,
  getIpv6TrafficClass,
  IPV6_DST_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_SRC_OFFSET,
  loadIpv6,
  skipIpv6Extensions,
} from '../wire/ipv6.ts';
import { TCP_HEADER_BYTES } from '../wire/tcp.ts';
import { checkUdp, getUdpDstPort } from '../wire/udp.ts';
import {
  checkVnet,
  getVnetFlags,
  getVnetKind,
  getVnetSegmentBytes,
  VNET_CHECKSUM_VALID,
  VNET_HEADER_BYTES,
  VNET_NEEDS_CHECKSUM,
  VNET_UDP,
} from '../wire/vnet.ts';
import type { StackContext } from './context.ts';
import { DNS_PORT } from './dns.ts';
import { createPacketMeta, type PacketMeta } from './packet-meta.ts';
import { hasSameHeaders4, hasSameHeaders6, PLAIN_TCP4_OFFSET, PLAIN_TCP6_OFFSET } from './same-headers.ts';
import type { TcpModule } from './tcp/module.ts';

const DHCP_SERVER_PORT = 67;
const DHCPV6_SERVER_PORT = 547;
const TFTP_PORT = 69;
const ICMPV6_ECHO_REQUEST = 128;
const NDP_FIRST_TYPE = 133;
const NDP_LAST_TYPE = 136;
/** How often at most a line about malformed frames is written. */
const LOG_INTERVAL_MS = 10_000;

/** The modules behind the dispatch, as it needs them. */
export interface InputModules {
  readonly arp: { input(meta: PacketMeta): void };
  readonly ndp: { input(meta: PacketMeta): void };
  readonly dhcp: { input(meta: PacketMeta): boolean };
  readonly dhcpv6: { input(meta: PacketMeta): boolean };
  readonly echo: { input4(meta: PacketMeta): void; input6(meta: PacketMeta): void };
  readonly tcp: Pick<TcpModule, 'input' | 'inputNext' | 'endInput'>;
  readonly udp: { input(meta: PacketMeta): void; endInput(): void };
  readonly tftp?: { input(meta: PacketMeta): boolean } | undefined;
  /** Undefined: no names are the network's own. */
  readonly dns?: { input(meta: PacketMeta): boolean } | undefined;
  /** Takes a fragment. @returns the arena offset of the whole packet's IP header when this was the last piece, else negative */
  readonly reassembly: {
    input4(l3Offset: number, nowMs: number): number;
    input6(l3Offset: number, nowMs: number): number;
    endInput(): void;
  };
}

export class Input {
  private readonly ctx: StackContext;
  private readonly modules: InputModules;
  private readonly meta = createPacketMeta();
  private readonly extensions = createIpv6Extensions();
  private readonly malformedGate: LogGate = createLogGate(LOG_INTERVAL_MS);
  /** The last frame, when it was the next payload of a TCP flow and lies where it can be compared with; 0: it was not. */
  private trainOffset = 0;
  private trainFamily = 0;

  constructor(ctx: StackContext, modules: InputModules) {
    this.ctx = ctx;
    this.modules = modules;
    this.meta.source[2] = IPV4_MAPPED_WORD;
    this.meta.destination[2] = IPV4_MAPPED_WORD;
  }

  /** Takes one frame of `lengthBytes` at `offset` in the arena. */
  frame(offset: number, lengthBytes: number): void {
    const { ctx, meta } = this;
    const { view, counters, config } = ctx;
    const end = offset + lengthBytes;
    counters.guestFrames++;
    counters.guestBytes += lengthBytes;
    if (this.trainOffset !== 0) {
      if (this.continueTrain(offset, lengthBytes)) return;
      this.trainOffset = 0;
    }
    if (checkEthernet(view, offset, end) < 0) {
      counters.badEthernet++;
      this.noteMalformed('Ethernet', lengthBytes);
      return;
    }
    if (ctx.link.hasVnetHeader && !this.takeVnetHeader(offset, end)) return;
    const destinationHi = getMacHi(view, offset);
    if (!isMulticastMac(destinationHi)) {
      if (destinationHi !== config.ourMacHi || getMacLo(view, offset) !== config.ourMacLo) {
        counters.overheard++;
        return;
      }
    }
    meta.frameOffset = offset;
    meta.frameEnd = end;
    meta.sourceMacHi = getMacHi(view, offset + ETHERNET_SRC_OFFSET);
    meta.sourceMacLo = getMacLo(view, offset + ETHERNET_SRC_OFFSET);
    if (!isMulticastMac(meta.sourceMacHi)) ctx.guest.observeMac(meta.sourceMacHi, meta.sourceMacLo);
    const etherType = getEtherType(view, offset);
    meta.etherType = etherType;
    const l3Offset = offset + ETHERNET_HEADER_BYTES;
    if (etherType === ETHERTYPE_IPV4) {
      if (config.ipv4 !== undefined) this.ipv4(l3Offset, end, false);
    } else if (etherType === ETHERTYPE_IPV6) {
      if (config.ipv6 !== undefined) this.ipv6(l3Offset, end, false);
    } else if (etherType === ETHERTYPE_ARP) {
      this.modules.arp.input(meta);
    } else {
      counters.unknownProtocol++;
    }
  }

  /** The frames handed in so far are about to be overwritten: what refers to them goes out first. */
  endBatch(): void {
    const { tcp, udp, reassembly } = this.modules;
    this.trainOffset = 0;
    tcp.endInput();
    udp.endInput();
    reassembly.endInput();
  }

  /** Takes a frame that continues the TCP flow of the last one: of a transfer's frames nearly all. */
  private continueTrain(offset: number, lengthBytes: number): boolean {
    const { view } = this.ctx;
    const { trainOffset } = this;
    if (this.trainFamily === 4) {
      return (
        lengthBytes > PLAIN_TCP4_OFFSET + TCP_HEADER_BYTES &&
        hasSameHeaders4(view, trainOffset, offset, lengthBytes) &&
        this.modules.tcp.inputNext(offset + PLAIN_TCP4_OFFSET, lengthBytes - PLAIN_TCP4_OFFSET)
      );
    }
    return (
      lengthBytes > PLAIN_TCP6_OFFSET + TCP_HEADER_BYTES &&
      hasSameHeaders6(view, trainOffset, offset, lengthBytes) &&
      this.modules.tcp.inputNext(offset + PLAIN_TCP6_OFFSET, lengthBytes - PLAIN_TCP6_OFFSET)
    );
  }

  /** What follows may continue the flow of the frame at hand, unless its headers are not what comparing is made for. */
  private beginTrain(): void {
    const { ctx, meta } = this;
    const plain = meta.family === 4 ? PLAIN_TCP4_OFFSET : PLAIN_TCP6_OFFSET;
    // Behind a virtio-net header a frame holds many segments already, and has one header more to be checked.
    if (ctx.link.hasVnetHeader || meta.l4Offset !== meta.frameOffset + plain) return;
    this.trainOffset = meta.frameOffset;
    this.trainFamily = meta.family;
  }

  /** @returns false when the header says what cannot be */
  private takeVnetHeader(offset: number, end: number): boolean {
    const { ctx, meta } = this;
    const { view } = ctx;
    const header = offset - VNET_HEADER_BYTES;
    if (checkVnet(view, header, end) < 0) {
      ctx.counters.badEthernet++;
      this.noteMalformed('virtio-net header', end - offset);
      return false;
    }
    meta.isChecksumTrusted = (getVnetFlags(view, header) & (VNET_NEEDS_CHECKSUM | VNET_CHECKSUM_VALID)) !== 0;
    meta.datagramBytes = getVnetKind(view, header) === VNET_UDP ? getVnetSegmentBytes(view, header) : 0;
    return true;
  }

  private ipv4(l3Offset: number, end: number, isReassembled: boolean): void {
    const { ctx, meta } = this;
    const { view, counters } = ctx;
    const headerLength = checkIpv4(view, l3Offset, end);
    if (headerLength < 0) {
      counters.badIpv4++;
      this.noteMalformed('IPv4', end - l3Offset);
      return;
    }
    if (!isReassembled && isIpv4Fragment(view, l3Offset)) {
      const whole = this.modules.reassembly.input4(l3Offset, ctx.nowMs);
      if (whole > 0) this.ipv4(whole, whole + getIpv4TotalLength(view, whole), true);
      return;
    }
    const { source, destination } = meta;
    source[0] = 0;
    source[1] = 0;
    source[2] = IPV4_MAPPED_WORD;
    source[3] = getIpv4Src(view, l3Offset);
    destination[0] = 0;
    destination[1] = 0;
    destination[2] = IPV4_MAPPED_WORD;
    destination[3] = getIpv4Dst(view, l3Offset);
    meta.family = 4;
    meta.l3Offset = l3Offset;
    meta.protocol = getIpv4Protocol(view, l3Offset);
    meta.l4Offset = l3Offset + headerLength;
    meta.l4Length = getIpv4TotalLength(view, l3Offset) - headerLength;
    meta.hopLimit = getIpv4Ttl(view, l3Offset);
    meta.trafficClass = getIpv4Tos(view, l3Offset);
    this.transport();
  }

  private ipv6(l3Offset: number, end: number, isReassembled: boolean): void {
    const { ctx, meta, extensions } = this;
    const { view, counters } = ctx;
    if (checkIpv6(view, l3Offset, end) < 0) {
      counters.badIpv6++;
      this.noteMalformed('IPv6', end - l3Offset);
      return;
    }
    const packetEnd = l3Offset + IPV6_HEADER_BYTES + getIpv6PayloadLength(view, l3Offset);
    if (skipIpv6Extensions(view, l3Offset, packetEnd, extensions) < 0) {
      counters.badIpv6++;
      this.noteMalformed('IPv6 extension header', end - l3Offset);
      return;
    }
    if (extensions.fragmentHeaderOffset !== 0) {
      if (isReassembled) return;
      const whole = this.modules.reassembly.input6(l3Offset, ctx.nowMs);
      if (whole > 0) this.ipv6(whole, whole + IPV6_HEADER_BYTES + getIpv6PayloadLength(view, whole), true);
      return;
    }
    loadIpv6(view, l3Offset + IPV6_SRC_OFFSET, meta.source, 0);
    loadIpv6(view, l3Offset + IPV6_DST_OFFSET, meta.destination, 0);
    meta.family = 6;
    meta.l3Offset = l3Offset;
    meta.protocol = extensions.protocol;
    meta.l4Offset = extensions.l4Offset;
    meta.l4Length = packetEnd - extensions.l4Offset;
    meta.hopLimit = getIpv6HopLimit(view, l3Offset);
    meta.trafficClass = getIpv6TrafficClass(view, l3Offset);
    this.transport();
  }

  private transport(): void {
    const { ctx, meta, modules } = this;
    const { config } = ctx;
    ctx.guest.observeAddress(meta.family, meta.source);
    switch (meta.protocol) {
      case IP_PROTOCOL_TCP:
        if (config.tcp && modules.tcp.input(meta)) this.beginTrain();
        return;
      case IP_PROTOCOL_UDP:
        this.udp();
        return;
      case IP_PROTOCOL_ICMP:
        if (meta.family === 4) this.icmp();
        return;
      case IP_PROTOCOL_ICMPV6:
        if (meta.family === 6) this.icmpv6();
        return;
      default:
        ctx.counters.unknownProtocol++;
    }
  }

  private udp(): void {
    const { ctx, meta, modules } = this;
    const { view, config } = ctx;
    if (checkUdp(view, meta.l4Offset, meta.l4Offset + meta.l4Length) < 0) {
      ctx.counters.badUdp++;
      this.noteMalformed('UDP', meta.l4Length);
      return;
    }
    const port = getUdpDstPort(view, meta.l4Offset);
    if (meta.family === 4) {
      if (port === DHCP_SERVER_PORT && config.dhcp && modules.dhcp.input(meta)) return;
    } else if (port === DHCPV6_SERVER_PORT && config.dhcpv6 && modules.dhcpv6.input(meta)) {
      return;
    }
    if (port === TFTP_PORT && modules.tftp?.input(meta) === true) return;
    if (port === DNS_PORT && modules.dns?.input(meta) === true) return;
    if (config.udp) modules.udp.input(meta);
  }

  private icmp(): void {
    const { ctx, meta } = this;
    if (checkIcmp(ctx.view, meta.l4Offset, meta.l4Offset + meta.l4Length) < 0) {
      ctx.counters.badIcmp++;
      this.noteMalformed('ICMP', meta.l4Length);
      return;
    }
    if (ctx.config.icmp && getIcmpType(ctx.view, meta.l4Offset) === ICMP_ECHO_REQUEST) this.modules.echo.input4(meta);
  }

  private icmpv6(): void {
    const { ctx, meta } = this;
    if (meta.l4Length < 8) {
      ctx.counters.badIcmp++;
      this.noteMalformed('ICMPv6', meta.l4Length);
      return;
    }
    const type = ctx.view.getUint8(meta.l4Offset);
    if (type >= NDP_FIRST_TYPE && type <= NDP_LAST_TYPE) {
      if (ctx.config.ndp) this.modules.ndp.input(meta);
    } else if (type === ICMPV6_ECHO_REQUEST && ctx.config.icmp) {
      this.modules.echo.input6(meta);
    }
  }

  private noteMalformed(what: string, lengthBytes: number): void {
    const { ctx, malformedGate } = this;
    if (!passLogGate(malformedGate, ctx.nowMs)) return;
    const before = takeSuppressed(malformedGate);
    const more = before === 0 ? '' : ` (${before} more malformed frames since the last line)`;
    ctx.log.warn(`malformed ${what} from the guest dropped, ${lengthBytes} bytes${more}`);
  }
}
