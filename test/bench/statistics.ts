/** The few statistics the benchmark needs. Medians, since single runs on a shared machine differ by half. */

/** One run of one row with one stack. */
export interface Sample {
  /** In the row's unit. */
  value: number;
  /** CPU seconds of the stack's process per 2^30 bytes carried. */
  cpuSecondsPerGb?: number;
  /** Segments the guest sent again. */
  retransmits?: number;
  /** Frames or datagrams lost on the way: the tap's queue, the stack, or a full socket. */
  drops?: number;
  /** The row's second value, such as the 99th percentile; named in the row. */
  second?: number;
  /** Resident set of the stack's process after the run, MiB. */
  rssMib?: number;
  /** What else is worth a note, by its title. */
  others?: Readonly<Record<string, number>>;
}

/** A middle and the range around it. */
export interface Summary {
  median: number;
  min: number;
  max: number;
}

/** Median, least and greatest of `values`, or undefined when there are none. */
export function summarize(values: readonly (number | undefined)[]): Summary | undefined {
  const sorted = values.filter((value): value is number => value !== undefined && !Number.isNaN(value));
  if (sorted.length === 0) return undefined;
  sorted.sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  const lower = sorted[(sorted.length - 1) >> 1] as number;
  return { median: (lower + upper) / 2, min: sorted[0] as number, max: sorted[sorted.length - 1] as number };
}

/** How good ours is against the other: above 1 is better, whatever direction the unit has. */
export function advantage(ours: number, theirs: number, lowerIsBetter: boolean): number {
  return lowerIsBetter ? theirs / ours : ours / theirs;
}

/** Three significant digits, without an exponent. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(size >= 1 ? 2 : 3);
}
