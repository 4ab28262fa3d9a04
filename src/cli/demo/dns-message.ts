/** What the demo asks and answers by DNS: one question for an A record. */
import { AUTHORITATIVE_ANSWER, decode, encode, type Packet, RECURSION_AVAILABLE, RECURSION_DESIRED } from 'dns-packet';
import { formatIpv4 } from '../../base/ip-text.ts';

const TTL_SECONDS = 60;
/** By the last four bits of the flags. */
const RESPONSE_CODES = ['no error', 'format error', 'server failure', 'no such name', 'not implemented', 'refused'];

/** A query for the A record of `name`. */
export function buildQuery(id: number, name: string): Buffer {
  return encode({ type: 'query', id, flags: RECURSION_DESIRED, questions: [{ type: 'A', name }] });
}

/**
 * The answer of a server that knows one address for whatever A record it is asked for, and nothing else.
 * @throws Error when it is no query
 */
export function buildAnswer(query: Buffer, address: number): Buffer {
  const { id = 0, questions: [question] = [] } = decode(query);
  if (question === undefined) throw new Error('no question');
  const { name, type } = question;
  return encode({
    type: 'response',
    id,
    flags: AUTHORITATIVE_ANSWER | RECURSION_DESIRED | RECURSION_AVAILABLE,
    questions: [question],
    answers: type === 'A' ? [{ type, name, ttl: TTL_SECONDS, data: formatIpv4(address) }] : [],
  });
}

/** What a response says, as text: addresses, or why there is none. */
export function describeResponse(response: Buffer): string {
  const { flags = 0, answers = [] }: Packet = decode(response);
  const code = flags & 15;
  if (code !== 0) return RESPONSE_CODES[code] ?? `error ${code}`;
  const addresses = answers.flatMap((each) => (each.type === 'A' ? [each.data] : []));
  return addresses.length === 0 ? 'no address' : addresses.join(', ');
}
