import { type Answer, decode, encode, type Packet, type Question, RECURSION_DESIRED } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import { formatIp, isSameIp, parseIp } from '../../../src/base/ip-text.ts';
import { answerNameQuery, type NameRecords } from '../../../src/forward/dns-names.ts';

const NAMES: Record<string, string[]> = { web: ['10.0.2.15', 'fec0::15'], db: ['10.0.2.16'] };
const records: NameRecords = {
  addressesOf: (name) => NAMES[name.replace(/\.example$/, '')]?.map((text) => parseIp(text)!),
  nameOf: (address) =>
    Object.keys(NAMES).find((name) => NAMES[name]!.some((text) => isSameIp(parseIp(text)!, address))),
};

function query(question: Partial<Question>, more: Partial<Packet> = {}): Uint8Array {
  const questions = [{ type: 'A', name: 'web', ...question } as Question];
  return encode({ type: 'query', id: 4711, flags: RECURSION_DESIRED, questions, ...more });
}

type Decoded = Packet & { flag_aa: boolean; flag_ra: boolean; flag_rd: boolean; rcode: string };

function ask(question: Partial<Question>, more: Partial<Packet> = {}): Decoded | undefined {
  const answer = answerNameQuery(query(question, more), records);
  return answer === undefined ? undefined : (decode(Buffer.from(answer)) as unknown as Decoded);
}

const data = (packet: Decoded | undefined): unknown =>
  packet?.answers?.map((each: Answer) => [each.type, each.name, 'data' in each ? each.data : undefined]);

describe('questions about names', () => {
  it('are answered with the addresses of the family', () => {
    const packet = ask({ name: 'web' })!;
    expect(packet).toMatchObject({
      id: 4711,
      type: 'response',
      flag_aa: true,
      flag_ra: true,
      flag_rd: true,
      rcode: 'NOERROR',
    });
    expect(packet.questions).toEqual([{ name: 'web', type: 'A', class: 'IN' }]);
    expect(data(packet)).toEqual([['A', 'web', '10.0.2.15']]);
    expect(data(ask({ name: 'web', type: 'AAAA' }))).toEqual([['AAAA', 'web', formatIp(parseIp('fec0::15')!)]]);
  });
  it('do not care for case, and give it back', () => {
    expect(data(ask({ name: 'WeB.Example' }))).toEqual([['A', 'WeB.Example', '10.0.2.15']]);
  });
  it('of another type get an answer without records, so that nobody else is asked', () => {
    for (const type of ['AAAA', 'MX', 'TXT', 'SRV'] as const) expect(ask({ name: 'db', type })?.answers).toEqual([]);
  });
  it('are not ours when the name is not', () => {
    for (const name of ['www.example.org', 'web.example.org', 'x.web', 'example', ''])
      expect(ask({ name })).toBeUndefined();
  });
  it('get the options of EDNS back when they have them', () => {
    const option: Answer = {
      type: 'OPT',
      name: '.',
      udpPayloadSize: 4096,
      flags: 0,
      options: [],
      extendedRcode: 0,
      ednsVersion: 0,
      flag_do: false,
    };
    expect(ask({}, { additionals: [option] })!.additionals).toMatchObject([{ type: 'OPT', udpPayloadSize: 1232 }]);
    expect(ask({})!.additionals).toEqual([]);
  });
});

describe('questions about addresses', () => {
  it.each([
    ['16.2.0.10.in-addr.arpa', 'db'],
    [`5.1.${'0.'.repeat(27)}c.e.f.ip6.arpa`, 'web'],
  ])('%s are answered with the name', (name, owner) => {
    expect(data(ask({ type: 'PTR', name }))).toEqual([['PTR', name, owner]]);
    expect(ask({ type: 'A', name })!.answers).toEqual([]);
  });
  it.each(['17.2.0.10.in-addr.arpa', '2.0.10.in-addr.arpa', 'x.2.0.10.in-addr.arpa', '5.1.ip6.arpa', 'home.arpa'])(
    'not ours: %s',
    (name) => {
      expect(ask({ type: 'PTR', name })).toBeUndefined();
    },
  );
});

describe('what is no question', () => {
  it('is left alone: answers, other operations, several questions, none, other classes', () => {
    const two = {
      questions: [
        { type: 'A', name: 'web' },
        { type: 'A', name: 'db' },
      ] as Question[],
    };
    for (const more of [{ type: 'response' as const }, { questions: [] }, two]) expect(ask({}, more)).toBeUndefined();
    expect(ask({ class: 'CH' })).toBeUndefined();
    const update = Buffer.from(query({}));
    update[2] = 5 << 3;
    expect(answerNameQuery(update, records)).toBeUndefined();
  });
  it('is left alone when it is cut off anywhere, points to itself, or is garbage', () => {
    const whole = query({ name: 'web.example' });
    for (let length = 0; length < whole.length; length++) {
      expect(answerNameQuery(whole.subarray(0, length), records)).toBeUndefined();
    }
    const loop = Buffer.from(whole);
    loop.set([0xc0, 12], 12);
    expect(answerNameQuery(loop, records)).toBeUndefined();
    expect(answerNameQuery(new Uint8Array(512).fill(0xff), records)).toBeUndefined();
  });
});
