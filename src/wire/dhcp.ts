/**
 * DHCP for IPv4 (RFC 2131) and its options (RFC 2132 and the RFCs named at each writer).
 *
 * A message is 236 fixed bytes, a magic cookie and options, each a code, a length and data. Options may continue in the fixed
 * fields `file` and `sname` (option 52). `checkDhcp` proves the fixed part and the cookie; options are looked up one at a time,
 * and each look-up stays in bounds whatever they say, so one that is broken costs only itself and what stands behind it.
 *
 * Building: `writeDhcpHeader`, append options (see room.ts), `writeDhcpEnd`, which also pads to the 300 bytes that old
 * clients and relays expect (RFC 1542 §2.1).
 *
 * Not done: reading options that are split over several instances (RFC 3396); hardware other than Ethernet.
 */
import { writeCompressedDnsNameList, writeDnsName } from './dns-name.ts';
import { checkRoom } from './room.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from './status.ts';

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;

/** Fixed part and cookie. */
export const DHCP_HEADER_BYTES = 240;
/** RFC 1542 §2.1. */
export const DHCP_MIN_MESSAGE_BYTES = 300;
/** RFC 2131 §3: the first four bytes of the options field. */
export const DHCP_MAGIC_COOKIE = 0x63825363;
const COOKIE_OFFSET = 236;
const SNAME_OFFSET = 44;
const SNAME_BYTES = 64;
const FILE_OFFSET = 108;
const FILE_BYTES = 128;
const HARDWARE_ETHERNET = 1;

/** Where the client's MAC stands. */
export const DHCP_CLIENT_MAC_OFFSET = 28;

/** op field (RFC 2131 §2). */
export const DHCP_BOOT_REQUEST = 1;
export const DHCP_BOOT_REPLY = 2;
/** flags field: the client cannot take unicast yet (RFC 2131 §4.1). */
export const DHCP_FLAG_BROADCAST = 0x8000;

/** Message types, the value of option 53 (RFC 2132 §9.6). */
export const DHCP_DISCOVER = 1;
export const DHCP_OFFER = 2;
export const DHCP_REQUEST = 3;
export const DHCP_DECLINE = 4;
export const DHCP_ACK = 5;
export const DHCP_NAK = 6;
export const DHCP_RELEASE = 7;
export const DHCP_INFORM = 8;

/** Option codes (RFC 2132; others as named). */
export const DHCP_OPTION_PAD = 0;
export const DHCP_OPTION_SUBNET_MASK = 1;
export const DHCP_OPTION_ROUTER = 3;
export const DHCP_OPTION_DNS = 6;
export const DHCP_OPTION_HOSTNAME = 12;
export const DHCP_OPTION_DOMAIN_NAME = 15;
export const DHCP_OPTION_MTU = 26;
export const DHCP_OPTION_BROADCAST = 28;
export const DHCP_OPTION_REQUESTED_ADDRESS = 50;
export const DHCP_OPTION_LEASE_TIME = 51;
export const DHCP_OPTION_OVERLOAD = 52;
export const DHCP_OPTION_MESSAGE_TYPE = 53;
export const DHCP_OPTION_SERVER_ID = 54;
export const DHCP_OPTION_PARAMETER_LIST = 55;
export const DHCP_OPTION_MESSAGE = 56;
export const DHCP_OPTION_MAX_MESSAGE_SIZE = 57;
export const DHCP_OPTION_CLIENT_ID = 61;
export const DHCP_OPTION_TFTP_SERVER_NAME = 66;
/** RFC 4039. */
export const DHCP_OPTION_RAPID_COMMIT = 80;
/** RFC 4702. */
export const DHCP_OPTION_FQDN = 81;
/** RFC 3046. */
export const DHCP_OPTION_RELAY_AGENT = 82;
/** RFC 3397. */
export const DHCP_OPTION_DOMAIN_SEARCH = 119;
/** RFC 3442. */
export const DHCP_OPTION_CLASSLESS_ROUTES = 121;
export const DHCP_OPTION_END = 255;

