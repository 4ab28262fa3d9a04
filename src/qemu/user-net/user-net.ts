/**
 * The options of QEMU's `-netdev user`: what network they describe, with QEMU's defaults and refusals (qemu(1), "-netdev user", and
 * QEMU 7.2 for what the manual leaves open).
 *
 * - Without a mask, a network has that of its address class: /8, /16 or /24; within the private ranges /8, /12 and /16.
 * - Host, first lease and name server are x.x.2.2, x.x.2.15 and x.x.2.3 as far as the mask leaves these bits to hosts: `net=192.168.76.0/24`
 *   has 192.168.76.15, `net=192.168.76.0` has 192.168.2.15.
 * - A family that is switched on by name switches the other one off, unless that is switched on too.
 */
import { PasselError } from '../../base/errors.ts';
import {
  isLoopbackIp,
  isMappedIpv4,
  isMulticastIp,
  isSameIp,
  isUnspecifiedIp,
  mapIpv4,
  parseIpv4,
  parseIpv6,
} from '../../base/ip-text.ts';
import { type Property, readProperties } from '../option-string.ts';
import { type HostForward, parseHostForward } from './forwards.ts';
import { type GuestForward, parseGuestForward } from './guest-forward.ts';

/** The network of `-netdev user`. Addresses of IPv4 are uint32, those of IPv6 4 words. */
export interface UserNet {
  readonly ipv4: UserNetV4 | undefined;
  readonly ipv6: UserNetV6 | undefined;
  /** Nothing but the forwards leaves the guest's network. */
  readonly isRestricted: boolean;
  /** Empty: none. */
  readonly hostname: string;
  readonly domainName: string;
  readonly searchDomains: readonly string[];
  readonly hostForwards: readonly HostForward[];
  readonly guestForwards: readonly GuestForward[];
  /** Folder of the TFTP server; empty: there is none. */
  readonly tftpFolder: string;
  /** File that clients are told to boot; empty: none. */
  readonly bootFile: string;
  /** Name of another TFTP server than the host's address; empty: none. */
  readonly tftpServerName: string;
  /** Folder of the SMB server; empty: there is none. */
  readonly smbFolder: string;
  /** Its address, 4 words; it means nothing without a folder. */
  readonly smbServer: Uint32Array;
}

export interface UserNetV4 {
  readonly network: number;
  readonly prefixLength: number;
  readonly host: number;
  /** The guest's address. */
  readonly dhcpStart: number;
  readonly dns: number;
}

export interface UserNetV6 {
  readonly network: Uint32Array;
  readonly prefixLength: number;
  readonly host: Uint32Array;
  readonly dns: Uint32Array;
}

/** Refuses a key's value: `expected` completes the sentence "… is not valid: expected …". */
export type RefuseValue = (expected: string) => never;

const KEYS = [
  ...['ipv4', 'net', 'host', 'dhcpstart', 'dns', 'ipv6', 'ipv6-net', 'ipv6-prefix', 'ipv6-prefixlen', 'ipv6-host'],
  ...['ipv6-dns', 'restrict', 'hostname', 'domainname', 'dnssearch', 'hostfwd', 'guestfwd'],
  ...['tftp', 'bootfile', 'tftp-server-name', 'smb', 'smbserver'],
];
const NETWORK_KEYS_V4 = ['net', 'host', 'dhcpstart', 'dns'];
const NETWORK_KEYS_V6 = ['ipv6-net', 'ipv6-prefix', 'ipv6-prefixlen', 'ipv6-host', 'ipv6-dns'];

/** What the addresses end in, in front of the mask. */
const HOST_BITS = 0x0202;
const DNS_BITS = 0x0203;
const LEASE_BITS = 0x020f;
const SMB_BITS = 0x0204;
/** fec0:: */
const DEFAULT_PREFIX = Uint32Array.of(0xfec00000, 0, 0, 0);
/** The last labels of our addresses in IPv6. */
const HOST_LABEL = 2;
const DNS_LABEL = 3;
/** The field of BOOTP has 128 bytes, the last of them zero. */
const BOOT_FILE_MAX = 127;
/** An option of DHCP. */
const OPTION_MAX = 255;
/** Longer ones have no room for host and name server. */
const MAX_PREFIX_V6 = 126;

/**
 * Reads the properties of a `-netdev user` or `-nic user`.
 * @param text - in either of QEMU's forms; `user` in front, `type` and `id` may be there
 * @throws PasselError that names the key
 */
