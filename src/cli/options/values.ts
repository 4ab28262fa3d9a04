/** Parsers for option values, shared by the tables. Each accepts what the C programs accept and says what it expected. */
import { isLoopbackIp, isMappedIpv4, isMulticastIp, isUnspecifiedIp, parseIp, parseIpv4 } from '../../base/ip-text.ts';
import type { Reject } from './definition.ts';

/** Least IPv4 MTU (RFC 791, 3.2). */
const MTU_MIN = 68;
/** Largest Ethernet frame (65535) less its header, rounded down to 32-bit words. */
const MTU_MAX = 65520;

/** An address and the length of its prefix if one was given. */
export interface AddressWithPrefix {
  readonly address: Uint32Array;
  readonly prefixLength: number | undefined;
}

/** MAC address as the stack wants it: upper 16 and lower 32 bits. */
export interface MacAddress {
  readonly hi: number;
  readonly lo: number;
}

export function parseText(text: string, reject: Reject): string {
  return text === '' ? reject('a text that is not empty') : text;
}

export function parsePath(text: string, reject: Reject): string {
  return text === '' || text.includes('\0') ? reject('a path') : text;
}

export function parseInterfaceName(text: string, reject: Reject): string {
  const valid = text.length > 0 && text.length <= 15 && !/[\s/]/.test(text);
  return valid ? text : reject('the name of a network interface (1 to 15 characters)');
}

/** @returns the MTU, 0 meaning "do not advertise" */
export function parseMtu(text: string, reject: Reject): number {
  const mtu = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  if (mtu !== 0 && (mtu < MTU_MIN || mtu > MTU_MAX)) reject(`0, or ${MTU_MIN} to ${MTU_MAX} bytes`);
  return mtu;
}

/** A size in bytes with an optional K, M or G. */
export function parseSize(text: string, reject: Reject): number {
  const match = /^(\d{1,12})([KMG]?)$/i.exec(text);
  if (match === null) return reject('a number of bytes, with K, M or G if you like');
  return Number(match[1]) * 1024 ** ['', 'K', 'M', 'G'].indexOf(match[2]!.toUpperCase());
}

/** Room for the first line and some more. */
const LOG_BYTES_MIN = 4096;

/** A limit for a log file. */
export function parseLogSize(text: string, reject: Reject): number {
  const expected = `a number of bytes, at least ${LOG_BYTES_MIN}, with K, M or G if you like`;
  const size = parseSize(text, () => reject(expected));
  return size < LOG_BYTES_MIN ? reject(expected) : size;
}

/** A time of whole seconds, at least one. */
export function parseSeconds(text: string, reject: Reject): number {
  const seconds = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  return seconds >= 1 ? seconds : reject('a number of seconds, at least 1');
}

/** Microseconds that the processor may be kept for nothing. */
export function parseBusyPoll(text: string, reject: Reject): number {
  const us = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  return us >= 0 && us <= 1000 ? us : reject('a number of microseconds from 0 (do not) to 1000');
}

/** A descriptor number. 1 and 2 are where messages go. */
export function parseFd(text: string, reject: Reject): number {
  const fd = /^\d{1,7}$/.test(text) ? Number(text) : -1;
  return fd < 0 || fd === 1 || fd === 2
    ? reject('the number of an open, connected stream socket: 0, or 3 and above')
    : fd;
}

export function parseMac(text: string, reject: Reject): MacAddress {
  if (!/^[0-9a-f]{1,2}([:-][0-9a-f]{1,2}){5}$/i.test(text)) return reject('a MAC address such as 9a:55:9a:55:9a:55');
  const bytes = text.split(/[:-]/).map((part) => Number.parseInt(part, 16));
  if (bytes[0]! & 1) reject('a unicast MAC address (an even first byte)');
  if (bytes.every((byte) => byte === 0)) reject('a MAC address that is not zero');
  const number = (from: number, to: number): number => bytes.slice(from, to).reduce((sum, byte) => sum * 256 + byte, 0);
  return { hi: number(0, 2), lo: number(2, 6) };
}

