import { beforeEach, describe, expect, it } from 'vitest';
import { createBusyPoll } from '../../../src/cli/busy-poll.ts';
import { Counters } from '../../../src/stack/counters.ts';

describe('looking for events before sleeping', () => {
  let guests: {
    stack: { counters: Counters };
    exchange: { forwarded: number; forwardedBytes: number } | undefined;
  }[];
  let ask: () => number;
  /** A turn with frames of the guest and for the guest. */
  const turn = (guest: number, fromGuest: number, toGuest: number, bytesEach: number): number => {
    const { counters } = guests[guest]!.stack;
    counters.guestFrames += fromGuest;
    counters.guestBytes += fromGuest * bytesEach;
    counters.hostFrames += toGuest;
    counters.hostBytes += toGuest * bytesEach;
    return ask();
  };

  beforeEach(() => {
    guests = [{ stack: { counters: new Counters() }, exchange: undefined }];
    ask = createBusyPoll(guests, 50);
  });

  it('is worth it after a few short frames, either way', () => {
    expect(turn(0, 1, 0, 67)).toBe(50);
    expect(turn(0, 0, 1, 67)).toBe(50);
    expect(turn(0, 2, 2, 67)).toBe(50);
  });

  it('is not after a turn without frames', () => {
    turn(0, 1, 0, 67);
    expect(ask()).toBe(0);
  });

  it('is not after many frames, or long ones', () => {
    expect(turn(0, 5, 0, 67)).toBe(0);
    expect(turn(0, 0, 1, 9000)).toBe(0);
  });

  it('is not between the parts of a transfer, whose acknowledgements are short', () => {
    for (let i = 0; i < 10; i++) {
      turn(0, 0, 16, 65_000);
      expect(turn(0, 1, 0, 54)).toBe(0);
    }
  });

  it('is again when the transfer is over', () => {
    turn(0, 0, 16, 65_000);
    for (let i = 0; i < 40; i++) turn(0, 1, 1, 67);
    expect(turn(0, 1, 0, 67)).toBe(50);
  });

  it('is for all guests together, also those that came later', () => {
    guests.push({ stack: { counters: new Counters() }, exchange: undefined });
    expect(turn(1, 1, 0, 67)).toBe(50);
    guests[0]!.stack.counters.guestFrames += 40;
    expect(turn(1, 1, 0, 67)).toBe(0);
  });

  it('is worth it between guests too, unless they transfer much', () => {
    const exchange = { forwarded: 0, forwardedBytes: 0 };
    guests.push({ stack: { counters: new Counters() }, exchange });
    exchange.forwarded++;
    exchange.forwardedBytes += 67;
    expect(ask()).toBe(50);
    exchange.forwarded++;
    exchange.forwardedBytes += 65_000;
    expect(ask()).toBe(0);
  });

  it('counts on beyond 2^31 bytes', () => {
    guests[0]!.stack.counters.hostBytes = 5e12;
    ask();
    for (let i = 0; i < 200; i++) ask();
    expect(turn(0, 1, 0, 67)).toBe(50);
  });
});
