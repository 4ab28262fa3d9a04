/**
 * A second, naive encoder of frames for scripted guests: slow, plain, and independent of src/wire, so that a fault there cannot
 * hide from the tests. Field values can be set wrong on purpose.
 */

/** Sum of RFC 1071 over the concatenation of `parts`, complemented. */
export function internetChecksum(...parts: Uint8Array[]): number {
  const all = Buffer.concat(parts);
  let sum = 0;
  for (let i = 0; i < all.length; i += 2) sum += ((all[i] ?? 0) << 8) | (all[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** "52:54:00:12:34:56" as six bytes. */
export function macBytes(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

/** Dotted IPv4 as four bytes. */
export function ipv4Bytes(text: string): Buffer {
  return Buffer.from(text.split('.').map(Number));
}

/** IPv6 text (with at most one "::", no embedded IPv4) as sixteen bytes. */
export function ipv6Bytes(text: string): Buffer {
  const [head = '', tail] = text.split('::');
  const groups = (part: string): number[] =>
    part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16));
  const front = groups(head);
  const back = tail === undefined ? [] : groups(tail);
  const all = [...front, ...new Array<number>(8 - front.length - back.length).fill(0), ...back];
  const bytes = Buffer.alloc(16);
  for (const [index, group] of all.entries()) bytes.writeUInt16BE(group, index * 2);
  return bytes;
}

/** An address of either family as bytes. */
export function addressBytes(text: string): Buffer {
  return text.includes(':') ? ipv6Bytes(text) : ipv4Bytes(text);
}

/** An Ethernet frame (IEEE 802.3, without FCS). */
export function ethernet(destination: string, source: string, etherType: number, payload: Uint8Array): Buffer {
  const type = Buffer.alloc(2);
  type.writeUInt16BE(etherType);
  return Buffer.concat([macBytes(destination), macBytes(source), type, payload]);
}

/** ARP request or reply (RFC 826); operation 1 is a request. */
export function arp(
  operation: number,
  senderMac: string,
  senderIp: string,
  targetMac: string,
  targetIp: string,
): Buffer {
  const header = Buffer.from([0, 1, 8, 0, 6, 4, 0, operation]);
  return Buffer.concat([header, macBytes(senderMac), ipv4Bytes(senderIp), macBytes(targetMac), ipv4Bytes(targetIp)]);
}

/** Fields of {@link ipv4} that are computed unless given. */
export interface Ipv4Fields {
  totalLength?: number;
  headerWords?: number;
  version?: number;
  id?: number;
  /** Flags and fragment offset as they stand in the header. */
  fragment?: number;
  ttl?: number;
  options?: Uint8Array;
}

/** IPv4 packet (RFC 791) with a correct header checksum. */
export function ipv4(
  source: string,
  destination: string,
  protocol: number,
  payload: Uint8Array,
  fields: Ipv4Fields = {},
): Buffer {
  const options = fields.options ?? new Uint8Array(0);
  const header = Buffer.alloc(20 + options.length);
  header[0] = ((fields.version ?? 4) << 4) | (fields.headerWords ?? header.length / 4);
  header.writeUInt16BE(fields.totalLength ?? header.length + payload.length, 2);
  header.writeUInt16BE(fields.id ?? 0, 4);
  header.writeUInt16BE(fields.fragment ?? 0, 6);
  header[8] = fields.ttl ?? 64;
  header[9] = protocol;
  ipv4Bytes(source).copy(header, 12);
  ipv4Bytes(destination).copy(header, 16);
  header.set(options, 20);
  header.writeUInt16BE(internetChecksum(header), 10);
  return Buffer.concat([header, payload]);
}

/** IPv6 packet (RFC 8200). */
export function ipv6(
  source: string,
  destination: string,
  nextHeader: number,
  payload: Uint8Array,
  fields: { payloadLength?: number; hopLimit?: number; version?: number } = {},
): Buffer {
  const header = Buffer.alloc(40);
  header[0] = (fields.version ?? 6) << 4;
  header.writeUInt16BE(fields.payloadLength ?? payload.length, 4);
  header[6] = nextHeader;
  header[7] = fields.hopLimit ?? 255;
  ipv6Bytes(source).copy(header, 8);
  ipv6Bytes(destination).copy(header, 24);
  return Buffer.concat([header, payload]);
}

function pseudoHeader(source: string, destination: string, protocol: number, length: number): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(length, 0);
  tail[7] = protocol;
  return Buffer.concat([addressBytes(source), addressBytes(destination), tail]);
}

/** Writes the checksum over pseudo header and `segment` at `offset` of it. */
function seal(segment: Buffer, offset: number, source: string, destination: string, protocol: number): Buffer {
  const sum = internetChecksum(pseudoHeader(source, destination, protocol, segment.length), segment);
  segment.writeUInt16BE(protocol === PROTOCOL_UDP && sum === 0 ? 0xffff : sum, offset);
  return segment;
}

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;
export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_IPV6 = 0x86dd;

/** Control bits (RFC 9293, section 3.1). */
export const TCP_FIN = 1;
export const TCP_SYN = 2;
export const TCP_RST = 4;
export const TCP_PSH = 8;
export const TCP_ACK = 16;

/** Fields of {@link tcp}; ports are required. */
export interface TcpFields {
  sourcePort: number;
  destinationPort: number;
  seq?: number;
  ack?: number;
  flags?: number;
  window?: number;
  headerWords?: number;
  options?: Uint8Array;
  payload?: Uint8Array;
}

/** TCP segment (RFC 9293) with a correct checksum. */
export function tcp(source: string, destination: string, fields: TcpFields): Buffer {
  const options = fields.options ?? new Uint8Array(0);
  const header = Buffer.alloc(20 + options.length);
  header.writeUInt16BE(fields.sourcePort, 0);
  header.writeUInt16BE(fields.destinationPort, 2);
  header.writeUInt32BE((fields.seq ?? 0) >>> 0, 4);
  header.writeUInt32BE((fields.ack ?? 0) >>> 0, 8);
  header[12] = (fields.headerWords ?? header.length / 4) << 4;
  header[13] = fields.flags ?? TCP_ACK;
  header.writeUInt16BE(fields.window ?? 65535, 14);
  header.set(options, 20);
  const segment = Buffer.concat([header, fields.payload ?? new Uint8Array(0)]);
  return seal(segment, 16, source, destination, PROTOCOL_TCP);
}

/** UDP datagram (RFC 768) with a correct checksum. */
export function udp(
  source: string,
  destination: string,
  sourcePort: number,
  destinationPort: number,
  payload: Uint8Array,
  length = 8 + payload.length,
): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(sourcePort, 0);
  header.writeUInt16BE(destinationPort, 2);
  header.writeUInt16BE(length, 4);
  return seal(Buffer.concat([header, payload]), 6, source, destination, PROTOCOL_UDP);
}

/** ICMP message (RFC 792), such as an echo request (type 8). */
export function icmp(type: number, code: number, rest: Uint8Array): Buffer {
  const message = Buffer.concat([Buffer.from([type, code, 0, 0]), rest]);
  message.writeUInt16BE(internetChecksum(message), 2);
  return message;
}

/** ICMPv6 message (RFC 4443) with a correct checksum. */
export function icmpv6(source: string, destination: string, type: number, code: number, rest: Uint8Array): Buffer {
  const message = Buffer.concat([Buffer.from([type, code, 0, 0]), rest]);
  return seal(message, 2, source, destination, PROTOCOL_ICMPV6);
}

/** DHCPv4 message of a client (RFC 2131), options given as TLVs; the end option is added. */
export function dhcp(mac: string, xid: number, options: Uint8Array): Buffer {
  const fixed = Buffer.alloc(240);
  fixed.set([1, 1, 6, 0]);
  fixed.writeUInt32BE(xid >>> 0, 4);
  macBytes(mac).copy(fixed, 28);
  fixed.writeUInt32BE(0x63825363, 236);
  return Buffer.concat([fixed, options, Buffer.from([255])]);
}