/** Lease time in seconds that means "for ever" (RFC 2131 §3.3). */
export const DHCP_INFINITE_LEASE_SEC = 0xffffffff;

/** Flags of option 81 (RFC 4702 §2.1): server updates A; it overrides the client; name in wire form; no update at all. */
export const DHCP_FQDN_S = 0x01;
export const DHCP_FQDN_O = 0x02;
export const DHCP_FQDN_E = 0x04;
export const DHCP_FQDN_N = 0x08;

const MAX_OPTION_BYTES = 255;
/** What the field `file` holds, less the zero at its end. */
export const DHCP_FILE_NAME_MAX = 127;

/** @returns 240, WIRE_TRUNCATED, WIRE_BAD_LENGTH (hardware address too long), or WIRE_UNSUPPORTED without the magic cookie */
export function checkDhcp(view: DataView, offset: number, end: number): number {
  if (end - offset < DHCP_HEADER_BYTES) return WIRE_TRUNCATED;
  if (view.getUint8(offset + 2) > 16) return WIRE_BAD_LENGTH;
  return view.getUint32(offset + COOKIE_OFFSET) === DHCP_MAGIC_COOKIE ? DHCP_HEADER_BYTES : WIRE_UNSUPPORTED;
}

/** DHCP_BOOT_REQUEST or DHCP_BOOT_REPLY. */
export function getDhcpOp(view: DataView, offset: number): number {
  return view.getUint8(offset);
}

/** Whether the client's hardware address is a MAC. */
export function isDhcpEthernet(view: DataView, offset: number): boolean {
  return view.getUint8(offset + 1) === HARDWARE_ETHERNET && view.getUint8(offset + 2) === 6;
}

/** Transaction id, a uint32. */
export function getDhcpXid(view: DataView, offset: number): number {
  return view.getUint32(offset + 4);
}

/** Seconds since the client began. */
export function getDhcpSecs(view: DataView, offset: number): number {
  return view.getUint16(offset + 8);
}

/** See DHCP_FLAG_BROADCAST. */
export function getDhcpFlags(view: DataView, offset: number): number {
  return view.getUint16(offset + 10);
}

/** ciaddr: the address that the client has and answers ARP for, or 0. */
export function getDhcpClientAddress(view: DataView, offset: number): number {
  return view.getUint32(offset + 12);
}

/** yiaddr: the address that the server gives. */
export function getDhcpYourAddress(view: DataView, offset: number): number {
  return view.getUint32(offset + 16);
}

/** giaddr: the relay, or 0. */
export function getDhcpRelayAddress(view: DataView, offset: number): number {
  return view.getUint32(offset + 24);
}

function findInField(view: DataView, at: number, end: number, code: number): number {
  let next = at;
  while (next < end) {
    const found = view.getUint8(next);
    if (found === DHCP_OPTION_PAD) {
      next++;
      continue;
    }
    // Not everyone ends the list properly, so the end of the message counts as well.
    if (found === DHCP_OPTION_END) return 0;
    if (next + 2 > end) return WIRE_BAD_OPTION;
    const behind = next + 2 + view.getUint8(next + 1);
    if (behind > end) return WIRE_BAD_OPTION;
    if (found === code) return next + 2;
    next = behind;
  }
  return 0;
}

/**
 * Looks for an option, in the options field, then where option 52 says: `file`, then `sname` (RFC 2131 §4.1).
 * @param code 1 … 254
 * @returns offset of the first instance's data (`getDhcpOptionLength` bytes), 0 if there is none, WIRE_BAD_OPTION if the list
 * breaks off before one is found
 */
