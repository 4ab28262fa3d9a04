/** Options about several guests on one network, and about names of the network's own. */
import { isMappedIpv4, parseIp } from '../../base/ip-text.ts';
import type { DnsServer } from '../../forward/dns/routes.ts';
import { DNS_PORT } from '../../stack/dns.ts';
import { type Reject, value, values } from './definition.ts';
import { GUEST } from './network-options.ts';
import { type MacAddress, parseAnyAddress, parseDomainName, parseMac, parsePath, parseSeconds } from './values.ts';

const LINK = 'Link:';

export const GUESTS_OPTIONS = {
  lease: values({
    isExtension: true,
    group: GUEST,
    valueName: 'WHO=ADDRESS[,ADDRESS6][,NAME]',
    help: 'Addresses of one of several guests, by its name or MAC address, instead of the next that are free; NAME: for DNS, of a MAC address',
    parse: parseLease,
  }),
  'dns-record': values({
    isExtension: true,
    group: GUEST,
    valueName: 'NAME=ADDRESS',
    help: 'Answer DNS questions about this name, and about this address, without asking the resolver',
    parse: parseDnsRecord,
  }),
  'dns-server': values({
    isExtension: true,
    group: GUEST,
    valueName: 'DOMAIN=ADDRESS[#PORT]',
    help: "The resolver for names in this domain ('.': all that have no other), asked instead of the host's; 'none' as address: nobody",
    parse: parseDnsServer,
  }),
  'dns-hosts': value({
    isExtension: true,
    group: GUEST,
    valueName: 'PATH',
    help: "Answer DNS questions from this hosts file; 'none': from no file",
    defaultText: '/etc/hosts where the network has names of its own, else none',
    parse: parsePath,
  }),
  'reconnect-grace': value({
    isExtension: true,
    group: LINK,
    valueName: 'SECONDS',
    defaultText: '120',
    help: 'How long the connections of a guest whose link is gone are kept for it to come back',
    parse: parseGrace,
  }),
  'guest-silence': value({
    isExtension: true,
    group: LINK,
    valueName: 'SECONDS',
    defaultText: '60',
    help: "How long a guest on a datagram link may be silent, and not answer, until it is taken to be gone; 'none': for ever",
    parse: (text, reject) => (text === 'none' ? undefined : parseSeconds(text, () => reject(SILENCE))),
  }),
} as const;

const SILENCE = "a number of seconds, at least 1, or 'none'";

function parseGrace(text: string, reject: Reject): number {
  return /^\d{1,6}$/.test(text) ? Number(text) : reject('a number of seconds');
}

/** Whose addresses are fixed: a guest by its name, or a machine by its MAC. */
export interface GivenLease {
  readonly guest: string | undefined;
  readonly mac: MacAddress | undefined;
  /** uint32 */
  readonly ipv4: number | undefined;
  /** 4 words */
  readonly ipv6: Uint32Array | undefined;
  /** In lower case. */
  readonly dnsName: string | undefined;
}

function parseLease(text: string, reject: Reject): GivenLease {
  const [who, what] = splitPair(text) ?? reject("a guest's name or a MAC address, '=' and an address");
  const mac = who.includes(':') ? parseMac(who, (expected) => reject(`${expected}, in front of '='`)) : undefined;
  const addresses: Uint32Array[] = [];
  let dnsName: string | undefined;
  for (const part of what.split(',')) {
    const address = parseIp(part);
    if (address !== undefined) addresses.push(address);
    else if (dnsName === undefined && mac !== undefined && !/^[\d.]*$/.test(part)) {
      dnsName = parseDomainName(part, (expected) =>
        reject(`${expected}, behind the addresses, not '${part}'`),
      ).toLowerCase();
    } else reject(`an address behind '=', not '${part}'`);
  }
  const [ipv4, ...more4] = addresses.filter(isMappedIpv4);
  const [ipv6, ...more6] = addresses.filter((each) => !isMappedIpv4(each));
  if (addresses.length === 0 || more4.length > 0 || more6.length > 0)
    reject('one address of IPv4, of IPv6, or of each');
  return { guest: mac === undefined ? who : undefined, mac, ipv4: ipv4?.[3], ipv6, dnsName };
}

function parseDnsRecord(text: string, reject: Reject): { name: string; address: Uint32Array } {
  const [given, addressText] = splitPair(text) ?? reject("a name, '=' and an address");
  const name = parseDomainName(given, (expected) =>
    reject(`${expected}, in front of '=', not '${given}'`),
  ).toLowerCase();
  const address = parseIp(addressText) ?? reject(`an address behind '=', not '${addressText}'`);
  return { name, address };
}

/** @returns the domain, in lower case, empty for all names; and the server, undefined for `none` */
function parseDnsServer(text: string, reject: Reject): { domain: string; server: DnsServer | undefined } {
  const [given, target] = splitPair(text) ?? reject("a domain or '.', '=' and an address");
  const domain =
    given === '.' ? '' : parseDomainName(given, (expected) => reject(`${expected}, in front of '=', not '${given}'`));
  if (target === 'none') return { domain: domain.toLowerCase(), server: undefined };
  const [addressText, portText = String(DNS_PORT), ...more] = target.split('#');
  const expected = `an address, with '#' and a port if it is not ${DNS_PORT}, or 'none' behind '=', not '${target}'`;
  const address = parseAnyAddress(addressText!, () => reject(expected));
  const port = /^\d{1,5}$/.test(portText) ? Number(portText) : 0;
  if (port < 1 || port > 65_535 || more.length > 0) reject(expected);
  return { domain: domain.toLowerCase(), server: { address, port } };
}

function splitPair(text: string): [string, string] | undefined {
  const at = text.indexOf('=');
  return at <= 0 || at === text.length - 1 ? undefined : [text.slice(0, at), text.slice(at + 1)];
}
