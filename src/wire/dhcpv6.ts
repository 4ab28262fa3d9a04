/**
 * DHCPv6 (RFC 8415): client and server messages, and their options.
 *
 * A message is a type, a transaction id of 24 bits, and options, each a 16-bit code, a 16-bit length and data; identity
 * associations have options inside. `checkDhcpv6` walks all of it once: framing, and the sizes of the options that
 * this file reads. After that the look-ups, which return the offset of an option's data, can be read without further checks.
 *
 * Building: `writeDhcpv6Header`, append options (see room.ts); containers are begun, filled and ended.
 *
 * Not done: relay messages, prefix delegation and temporary addresses (their options are checked and can be found, not read),
 * authentication.
 */
import { writeDnsName, writeDnsNameList } from './dns-name.ts';
import { storeIpv6 } from './ipv6.ts';
import { checkRoom } from './room.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from './status.ts';

export const DHCPV6_CLIENT_PORT = 546;
export const DHCPV6_SERVER_PORT = 547;

export const DHCPV6_HEADER_BYTES = 4;
const OPTION_HEADER_BYTES = 4;

/** Message types (RFC 8415 §7.3). */
export const DHCPV6_SOLICIT = 1;
export const DHCPV6_ADVERTISE = 2;
export const DHCPV6_REQUEST = 3;
export const DHCPV6_CONFIRM = 4;
export const DHCPV6_RENEW = 5;
export const DHCPV6_REBIND = 6;
export const DHCPV6_REPLY = 7;
export const DHCPV6_RELEASE = 8;
export const DHCPV6_DECLINE = 9;
export const DHCPV6_RECONFIGURE = 10;
export const DHCPV6_INFORMATION_REQUEST = 11;
const DHCPV6_RELAY_FORW = 12;
const DHCPV6_RELAY_REPL = 13;

/** Option codes (RFC 8415 §21; others as named). */
export const DHCPV6_OPTION_CLIENT_ID = 1;
export const DHCPV6_OPTION_SERVER_ID = 2;
export const DHCPV6_OPTION_IA_NA = 3;
export const DHCPV6_OPTION_IA_TA = 4;
export const DHCPV6_OPTION_IA_ADDRESS = 5;
export const DHCPV6_OPTION_REQUEST = 6;
export const DHCPV6_OPTION_PREFERENCE = 7;
export const DHCPV6_OPTION_ELAPSED_TIME = 8;
export const DHCPV6_OPTION_STATUS_CODE = 13;
export const DHCPV6_OPTION_RAPID_COMMIT = 14;
/** RFC 3646 §3. */
export const DHCPV6_OPTION_DNS = 23;
/** RFC 3646 §4. */
export const DHCPV6_OPTION_SEARCH = 24;
export const DHCPV6_OPTION_IA_PD = 25;
export const DHCPV6_OPTION_IA_PREFIX = 26;
export const DHCPV6_OPTION_INFORMATION_REFRESH_TIME = 32;
/** RFC 4704. */
export const DHCPV6_OPTION_FQDN = 39;

/** RFC 5970 §3.1. */
export const DHCPV6_OPTION_BOOT_FILE_URL = 59;

/** Status codes (RFC 8415 §21.13). */
export const DHCPV6_STATUS_SUCCESS = 0;
export const DHCPV6_STATUS_UNSPEC_FAIL = 1;
export const DHCPV6_STATUS_NO_ADDRS_AVAIL = 2;
export const DHCPV6_STATUS_NO_BINDING = 3;
export const DHCPV6_STATUS_NOT_ON_LINK = 4;
export const DHCPV6_STATUS_USE_MULTICAST = 5;
export const DHCPV6_STATUS_NO_PREFIX_AVAIL = 6;

/** Lifetime in seconds that means "for ever" (RFC 8415 §7.7). */
export const DHCPV6_INFINITE_LIFETIME_SEC = 0xffffffff;

/** Bytes of fixed data before the options inside (RFC 8415 §21.4, §21.6). */
export const DHCPV6_IA_NA_BYTES = 12;
export const DHCPV6_IA_ADDRESS_BYTES = 24;

/** Flags of option 39 (RFC 4704 §4.1): server updates AAAA; it overrides the client; no update at all. */
export const DHCPV6_FQDN_S = 0x01;
export const DHCPV6_FQDN_O = 0x02;
export const DHCPV6_FQDN_N = 0x04;

/** DUID from a link-layer address, hardware type Ethernet (RFC 8415 §11.4). */
const DUID_LL_ETHERNET = 0x0003_0001;
const DUID_LL_BYTES = 10;
/** RFC 8415 §11.1: two bytes of type and 1 … 128 more. */
const MAX_DUID_BYTES = 130;
/** An association, an address in it, a status in that. Deeper nesting has no meaning, only cost. */
const MAX_NESTING = 3;