export function findDhcpOption(view: DataView, offset: number, end: number, code: number): number {
  const options = offset + DHCP_HEADER_BYTES;
  let found = findInField(view, options, end, code);
  if (found !== 0) return found;
  const overload = findInField(view, options, end, DHCP_OPTION_OVERLOAD);
  if (overload <= 0 || getDhcpOptionLength(view, overload) !== 1) return 0;
  const fields = view.getUint8(overload);
  if ((fields & 1) !== 0) {
    found = findInField(view, offset + FILE_OFFSET, offset + FILE_OFFSET + FILE_BYTES, code);
  }
  if (found === 0 && (fields & 2) !== 0) {
    found = findInField(view, offset + SNAME_OFFSET, offset + SNAME_OFFSET + SNAME_BYTES, code);
  }
  return found;
}

/** Bytes of the data at `dataOffset`, which `findDhcpOption` returned. */
export function getDhcpOptionLength(view: DataView, dataOffset: number): number {
  return view.getUint8(dataOffset - 1);
}

/** @returns DHCP_DISCOVER …, 0 for a BOOTP request or a broken option 53 */
export function getDhcpMessageType(view: DataView, offset: number, end: number): number {
  const data = findDhcpOption(view, offset, end, DHCP_OPTION_MESSAGE_TYPE);
  return data > 0 && getDhcpOptionLength(view, data) === 1 ? view.getUint8(data) : 0;
}

/** An option that is one IPv4 address, such as 50 and 54. @returns uint32, or -1 if it is absent or not four bytes long */
export function getDhcpOptionAddress(view: DataView, offset: number, end: number, code: number): number {
  const data = findDhcpOption(view, offset, end, code);
  return data > 0 && getDhcpOptionLength(view, data) === 4 ? view.getUint32(data) : -1;
}

/** Option 57, the longest message (IP and UDP headers included) the client takes. @returns bytes, ≥ 576 (RFC 2132 §9.10) */
export function getDhcpMaxMessageSize(view: DataView, offset: number, end: number): number {
  const data = findDhcpOption(view, offset, end, DHCP_OPTION_MAX_MESSAGE_SIZE);
  return data > 0 && getDhcpOptionLength(view, data) === 2 ? Math.max(view.getUint16(data), 576) : 576;
}

/**
 * Writes the fixed part: 240 bytes with the cookie, names and file empty.
 * @param at start of the message
 * @returns the offset behind it, where options begin, or WIRE_BAD_LENGTH
 */
export function writeDhcpHeader(
  view: DataView,
  at: number,
  end: number,
  op: number,
  xid: number,
  flags: number,
  clientAddress: number,
  yourAddress: number,
  serverAddress: number,
  relayAddress: number,
  macHi: number,
  macLo: number,
): number {
  const start = checkRoom(at, end, DHCP_HEADER_BYTES);
  if (start < 0) return start;
  for (let i = 0; i < COOKIE_OFFSET; i += 4) view.setUint32(start + i, 0);
  view.setUint8(start, op);
  view.setUint8(start + 1, HARDWARE_ETHERNET);
  view.setUint8(start + 2, 6);
  view.setUint32(start + 4, xid);
  view.setUint16(start + 10, flags);
  view.setUint32(start + 12, clientAddress);
  view.setUint32(start + 16, yourAddress);
  view.setUint32(start + 20, serverAddress);
  view.setUint32(start + 24, relayAddress);
  view.setUint16(start + DHCP_CLIENT_MAC_OFFSET, macHi);
  view.setUint32(start + DHCP_CLIENT_MAC_OFFSET + 2, macLo);
  view.setUint32(start + COOKIE_OFFSET, DHCP_MAGIC_COOKIE);
  return start + DHCP_HEADER_BYTES;
}

/**
 * Writes the boot file's name into the fixed part of a message that `writeDhcpHeader` has begun, ended by a zero (RFC 951).
 * @param name ASCII; what is longer than DHCP_FILE_NAME_MAX is left out altogether
 */