export function readUserNet(text: string): UserNet {
  const keys = new UserNetKeys(text);
  const has4 = keys.flag('ipv4');
  const has6 = keys.flag('ipv6');
  const ipv4 = has4 === false || (has6 === true && has4 === undefined) ? undefined : readV4(keys);
  const ipv6 = has6 === false || (has4 === true && has6 === undefined) ? undefined : readV6(keys);
  if (ipv4 === undefined && ipv6 === undefined) keys.refuse('ipv6', 'IPv4 or IPv6 to be there');
  if (ipv4 === undefined) keys.refuseAny(NETWORK_KEYS_V4, 'nothing about IPv4, which is switched off');
  if (ipv6 === undefined) keys.refuseAny(NETWORK_KEYS_V6, 'nothing about IPv6, which is switched off');
  return {
    ipv4,
    ipv6,
    isRestricted: keys.flag('restrict') ?? false,
    hostname: keys.name('hostname'),
    domainName: keys.name('domainname'),
    searchDomains: keys.all('dnssearch').map((domain) => checkName(domain, keys.refuser('dnssearch', domain))),
    hostForwards: keys.all('hostfwd').map((rule) => {
      return parseHostForward(rule, { ipv4: ipv4?.dhcpStart, ipv6: ipv6 !== undefined }, keys.refuser('hostfwd', rule));
    }),
    guestForwards: keys.all('guestfwd').map((rule) => {
      const refuse = keys.refuser('guestfwd', rule);
      const forward = parseGuestForward(rule, refuse);
      if (!isFreeAddress(forward.address, ipv4, ipv6)) {
        refuse('an address of the network, other than those of host and dns');
      }
      return forward;
    }),
    tftpFolder: keys.last('tftp') ?? '',
    bootFile: keys.text('bootfile', BOOT_FILE_MAX),
    tftpServerName: keys.text('tftp-server-name', OPTION_MAX),
    smbFolder: keys.last('smb') ?? '',
    smbServer: readSmbServer(keys, ipv4, ipv6),
  };
}

/** Whether a property of `-nic user` is about the network; the others are about the card. */
export function isUserNetKey(key: string): boolean {
  const name = key.replace(LIST_MEMBER, '');
  return KEYS.includes(name);
}

/** Lists in JSON: hostfwd.0.str. */
const LIST_MEMBER = /\.\d+\.str$/;

/** The properties by key, and how to refuse one. */
class UserNetKeys {
  private readonly properties: readonly Property[];

  constructor(text: string) {
    let given: readonly Property[];
    try {
      given = readProperties(text, 'type');
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new PasselError('PASSEL_E_OPTION_VALUE', { option: '--user-net', value: text, expected: 'valid JSON' });
    }
    this.properties = given.map(({ key, value }) => ({ key: key.replace(LIST_MEMBER, ''), value }));
    for (const { key, value } of this.properties) {
      if (key === 'id') continue;
      if (key === 'type') {
        if (value !== 'user') this.refuse('type', "'user'");
        continue;
      }
      if (KEYS.includes(key)) continue;
      const expected = `one of ${KEYS.join(', ')}`;
      throw new PasselError('PASSEL_E_OPTION_VALUE', { option: '--user-net', value: key, expected });
    }
  }

  /** The value that counts: the last one. A switch without value is `on`. */
  last(key: string): string | undefined {
    const property = this.properties.findLast((each) => each.key === key);
    return property === undefined ? undefined : (property.value ?? 'on');
  }

  all(key: string): string[] {
    return this.properties.filter((each) => each.key === key).map((each) => each.value ?? 'on');
  }

  flag(key: string): boolean | undefined {
    const text = this.last(key);
    if (text === undefined) return undefined;
    if (/^(on|yes|y|true)$/.test(text)) return true;
    return /^(off|no|n|false)$/.test(text) ? false : this.refuse(key, "'on' or 'off'");
  }

  name(key: string): string {
    const text = this.last(key);
    return text === undefined || text === '' ? '' : checkName(text, this.refuser(key, text));
  }

  /** Printable ASCII up to a length. */
  text(key: string, maxLength: number): string {
    const text = this.last(key) ?? '';
    return /^[ -~]*$/.test(text) && text.length <= maxLength
      ? text
      : this.refuse(key, `at most ${maxLength} printable ASCII characters`);
  }

