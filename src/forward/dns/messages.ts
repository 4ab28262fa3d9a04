/**
 * DNS messages as a server in the middle needs them (RFC 1035 §4, RFC 6891): what a query asks, and answers that need nothing but the query.
 *
 * What is passed on keeps its bytes, all but the id, so that extensions nobody here has heard of arrive as they were sent.
 */
import { decode, encode, type Packet, type Question } from 'dns-packet';

export const RCODE_FORMAT_ERROR = 1;
export const RCODE_SERVER_FAILURE = 2;
export const RCODE_NAME_ERROR = 3;
export const RCODE_NOT_IMPLEMENTED = 4;
export const RCODE_REFUSED = 5;

export const HEADER_BYTES = 12;
/** Every resolver takes this much in a datagram (RFC 1035 §4.2.1). */
const MIN_UDP_BYTES = 512;
/** What we take in one datagram (RFC 9715 §3.1 has no fragment at this size). */
const UDP_PAYLOAD_BYTES = 1232;

const FLAGS_AT = 2;
const COUNTS_AT = 4;
const FLAG_RESPONSE = 0x8000;
const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;
const OPCODE_SHIFT = 11;
const OPCODE_MASK = 15;
const RCODE_MASK = 15;
const LABEL_MAX_BYTES = 63;
const TYPE_AND_CLASS_BYTES = 4;

/** A query with one question. */
export interface Query {
  /** The message; valid as long as what it was read from. */
  readonly bytes: Uint8Array;
  readonly id: number;
  readonly question: Question;
  /** The name that is asked for, in lower case. */
  readonly name: string;
  /** Where the question ends. */
  readonly questionEnd: number;
  /** What the asker takes in a datagram. */
  readonly udpBytes: number;
  readonly hasEdns: boolean;
}

/**
 * Reads a query.
 * @returns what it asks; or the code of the answer that it gets at once; or undefined when it is to get none: it is no query
 */
export function readQuery(bytes: Uint8Array): Query | number | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const flags = readUint16(bytes, FLAGS_AT);
  // An answer to an answer would be answered, for ever.
  if ((flags & FLAG_RESPONSE) !== 0) return undefined;
  if (((flags >> OPCODE_SHIFT) & OPCODE_MASK) !== 0) return RCODE_NOT_IMPLEMENTED;
  const questionEnd = findQuestionEnd(bytes);
  const packet = tryDecode(bytes);
  const [question] = packet?.questions ?? [];
  if (packet === undefined || question === undefined || questionEnd < 0) return RCODE_FORMAT_ERROR;
  const edns = packet.additionals?.find((each) => each.type === 'OPT');
  const udpBytes = edns?.type === 'OPT' ? Math.max(MIN_UDP_BYTES, edns.udpPayloadSize ?? 0) : MIN_UDP_BYTES;
  return {
    bytes,
    id: readUint16(bytes, 0),
    question,
    name: question.name.toLowerCase(),
    questionEnd,
    udpBytes,
    hasEdns: edns !== undefined,
  };
}

/** The answer to a query that says no more than its code. */
export function answerWithCode(query: Query, rcode: number): Uint8Array {
  const message = Buffer.alloc(query.questionEnd);
  message.set(query.bytes.subarray(0, query.questionEnd));
  return setHeader(message, FLAG_RECURSION_AVAILABLE | rcode, 1);
}

/** The answer to what starts with a header of DNS and is no query that could be read. */
export function answerUnread(bytes: Uint8Array, rcode: number): Uint8Array {
  const message = Buffer.alloc(HEADER_BYTES);
  message.set(bytes.subarray(0, HEADER_BYTES));
  return setHeader(message, rcode, 0);
}

/** An answer of our own. */
export interface OwnAnswer {
  readonly rcode: number;
  readonly answers: NonNullable<Packet['answers']>;
  readonly authorities: NonNullable<Packet['authorities']>;
}

/** The answer to a query, with records of ours. */
export function answerWithRecords(query: Query, { rcode, answers, authorities }: OwnAnswer): Uint8Array {
  const asked = readUint16(query.bytes, FLAGS_AT) & FLAG_RECURSION_DESIRED;
  return encode({
    type: 'response',
    id: query.id,
    flags: FLAG_AUTHORITATIVE | FLAG_RECURSION_AVAILABLE | asked | rcode,
    questions: [query.question],
    answers,
    authorities,
    additionals: query.hasEdns
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

/** A copy of `message` with another id. */
export function withId(message: Uint8Array, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

/** `message`, or what stands for it where it is too long: the same with the question alone, and the word to ask by TCP (RFC 2181 §9). */
export function fitAnswer(message: Uint8Array, query: Query, limitBytes: number): Uint8Array {
  if (message.length <= limitBytes) return message;
  const cut = Buffer.from(message.subarray(0, query.questionEnd));
  cut.writeUInt16BE(cut.readUInt16BE(FLAGS_AT) | FLAG_TRUNCATED, FLAGS_AT);
  cut.writeUInt16BE(1, COUNTS_AT);
  return cut.fill(0, COUNTS_AT + 2, HEADER_BYTES);
}

/**
 * Whether `answer` is what a server says to `query`, which had the id `id`: by id, direction and question, letter for letter.
 * Only one that reports a failure may leave the question out.
 */
export function isAnswerTo(answer: Uint8Array, query: Query, id: number): boolean {
  if (answer.length < HEADER_BYTES || readUint16(answer, 0) !== id) return false;
  if ((readUint16(answer, FLAGS_AT) & FLAG_RESPONSE) === 0) return false;
  const questions = readUint16(answer, COUNTS_AT);
  if (questions === 0) return rcodeOf(answer) !== 0;
  const { bytes, questionEnd } = query;
  if (questions !== 1 || answer.length < questionEnd) return false;
  return Buffer.compare(answer.subarray(HEADER_BYTES, questionEnd), bytes.subarray(HEADER_BYTES, questionEnd)) === 0;
}

/** The code of an answer, without the bits that EDNS adds. */
export function rcodeOf(answer: Uint8Array): number {
  return answer[FLAGS_AT + 1]! & RCODE_MASK;
}

function tryDecode(bytes: Uint8Array): Packet | undefined {
  try {
    return decode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  } catch {
    return undefined;
  }
}

/** @returns the offset behind the only question; -1 when there is not exactly one, or its name is compressed, which has nothing to refer to */
function findQuestionEnd(bytes: Uint8Array): number {
  if (readUint16(bytes, COUNTS_AT) !== 1) return -1;
  let at = HEADER_BYTES;
  for (let length = bytes[at]; length !== 0; length = bytes[at]) {
    if (length === undefined || length > LABEL_MAX_BYTES) return -1;
    at += 1 + length;
  }
  const end = at + 1 + TYPE_AND_CLASS_BYTES;
  return end <= bytes.length ? end : -1;
}

/** Makes an answer of a query's first bytes. */
function setHeader(message: Buffer, flags: number, questions: number): Buffer {
  const kept = message.readUInt16BE(FLAGS_AT) & ((OPCODE_MASK << OPCODE_SHIFT) | FLAG_RECURSION_DESIRED);
  message.writeUInt16BE(FLAG_RESPONSE | kept | flags, FLAGS_AT);
  message.writeUInt16BE(questions, COUNTS_AT);
  return message.fill(0, COUNTS_AT + 2, HEADER_BYTES);
}

function readUint16(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 256 + bytes[at + 1]!;
}
