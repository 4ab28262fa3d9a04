/**
 * The network's own names, answered on the way: a query to the resolver that the guest was given is looked at first, and only what is about
 * other names goes on to the host's resolver, as any other datagram does.
 *
 * Not done: queries over TCP, which go on; answers of ours are never so long that a guest would have to ask that way.
 */
import { isSameIp } from '../base/ip-text.ts';
import { pseudoSumIpv4, pseudoSumIpv6, sumBytes } from '../wire/checksum.ts';
import { IP_PROTOCOL_UDP } from '../wire/ip-protocol.ts';
import { getUdpSrcPort, UDP_HEADER_BYTES, writeUdpHeader } from '../wire/udp.ts';
import type { StackContext } from './context.ts';
import { closeIpPacketTo, openIpPacket } from './output.ts';
import type { PacketMeta } from './packet-meta.ts';

export const DNS_PORT = 53;
const HOP_LIMIT = 64;

/**
 * Answers a DNS query.
 * @param query - the message; valid during the call only
 * @returns the answer, or undefined when somebody else is to be asked
 */
export type NameAnswerer = (query: Uint8Array) => Uint8Array | undefined;

export class DnsModule {
  private readonly ctx: StackContext;
  private readonly answer: NameAnswerer;

  constructor(ctx: StackContext, answer: NameAnswerer) {
    this.ctx = ctx;
    this.answer = answer;
  }

  /** Takes a UDP datagram to port 53. @returns whether it was answered; false lets it go on its way */
  input(meta: PacketMeta): boolean {
    if (!this.isForResolver(meta)) return false;
    const { view, arena } = this.ctx;
    const at = meta.l4Offset + UDP_HEADER_BYTES;
    const end = meta.l4Offset + view.getUint16(meta.l4Offset + 4);
    const answer = this.answer(arena.bytes.subarray(at, end));
    if (answer === undefined) return false;
    this.send(answer, meta);
    return true;
  }

  private isForResolver({ family, destination }: PacketMeta): boolean {
    const { ipv4, ipv6 } = this.ctx.config;
    if (family === 4) return ipv4?.resolvers.includes(destination[3]!) === true;
    return ipv6?.resolvers.some((resolver) => isSameIp(resolver, destination)) === true;
  }

  private send(
    message: Uint8Array,
    { family, source, destination, l4Offset, sourceMacHi, sourceMacLo }: PacketMeta,
  ): void {
    const { ctx } = this;
    const { view, arena } = ctx;
    const length = UDP_HEADER_BYTES + message.length;
    const port = getUdpSrcPort(view, l4Offset);
    const udp = openIpPacket(ctx, family, length);
    // Asked again, it is answered then.
    if (udp < 0) return;
    arena.bytes.set(message, udp + UDP_HEADER_BYTES);
    const pseudoSum =
      family === 4
        ? pseudoSumIpv4(destination[3]!, source[3]!, IP_PROTOCOL_UDP, length)
        : pseudoSumIpv6(destination, 0, source, 0, IP_PROTOCOL_UDP, length);
    const sum = sumBytes(view, udp + UDP_HEADER_BYTES, message.length, pseudoSum);
    writeUdpHeader(view, udp, DNS_PORT, port, length, sum);
    closeIpPacketTo(
      ctx,
      family,
      IP_PROTOCOL_UDP,
      udp,
      length,
      destination,
      0,
      source,
      0,
      HOP_LIMIT,
      sourceMacHi,
      sourceMacLo,
    );
  }
}