/**
 * Whether the data of an option has a size that fits its code.
 * @returns -1 if not, else the bytes before the options inside, or 0 if none can be inside
 */
function checkOptionData(code: number, length: number): number {
  switch (code) {
    case DHCPV6_OPTION_CLIENT_ID:
    case DHCPV6_OPTION_SERVER_ID:
      return length >= 3 && length <= MAX_DUID_BYTES ? 0 : -1;
    case DHCPV6_OPTION_IA_NA:
    case DHCPV6_OPTION_IA_PD:
      return length >= DHCPV6_IA_NA_BYTES ? DHCPV6_IA_NA_BYTES : -1;
    case DHCPV6_OPTION_IA_TA:
      return length >= 4 ? 4 : -1;
    case DHCPV6_OPTION_IA_ADDRESS:
      return length >= DHCPV6_IA_ADDRESS_BYTES ? DHCPV6_IA_ADDRESS_BYTES : -1;
    case DHCPV6_OPTION_IA_PREFIX:
      return length >= 25 ? 25 : -1;
    case DHCPV6_OPTION_REQUEST:
      return (length & 1) === 0 ? 0 : -1;
    case DHCPV6_OPTION_ELAPSED_TIME:
      return length === 2 ? 0 : -1;
    case DHCPV6_OPTION_STATUS_CODE:
      return length >= 2 ? 0 : -1;
    case DHCPV6_OPTION_RAPID_COMMIT:
      return length === 0 ? 0 : -1;
    case DHCPV6_OPTION_DNS:
      return (length & 15) === 0 ? 0 : -1;
    case DHCPV6_OPTION_FQDN:
      return length >= 1 ? 0 : -1;
    default:
      return 0;
  }
}

function areOptionsWellFormed(view: DataView, at: number, end: number, depth: number): boolean {
  let next = at;
  while (next < end) {
    if (next + OPTION_HEADER_BYTES > end) return false;
    const length = view.getUint16(next + 2);
    const data = next + OPTION_HEADER_BYTES;
    if (data + length > end) return false;
    const fixedBytes = checkOptionData(view.getUint16(next), length);
    if (fixedBytes < 0) return false;
    if (fixedBytes > 0) {
      if (depth === MAX_NESTING) return false;
      if (!areOptionsWellFormed(view, data + fixedBytes, data + length, depth + 1)) return false;
    }
    next = data + length;
  }
  return true;
}

/** The message is the whole of [offset, end). @returns 4, WIRE_TRUNCATED, WIRE_BAD_OPTION, WIRE_UNSUPPORTED (relay messages) */
export function checkDhcpv6(view: DataView, offset: number, end: number): number {
  if (end - offset < DHCPV6_HEADER_BYTES) return WIRE_TRUNCATED;
  const type = view.getUint8(offset);
  if (type === DHCPV6_RELAY_FORW || type === DHCPV6_RELAY_REPL) return WIRE_UNSUPPORTED;
  return areOptionsWellFormed(view, offset + DHCPV6_HEADER_BYTES, end, 1) ? DHCPV6_HEADER_BYTES : WIRE_BAD_OPTION;
}

export function getDhcpv6Type(view: DataView, offset: number): number {
  return view.getUint8(offset);
}

/** Transaction id, 24 bits. */
export function getDhcpv6Xid(view: DataView, offset: number): number {
  return view.getUint32(offset) & 0xffffff;
}

/**
 * Looks for an option in a checked message.
 * @param at start of the options: of the message, of an option with options inside (data + its fixed bytes), or, to find the
 * next of several, the end of the last one's data
 * @param end end of the message or of the containing option's data
 * @returns offset of the data (`getDhcpv6OptionLength` bytes), 0 if there is none
 */
export function findDhcpv6Option(view: DataView, at: number, end: number, code: number): number {
  let next = at;
  while (next + OPTION_HEADER_BYTES <= end) {
    const data = next + OPTION_HEADER_BYTES;
    if (view.getUint16(next) === code) return data;
    next = data + view.getUint16(next + 2);
  }
  return 0;
}

/** Bytes of the data at `data`, which `findDhcpv6Option` returned. */
export function getDhcpv6OptionLength(view: DataView, data: number): number {
  return view.getUint16(data - 2);
}

/** Identity of the association (IA_NA, IA_TA, IA_PD) at `data`, a uint32. */
export function getDhcpv6Iaid(view: DataView, data: number): number {
  return view.getUint32(data);
}

