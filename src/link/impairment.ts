/** What a link that is made worse on purpose does to frames: see impair.ts. */

/** One direction. */
export interface WayImpairment {
  /** How long a frame is under way. */
  readonly delayMs: number;
  /** So much more or less, evenly distributed; at most `delayMs`. */
  readonly jitterMs: number;
  /** Probabilities, 0 … 1. */
  readonly loss: number;
  readonly duplicate: number;
  /** Of a frame that is not delayed and so overtakes others; only with a delay. */
  readonly reorder: number;
  /** Bits of frames per second; 0: as fast as it goes. */
  readonly bitsPerSecond: number;
  /** What may wait for the rate; a frame beyond that is dropped. 0: the default. Only with a rate. */
  readonly limitBytes: number;
  /** Of the random numbers; undefined: another one each time. */
  readonly seed: number | undefined;
}

/** Both directions; undefined: as if there were nothing. */
export interface Impairment {
  readonly toGuest: WayImpairment | undefined;
  readonly fromGuest: WayImpairment | undefined;
}

export const NO_IMPAIRMENT: Impairment = { toGuest: undefined, fromGuest: undefined };

/** What happened to frames of one direction; a doubled one counts once. */
export interface WayCounters {
  /** Sent on, or under way. */
  passed: number;
  /** By chance. */
  lost: number;
  /** For want of room to wait. */
  dropped: number;
  duplicated: number;
  /** Sent ahead of others. */
  reordered: number;
}

/** Without a limit, so much of the rate waits, but not less than some of the longest frames. */
const DEFAULT_LIMIT_MS = 100;
const DEFAULT_LIMIT_MIN_BYTES = 256 * 1024;

/** What may wait for the rate of this direction, in bytes; infinity without a rate. */
export function limitOf({ bitsPerSecond, limitBytes }: WayImpairment): number {
  if (bitsPerSecond === 0) return Number.POSITIVE_INFINITY;
  if (limitBytes !== 0) return limitBytes;
  return Math.max(DEFAULT_LIMIT_MIN_BYTES, Math.round((bitsPerSecond / 8000) * DEFAULT_LIMIT_MS));
}
