/**
 * Queries to the network's name server by UDP: handed over as they come, and answered when there is an answer, from the address that was asked.
 *
 * Answers are never fragmented: what does not fit the guest's MTU is shortened by the server, and asked for again by TCP, which is no
 * business of this module.
 */
import { pseudoSumIpv4, pseudoSumIpv6, sumBytes } from '../wire/checksum.ts';
import { IP_PROTOCOL_UDP } from '../wire/ip-protocol.ts';
import { IPV4_HEADER_BYTES } from '../wire/ipv4.ts';
import { IPV6_HEADER_BYTES } from '../wire/ipv6.ts';
import { getUdpSrcPort, UDP_HEADER_BYTES, writeUdpHeader } from '../wire/udp.ts';
import type { StackContext } from './context.ts';
import { closeIpPacketTo, openIpPacket } from './output.ts';
import type { PacketMeta } from './packet-meta.ts';
import type { NameServer } from './ports.ts';

export const DNS_PORT = 53;
const HOP_LIMIT = 64;

/** Where an answer goes, and from where. */
interface ReturnAddress {
  readonly family: number;
  /** 4 words each. */
  readonly guest: Uint32Array;
  readonly server: Uint32Array;
  readonly port: number;
  readonly macHi: number;
  readonly macLo: number;
}

export class DnsModule {
  private readonly ctx: StackContext;
  private readonly server: NameServer;

  constructor(ctx: StackContext, server: NameServer) {
    this.ctx = ctx;
    this.server = server;
  }

  /** Takes a UDP datagram to port 53. @returns whether it was for the server; false lets it go on its way */
  input(meta: PacketMeta): boolean {
    const { server, ctx } = this;
    const { family, source, destination, l4Offset, sourceMacHi, sourceMacLo } = meta;
    if (!server.isAt(destination)) return false;
    const { view, arena, config } = ctx;
    const at = l4Offset + UDP_HEADER_BYTES;
    const end = l4Offset + view.getUint16(l4Offset + 4);
    const to: ReturnAddress = {
      family,
      guest: source.slice(),
      server: destination.slice(),
      port: getUdpSrcPort(view, l4Offset),
      macHi: sourceMacHi,
      macLo: sourceMacLo,
    };
    const limit = config.mtu - (family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) - UDP_HEADER_BYTES;
    server.ask(arena.bytes.subarray(at, end), limit, (message) => this.send(message, to));
    return true;
  }

  private send(message: Uint8Array, to: ReturnAddress): void {
    const { ctx } = this;
    const { view, arena } = ctx;
    const { family, guest, server } = to;
    const length = UDP_HEADER_BYTES + message.length;
    const udp = openIpPacket(ctx, family, length);
    // Asked again, it is answered then.
    if (udp < 0) return;
    arena.bytes.set(message, udp + UDP_HEADER_BYTES);
    const pseudoSum =
      family === 4
        ? pseudoSumIpv4(server[3]!, guest[3]!, IP_PROTOCOL_UDP, length)
        : pseudoSumIpv6(server, 0, guest, 0, IP_PROTOCOL_UDP, length);
    const sum = sumBytes(view, udp + UDP_HEADER_BYTES, message.length, pseudoSum);
    writeUdpHeader(view, udp, DNS_PORT, to.port, length, sum);
    closeIpPacketTo(ctx, family, IP_PROTOCOL_UDP, udp, length, server, 0, guest, 0, HOP_LIMIT, to.macHi, to.macLo);
  }
}
