/** Questions on their way, with resolvers in memory and a clock of our own. */
import { decode, encode, type Question } from 'dns-packet';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createArena } from '../../../../src/base/arena.ts';
import { parseIp } from '../../../../src/base/ip-text.ts';
import { EventSlots } from '../../../../src/forward/dns/event-slots.ts';
import { type Asker, Exchanges } from '../../../../src/forward/dns/exchanges.ts';
import { type Query, readQuery } from '../../../../src/forward/dns/messages.ts';
import type { OwnRecords } from '../../../../src/forward/dns/own-names.ts';
import type { DnsRoute } from '../../../../src/forward/dns/routes.ts';
import { createNameServer, type NameCounters } from '../../../../src/forward/dns/server.ts';
import { SCRATCH_BYTES } from '../../../../src/forward/dns/upstream.ts';
import { EVENT_IN, type HostSockets } from '../../../../src/stack/ports.ts';

const EAGAIN = -11;
const ECONNREFUSED = -111;
const ENETUNREACH = -101;

/** A datagram socket that remembers what it sent. */
interface FakeSocket {
  readonly fd: number;
  /** Last word of the address it is connected to. */
  peer: number;
  readonly sent: Buffer[];
  readonly inbox: (Buffer | number)[];
  slot: number;
  closed: boolean;
}

let opened: FakeSocket[];
let unreachable: Set<number>;
let exchanges: Exchanges;
let slots: EventSlots;
let answers: { from: number; code: string; data: unknown }[];

beforeEach(() => {
  vi.useFakeTimers();
  opened = [];
  unreachable = new Set();
  answers = [];
  slots = new EventSlots();
  const arena = createArena(1 << 18);
  const scratch = arena.allocate(SCRATCH_BYTES);
  const of = (fd: number): FakeSocket => opened[fd - 100]!;
  const sockets = {
    open() {
      const socket = { fd: 100 + opened.length, peer: 0, sent: [], inbox: [], slot: -1, closed: false };
      opened.push(socket);
      return socket.fd;
    },
    connect(fd: number, endpoint: number) {
      of(fd).peer = arena.view.getUint8(endpoint + 11);
      return unreachable.has(of(fd).peer) ? ENETUNREACH : 0;
    },
    sendBuffer(fd: number, buffer: Uint8Array) {
      of(fd).sent.push(Buffer.from(buffer));
      return buffer.length;
    },
    receive(fd: number, offset: number) {
      const next = of(fd).inbox.shift();
      if (next === undefined || of(fd).closed) return EAGAIN;
      if (typeof next === 'number') return next;
      arena.bytes.set(next, offset);
      return next.length;
    },
    watch(fd: number, _events: number, _kind: number, slot: number) {
      of(fd).slot = slot;
      return 0;
    },
    close(fd: number) {
      of(fd).closed = true;
      return 0;
    },
  } as unknown as HostSockets;
  const outbound = { ipv4: 0, ipv6: undefined, interface4: '', interface6: '', linkLocalScopeId: 0 };
  exchanges = new Exchanges({
    ...{ sockets, view: arena.view, bytes: arena.bytes, scratch, slots, outbound },
    kickTurn: () => {},
  });
});
afterEach(() => vi.useRealTimers());

const route = (...last: number[]): DnsRoute => ({
  domain: '',
  servers: last.map((each) => ({ address: parseIp(`192.0.2.${each}`)!, port: 53 })),
});
const makeQuery = (name = 'www.example.org', id = 5): Query =>
  readQuery(encode({ type: 'query', id, questions: [{ type: 'A', name }] })) as Query;

function ask(way: DnsRoute, from = 0, query = makeQuery()): void {
  const asker: Asker = {
    query,
    limitBytes: 512,
    answer(message) {
      const packet = decode(Buffer.from(message)) as unknown as {
        id: number;
        rcode: string;
        answers: { data: unknown }[];
      };
      expect(packet.id).toBe(query.id);
      answers.push({ from, code: packet.rcode, data: packet.answers[0]?.data });
    },
  };
  exchanges.ask(way, false, asker);
}

/** Has a resolver say something to what its socket sent last. */
function reply(socket: FakeSocket, more: { rcode?: number; data?: string; name?: string; id?: number } = {}): void {
  const asked = decode(socket.sent.at(-1)!);
  const question = asked.questions![0] as Question;
  const name = more.name ?? question.name;
  socket.inbox.push(
    Buffer.from(
      encode({
        ...{ type: 'response', id: more.id ?? asked.id!, flags: more.rcode ?? 0 },
        questions: [{ ...question, name }],
        answers: more.data === undefined ? [] : [{ type: 'A', name, ttl: 1, data: more.data }],
      }),
    ),
  );
  slots.dispatch(socket.slot, EVENT_IN);
}

function fail(socket: FakeSocket, errno = ECONNREFUSED): void {
  socket.inbox.push(errno);
  slots.dispatch(socket.slot, EVENT_IN);
}