/** An address that a host can have on a link. */
export function parseUnicast(text: string, reject: Reject): Uint32Array {
  const address = parseIp(text);
  const expected = 'an IPv4 or IPv6 address that a host can have';
  if (address === undefined) return reject(expected);
  if (isUnspecifiedIp(address) || isMulticastIp(address) || isLoopbackIp(address)) reject(expected);
  if (isMappedIpv4(address) && address[3] === 0xffffffff) reject(expected);
  return address;
}

/** An address of any kind but "unspecified": resolvers may be loopback. */
export function parseAnyAddress(text: string, reject: Reject): Uint32Array {
  const address = parseIp(text);
  if (address === undefined || isUnspecifiedIp(address)) return reject('an IPv4 or IPv6 address');
  return address;
}

/** A loopback name may be any unicast address, or `none`. @returns undefined for `none` */
export function parseUnicastOrNone(text: string, reject: Reject): Uint32Array | undefined {
  if (text === 'none') return undefined;
  return parseUnicast(text, () => reject("an IPv4 or IPv6 address that a host can have, or 'none'"));
}

/** A resolver, or `none` or nothing for no resolvers at all. @returns undefined for none */
export function parseResolverOrNone(text: string, reject: Reject): Uint32Array | undefined {
  if (text === 'none' || text === '') return undefined;
  return parseAnyAddress(text, () => reject("an IPv4 or IPv6 address, or 'none'"));
}

export function parseAddressWithPrefix(text: string, reject: Reject): AddressWithPrefix {
  const [addressText = '', prefixText] = text.split('/', 2);
  const expected = 'ADDRESS or ADDRESS/LENGTH, an IPv4 or IPv6 address that a host can have';
  const address = parseUnicast(addressText, () => reject(expected));
  if (prefixText === undefined) return { address, prefixLength: undefined };
  const max = isMappedIpv4(address) ? 32 : 128;
  const prefixLength = /^\d{1,3}$/.test(prefixText) ? Number(prefixText) : -1;
  const complete = text.split('/').length === 2;
  if (!complete || prefixLength < 1 || prefixLength > max) reject(`${expected}; LENGTH from 1 to ${max}`);
  return { address, prefixLength };
}

/** Dotted IPv4 mask or number of bits. @returns bits, 1..32 */
export function parseNetmask(text: string, reject: Reject): number {
  const expected = 'an IPv4 netmask such as 255.255.255.0, or 1 to 32 bits';
  if (/^\d{1,2}$/.test(text)) {
    const bits = Number(text);
    return bits >= 1 && bits <= 32 ? bits : reject(expected);
  }
  const mask = parseIpv4(text);
  if (mask === undefined || mask === 0) return reject(expected);
  const hostBits = ~mask >>> 0;
  // The ones of a mask are contiguous exactly if the inverse plus one is a power of two.
  if ((hostBits & (hostBits + 1)) !== 0) reject(expected);
  return 32 - hostBits.toString(2).replace(/^0$/, '').length;
}

/** Search list separated by spaces, `none` or nothing for no list. */
export function parseSearchList(text: string, reject: Reject): readonly string[] {
  if (text === 'none') return [];
  const domains = text.split(/[\s,]+/).filter((domain) => domain !== '');
  return domains.map((domain) => parseDomainName(domain, () => reject("domain names separated by spaces, or 'none'")));
}

/** A host or domain name (RFC 1035, 2.3.4; underscores occur in practice). */
export function parseDomainName(text: string, reject: Reject): string {
  const name = text.replace(/\.$/, '');
  const valid =
    name.length > 0 &&
    name.length <= 253 &&
    name.split('.').every((l) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(l));
  return valid ? name : reject('a name of letters, digits and hyphens, with dots between labels of 1 to 63 characters');
}

/** `UID`, `UID:GID`, `LOGIN` or `LOGIN:GROUP`, looked up later. */
export function parseUserGroup(
  text: string,
  reject: Reject,
): { readonly user: string; readonly group: string | undefined } {
  const match = /^([^:\s]+)(?::([^:\s]+))?$/.exec(text);
  if (match === null) return reject('USER or USER:GROUP, names or numbers');
  return { user: match[1]!, group: match[2] };
}

/** One of a fixed list of words. */
export function parseWord<const Word extends string>(words: readonly Word[]): (text: string, reject: Reject) => Word {
  return (text, reject) => words.find((word) => word === text) ?? reject(words.map((word) => `'${word}'`).join(' or '));
}
