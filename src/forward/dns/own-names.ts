/**
 * Names of the network's own: questions about them are answered here (RFC 1035).
 *
 * A question that is answered never reaches another resolver, also when there is no such name in a zone of ours, or no address of the family
 * that was asked for: guests ask for both, and what one resolver calls unknown they take for the last word. Answers name us as an authority and
 * live for seconds, since a guest may be given another address at any time; those that say no bring the zone's SOA (RFC 2308 §3), so that they
 * are not kept any longer.
 *
 * Not done: zone transfers, updates, signatures.
 */
import type { Packet } from 'dns-packet';
import { formatIp, isMappedIpv4, mapIpv4, parseIp } from '../../base/ip-text.ts';
import { answerWithRecords, type OwnAnswer, type Query, RCODE_NAME_ERROR } from './messages.ts';

/** Who is who; both are asked with names in lower case, without a dot at the end. */
export interface NameRecords {
  /** Addresses of a name, 4 words each; undefined: it is not ours. */
  addressesOf(name: string): readonly Uint32Array[] | undefined;
  /** Name of an address; undefined: it is not ours. */
  nameOf(address: Uint32Array): string | undefined;
}

/** Names with the zones that nobody else is asked about. */
export interface OwnRecords extends NameRecords {
  /** The domain in which all names are ours, in lower case; empty: none. */
  readonly domain: string;
  /** Whether nobody else knows the names of this address. */
  isOwnAddress(address: Uint32Array): boolean;
}

/** Seconds. */
const TTL_SECONDS = 5;
const IPV4_SUFFIX = '.in-addr.arpa';
const IPV6_SUFFIX = '.ip6.arpa';
/** Nobody asks twice for a change here; the numbers are for secondary servers, of which there are none. */
const SOA_TIMES = { serial: 1, refresh: 3600, retry: 600, expire: 86_400, minimum: TTL_SECONDS };
const LOOPBACK = [mapIpv4(0x7f000001), Uint32Array.of(0, 0, 0, 1)];

type Answers = NonNullable<Packet['answers']>;

/** @returns the answer to a query for one of our names or addresses, or about a zone of ours; undefined when it is about something else */
export function answerOwnNames(query: Query, records: OwnRecords): Uint8Array | undefined {
  const found = isAboutInternet(query) ? lookUp(query, records) : undefined;
  return found === undefined ? undefined : answerWithRecords(query, found);
}

/**
 * The answer from a list of the host's, such as /etc/hosts, which knows addresses and nothing else of its names.
 * @returns undefined when it is about something else
 */
export function answerFromList(query: Query, records: NameRecords): Uint8Array | undefined {
  const { name } = query;
  const asked = query.question.type as string;
  if (!isAboutInternet(query)) return undefined;
  let answers: Answers | undefined;
  if (name.endsWith('.arpa')) {
    const owner = asked === 'PTR' || asked === 'ANY' ? ownerOf(name, records) : undefined;
    answers = owner === undefined ? undefined : [pointTo(query, owner)];
  } else if (asked === 'A' || asked === 'AAAA' || asked === 'ANY') {
    answers = addressRecords(query, records.addressesOf(name));
  }
  return answers === undefined ? undefined : answerWithRecords(query, settle(answers, name));
}

function isAboutInternet({ question }: Query): boolean {
  return question.class === 'IN' || question.class === 'ANY';
}

function lookUp(query: Query, records: OwnRecords): OwnAnswer | undefined {
  const { name } = query;
  const asked = query.question.type as string;
  if (name.endsWith('.arpa')) {
    const owner = ownerOf(name, records);
    const isPointer = asked === 'PTR' || asked === 'ANY';
    const zone = name.slice(name.indexOf('.') + 1);
    if (owner !== undefined) return settle(isPointer ? [pointTo(query, owner)] : [], zone);
    const address = parseReverseName(name);
    return address !== undefined && records.isOwnAddress(address) ? deny(zone) : undefined;
  }
  // RFC 6761 §6.3: this name leads nowhere else, whoever is asked.
  if (name === 'localhost' || name.endsWith('.localhost')) {
    return settle(addressRecords(query, LOOPBACK) ?? [], 'localhost');
  }
  const { domain } = records;
  const isInDomain = domain !== '' && (name === domain || name.endsWith(`.${domain}`));
  const zone = isInDomain ? domain : name;
  const answers = addressRecords(query, records.addressesOf(name));
  if (answers !== undefined) return settle(answers, zone);
  if (name === domain && domain !== '') {
    return settle(asked === 'SOA' || asked === 'ANY' ? [startOfAuthority(domain)] : [], zone);
  }
  return isInDomain ? deny(zone) : undefined;
}

function settle(answers: Answers, zone: string): OwnAnswer {
  return { rcode: 0, answers, authorities: answers.length > 0 ? [] : [startOfAuthority(zone)] };
}

function deny(zone: string): OwnAnswer {
  return { rcode: RCODE_NAME_ERROR, answers: [], authorities: [startOfAuthority(zone)] };
}

function startOfAuthority(zone: string): Answers[number] {
  const data = { mname: zone, rname: `hostmaster.${zone}`, ...SOA_TIMES };
  return { type: 'SOA', name: zone, ttl: TTL_SECONDS, data };
}

function ownerOf(name: string, records: NameRecords): string | undefined {
  const address = parseReverseName(name);
  return address === undefined ? undefined : records.nameOf(address);
}

function pointTo({ question }: Query, owner: string): Answers[number] {
  return { type: 'PTR', name: question.name, ttl: TTL_SECONDS, data: owner };
}

/** @returns none where the name has nothing of the type that is asked for; undefined: there are no addresses, since the name is not known */
function addressRecords({ question }: Query, addresses: readonly Uint32Array[] | undefined): Answers | undefined {
  const asked = question.type as string;
  return addresses
    ?.map((address) => ({
      type: isMappedIpv4(address) ? ('A' as const) : ('AAAA' as const),
      name: question.name,
      ttl: TTL_SECONDS,
      data: formatIp(address),
    }))
    .filter(({ type }) => asked === type || asked === 'ANY');
}

/** The address that a name under in-addr.arpa (RFC 1035 §3.5) or ip6.arpa (RFC 3596 §2.5) stands for. */
function parseReverseName(name: string): Uint32Array | undefined {
  if (name.endsWith(IPV4_SUFFIX)) {
    const labels = name.slice(0, -IPV4_SUFFIX.length).split('.');
    return labels.length === 4 ? parseIp(labels.reverse().join('.')) : undefined;
  }
  if (!name.endsWith(IPV6_SUFFIX)) return undefined;
  const digits = name.slice(0, -IPV6_SUFFIX.length).split('.').reverse();
  if (digits.length !== 32 || digits.some((digit) => !/^[\da-f]$/.test(digit))) return undefined;
  return parseIp(digits.join('').match(/.{4}/g)!.join(':'));
}
