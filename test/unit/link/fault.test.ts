import { describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { createFaultLink, type FaultRates } from '../../../src/link/fault.ts';
import { FakeLink } from '../../support/fake-link.ts';

const COUNT = 2000;

function setUp(toGuest: FaultRates, fromGuest: FaultRates, seed = 1) {
  const arena = createArena(8 << 20);
  const inner = new FakeLink(arena, 1 << 20, 1 << 14);
  const link = createFaultLink({ link: inner, arena, seed, toGuest, fromGuest });
  return { arena, inner, link };
}

function makeFrame(number: number): Uint8Array {
  const frame = new Uint8Array(60 + (number % 50)).fill(0x5a);
  new DataView(frame.buffer).setUint32(0, number);
  return frame;
}

function numberOf(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset).getUint32(0);
}

/** Sends frames 0 … COUNT - 1 to the guest, `batch` per flush. @returns what arrives */
function sendDown(rates: FaultRates, batch: number, seed?: number) {
  const { arena, inner, link } = setUp(rates, {}, seed);
  for (let i = 0; i < COUNT; i++) {
    const frame = makeFrame(i);
    const start = link.reserve(4 + frame.length);
    arena.bytes.set(frame, start + 4);
    link.commit(start + 4, frame.length);
    if (i % batch === batch - 1) link.flush();
  }
  link.flush();
  link.flush();
  return { frames: inner.sent, counts: link.toGuestCounts };
}

/** Sends frames 0 … COUNT - 1 from the guest, `batch` per event. @returns what the stack sees */
function sendUp(rates: FaultRates, batch: number, seed?: number) {
  const { arena, inner, link } = setUp({}, rates, seed);
  const got: Uint8Array[] = [];
  const pairs = new Int32Array(64);
  for (let i = 0; i < COUNT; ) {
    for (const end = Math.min(COUNT, i + batch); i < end; i++) inner.pushFromGuest(makeFrame(i));
    for (let count = link.receive(pairs); count > 0; count = link.receive(pairs)) {
      for (let k = 0; k < count; k++) got.push(arena.bytes.slice(pairs[2 * k]!, pairs[2 * k]! + pairs[2 * k + 1]!));
    }
  }
  return { frames: got, counts: link.fromGuestCounts };
}

/** Compares bytes without the cost of `toEqual`. */
function expectIntact(frames: readonly Uint8Array[]): void {
  expect(frames.filter((frame) => Buffer.compare(frame, makeFrame(numberOf(frame))) !== 0)).toEqual([]);
}

const everyNumber = Array.from({ length: COUNT }, (_, i) => i);

describe.each([
  ['to the guest', sendDown],
  ['from the guest', sendUp],
])('faults %s', (_name, run) => {
  it('passes everything unchanged without rates', () => {
    const { frames, counts } = run({}, 10);
    expect(frames.map(numberOf)).toEqual(everyNumber);
    expectIntact(frames);
    expect(counts).toEqual({ passed: COUNT, lost: 0, duplicated: 0, reordered: 0, corrupted: 0 });
  });

  it('loses about as many as asked for, and the others stay in order', () => {
    const { frames, counts } = run({ loss: 0.05 }, 10);
    expect(counts.lost).toBeGreaterThan(COUNT * 0.03);
    expect(counts.lost).toBeLessThan(COUNT * 0.07);
    expect(frames).toHaveLength(COUNT - counts.lost);
    const numbers = frames.map(numberOf);
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  });

  it('loses everything at rate 1', () => {
    expect(run({ loss: 1 }, 10).frames).toEqual([]);
  });

  it('doubles frames, one behind the other', () => {
    const { frames, counts } = run({ duplicate: 0.1 }, 10);
    expect(counts.duplicated).toBeGreaterThan(COUNT * 0.07);
    expect(frames).toHaveLength(COUNT + counts.duplicated);
    expect([...new Set(frames.map(numberOf))]).toEqual(everyNumber);
  });

  it.each([1, 2, 10])('lets later frames overtake, %d at a time, and loses none', (batch) => {
    const { frames, counts } = run({ reorder: 0.1 }, batch);
    const numbers = frames.map(numberOf);
    expect([...numbers].sort((a, b) => a - b)).toEqual(everyNumber);
    expect(counts.reordered).toBeGreaterThan(COUNT * 0.05);
    if (batch > 1) expect(numbers).not.toEqual(everyNumber);
    expect(Math.max(...numbers.map((number, i) => Math.abs(number - i)))).toBeLessThanOrEqual(4);
    expectIntact(frames);
  });

  it('changes one bit of a frame', () => {
    const { frames, counts } = run({ corrupt: 0.1 }, 10);
    expect(frames).toHaveLength(COUNT);
    let changed = 0;
    for (let i = 0; i < COUNT; i++) {
      const original = makeFrame(i);
      let bits = 0;
      frames[i]!.forEach((byte, k) => {
        for (let difference = byte ^ original[k]!; difference !== 0; difference &= difference - 1) bits++;
      });
      if (bits > 1) expect.unreachable(`${bits} bits changed`);
      changed += bits;
    }
    expect(changed).toBe(counts.corrupted);
    expect(changed).toBeGreaterThan(COUNT * 0.07);
  });

  it('does the same again with the same seed, and something else with another', () => {
    const rates = { loss: 0.1, duplicate: 0.1, reorder: 0.1, corrupt: 0.1 };
    const contents = (seed: number) => Buffer.concat(run(rates, 7, seed).frames).toString('base64');
    const first = contents(5);
    expect(first === contents(5)).toBe(true);
    expect(first === contents(6)).toBe(false);
  });
});

describe('faults under pressure', () => {
  it('keeps what the link below has no room for, without deciding twice', () => {
    const { arena, inner, link } = setUp({ duplicate: 0.2, loss: 0.2, reorder: 0.1 }, {});
    inner.limitRoom(1000);
    let sent = 0;
    for (let round = 0; sent < 2000; round++) {
      inner.stalled = round % 3 !== 0;
      for (let burst = 0; burst < 20 && sent < 2000; burst++) {
        const frame = makeFrame(sent);
        const start = link.reserve(4 + frame.length);
        if (start < 0) break;
        arena.bytes.set(frame, start + 4);
        link.commit(start + 4, frame.length);
        sent++;
      }
      const left = link.flush();
      if (inner.stalled) expect(left).toBeGreaterThan(0);
    }
    inner.stalled = false;
    while (link.flush() > 0);
    link.flush();
    link.flush();
    const { lost, duplicated, reordered, passed } = link.toGuestCounts;
    expect(lost + duplicated + reordered + passed).toBe(2000);
    expect(inner.sent).toHaveLength(2000 - lost + duplicated);
    expectIntact(inner.sent);
  });

  it('forgets everything when the guest is gone', () => {
    const { arena, inner, link } = setUp({ reorder: 1 }, {});
    const frame = makeFrame(1);
    const start = link.reserve(4 + frame.length);
    arena.bytes.set(frame, start + 4);
    link.commit(start + 4, frame.length);
    inner.connected = false;
    link.flush();
    inner.connected = true;
    for (let i = 0; i < 3; i++) link.flush();
    expect(inner.sent).toEqual([]);
  });
});