export function writeDhcpFileName(view: DataView, offset: number, name: string): void {
  if (name.length <= DHCP_FILE_NAME_MAX && isAscii(name)) putAscii(view, offset + FILE_OFFSET, name);
}

/** Writes code and length if the data will fit. @returns the offset of the data, or a negative status */
function beginOption(view: DataView, at: number, end: number, code: number, length: number): number {
  if (at >= 0 && length > MAX_OPTION_BYTES) return WIRE_BAD_LENGTH;
  const start = checkRoom(at, end, 2 + length);
  if (start < 0) return start;
  view.setUint8(start, code);
  view.setUint8(start + 1, length);
  return start + 2;
}

/** Appends an option without data, such as rapid commit (80, RFC 4039). */
export function writeDhcpEmpty(view: DataView, at: number, end: number, code: number): number {
  return beginOption(view, at, end, code, 0);
}

/** Appends a one-byte option, such as the message type. */
export function writeDhcpUint8(view: DataView, at: number, end: number, code: number, value: number): number {
  const data = beginOption(view, at, end, code, 1);
  if (data < 0) return data;
  view.setUint8(data, value);
  return data + 1;
}

/** Appends a two-byte option, such as the MTU (26, RFC 2132 §5.1; at least 68). */
export function writeDhcpUint16(view: DataView, at: number, end: number, code: number, value: number): number {
  const data = beginOption(view, at, end, code, 2);
  if (data < 0) return data;
  view.setUint16(data, value);
  return data + 2;
}

/** Appends a four-byte option: a time in seconds, a mask, one address. */
export function writeDhcpUint32(view: DataView, at: number, end: number, code: number, value: number): number {
  const data = beginOption(view, at, end, code, 4);
  if (data < 0) return data;
  view.setUint32(data, value);
  return data + 4;
}

/** Appends a list of addresses (uint32), such as resolvers. @param count with 0, nothing is appended */
export function writeDhcpAddresses(
  view: DataView,
  at: number,
  end: number,
  code: number,
  addresses: Uint32Array,
  count: number,
): number {
  if (count === 0) return at;
  const data = beginOption(view, at, end, code, count << 2);
  if (data < 0) return data;
  for (let i = 0; i < count; i++) view.setUint32(data + (i << 2), addresses[i]!);
  return data + (count << 2);
}

/** Appends ASCII text, such as the host name; other characters are refused with WIRE_BAD_OPTION. */
export function writeDhcpText(view: DataView, at: number, end: number, code: number, text: string): number {
  if (at >= 0 && !isAscii(text)) return WIRE_BAD_OPTION;
  const data = beginOption(view, at, end, code, text.length);
  if (data < 0) return data;
  return putAscii(view, data, text);
}

/**
 * Appends a copy of an option of another message in the same memory, such as the client identifier (61, RFC 6842).
 * @param source what `findDhcpOption` returned
 */
export function copyDhcpOption(view: DataView, at: number, end: number, code: number, source: number): number {
  const length = getDhcpOptionLength(view, source);
  const data = beginOption(view, at, end, code, length);
  if (data < 0) return data;
  for (let i = 0; i < length; i++) view.setUint8(data + i, view.getUint8(source + i));
  return data + length;
}

/**
 * Appends classless static routes (121, RFC 3442). A client that takes them ignores option 3, so the default route has to be
 * among them; a gateway of 0.0.0.0 means that the destination is on the link.
 * @param routes destination (uint32), prefix length (0 … 32), gateway (uint32) of each route in turn
 * @param count routes; with 0, nothing is appended
 */
export function writeDhcpClasslessRoutes(
  view: DataView,
  at: number,
  end: number,
  routes: Uint32Array,
  count: number,
): number {
  if (count === 0) return at;
  let length = 0;
  for (let i = 0; i < count; i++) length += 5 + ((routes[3 * i + 1]! + 7) >> 3);
  let data = beginOption(view, at, end, DHCP_OPTION_CLASSLESS_ROUTES, length);
  if (data < 0) return data;
  for (let i = 0; i < count; i++) {
    const destination = routes[3 * i]!;
    const prefixLength = routes[3 * i + 1]!;
    view.setUint8(data++, prefixLength);
    for (let bits = 0; bits < prefixLength; bits += 8) view.setUint8(data++, destination >>> (24 - bits));
    view.setUint32(data, routes[3 * i + 2]!);
    data += 4;
  }
  return data;
}

