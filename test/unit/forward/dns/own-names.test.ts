import { type Answer, decode, encode, type Packet, type Question, RECURSION_DESIRED } from 'dns-packet';
import { describe, expect, it } from 'vitest';
import { formatIp, isSameIp, parseIp } from '../../../../src/base/ip-text.ts';
import { readQuery } from '../../../../src/forward/dns/messages.ts';
import { answerFromList, answerOwnNames, type OwnRecords } from '../../../../src/forward/dns/own-names.ts';

const NAMES: Record<string, string[]> = { web: ['10.0.2.15', 'fec0::15'], db: ['10.0.2.16'] };
const records: OwnRecords = {
  domain: 'lab.test',
  isOwnAddress: (address) => formatIp(address).startsWith('10.0.2.'),
  addressesOf: (name) => NAMES[name.replace(/\.(example|lab\.test)$/, '')]?.map((text) => parseIp(text)!),
  nameOf: (address) =>
    Object.keys(NAMES).find((name) => NAMES[name]!.some((text) => isSameIp(parseIp(text)!, address))),
};

function query(question: Partial<Question>, more: Partial<Packet> = {}): Uint8Array {
  const questions = [{ type: 'A', name: 'web', ...question } as Question];
  return encode({ type: 'query', id: 4711, flags: RECURSION_DESIRED, questions, ...more });
}

type Decoded = Packet & { flag_aa: boolean; flag_ra: boolean; flag_rd: boolean; rcode: string };

function ask(question: Partial<Question>, more: Partial<Packet> = {}): Decoded | undefined {
  const read = readQuery(query(question, more));
  const answer = typeof read === 'object' ? answerOwnNames(read, records) : undefined;
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
  it.each(['17.3.0.10.in-addr.arpa', '2.0.10.in-addr.arpa', 'x.2.0.10.in-addr.arpa', '5.1.ip6.arpa', 'home.arpa'])(
    'not ours: %s',
    (name) => {
      expect(ask({ type: 'PTR', name })).toBeUndefined();
    },
  );
});

describe('zones of ours', () => {
  const soa = (packet: Decoded | undefined): unknown => packet?.authorities?.map(({ type, name }) => [type, name]);

  it('have no names but those that are known, and say for how long that is so', () => {
    const packet = ask({ name: 'nobody.lab.test' })!;
    expect([packet.rcode, packet.answers, soa(packet)]).toEqual(['NXDOMAIN', [], [['SOA', 'lab.test']]]);
    expect(packet.authorities![0]).toMatchObject({ ttl: 5, data: { mname: 'lab.test', minimum: 5 } });
  });
  it('say so too where a name has nothing of the type', () => {
    const packet = ask({ name: 'db.lab.test', type: 'AAAA' })!;
    expect([packet.rcode, packet.answers, soa(packet)]).toEqual(['NOERROR', [], [['SOA', 'lab.test']]]);
    expect(ask({ name: 'db.lab.test' })!.authorities).toEqual([]);
  });
  it('have a start, and nothing else at their head', () => {
    expect(ask({ name: 'lab.test', type: 'SOA' })!.answers).toMatchObject([{ type: 'SOA', name: 'lab.test' }]);
    const packet = ask({ name: 'lab.test', type: 'NS' })!;
    expect([packet.rcode, packet.answers, soa(packet)]).toEqual(['NOERROR', [], [['SOA', 'lab.test']]]);
  });
  it('have the addresses of the network, the unknown ones too', () => {
    const packet = ask({ type: 'PTR', name: '99.2.0.10.in-addr.arpa' })!;
    expect([packet.rcode, packet.answers, soa(packet)]).toEqual(['NXDOMAIN', [], [['SOA', '2.0.10.in-addr.arpa']]]);
    expect(ask({ type: 'PTR', name: '99.3.0.10.in-addr.arpa' })).toBeUndefined();
  });
  it('have loopback, which is that of who asks', () => {
    expect(data(ask({ name: 'localhost' }))).toEqual([['A', 'localhost', '127.0.0.1']]);
    expect(data(ask({ name: 'db.localhost', type: 'AAAA' }))).toEqual([
      ['AAAA', 'db.localhost', formatIp(parseIp('::1')!)],
    ]);
  });
});

describe('a list of the host', () => {
  const look = (question: Partial<Question>): Decoded | undefined => {
    const answer = answerFromList(readQuery(query(question)) as never, records);
    return answer === undefined ? undefined : (decode(Buffer.from(answer)) as unknown as Decoded);
  };
  it('is asked about addresses and names', () => {
    expect(data(look({ name: 'web' }))).toEqual([['A', 'web', '10.0.2.15']]);
    expect(data(look({ name: '16.2.0.10.in-addr.arpa', type: 'PTR' }))).toEqual([
      ['PTR', '16.2.0.10.in-addr.arpa', 'db'],
    ]);
    expect(look({ name: 'db', type: 'AAAA' })).toMatchObject({ rcode: 'NOERROR', answers: [] });
  });
  it('knows nothing else of its names, and nothing of others', () => {
    for (const type of ['MX', 'TXT', 'SRV'] as const) expect(look({ name: 'web', type })).toBeUndefined();
    expect(look({ name: 'nobody.lab.test' })).toBeUndefined();
    expect(look({ name: '99.2.0.10.in-addr.arpa', type: 'PTR' })).toBeUndefined();
  });
});
