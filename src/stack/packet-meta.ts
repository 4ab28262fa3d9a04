/**
 * What `input` found out about the frame at hand. One record, reused for every frame: copy what must outlive the call.
 */
export interface PacketMeta {
  /** Ethernet header in the arena; always valid. */
  frameOffset: number;
  /** One past the frame's last byte (padding included); always valid. */
  frameEnd: number;
  /**
   * The checksum of the packet's TCP or UDP needs no look: the sender has left it to whom the frame leaves the machine by, or
   * says that it was verified. Always valid; of a reassembled packet it is the last fragment's, which never has it.
   */
  isChecksumTrusted: boolean;
  /** The datagram is several, of this payload each but the last; 0: one. Valid for UDP. */
  datagramBytes: number;
  sourceMacHi: number;
  sourceMacLo: number;
  /** EtherType; always valid. */
  etherType: number;
  /** 4 or 6; valid for IP packets, as is all that follows. */
  family: number;
  l3Offset: number;
  /** IPPROTO number behind all extension headers. */
  protocol: number;
  /** First byte behind the IP header and its extension headers. */
  l4Offset: number;
  /** Bytes from l4Offset to the end of the IP packet (padding of the frame excluded). */
  l4Length: number;
  /** TTL or hop limit. */
  hopLimit: number;
  /** TOS or traffic class byte. */
  trafficClass: number;
  /** 4 words each, IPv4 v4-mapped. */
  readonly source: Uint32Array;
  readonly destination: Uint32Array;
}

export function createPacketMeta(): PacketMeta {
  return {
    frameOffset: 0,
    frameEnd: 0,
    isChecksumTrusted: false,
    datagramBytes: 0,
    sourceMacHi: 0,
    sourceMacLo: 0,
    etherType: 0,
    family: 0,
    l3Offset: 0,
    protocol: 0,
    l4Offset: 0,
    l4Length: 0,
    hopLimit: 0,
    trafficClass: 0,
    source: new Uint32Array(4),
    destination: new Uint32Array(4),
  };
}