/**
 * Appends a search list (119, RFC 3397), compressed; one that is longer than an option is split over several (RFC 3396 §6).
 * Without names, nothing is appended.
 */
export function writeDhcpDomainSearch(view: DataView, at: number, end: number, names: readonly string[]): number {
  if (at < 0 || names.length === 0) return at;
  const first = at + 2;
  const behind = writeCompressedDnsNameList(view, first, end, names);
  if (behind < 0) return behind;
  const length = behind - first;
  const pieces = Math.ceil(length / MAX_OPTION_BYTES);
  const total = length + 2 * pieces;
  if (end - at < total) return WIRE_BAD_LENGTH;
  for (let piece = pieces - 1; piece >= 0; piece--) {
    const from = piece * MAX_OPTION_BYTES;
    const bytes = Math.min(MAX_OPTION_BYTES, length - from);
    const data = first + from + 2 * piece;
    // Last piece first and each from its end, since every piece moves towards the end over its own old place.
    for (let i = bytes - 1; i >= 0; i--) view.setUint8(data + i, view.getUint8(first + from + i));
    view.setUint8(data - 2, DHCP_OPTION_DOMAIN_SEARCH);
    view.setUint8(data - 1, bytes);
  }
  return at + total;
}

/**
 * Appends the client's name (81, RFC 4702 §2) as a server sends it.
 * @param flags DHCP_FQDN_…; the name is in wire form with DHCP_FQDN_E, else in ASCII, and has to be as the client sent it
 */
export function writeDhcpFqdn(view: DataView, at: number, end: number, flags: number, name: string): number {
  const start = checkRoom(at, end, 5);
  if (start < 0) return start;
  const data = start + 2;
  let behind: number;
  if ((flags & DHCP_FQDN_E) !== 0) {
    behind = writeDnsName(view, data + 3, end, name);
  } else if (isAscii(name)) {
    behind = checkRoom(data + 3, end, name.length);
    if (behind > 0) behind = putAscii(view, behind, name);
  } else {
    behind = WIRE_BAD_OPTION;
  }
  if (behind < 0) return behind;
  if (behind - data > MAX_OPTION_BYTES) return WIRE_BAD_LENGTH;
  view.setUint8(start, DHCP_OPTION_FQDN);
  view.setUint8(start + 1, behind - data);
  view.setUint8(data, flags);
  // The two response codes mean nothing any more; servers send 255 (RFC 4702 §2.2).
  view.setUint16(data + 1, 0xffff);
  return behind;
}

/**
 * Ends the options and pads the message with zeros to DHCP_MIN_MESSAGE_BYTES.
 * @param offset start of the message
 * @param at where the next option would stand
 * @returns the offset behind the message, or a negative status
 */
export function writeDhcpEnd(view: DataView, offset: number, at: number, end: number): number {
  const start = checkRoom(at, end, 1);
  if (start < 0) return start;
  view.setUint8(start, DHCP_OPTION_END);
  const padded = Math.max(start + 1, offset + DHCP_MIN_MESSAGE_BYTES);
  if (padded > end) return WIRE_BAD_LENGTH;
  for (let i = start + 1; i < padded; i++) view.setUint8(i, DHCP_OPTION_PAD);
  return padded;
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7e || text.charCodeAt(i) < 0x20) return false;
  return true;
}

function putAscii(view: DataView, at: number, text: string): number {
  for (let i = 0; i < text.length; i++) view.setUint8(at + i, text.charCodeAt(i));
  return at + text.length;
}
