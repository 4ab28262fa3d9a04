/**
 * The value of `--impair`, in the words and units of tc(8): `[GUEST:][DIRECTION.]KEY=VALUE,…`.
 *
 * A key without a direction is for both; one with a direction counts before it, wherever it stands.
 */
import type { Impairment, WayImpairment } from '../../link/impairment.ts';
import type { Reject } from './definition.ts';

/** What one `--impair` asks for. */
export interface ImpairRequest {
  /** Undefined: all guests. */
  readonly guest: string | undefined;
  readonly impairment: Impairment;
}

const DIRECTIONS = ['to-guest', 'from-guest'] as const;
type Direction = (typeof DIRECTIONS)[number];

const EXPECTED_TIME = 'a time with its unit, such as 20ms: s, ms or us, one minute at most';
const EXPECTED_SHARE = 'a share of all frames, such as 1%, from 0% to 100%';
const EXPECTED_RATE = 'a rate with its unit, such as 10mbit: bit, kbit, mbit, gbit, or bytes: bps, kbps, mbps, gbps';
const EXPECTED_SIZE = 'a number of bytes, with K or M if you like, 1G at most';

const DELAY_MAX_MS = 60_000;
/** A frame of 64 KiB then takes nine minutes. */
const RATE_MIN = 1000;
const RATE_MAX = 1e12;
const LIMIT_MAX = 2 ** 30;

const MS_BY_UNIT: Readonly<Record<string, number>> = {
  ...{ s: 1000, sec: 1000, secs: 1000 },
  ...{ ms: 1, msec: 1, msecs: 1 },
  ...{ us: 0.001, usec: 0.001, usecs: 0.001 },
};

/** Decimal, as tc(8) has it; with an i, binary. */
const BITS_BY_UNIT: Readonly<Record<string, number>> = Object.fromEntries(
  ['', 'k', 'm', 'g', 't'].flatMap((prefix, power) => [
    [`${prefix}bit`, 1000 ** power],
    [`${prefix}bps`, 8 * 1000 ** power],
    [`${prefix}ibit`, 1024 ** power],
    [`${prefix}ibps`, 8 * 1024 ** power],
  ]),
);

type Reader = (text: string) => number | undefined;

const READERS: Readonly<Record<string, readonly [Reader, string]>> = {
  delay: [readTime, EXPECTED_TIME],
  jitter: [readTime, EXPECTED_TIME],
  loss: [readShare, EXPECTED_SHARE],
  duplicate: [readShare, EXPECTED_SHARE],
  reorder: [readShare, EXPECTED_SHARE],
  rate: [readRate, EXPECTED_RATE],
  limit: [readSize, EXPECTED_SIZE],
  seed: [(text) => (/^\d{1,9}$/.test(text) ? Number(text) : undefined), 'a number of at most nine digits'],
};

const EXPECTED_KEYS = Object.keys(READERS)
  .map((key) => `${key}=`)
  .join(', ');

/** A value of the option. */
export function parseImpairRequest(text: string, reject: Reject): ImpairRequest {
  const [, guest, rest] = /^(?:([^:=,]*):)?(.*)$/s.exec(text)!;
  if (guest === '') reject("a guest's name in front of ':'");
  return { guest, impairment: parseImpairment(rest!, reject) };
}

/** What there is to be of one guest's link; never nothing. */
export function parseImpairment(text: string, reject: Reject): Impairment {
  const given = new Map<string, number>();
  for (const part of text.split(',')) {
    const match = /^(?:(to-guest|from-guest)\.)?([a-z]+)=(.*)$/s.exec(part);
    const reader = match === null || !Object.hasOwn(READERS, match[2]!) ? undefined : READERS[match[2]!];
    if (match === null || reader === undefined) {
      return reject(`of ${EXPECTED_KEYS} with to-guest. or from-guest. in front if you like, not '${part}'`);
    }
    const [, direction = '', key, value] = match;
    const name = direction === '' ? key! : `${direction}.${key}`;
    if (given.has(name)) reject(`'${name}' once`);
    const [read, expected] = reader;
    given.set(name, read(value!) ?? reject(`${expected}, as '${name}', not '${value}'`));
  }
  const [toGuest, fromGuest] = DIRECTIONS.map((direction) => collect(given, direction, reject));
  if (toGuest === undefined && fromGuest === undefined) {
    reject(
      given.has('seed')
        ? 'something to leave to chance beside seed='
        : 'rate= with limit=, which is what may wait for it',
    );
  }
  return { toGuest, fromGuest };
}

