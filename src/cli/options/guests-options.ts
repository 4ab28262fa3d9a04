/** Options about several guests on one network, and about names of the network's own. */
import { parseIp, parseIpv4 } from '../../base/ip-text.ts';
import type { DnsServer } from '../../forward/dns/routes.ts';
import { DNS_PORT } from '../../stack/dns.ts';
import { type Reject, value, values } from './definition.ts';
import { GUEST } from './network-options.ts';
import { parseAnyAddress, parseDomainName, parsePath, parseSeconds } from './values.ts';

const LINK = 'Link:';

export const GUESTS_OPTIONS = {
  lease: values({
    isExtension: true,
    group: GUEST,
    valueName: 'GUEST=ADDRESS',
    help: 'The IPv4 address of one of several guests, instead of the next that is free',
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

function parseLease(text: string, reject: Reject): { name: string; address: number } {
  const [name, address] = splitPair(text) ?? reject("a guest's name, '=' and an IPv4 address");
  return { name, address: parseIpv4(address) ?? reject(`an IPv4 address behind '=', not '${address}'`) };
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
