/**
 * Names of the network's own: questions about them are answered here (RFC 1035), and all others are none of our business.
 *
 * A question that is answered never reaches the host's resolver, also when there is no address of the family that was asked for: guests ask
 * for both, and what one resolver calls unknown they take for the last word. Answers name us as an authority and live for seconds, since
 * a guest may be given another address at any time.
 *
 * Not done: several questions in one message (nobody asks so), zone transfers, updates.
 */
import { decode, encode, type Packet, type Question, RECURSION_DESIRED } from 'dns-packet';
import { formatIp, isMappedIpv4, parseIp } from '../base/ip-text.ts';

/** Who is who; both are asked with names in lower case, without a dot at the end. */
export interface NameRecords {
  /** Addresses of a name, 4 words each; undefined: it is not ours. */
  addressesOf(name: string): readonly Uint32Array[] | undefined;
  /** Name of an address; undefined: it is not ours. */
  nameOf(address: Uint32Array): string | undefined;
}

/** Seconds. */
const TTL_SECONDS = 5;
/** What we take in one datagram (RFC 9715 §3.1 has no fragment at this size). */
const UDP_PAYLOAD_BYTES = 1232;
const AUTHORITATIVE_ANSWER = 0x0400;
const RECURSION_AVAILABLE = 0x0080;
const IPV4_SUFFIX = '.in-addr.arpa';
const IPV6_SUFFIX = '.ip6.arpa';

/**
 * Answers a query for one of the names or addresses.
 * @param query - a DNS message as it came
 * @returns the answer, at most 1232 bytes; undefined when it is malformed, no query, or about something else
 */
export function answerNameQuery(query: Uint8Array, records: NameRecords): Uint8Array | undefined {
  const packet = decodeQuery(query);
  const [question, ...others] = packet?.questions ?? [];
  if (packet === undefined || question === undefined || others.length > 0) return undefined;
  if (question.class !== 'IN' && question.class !== 'ANY') return undefined;
  const answers = answerQuestion(question, records);
  if (answers === undefined) return undefined;
  const hasEdns = (packet.additionals ?? []).some((each) => each.type === 'OPT');
  return encode({
    type: 'response',
    id: packet.id ?? 0,
    flags: AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE | ((packet.flags ?? 0) & RECURSION_DESIRED),
    questions: [question],
    answers,
    additionals: hasEdns
      ? [
          {
            type: 'OPT',
            name: '.',
            udpPayloadSize: UDP_PAYLOAD_BYTES,
            extendedRcode: 0,
            ednsVersion: 0,
            flags: 0,
            flag_do: false,
            options: [],
          },
        ]
      : [],
  });
}

function decodeQuery(query: Uint8Array): Packet | undefined {
  try {
    const packet = decode(Buffer.from(query.buffer, query.byteOffset, query.length)) as Packet & { opcode?: string };
    return packet.type === 'query' && packet.opcode === 'QUERY' ? packet : undefined;
  } catch {
    return undefined;
  }
}

/** @returns the records, none of them where the name is ours and has nothing of that type; undefined: not ours */
function answerQuestion(question: Question, records: NameRecords): Packet['answers'] {
  const name = question.name.toLowerCase();
  const asked = question.type as string;
  if (name.endsWith('.arpa')) {
    const address = parseReverseName(name);
    const owner = address === undefined ? undefined : records.nameOf(address);
    if (owner === undefined) return undefined;
    if (asked !== 'PTR' && asked !== 'ANY') return [];
    return [{ type: 'PTR', name: question.name, ttl: TTL_SECONDS, data: owner }];
  }
  const addresses = records.addressesOf(name);
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
