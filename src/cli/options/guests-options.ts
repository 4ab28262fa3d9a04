/** Options about several guests on one network, and about names of the network's own. */
import { parseIp, parseIpv4 } from '../../base/ip-text.ts';
import { type Reject, values } from './definition.ts';
import { GUEST } from './network-options.ts';
import { parseDomainName } from './values.ts';

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
} as const;

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

function splitPair(text: string): [string, string] | undefined {
  const at = text.indexOf('=');
  return at <= 0 || at === text.length - 1 ? undefined : [text.slice(0, at), text.slice(at + 1)];
}
