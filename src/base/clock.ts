/** Where the data path gets its time from; a test hands in its own. */
export interface Clock {
  /** Monotonic milliseconds with fraction. */
  nowMs(): number;
}

export const systemClock: Clock = { nowMs: () => performance.now() };
