import { describe, expect, it } from 'vitest';
import { rejectFor } from '../../../src/cli/options/definition.ts';
import { formatWayImpairment, parseImpairment, parseImpairRequest } from '../../../src/cli/options/impair-value.ts';
import type { WayImpairment } from '../../../src/link/impairment.ts';
import { limitOf } from '../../../src/link/impairment.ts';

const parse = (text: string) => parseImpairRequest(text, rejectFor('--impair', text));
const toGuest = (text: string): WayImpairment => parse(text).impairment.toGuest!;

const NONE: WayImpairment = {
  delayMs: 0,
  jitterMs: 0,
  loss: 0,
  duplicate: 0,
  reorder: 0,
  bitsPerSecond: 0,
  limitBytes: 0,
  seed: undefined,
};

describe('--impair', () => {
  it('is for both directions unless it says for which', () => {
    const both = { ...NONE, delayMs: 20, loss: 0.01 };
    expect(parse('delay=20ms,loss=1%')).toEqual({ guest: undefined, impairment: { toGuest: both, fromGuest: both } });
    expect(parse('from-guest.delay=20ms').impairment).toEqual({
      toGuest: undefined,
      fromGuest: { ...NONE, delayMs: 20 },
    });
  });

  it('counts what is for one direction before what is for both, wherever it stands', () => {
    for (const text of ['delay=20ms,to-guest.delay=5ms', 'to-guest.delay=5ms,delay=20ms']) {
      const { impairment } = parse(text);
      expect([impairment.toGuest!.delayMs, impairment.fromGuest!.delayMs]).toEqual([5, 20]);
    }
  });

  it('names a guest in front', () => {
    expect(parse('db:loss=1%')).toMatchObject({ guest: 'db', impairment: { toGuest: { loss: 0.01 } } });
  });

  it.each([
    ['delay=1.5s', 'delayMs', 1500],
    ['delay=250us', 'delayMs', 0.25],
    ['delay=3msecs', 'delayMs', 3],
    ['delay=20MS', 'delayMs', 20],
    ['loss=0.5%', 'loss', 0.005],
    ['loss=100%', 'loss', 1],
    ['duplicate=2%', 'duplicate', 0.02],
    ['rate=10mbit', 'bitsPerSecond', 1e7],
    ['rate=1.5Mbit', 'bitsPerSecond', 1.5e6],
    ['rate=64kibit', 'bitsPerSecond', 65536],
    ['rate=100kbps', 'bitsPerSecond', 8e5],
    ['rate=9600bit', 'bitsPerSecond', 9600],
    ['rate=1gbit,limit=32k', 'limitBytes', 32768],
    ['rate=1gbit,limit=1m', 'limitBytes', 1 << 20],
    ['rate=1gbit,limit=3000', 'limitBytes', 3000],
  ] as const)('reads %s in the units of tc', (text, name, expected) => {
    expect(toGuest(text)[name]).toBeCloseTo(expected, 9);
  });

  it('gives both directions chances of their own by one seed', () => {
    const { toGuest: there, fromGuest: back } = parse('loss=1%,seed=7').impairment;
    expect(there!.seed).not.toBe(back!.seed);
    expect(parse('loss=1%,seed=7')).toEqual(parse('seed=7,loss=1%'));
  });

  it('lets a limit or a seed for both be where one direction has no use for it', () => {
    const { impairment } = parse('to-guest.rate=1mbit,limit=8k,seed=3,from-guest.delay=1ms');
    expect(impairment.toGuest).toMatchObject({ bitsPerSecond: 1e6, limitBytes: 8192 });
    expect(impairment.fromGuest).toMatchObject({ delayMs: 1, limitBytes: 0 });
    expect(parse('to-guest.rate=1mbit,limit=8k').impairment.fromGuest).toBeUndefined();
  });

  it.each([
    ['', "not ''"],
    ['delay', "not 'delay'"],
    ['delay=20', "a time with its unit, such as 20ms: s, ms or us, one minute at most, as 'delay', not '20'"],
    ['delay=61s', 'one minute at most'],
    ['delay=-1ms', "not '-1ms'"],
    ['delay=1e3ms', "not '1e3ms'"],
    ['loss=1', "a share of all frames, such as 1%, from 0% to 100%, as 'loss', not '1'"],
    ['loss=101%', "not '101%'"],
    ['to-guest.rate=10', "as 'to-guest.rate', not '10'"],
    ['rate=1bit', 'a rate with its unit'],
    ['rate=10mb', 'a rate with its unit'],
    ['rate=1mbit,limit=0', "as 'limit', not '0'"],
    ['limit=10k', 'expected rate= with limit=, which is what may wait for it'],
    ['delay=1ms,to-guest.limit=10k', 'expected rate= with to-guest.limit='],
    ['seed=1', 'something to leave to chance beside seed='],
    ['jitter=5ms', 'at most as much jitter= as delay='],
    ['delay=5ms,from-guest.jitter=6ms', 'at most as much from-guest.jitter= as delay='],
    ['reorder=1%', 'delay= with reorder='],
    ['delay=1ms,delay=2ms', "expected 'delay' once"],
    ['to-host.delay=1ms', "not 'to-host.delay=1ms'"],
    ['delay=1ms,', "not ''"],
    ['corrupt=1%', 'expected of delay=, jitter=, loss=, duplicate=, reorder=, rate=, limit=, seed= with'],
    ['constructor=1', "not 'constructor=1'"],
    [':delay=1ms', "a guest's name in front of ':'"],
  ])('refuses %j and says what it expected', (text, message) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'PASSEL_E_OPTION_VALUE' }));
    expect(() => parse(text)).toThrow(message);
  });

  it('is shown in its own words, and read again means the same', () => {
    const text = 'delay=20ms,jitter=1500us,loss=0.1%,duplicate=2%,reorder=3%,rate=1.5mbit,limit=10000';
    expect(formatWayImpairment(toGuest(text))).toBe(text);
    for (const each of [text, 'rate=10gbit', 'rate=1001bit', 'delay=1s', 'loss=33.3%', 'delay=0.001ms']) {
      const shown = formatWayImpairment(toGuest(each));
      expect(formatWayImpairment(parseImpairment(shown, rejectFor('x', shown)).toGuest!)).toBe(shown);
    }
  });
});

describe('what may wait for a rate', () => {
  it('is what is sent in 100 ms, some frames at least, unless there is a limit', () => {
    expect(limitOf(toGuest('delay=1ms'))).toBe(Number.POSITIVE_INFINITY);
    expect(limitOf(toGuest('rate=1gbit'))).toBe(12_500_000);
    expect(limitOf(toGuest('rate=1mbit'))).toBe(256 * 1024);
    expect(limitOf(toGuest('rate=1gbit,limit=5k'))).toBe(5120);
  });
});
