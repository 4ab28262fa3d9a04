/**
 * For messages built option by option (see wire/room.ts) where an option that does not fit, or cannot be written, is left out.
 * @param next what a writer returned: the offset behind its option, or a negative status
 * @param before the offset it began at
 * @returns `next`, or `before` if the writer has refused
 */
export function keepIfGood(next: number, before: number): number {
  return next < 0 ? before : next;
}