  /** An IPv4 address that a host can have; `fallback` where the key is not there. */
  ipv4(key: string, fallback: number): number {
    const text = this.last(key);
    if (text === undefined) return fallback;
    const address = parseIpv4(text);
    return address !== undefined && canBeHost(mapIpv4(address))
      ? address
      : this.refuse(key, 'an IPv4 address that a host can have');
  }

  ipv6(key: string, fallback: Uint32Array): Uint32Array {
    const text = this.last(key);
    if (text === undefined) return fallback;
    const address = parseIpv6(text);
    const isGood = address !== undefined && !isMappedIpv4(address) && canBeHost(address);
    return isGood ? address : this.refuse(key, 'an IPv6 address that a host can have');
  }

  refuse(key: string, expected: string): never {
    return this.refuser(key, this.last(key) ?? '')(expected);
  }

  refuser(key: string, value: string): RefuseValue {
    return (expected) => {
      throw new PasselError('PASSEL_E_OPTION_VALUE', { option: `--user-net ${key}`, value, expected });
    };
  }

  refuseAny(keys: readonly string[], expected: string): void {
    const given = keys.find((key) => this.last(key) !== undefined);
    if (given !== undefined) this.refuse(given, expected);
  }
}

function readV4(keys: UserNetKeys): UserNetV4 {
  const [addressText = '', maskText] = (keys.last('net') ?? '10.0.2.0/24').split('/', 2);
  const address = parseIpv4(addressText) ?? keys.refuse('net', 'ADDRESS or ADDRESS/MASK');
  const prefixLength = maskText === undefined ? classPrefix(address) : parseMask(maskText, keys);
  const mask = (0xffffffff << (32 - prefixLength)) >>> 0;
  const network = (address & mask) >>> 0;
  if (!canBeHost(mapIpv4((network | (HOST_BITS & ~mask)) >>> 0))) {
    keys.refuse('net', 'a network that hosts can be in');
  }
  const at = (bits: number): number => (network | (bits & ~mask)) >>> 0;
  const host = keys.ipv4('host', at(HOST_BITS));
  const dhcpStart = keys.ipv4('dhcpstart', at(LEASE_BITS));
  const dns = keys.ipv4('dns', at(DNS_BITS));
  for (const [key, value] of Object.entries({ host, dhcpstart: dhcpStart })) {
    if ((value & mask) >>> 0 !== network) keys.refuse(key, 'an address of the network');
    const inNetwork = (value & ~mask) >>> 0;
    if (prefixLength < 31 && (inNetwork === 0 || inNetwork === ~mask >>> 0)) {
      keys.refuse(key, "an address that is neither the network's own nor its broadcast address");
    }
  }
  if (dns === host) keys.refuse('dns', 'another address than that of host');
  if (dhcpStart === host || dhcpStart === dns) keys.refuse('dhcpstart', 'another address than those of host and dns');
  return { network, prefixLength, host, dhcpStart, dns };
}

function readSmbServer(keys: UserNetKeys, ipv4: UserNetV4 | undefined, ipv6: UserNetV6 | undefined): Uint32Array {
  const isGiven = keys.last('smbserver') !== undefined;
  const mask = ipv4 === undefined ? 0 : (0xffffffff << (32 - ipv4.prefixLength)) >>> 0;
  const usual = ipv4 === undefined ? 0 : (ipv4.network | (SMB_BITS & ~mask)) >>> 0;
  const server = mapIpv4(keys.ipv4('smbserver', usual));
  if (!isGiven && (keys.last('smb') ?? '') === '') return server;
  const key = isGiven ? 'smbserver' : 'smb';
  if (ipv4 === undefined) keys.refuse(key, 'no SMB server: it is there by IPv4, which is switched off');
  if (!isFreeAddress(server, ipv4, ipv6)) {
    keys.refuse(key, 'an address of the network for the server, other than those of host and dns');
  }
  return server;
}

/** Bits of a mask that is a number of bits or dotted. */
function parseMask(text: string, keys: UserNetKeys): number {
  const expected = 'a mask of 4 to 32 bits, as their number or dotted';
  const dotted = parseIpv4(text);
  if (dotted === undefined) {
    const bits = /^\d{1,2}$/.test(text) ? Number(text) : 0;
    return bits >= 4 && bits <= 32 ? bits : keys.refuse('net', expected);
  }
  const bits = Math.clz32(~dotted);
  const isMask = dotted === (bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0);
  return isMask && bits >= 4 ? bits : keys.refuse('net', expected);
}

