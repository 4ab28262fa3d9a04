import { describe, expect, it } from 'vitest';
import { GapStore } from '../../../../src/stack/tcp/out-of-order.ts';
import { Scoreboard } from '../../../../src/stack/tcp/recovery.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import { Harness, pattern } from './harness.ts';

describe('segments beyond a gap', () => {
  it('are kept, reported with SACK at once, and passed on when the gap is filled', () => {
    const h = new Harness();
    const conn = h.openOut();
    const base = conn.guestNext;
    const at = (offset: number): number => (base + offset) >>> 0;
    conn.send('A', { seq: at(100), data: pattern(100, 100) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: base, sack: [at(100), at(200)] });
    conn.send('A', { seq: at(300), data: pattern(100, 300) });
    expect(h.takeOne()).toMatchObject({ ack: base, sack: [at(300), at(400), at(100), at(200)] });
    conn.send('A', { seq: at(200), data: pattern(100, 200) });
    expect(h.takeOne()).toMatchObject({ ack: base, sack: [at(100), at(400)] });
    conn.send('A', { seq: base, data: pattern(100) });
    const last = h.takeOne();
    expect(last.ack).toBe(at(400));
    expect(last.sack).toBeUndefined();
    expect(Buffer.from(conn.socket.sent).equals(pattern(400))).toBe(true);
    expect(h.ctx.counters.tcpOutOfOrder).toBe(3);
  });

  it('are reported without SACK to a guest that does not know it', () => {
    const h = new Harness();
    const conn = h.openOut({ sackOk: undefined });
    conn.send('A', { seq: (conn.guestNext + 100) >>> 0, data: pattern(100, 100) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
  });

  it('may end with the FIN, which is taken in its turn', () => {
    const h = new Harness();
    const conn = h.openOut();
    const base = conn.guestNext;
    conn.send('FA', { seq: (base + 5) >>> 0, data: pattern(5, 5) });
    expect(conn.socket.writeShut).toBe(false);
    conn.send('A', { seq: base, data: pattern(5) });
    expect(conn.socket.writeShut).toBe(true);
    expect(Buffer.from(conn.socket.sent).equals(pattern(10))).toBe(true);
    expect(h.take().at(-1)?.ack).toBe((base + 11) >>> 0);
  });

  it('with a FIN alone wait for the data before it', () => {
    const h = new Harness();
    const conn = h.openOut();
    const base = conn.guestNext;
    conn.send('FA', { seq: (base + 5) >>> 0 });
    expect(conn.socket.writeShut).toBe(false);
    conn.send('A', { seq: base, data: pattern(5) });
    expect(conn.socket.writeShut).toBe(true);
  });

  it('come behind what waits in the spill', () => {
    const h = new Harness();
    const conn = h.openOut();
    const base = conn.guestNext;
    conn.socket.setSpace(10);
    conn.send('A', { seq: (base + 50) >>> 0, data: pattern(50, 50) });
    conn.send('A', { seq: base, data: pattern(50) });
    expect(conn.socket.sentLength).toBe(10);
    conn.socket.setSpace(1000);
    h.turn();
    expect(Buffer.from(conn.socket.sent).equals(pattern(100))).toBe(true);
  });

  it('are put together as a naive model does it, whatever the order, overlaps and repetitions', () => {
    for (let seed = 1; seed <= 30; seed++) {
      const random = seededRandom(seed);
      const h = new Harness();
      const conn = h.openOut();
      const base = conn.guestNext;
      const total = 2000;
      const have = new Uint8Array(total);
      for (let i = 0; i < 120; i++) {
        const from = Math.floor(random() * total);
        const length = Math.min(total - from, 1 + Math.floor(random() * 150));
        conn.send('A', { seq: (base + from) >>> 0, data: pattern(length, from) });
        have.fill(1, from, from + length);
        const edge = have.indexOf(0);
        const expected = edge < 0 ? total : edge;
        expect(conn.socket.sentLength).toBe(expected);
        for (const segment of h.take()) {
          expect((segment.ack - base) | 0).toBe(expected);
          const sack = segment.sack ?? [];
          for (let b = 0; b < sack.length; b += 2) {
            const left = (sack[b]! - base) | 0;
            const right = (sack[b + 1]! - base) | 0;
            expect(left).toBeGreaterThan(expected);
            expect(have.subarray(left, right).indexOf(0)).toBe(-1);
            expect(right === total || have[right] === 0).toBe(true);
          }
        }
      }
      conn.send('A', { seq: base, data: pattern(1400) });
      conn.send('A', { seq: (base + 1300) >>> 0, data: pattern(700, 1300) });
      expect(Buffer.from(conn.socket.sent).equals(pattern(total))).toBe(true);
    }
  });
});

describe('the store of pieces', () => {
  it('drops further ones when there are too many', () => {
    const store = new GapStore();
    for (let i = 0; i < 3000; i++) store.insert(10 + 2 * i, pattern(4), 0, 1);
    expect(store.lengthBytes).toBe(1024);
  });

  it('keeps numbers apart where they wrap', () => {
    const store = new GapStore();
    store.insert(5, pattern(10), 0, 10);
    store.insert(0xffff_fff0, pattern(10), 0, 10);
    expect(store.take(0xffff_fff0)).toHaveLength(10);
    expect(store.take(0xffff_fffa)).toBeUndefined();
    expect(store.take(7)).toHaveLength(8);
    expect(store.isEmpty).toBe(true);
  });
});

describe('the scoreboard', () => {
  it('holds the same numbers as a naive set, in any order', () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = seededRandom(seed);
      const board = new Scoreboard();
      const origin = 0xffff_ff00;
      const has = new Uint8Array(600);
      const seq = (position: number): number => (origin + position) >>> 0;
      let una = 0;
      for (let i = 0; i < 60; i++) {
        const left = una + 1 + Math.floor(random() * (590 - una));
        const right = Math.min(600, left + 1 + Math.floor(random() * 40));
        board.add(seq(left), seq(right));
        has.fill(1, left, right);
        if (random() < 0.1 && una < 500) {
          una += Math.floor(random() * 20);
          board.forget(seq(una));
        }
        for (let from = una; from < 600; from += 7) {
          let free = from;
          while (free < 600 && has[free] === 1) free++;
          expect((board.skip(seq(from)) - origin) >>> 0).toBe(free);
          let end = free;
          while (end < 600 && has[end] === 0) end++;
          if (free < 600) expect((board.holeEnd(seq(free), seq(600)) - origin) >>> 0).toBe(end);
        }
      }
    }
  });
});
