import { decode, encode, type Packet, type Question, TRUNCATED_RESPONSE } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import {
  answerUnread,
  answerWithCode,
  fitAnswer,
  isAnswerTo,
  type Query,
  RCODE_FORMAT_ERROR,
  RCODE_NOT_IMPLEMENTED,
  RCODE_REFUSED,
  readQuery,
  withId,
} from '../../../../src/forward/dns/messages.ts';

const questions: Question[] = [{ type: 'A', name: 'Www.Example.org' }];
const whole = encode({ type: 'query', id: 0x1234, flags: 0x0100, questions });
const query = readQuery(whole) as Query;
const answer = (more: Partial<Packet> = {}): Buffer =>
  Buffer.from(encode({ type: 'response', id: 0x1234, flags: 0, questions, ...more }));

describe('a query', () => {
  it('is read', () => {
    expect(query).toMatchObject({ id: 0x1234, name: 'www.example.org', udpBytes: 512, hasEdns: false });
    expect(query.questionEnd).toBe(whole.length);
  });
  it('says how much its asker takes, never less than everybody does', () => {
    const withEdns = (udpPayloadSize: number) =>
      readQuery(
        encode({
          ...{ type: 'query', id: 1, questions },
          additionals: [{ type: 'OPT', name: '.', udpPayloadSize, flags: 0, options: [] } as never],
        }),
      );
    expect(withEdns(4096)).toMatchObject({ udpBytes: 4096, hasEdns: true });
    expect(withEdns(100)).toMatchObject({ udpBytes: 512, hasEdns: true });
  });
  it('is none when it is an answer, or too short for anything: nobody is answered then', () => {
    expect(readQuery(answer())).toBeUndefined();
    for (let length = 0; length < 12; length++) expect(readQuery(whole.subarray(0, length))).toBeUndefined();
  });
  it('is refused when it is cut off, has several questions or none, points to itself, or is garbage', () => {
    for (let length = 12; length < whole.length; length++) {
      expect(readQuery(whole.subarray(0, length))).toBe(RCODE_FORMAT_ERROR);
    }
    expect(readQuery(encode({ type: 'query', id: 1, questions: [] }))).toBe(RCODE_FORMAT_ERROR);
    expect(readQuery(encode({ type: 'query', id: 1, questions: [...questions, ...questions] }))).toBe(
      RCODE_FORMAT_ERROR,
    );
    const loop = Buffer.from(whole);
    loop.set([0xc0, 12], 12);
    expect(readQuery(loop)).toBe(RCODE_FORMAT_ERROR);
    expect(readQuery(new Uint8Array(512).fill(0x7f))).toBe(RCODE_NOT_IMPLEMENTED);
    const garbage = new Uint8Array(512).fill(0x7f);
    garbage[2] = 1;
    expect(readQuery(garbage)).toBe(RCODE_FORMAT_ERROR);
  });
  it('is none of ours when it is another operation', () => {
    const update = Buffer.from(whole);
    update[2] = 5 << 3;
    expect(readQuery(update)).toBe(RCODE_NOT_IMPLEMENTED);
  });
});

describe('answers that need nothing but the query', () => {
  it('have its id, question and wish for recursion', () => {
    const packet = decode(Buffer.from(answerWithCode(query, RCODE_REFUSED))) as unknown as Record<string, unknown>;
    expect(packet).toMatchObject({ id: 0x1234, type: 'response', rcode: 'REFUSED', flag_rd: true, flag_ra: true });
    expect(packet['questions']).toEqual([{ name: 'Www.Example.org', type: 'A', class: 'IN' }]);
  });
  it('have no question where that could not be read', () => {
    const bytes = answerUnread(new Uint8Array(600).fill(0x12), RCODE_FORMAT_ERROR);
    expect(decode(Buffer.from(bytes))).toMatchObject({ id: 0x1212, type: 'response', rcode: 'FORMERR', questions: [] });
  });
});

describe('the answer of a resolver', () => {
  it('is one by id, direction and question, letter for letter', () => {
    expect(isAnswerTo(answer(), query, 0x1234)).toBe(true);
    expect(isAnswerTo(answer(), query, 0x1235)).toBe(false);
    expect(isAnswerTo(whole, query, 0x1234)).toBe(false);
    for (const other of [
      { type: 'A', name: 'www.example.org' },
      { type: 'AAAA', name: 'Www.Example.org' },
      { type: 'A', name: 'Www.Example.or' },
    ] as Question[]) {
      expect(isAnswerTo(answer({ questions: [other] }), query, 0x1234)).toBe(false);
    }
    expect(isAnswerTo(answer().subarray(0, 20), query, 0x1234)).toBe(false);
    expect(isAnswerTo(new Uint8Array(0), query, 0x1234)).toBe(false);
  });
  it('may leave the question out when it reports a failure', () => {
    expect(isAnswerTo(answer({ questions: [], flags: 2 }), query, 0x1234)).toBe(true);
    expect(isAnswerTo(answer({ questions: [] }), query, 0x1234)).toBe(false);
  });
  it('gets the id of who asked', () => {
    const message = answer();
    expect(decode(withId(message, 77)).id).toBe(77);
    expect(decode(message).id).toBe(0x1234);
  });
  it('is cut to the question when it is too long, with the word to ask by TCP', () => {
    const long = answer({ answers: Array(9).fill({ type: 'A', name: 'Www.Example.org', ttl: 1, data: '192.0.2.1' }) });
    expect(fitAnswer(long, query, long.length)).toBe(long);
    const cut = decode(Buffer.from(fitAnswer(long, query, long.length - 1)));
    expect([cut.questions?.length, cut.answers, (cut.flags ?? 0) & TRUNCATED_RESPONSE]).toEqual([
      1,
      [],
      TRUNCATED_RESPONSE,
    ]);
  });
});
