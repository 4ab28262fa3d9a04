import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { watchForSilence } from '../../../src/link/silence.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function setUp() {
  const guest = { frames: 0, connected: true, asked: 0, gone: 0 };
  const stop = watchForSilence({
    limitMs: 8000,
    isConnected: () => guest.connected,
    countFrames: () => guest.frames,
    ask: () => void guest.asked++,
    onGone: () => {
      guest.gone++;
      guest.connected = false;
    },
  });
  return { guest, stop };
}

describe('a guest that is silent', () => {
  it('is asked from half of the time on, and gone at the end of it, once', () => {
    const { guest } = setUp();
    vi.advanceTimersByTime(3999);
    expect(guest).toMatchObject({ asked: 0, gone: 0 });
    vi.advanceTimersByTime(4000);
    expect(guest).toMatchObject({ asked: 4, gone: 0 });
    vi.advanceTimersByTime(1);
    expect(guest).toMatchObject({ asked: 4, gone: 1 });
    vi.advanceTimersByTime(60_000);
    expect(guest).toMatchObject({ asked: 4, gone: 1 });
  });
  it('is not gone when it answers, and has all the time again', () => {
    const { guest } = setUp();
    for (let i = 0; i < 5; i++) {
      vi.advanceTimersByTime(7000);
      guest.frames++;
    }
    expect(guest.gone).toBe(0);
    expect(guest.asked).toBeGreaterThan(4);
    vi.advanceTimersByTime(9000);
    expect(guest.gone).toBe(1);
  });
  it('is watched anew when it is back', () => {
    const { guest } = setUp();
    vi.advanceTimersByTime(8000);
    guest.frames++;
    guest.connected = true;
    vi.advanceTimersByTime(8000);
    expect(guest.gone).toBe(1);
    vi.advanceTimersByTime(1000);
    expect(guest.gone).toBe(2);
  });
  it('is left alone when nobody watches any more', () => {
    const { guest, stop } = setUp();
    stop();
    vi.advanceTimersByTime(60_000);
    expect(guest).toMatchObject({ asked: 0, gone: 0 });
  });
});