/** Preferred lifetime in seconds of the address at `data`, whose address itself is read with `loadIpv6(view, data, …)`. */
export function getDhcpv6PreferredSec(view: DataView, data: number): number {
  return view.getUint32(data + 16);
}

/** Valid lifetime in seconds of the address at `data`. */
export function getDhcpv6ValidSec(view: DataView, data: number): number {
  return view.getUint32(data + 20);
}

/** Value of the status code option at `data`. */
export function getDhcpv6Status(view: DataView, data: number): number {
  return view.getUint16(data);
}

/** Whether the option request at `data` names `code`. */
export function isDhcpv6OptionRequested(view: DataView, data: number, code: number): boolean {
  const end = data + getDhcpv6OptionLength(view, data);
  for (let at = data; at < end; at += 2) if (view.getUint16(at) === code) return true;
  return false;
}

/** Whether the client or server id at `data` is the one that `writeDhcpv6DuidLl` makes of this MAC. */
export function isDhcpv6DuidLl(view: DataView, data: number, macHi: number, macLo: number): boolean {
  return (
    getDhcpv6OptionLength(view, data) === DUID_LL_BYTES &&
    view.getUint32(data) === DUID_LL_ETHERNET &&
    view.getUint16(data + 4) === macHi &&
    view.getUint32(data + 6) === macLo >>> 0
  );
}

/** Writes type and transaction id. @returns the offset behind them, where options begin, or WIRE_BAD_LENGTH */
export function writeDhcpv6Header(view: DataView, at: number, end: number, type: number, xid: number): number {
  const start = checkRoom(at, end, DHCPV6_HEADER_BYTES);
  if (start < 0) return start;
  view.setUint32(start, (type << 24) | (xid & 0xffffff));
  return start + DHCPV6_HEADER_BYTES;
}

/** Writes code and length if the data will fit. @returns the offset of the data, or a negative status */
function beginOption(view: DataView, at: number, end: number, code: number, length: number): number {
  const start = length > 0xffff && at >= 0 ? WIRE_BAD_LENGTH : checkRoom(at, end, OPTION_HEADER_BYTES + length);
  if (start < 0) return start;
  view.setUint16(start, code);
  view.setUint16(start + 2, length);
  return start + OPTION_HEADER_BYTES;
}

/** Appends an option without data, such as rapid commit. */
export function writeDhcpv6Empty(view: DataView, at: number, end: number, code: number): number {
  return beginOption(view, at, end, code, 0);
}

/** Appends a one-byte option, such as the preference. */
export function writeDhcpv6Uint8(view: DataView, at: number, end: number, code: number, value: number): number {
  const data = beginOption(view, at, end, code, 1);
  if (data < 0) return data;
  view.setUint8(data, value);
  return data + 1;
}

/** Appends a two-byte option, such as the elapsed time. */
export function writeDhcpv6Uint16(view: DataView, at: number, end: number, code: number, value: number): number {
  const data = beginOption(view, at, end, code, 2);
  if (data < 0) return data;
  view.setUint16(data, value);
  return data + 2;
}

/** Appends a four-byte option, such as the information refresh time. */
export function writeDhcpv6Uint32(view: DataView, at: number, end: number, code: number, value: number): number {
  const data = beginOption(view, at, end, code, 4);
  if (data < 0) return data;
  view.setUint32(data, value);
  return data + 4;
}

/**
 * Appends a copy of an option of another message in the same memory, such as the client id.
 * @param source what `findDhcpv6Option` returned
 */
export function copyDhcpv6Option(view: DataView, at: number, end: number, code: number, source: number): number {
  const length = getDhcpv6OptionLength(view, source);
  const data = beginOption(view, at, end, code, length);
  if (data < 0) return data;
  for (let i = 0; i < length; i++) view.setUint8(data + i, view.getUint8(source + i));
  return data + length;
}

/** Appends a client or server id made of a MAC: a DUID-LL (RFC 8415 §11.4), which needs no storage to stay the same. */
export function writeDhcpv6DuidLl(
  view: DataView,
  at: number,
  end: number,
  code: number,
  macHi: number,
  macLo: number,
): number {
  const data = beginOption(view, at, end, code, DUID_LL_BYTES);
  if (data < 0) return data;
  view.setUint32(data, DUID_LL_ETHERNET);
  view.setUint16(data + 4, macHi);
  view.setUint32(data + 6, macLo);
  return data + DUID_LL_BYTES;
}

