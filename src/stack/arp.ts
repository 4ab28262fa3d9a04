/**
 * ARP (RFC 826): to the guest, all IPv4 addresses are behind our MAC, since whatever it sends anywhere has to come to us.
 *
 * A request for any address is answered, except for the guest's own ones: the leased address and the one it was last seen to use.
 * A probe, whose sender address is 0, asks whether an address is free (RFC 5227 §2.1.1); only the gateway's is not, so that a
 * guest can take a static address of its choice. Where guests share a link, each answers for its own addresses, and only the rest
 * is behind our MAC. An announcement (sender = target) wants no answer. Requests, replies and
 * announcements all tell which address the guest uses, and forwards follow that.
 *
 * One request is no guest's: from nobody for address 0, by which qrap(1) finds out whether a passt is here. It is answered with IPv4
 * switched off as well.
 *
 * Nothing is stored: the guest's MAC is the source of its frames. A guest that has not sent any yet is asked for it (`askGuest`) when
 * something is to be sent to it, since what goes to the broadcast MAC no TCP takes.
 */
import {
  ARP_BYTES,
  ARP_REPLY,
  ARP_REQUEST,
  ARP_SENDER_MAC_OFFSET,
  checkArp,
  getArpOperation,
  getArpSenderAddress,
  getArpTargetAddress,
  writeArp,
} from '../wire/arp.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_MIN_FRAME_BYTES,
  ETHERTYPE_ARP,
  getMacHi,
  getMacLo,
  MAC_BROADCAST_HI,
  MAC_BROADCAST_LO,
  writeEthernetHeader,
} from '../wire/ethernet.ts';
import { IPV4_MAPPED_WORD } from '../wire/ipv4.ts';
import { WIRE_TRUNCATED } from '../wire/status.ts';
import type { StackContext } from './context.ts';
import { isNeighbours } from './on-link.ts';
import { commitPadded } from './output.ts';
import type { PacketMeta } from './packet-meta.ts';

/** Of a v4-mapped address, before the IPv4 address begins. */
const IPV4_MAPPED_BITS = 96;

export class ArpModule {
  private readonly ctx: StackContext;
  private readonly sender = Uint32Array.of(0, 0, IPV4_MAPPED_WORD, 0);
  private readonly target = Uint32Array.of(0, 0, IPV4_MAPPED_WORD, 0);
  private readonly network = Uint32Array.of(0, 0, IPV4_MAPPED_WORD, 0);

  constructor(ctx: StackContext) {
    this.ctx = ctx;
  }

  /** Takes a frame of EtherType ARP. */
  input(meta: PacketMeta): void {
    const { ctx } = this;
    const { view, counters, guest, config } = ctx;
    const { ipv4 } = config;
    const at = meta.frameOffset + ETHERNET_HEADER_BYTES;
    const status = checkArp(view, at, meta.frameEnd);
    if (status < 0) {
      if (status === WIRE_TRUNCATED) counters.badEthernet++;
      else counters.unknownProtocol++;
      return;
    }
    const senderAddress = getArpSenderAddress(view, at);
    const targetAddress = getArpTargetAddress(view, at);
    if (senderAddress === 0 && targetAddress === 0) {
      if (getArpOperation(view, at) === ARP_REQUEST) this.reply(at, 0, 0, meta);
      return;
    }
    if (ipv4 === undefined) return;
    // A guest that claims our own address keeps the forwards it had: nothing could be sent to it there.
    if (senderAddress !== ipv4.gateway) {
      this.sender[3] = senderAddress;
      guest.observeAddress(4, this.sender);
    }
    if (getArpOperation(view, at) !== ARP_REQUEST || senderAddress === targetAddress) return;
    if (targetAddress !== ipv4.gateway) {
      if (senderAddress === 0) return;
      if (targetAddress === ipv4.guestAddress || targetAddress === guest.ipv4[3]) return;
      const { network, target } = this;
      target[3] = targetAddress;
      network[3] = ipv4.guestAddress;
      if (isNeighbours(target, network, IPV4_MAPPED_BITS + ipv4.prefixLength, config.ownAddresses)) return;
    }
    this.reply(at, senderAddress, targetAddress, meta);
  }

  /** Asks who has the guest's address; its answer, like any frame, tells its MAC. */
  askGuest(): void {
    const { config, guest } = this.ctx;
    if (config.ipv4 === undefined) return;
    this.send(ARP_REQUEST, MAC_BROADCAST_HI, MAC_BROADCAST_LO, config.ipv4.gateway, 0, 0, guest.ipv4[3]!);
  }

  /** Says that `address` is here; `at` is the request. */
  private reply(at: number, senderAddress: number, address: number, meta: PacketMeta): void {
    const { view } = this.ctx;
    const macHi = getMacHi(view, at + ARP_SENDER_MAC_OFFSET);
    const macLo = getMacLo(view, at + ARP_SENDER_MAC_OFFSET);
    this.send(ARP_REPLY, meta.sourceMacHi, meta.sourceMacLo, address, macHi, macLo, senderAddress);
  }

  private send(
    operation: number,
    destinationHi: number,
    destinationLo: number,
    senderAddress: number,
    targetHi: number,
    targetLo: number,
    targetAddress: number,
  ): void {
    const { ctx } = this;
    const { view, link, config, counters } = ctx;
    const start = link.reserve(link.headroomBytes + ETHERNET_MIN_FRAME_BYTES);
    if (start < 0) {
      counters.droppedNoRoom++;
      return;
    }
    const frame = start + link.headroomBytes;
    const { ourMacHi, ourMacLo } = config;
    writeEthernetHeader(view, frame, destinationHi, destinationLo, ourMacHi, ourMacLo, ETHERTYPE_ARP);
    writeArp(
      view,
      frame + ETHERNET_HEADER_BYTES,
      operation,
      ourMacHi,
      ourMacLo,
      senderAddress,
      targetHi,
      targetLo,
      targetAddress,
    );
    commitPadded(ctx, frame, ETHERNET_HEADER_BYTES + ARP_BYTES);
  }
}
