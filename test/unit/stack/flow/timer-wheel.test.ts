import { describe, expect, it } from 'vitest';
import { TimerWheel } from '../../../../src/stack/flow/timer-wheel.ts';
import { seededRandom } from '../../../support/seeded-random.ts';

describe('timer wheel', () => {
  it('fires every timer once, not early and at most a tick late, however the clock jumps', () => {
    const random = seededRandom(1);
    const count = 300;
    let nowMs = 123_456;
    const wheel = new TimerWheel(count, nowMs);
    const due = new Map<number, number>();
    for (let round = 0; round < 4000; round++) {
      const index = Math.floor(random() * count);
      const action = random();
      if (action < 0.6) {
        const span = [20, 2000, 400_000, 40_000_000][Math.floor(random() * 4)]!;
        const at = nowMs + random() * span;
        wheel.arm(index, at);
        due.set(index, at);
      } else if (action < 0.7) {
        wheel.cancel(index);
        due.delete(index);
      } else {
        const next = Math.min(...due.values());
        expect(wheel.nextDueMs()).toBeLessThanOrEqual(next + 8);
        nowMs += random() < 0.3 && due.size > 0 ? Math.max(0, next - nowMs) + random() * 10 : random() * 1500;
        const fired: number[] = [];
        wheel.advance(nowMs, (i) => fired.push(i));
        for (const i of fired) {
          expect(due.get(i)).toBeLessThanOrEqual(nowMs);
          due.delete(i);
        }
        for (const at of due.values()) expect(at).toBeGreaterThan(nowMs - 4.01);
      }
    }
    nowMs += 50_000_000;
    wheel.advance(nowMs, (i) => due.delete(i));
    expect(due.size).toBe(0);
    expect(wheel.nextDueMs()).toBe(Number.POSITIVE_INFINITY);
  });

  it('lets a timer arm itself again while it fires, without firing twice in one advance at the same moment', () => {
    const wheel = new TimerWheel(2, 0);
    let fired = 0;
    wheel.arm(0, 10);
    wheel.advance(13, () => {
      fired++;
      wheel.arm(0, 10);
    });
    expect(fired).toBe(1);
    wheel.advance(20, () => fired++);
    expect(fired).toBe(2);
  });

  it('lets one timer cancel another that is due in the same tick', () => {
    const wheel = new TimerWheel(2, 0);
    wheel.arm(0, 9);
    wheel.arm(1, 9);
    const fired: number[] = [];
    wheel.advance(100, (i) => {
      fired.push(i);
      wheel.cancel(1 - i);
    });
    expect(fired).toHaveLength(1);
  });

  it('sleeps long when only far timers are armed', () => {
    const wheel = new TimerWheel(1, 0);
    wheel.arm(0, 7_200_000);
    let wakeUps = 0;
    let fired = 0;
    for (let now = wheel.nextDueMs(); Number.isFinite(now); now = wheel.nextDueMs()) {
      wheel.advance(now, () => fired++);
      wakeUps++;
    }
    expect(fired).toBe(1);
    expect(wakeUps).toBeLessThanOrEqual(4);
  });
});
