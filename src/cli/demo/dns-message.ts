/** As much of DNS (RFC 1035) as the demo asks and answers: one question for an A record. */
import { formatIpv4 } from '../../base/ip-text.ts';

const HEADER_BYTES = 12;
const FLAG_RESPONSE = 0x8000;
const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_RECURSION = 0x0100;
const TYPE_A = 1;
const CLASS_IN = 1;
/** A pointer to the question's name. */
const NAME_POINTER = 0xc000 | HEADER_BYTES;
const RESPONSE_CODES = ['no error', 'format error', 'server failure', 'no such name', 'not implemented', 'refused'];

/** A query for the A record of `name`. */
export function buildQuery(id: number, name: string): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(FLAG_RECURSION, 2);
  header.writeUInt16BE(1, 4);
  const labels = name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label, 'latin1')]));
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, TYPE_A, 0, CLASS_IN])]);
}

/** The answer of a server that knows one address for whatever A record it is asked for, and nothing else. */
export function buildAnswer(query: Buffer, address: number): Buffer {
  const questionEnd = skipName(query, HEADER_BYTES) + 4;
  const isForA = query.readUInt16BE(questionEnd - 4) === TYPE_A;
  const header = Buffer.from(query.subarray(0, HEADER_BYTES));
  header.writeUInt16BE(FLAG_RESPONSE | FLAG_AUTHORITATIVE | FLAG_RECURSION, 2);
  header.writeUInt16BE(isForA ? 1 : 0, 6);
  header.writeUInt32BE(0, 8);
  const record = Buffer.alloc(16);
  record.writeUInt16BE(NAME_POINTER, 0);
  record.writeUInt16BE(TYPE_A, 2);
  record.writeUInt16BE(CLASS_IN, 4);
  record.writeUInt32BE(60, 6);
  record.writeUInt16BE(4, 10);
  record.writeUInt32BE(address, 12);
  return Buffer.concat([header, query.subarray(HEADER_BYTES, questionEnd), ...(isForA ? [record] : [])]);
}

/** What a response says, as text: addresses, or why there is none. */
export function describeResponse(response: Buffer): string {
  const code = response.readUInt16BE(2) & 15;
  if (code !== 0) return RESPONSE_CODES[code] ?? `error ${code}`;
  const addresses: string[] = [];
  let at = skipName(response, HEADER_BYTES) + 4;
  for (let count = response.readUInt16BE(6); count > 0; count--) {
    at = skipName(response, at);
    const lengthBytes = response.readUInt16BE(at + 8);
    if (response.readUInt16BE(at) === TYPE_A && lengthBytes === 4)
      addresses.push(formatIpv4(response.readUInt32BE(at + 10)));
    at += 10 + lengthBytes;
  }
  return addresses.length === 0 ? 'no address' : addresses.join(', ');
}

/** @returns the offset behind the name at `at`; a RangeError from Buffer if the message ends in it */
function skipName(message: Buffer, at: number): number {
  let next = at;
  for (;;) {
    const length = message.readUInt8(next);
    if (length === 0) return next + 1;
    if (length >= 0xc0) return next + 2;
    next += 1 + length;
  }
}