function collect(given: ReadonlyMap<string, number>, direction: Direction, reject: Reject): WayImpairment | undefined {
  const find = (key: string): number | undefined => given.get(`${direction}.${key}`) ?? given.get(key);
  const own = (key: string): string => (given.has(`${direction}.${key}`) ? `${direction}.${key}` : key);
  const names = Object.keys(READERS).filter((key) => find(key) !== undefined);
  // These two do nothing by themselves: they are there for the other direction, or by mistake.
  if (names.every((key) => key === 'seed' || key === 'limit')) return undefined;
  const delayMs = find('delay') ?? 0;
  const jitterMs = find('jitter') ?? 0;
  if (jitterMs > delayMs) reject(`at most as much ${own('jitter')}= as ${own('delay')}=`);
  if ((find('reorder') ?? 0) > 0 && delayMs === 0)
    reject(`${own('delay')}= with ${own('reorder')}=: what is not delayed goes ahead`);
  if (given.has(`${direction}.limit`) && find('rate') === undefined)
    reject(`rate= with ${own('limit')}=, which is what may wait for it`);
  const seed = find('seed');
  return {
    delayMs,
    jitterMs,
    loss: find('loss') ?? 0,
    duplicate: find('duplicate') ?? 0,
    reorder: find('reorder') ?? 0,
    bitsPerSecond: find('rate') ?? 0,
    limitBytes: find('rate') === undefined ? 0 : (find('limit') ?? 0),
    // Not the same chances both ways.
    seed: seed === undefined ? undefined : 2 * seed + (direction === 'to-guest' ? 0 : 1),
  };
}

/** The impairment of one direction in the words of the option; empty: none. */
export function formatWayImpairment(way: WayImpairment): string {
  const time = (ms: number): string => (Number.isInteger(ms) ? `${ms}ms` : `${Math.round(ms * 1000)}us`);
  const share = (part: number): string => `${Number((part * 100).toPrecision(9))}%`;
  const parts = [
    ...(way.delayMs > 0 ? [`delay=${time(way.delayMs)}`] : []),
    ...(way.jitterMs > 0 ? [`jitter=${time(way.jitterMs)}`] : []),
    ...(way.loss > 0 ? [`loss=${share(way.loss)}`] : []),
    ...(way.duplicate > 0 ? [`duplicate=${share(way.duplicate)}`] : []),
    ...(way.reorder > 0 ? [`reorder=${share(way.reorder)}`] : []),
    ...(way.bitsPerSecond > 0 ? [`rate=${formatRate(way.bitsPerSecond)}`] : []),
    ...(way.limitBytes > 0 ? [`limit=${way.limitBytes}`] : []),
  ];
  return parts.join(',');
}

function formatRate(bits: number): string {
  for (const [unit, factor] of [
    ['gbit', 1e9],
    ['mbit', 1e6],
    ['kbit', 1e3],
  ] as const) {
    if (bits >= factor && bits % (factor / 1000) === 0) return `${bits / factor}${unit}`;
  }
  return `${bits}bit`;
}

function readTime(text: string): number | undefined {
  const ms = readUnit(text, MS_BY_UNIT);
  return ms === undefined || ms > DELAY_MAX_MS ? undefined : ms;
}

function readRate(text: string): number | undefined {
  const bits = Math.round(readUnit(text, BITS_BY_UNIT) ?? 0);
  return bits < RATE_MIN || bits > RATE_MAX ? undefined : bits;
}

/** A decimal number, and a unit in letters of either case. */
function readUnit(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,15}(?:\.\d{1,9})?)([a-z]+)$/i.exec(text);
  if (match === null) return undefined;
  const unit = match[2]!.toLowerCase();
  return Object.hasOwn(units, unit) ? Number(match[1]) * units[unit]! : undefined;
}

function readShare(text: string): number | undefined {
  const match = /^(\d{1,3}(?:\.\d{1,9})?)%$/.exec(text);
  const percent = match === null ? 101 : Number(match[1]);
  return percent > 100 ? undefined : percent / 100;
}

function readSize(text: string): number | undefined {
  const match = /^(\d{1,10})([km]?)b?$/i.exec(text);
  if (match === null) return undefined;
  const bytes = Number(match[1]) * 1024 ** ['', 'k', 'm'].indexOf(match[2]!.toLowerCase());
  return bytes < 1 || bytes > LIMIT_MAX ? undefined : bytes;
}
