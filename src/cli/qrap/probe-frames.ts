/**
 * What qrap says to a socket to learn whether passt listens there, in the framing of QEMU's stream netdev: an ARP request for
 * address 0, and a neighbour solicitation for ::, both from nobody to everybody. passt answers ARP requests for any address, and
 * it alone listens at these paths. The solicitation has no checksum, so that nobody answers it and one answer is all there is; it
 * is there because C's qrap sends it, and a peer may have been written to expect it.
 */
import { ARP_BYTES, ARP_REPLY, ARP_REQUEST, checkArp, getArpOperation, writeArp } from '../../wire/arp.ts';
import {
  checkEthernet,
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV6,
  getEtherType,
  MAC_BROADCAST_HI,
  MAC_BROADCAST_LO,
  writeEthernetHeader,
} from '../../wire/ethernet.ts';
import { FRAME_PREFIX_BYTES, writeFrameLength } from '../../wire/frame-length.ts';
import { IP_PROTOCOL_ICMPV6 } from '../../wire/ip-protocol.ts';
import { IPV6_HEADER_BYTES, writeIpv6Header } from '../../wire/ipv6.ts';
import { NDP_HOP_LIMIT, NDP_NEIGHBOR_BYTES, writeNdpNeighborSolicitation } from '../../wire/ndp.ts';

const ARP_FRAME_BYTES = ETHERNET_HEADER_BYTES + ARP_BYTES;
const NDP_FRAME_BYTES = ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + NDP_NEIGHBOR_BYTES;

/** :: at 0, ::1 at 4. */
const ADDRESSES = Uint32Array.of(0, 0, 0, 0, 0, 0, 0, 1);

/** Both frames, each behind its length: 128 bytes. */
export function buildProbe(): Uint8Array {
  const view = new DataView(new ArrayBuffer(2 * FRAME_PREFIX_BYTES + ARP_FRAME_BYTES + NDP_FRAME_BYTES));
  const arp = writeFrameStart(view, 0, ARP_FRAME_BYTES, ETHERTYPE_ARP);
  writeArp(view, arp, ARP_REQUEST, 0, 0, 0, 0, 0, 0);
  const ip = writeFrameStart(view, arp + ARP_BYTES, NDP_FRAME_BYTES, ETHERTYPE_IPV6);
  writeIpv6Header(view, ip, NDP_NEIGHBOR_BYTES, IP_PROTOCOL_ICMPV6, NDP_HOP_LIMIT, ADDRESSES, 4, ADDRESSES, 0, 0, 0);
  writeNdpNeighborSolicitation(view, ip + IPV6_HEADER_BYTES, view.byteLength, ADDRESSES, 0);
  return new Uint8Array(view.buffer);
}

function writeFrameStart(view: DataView, at: number, frameBytes: number, etherType: number): number {
  writeFrameLength(view, at, frameBytes);
  const frame = at + FRAME_PREFIX_BYTES;
  writeEthernetHeader(view, frame, MAC_BROADCAST_HI, MAC_BROADCAST_LO, MAC_BROADCAST_HI, MAC_BROADCAST_LO, etherType);
  return frame + ETHERNET_HEADER_BYTES;
}

/** Whether the frame in [offset, end) is an ARP reply. */
export function isArpReply(view: DataView, offset: number, end: number): boolean {
  if (checkEthernet(view, offset, end) < 0 || getEtherType(view, offset) !== ETHERTYPE_ARP) return false;
  const arp = offset + ETHERNET_HEADER_BYTES;
  return checkArp(view, arp, end) >= 0 && getArpOperation(view, arp) === ARP_REPLY;
}
