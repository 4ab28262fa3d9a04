import { describe, expect, it } from 'vitest';
import { advantage, formatNumber, summarize } from './statistics.ts';

describe('benchmark statistics', () => {
  it('takes the middle of an odd number of runs and the mean of the two middle ones of an even number', () => {
    expect(summarize([9, 1, 5])).toEqual({ median: 5, min: 1, max: 9 });
    expect(summarize([4, 1, 2, 9])).toEqual({ median: 3, min: 1, max: 9 });
  });

  it('leaves out runs without a value, and answers with nothing when none has one', () => {
    expect(summarize([undefined, 2, Number.NaN])).toEqual({ median: 2, min: 2, max: 2 });
    expect(summarize([undefined])).toBeUndefined();
  });

  it('is above 1 when ours is better, for rates and for times', () => {
    expect(advantage(8, 4, false)).toBe(2);
    expect(advantage(50, 100, true)).toBe(2);
  });

  it('shows three digits', () => {
    expect([1234.5, 12.345, 1.2345, 0.01234].map(formatNumber)).toEqual(['1235', '12.3', '1.23', '0.012']);
  });
});