function classPrefix(address: number): number {
  if (address >>> 20 === 0xac1) return 12;
  if (address >>> 16 === 0xc0a8) return 16;
  if (address >>> 31 === 0) return 8;
  return address >>> 30 === 2 ? 16 : 24;
}

function readV6(keys: UserNetKeys): UserNetV6 {
  const net = keys.last('ipv6-net');
  const [prefixText = '', lengthText] = net === undefined ? [] : net.split('/', 2);
  const key = net === undefined ? 'ipv6-prefix' : 'ipv6-net';
  const prefix = net === undefined ? keys.ipv6('ipv6-prefix', DEFAULT_PREFIX) : parseIpv6(prefixText);
  if (prefix === undefined || !canBeHost(withLabel(prefix, HOST_LABEL))) {
    return keys.refuse(key, 'an IPv6 prefix, or one with its length behind a slash');
  }
  const lengthKey = net === undefined ? 'ipv6-prefixlen' : 'ipv6-net';
  const lengthOf = net === undefined ? keys.last('ipv6-prefixlen') : lengthText;
  const prefixLength = lengthOf === undefined ? 64 : Number(/^\d{1,3}$/.test(lengthOf) ? lengthOf : -1);
  if (prefixLength < 0 || prefixLength > MAX_PREFIX_V6)
    keys.refuse(lengthKey, `a prefix of 0 to ${MAX_PREFIX_V6} bits`);
  const network = prefix.map((word, index) => (word & prefixMask(prefixLength, index)) >>> 0);
  const host = keys.ipv6('ipv6-host', withLabel(network, HOST_LABEL));
  const dns = keys.ipv6('ipv6-dns', withLabel(network, DNS_LABEL));
  if (!isInNetworkV6(host, network, prefixLength)) keys.refuse('ipv6-host', 'an address of the network');
  if (host.every((word, index) => word === dns[index]))
    keys.refuse('ipv6-dns', 'another address than that of ipv6-host');
  return { network, prefixLength, host, dns };
}

/** The address of a prefix that ends in `label`. */
export function withLabel(network: Uint32Array, label: number): Uint32Array {
  const address = Uint32Array.from(network);
  address[3] = (address[3]! | label) >>> 0;
  return address;
}

/** Whether something else can be at an address of 4 words. */
function isFreeAddress(address: Uint32Array, ipv4: UserNetV4 | undefined, ipv6: UserNetV6 | undefined): boolean {
  if (isMappedIpv4(address)) {
    const own = address[3]!;
    return ipv4 !== undefined && isInNetworkV4(own, ipv4) && own !== ipv4.host && own !== ipv4.dns;
  }
  if (ipv6 === undefined || !isInNetworkV6(address, ipv6.network, ipv6.prefixLength)) return false;
  return !isSameIp(address, ipv6.host) && !isSameIp(address, ipv6.dns);
}

function isInNetworkV4(address: number, { network, prefixLength }: UserNetV4): boolean {
  return (address ^ network) >>> (32 - prefixLength) === 0 || prefixLength === 0;
}

function isInNetworkV6(address: Uint32Array, network: Uint32Array, prefixLength: number): boolean {
  return address.every((word, index) => ((word ^ network[index]!) & prefixMask(prefixLength, index)) >>> 0 === 0);
}

/** The mask of one of four words. */
function prefixMask(prefixLength: number, index: number): number {
  const bits = Math.min(32, Math.max(0, prefixLength - 32 * index));
  return bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0;
}

function canBeHost(address: Uint32Array): boolean {
  if (isUnspecifiedIp(address) || isLoopbackIp(address) || isMulticastIp(address)) return false;
  return !isMappedIpv4(address) || (address[3]! >>> 28 !== 0xf && address[3]! >>> 24 !== 0);
}

/** A host or domain name (RFC 1035, 2.3.4; underscores occur in practice), without its last dot. */
function checkName(text: string, refuse: RefuseValue): string {
  const name = text.replace(/\.$/, '');
  const isGood = name.length <= 253 && name.split('.').every((l) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(l));
  return isGood
    ? name
    : refuse('a name of letters, digits and hyphens, with dots between labels of 1 to 63 characters');
}