describe('a question', () => {
  it('goes to the first resolver, and its answer to who asked', () => {
    ask(route(1, 2));
    expect(opened.map(({ peer }) => peer)).toEqual([1]);
    reply(opened[0]!, { data: '203.0.113.1' });
    expect(answers).toEqual([{ from: 0, code: 'NOERROR', data: '203.0.113.1' }]);
    expect([opened[0]!.closed, exchanges.size]).toEqual([true, 0]);
    vi.advanceTimersByTime(60_000);
    expect([answers.length, opened.length]).toEqual([1, 1]);
  });
  it('is asked of the next one after a second, and any answer counts', () => {
    ask(route(1, 2));
    vi.advanceTimersByTime(999);
    expect(opened).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(opened.map(({ peer }) => peer)).toEqual([1, 2]);
    reply(opened[0]!, { data: '203.0.113.1' });
    expect(answers).toHaveLength(1);
    expect(opened.every(({ closed }) => closed)).toBe(true);
  });
  it('is asked four times in all, by two sockets, and given up after five seconds', () => {
    ask(route(1, 2));
    vi.advanceTimersByTime(4999);
    expect(opened.map(({ sent }) => sent.length)).toEqual([2, 2]);
    expect(answers).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(answers).toEqual([{ from: 0, code: 'SERVFAIL', data: undefined }]);
    expect([opened.every(({ closed }) => closed), exchanges.size]).toEqual([true, 0]);
  });
  it('is asked of the next one at once when nobody is there, or it is refused', () => {
    unreachable.add(1);
    ask(route(1, 2, 3));
    expect(opened.map(({ peer, closed }) => [peer, closed])).toEqual([
      [1, true],
      [2, false],
    ]);
    reply(opened[1]!, { rcode: 5 });
    expect(opened.map(({ peer }) => peer)).toEqual([1, 2, 3]);
    fail(opened[2]!);
    // All have failed: what one of them said is the answer.
    expect(answers).toEqual([{ from: 0, code: 'REFUSED', data: undefined }]);
  });
  it('fails at once when there is no way to any', () => {
    unreachable.add(1);
    ask(route(1));
    expect(answers).toEqual([{ from: 0, code: 'SERVFAIL', data: undefined }]);
  });
  it('has an answer in that there is no such name', () => {
    ask(route(1, 2));
    reply(opened[0]!, { rcode: 3 });
    expect(answers).toEqual([{ from: 0, code: 'NXDOMAIN', data: undefined }]);
  });
  it('takes no answers to others', () => {
    ask(route(1));
    reply(opened[0]!, { id: decode(opened[0]!.sent[0]!).id! ^ 1, data: '203.0.113.66' });
    reply(opened[0]!, { name: 'www.example.net', data: '203.0.113.66' });
    opened[0]!.inbox.push(Buffer.from('garbage'), Buffer.alloc(0));
    slots.dispatch(opened[0]!.slot, EVENT_IN);
    expect(answers).toEqual([]);
    reply(opened[0]!, { data: '203.0.113.1' });
    expect(answers).toMatchObject([{ data: '203.0.113.1' }]);
  });
  it('starts with the resolver that answered last', () => {
    const way = route(1, 2);
    ask(way);
    fail(opened[0]!);
    reply(opened[1]!, { data: '203.0.113.2' });
    ask(way, 0, makeQuery('other.example.org'));
    expect(opened[2]!.peer).toBe(2);
  });
  it('that is on its way is not asked again: all who ask get the answer, with their own ids', () => {
    ask(route(1), 1, makeQuery('www.example.org', 7));
    ask(route(1), 2, makeQuery('www.example.org', 8));
    ask(route(1), 3, makeQuery('ftp.example.org', 9));
    expect(opened).toHaveLength(2);
    reply(opened[0]!, { data: '203.0.113.1' });
    expect(answers.map(({ from }) => from)).toEqual([1, 2]);
  });
  it('has an id that is not the one of who asked', () => {
    const ids = new Set<number>();
    for (let i = 0; i < 16; i++) {
      ask(route(1), 0, makeQuery(`w${i}.example.org`));
      ids.add(decode(opened[i]!.sent[0]!).id!);
    }
    expect(ids.size).toBeGreaterThan(8);
  });
  it('is dropped with the network', () => {
    ask(route(1, 2));
    exchanges.close();
    vi.advanceTimersByTime(60_000);
    expect([answers, opened.length, opened[0]!.closed]).toEqual([[], 1, true]);
  });
});

describe('a guest', () => {
  const own: OwnRecords = {
    domain: '',
    isOwnAddress: () => false,
    addressesOf: () => undefined,
    nameOf: () => undefined,
  };
  const counters: NameCounters = { queries: 0, answered: 0, forwarded: 0, refused: 0 };
  const serve = (routes: readonly DnsRoute[]) =>
    createNameServer({ own, list: undefined, routes, exchanges, counters }, () => true);

  it('may have 64 questions on their way, and new ones when they have ended', () => {
    const server = serve([route(1)]);
    const codes: string[] = [];
    const send = (i: number): void =>
      server.ask(makeQuery(`w${i}.example.org`).bytes, 1000, (message) =>
        codes.push((decode(Buffer.from(message)) as unknown as { rcode: string }).rcode),
      );
    for (let i = 0; i < 65; i++) send(i);
    expect([codes, opened.length]).toEqual([['SERVFAIL'], 64]);
    reply(opened[0]!, { data: '203.0.113.1' });
    send(66);
    expect([codes, opened.length]).toEqual([['SERVFAIL', 'NOERROR'], 65]);
  });
  it('is refused what there is no route for, and denied what nobody knows', () => {
    const codeOf = (routes: readonly DnsRoute[]): string => {
      let code = '';
      serve(routes).ask(makeQuery().bytes, 1000, (message) => {
        code = (decode(Buffer.from(message)) as unknown as { rcode: string }).rcode;
      });
      return code;
    };
    expect(codeOf([])).toBe('REFUSED');
    expect(codeOf([{ domain: 'example.org', servers: [] }])).toBe('NXDOMAIN');
    expect(codeOf([{ domain: '', servers: [] }])).toBe('SERVFAIL');
    expect(opened).toEqual([]);
  });
});