/** Appends an option request for the given codes. */
export function writeDhcpv6OptionRequest(view: DataView, at: number, end: number, codes: readonly number[]): number {
  let data = beginOption(view, at, end, DHCPV6_OPTION_REQUEST, codes.length << 1);
  if (data < 0) return data;
  for (const code of codes) {
    view.setUint16(data, code);
    data += 2;
  }
  return data;
}

/**
 * Begins an IA_NA; addresses and a status follow, then `endDhcpv6Option`.
 * @param t1Sec @param t2Sec when to renew and to rebind, in seconds, 0: as the client likes
 */
export function beginDhcpv6IaNa(
  view: DataView,
  at: number,
  end: number,
  iaid: number,
  t1Sec: number,
  t2Sec: number,
): number {
  const data = beginOption(view, at, end, DHCPV6_OPTION_IA_NA, DHCPV6_IA_NA_BYTES);
  if (data < 0) return data;
  view.setUint32(data, iaid);
  view.setUint32(data + 4, t1Sec);
  view.setUint32(data + 8, t2Sec);
  return data + DHCPV6_IA_NA_BYTES;
}

/**
 * Ends an option with options inside: fills in its length.
 * @param start where it began (the `at` of the begin function)
 * @param at where its contents end; returned, so that a status is passed on
 */
export function endDhcpv6Option(view: DataView, start: number, at: number): number {
  if (at < 0) return at;
  const length = at - start - OPTION_HEADER_BYTES;
  if (length > 0xffff) return WIRE_BAD_LENGTH;
  view.setUint16(start + 2, length);
  return at;
}

/** Appends an address (inside an IA_NA) with its lifetimes in seconds, uint32. */
export function writeDhcpv6IaAddress(
  view: DataView,
  at: number,
  end: number,
  words: Uint32Array,
  wordsAt: number,
  preferredSec: number,
  validSec: number,
): number {
  const data = beginOption(view, at, end, DHCPV6_OPTION_IA_ADDRESS, DHCPV6_IA_ADDRESS_BYTES);
  if (data < 0) return data;
  storeIpv6(view, data, words, wordsAt);
  view.setUint32(data + 16, preferredSec);
  view.setUint32(data + 20, validSec);
  return data + DHCPV6_IA_ADDRESS_BYTES;
}

/** Appends a status (to the message or inside an association). @param message ASCII text for people, may be empty */
export function writeDhcpv6Status(view: DataView, at: number, end: number, status: number, message: string): number {
  const data = beginOption(view, at, end, DHCPV6_OPTION_STATUS_CODE, 2 + message.length);
  if (data < 0) return data;
  view.setUint16(data, status);
  for (let i = 0; i < message.length; i++) view.setUint8(data + 2 + i, message.charCodeAt(i));
  return data + 2 + message.length;
}

/** Appends resolver addresses (23, RFC 3646 §3): `count` from words[wordsAt …] on; with 0, nothing is appended. */
export function writeDhcpv6Dns(
  view: DataView,
  at: number,
  end: number,
  words: Uint32Array,
  wordsAt: number,
  count: number,
): number {
  if (count === 0) return at;
  const data = beginOption(view, at, end, DHCPV6_OPTION_DNS, count << 4);
  if (data < 0) return data;
  for (let i = 0; i < count; i++) storeIpv6(view, data + (i << 4), words, wordsAt + (i << 2));
  return data + (count << 4);
}

/** Appends a search list (24, RFC 3646 §4), which must not be compressed; without names, nothing is appended. */
export function writeDhcpv6Search(view: DataView, at: number, end: number, names: readonly string[]): number {
  if (names.length === 0) return at;
  const data = beginOption(view, at, end, DHCPV6_OPTION_SEARCH, 0);
  return endDhcpv6Option(view, at, writeDnsNameList(view, data, end, names));
}

/** Appends where the file to boot is (59, RFC 5970 §3.1). @param url of ASCII characters */
export function writeDhcpv6BootFileUrl(view: DataView, at: number, end: number, url: string): number {
  const data = beginOption(view, at, end, DHCPV6_OPTION_BOOT_FILE_URL, url.length);
  if (data < 0) return data;
  for (let i = 0; i < url.length; i++) view.setUint8(data + i, url.charCodeAt(i));
  return data + url.length;
}

/** Appends the client's name (39, RFC 4704 §4). @param flags DHCPV6_FQDN_… */
export function writeDhcpv6Fqdn(view: DataView, at: number, end: number, flags: number, name: string): number {
  const data = beginOption(view, at, end, DHCPV6_OPTION_FQDN, 1);
  if (data < 0) return data;
  view.setUint8(data, flags);
  return endDhcpv6Option(view, at, writeDnsName(view, data + 1, end, name));
}
