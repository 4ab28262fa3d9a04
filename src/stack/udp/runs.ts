/**
 * Runs of datagrams of equal length in a list for the addon: what the kernel can be given as one (UDP_SEGMENT). A stream sends them so,
 * apart from its last one, which may be shorter.
 */

/** Fewer than this are not worth a system call of their own. */
export const MIN_RUN = 4;
/** What one send takes: pieces, and bytes with some to spare below 65507. */
const MAX_RUN = 64;
const MAX_RUN_BYTES = 65_000;

/**
 * Looks at the beginning of a list: pairs of u32 LE (offset, length) at `list`, `count` of them.
 * @returns a run's number of datagrams (MIN_RUN … 64), or, negated, the number of datagrams before the next run (or the end)
 */
export function measureRun(view: DataView, list: number, count: number): number {
  const lengthBytes = view.getUint32(list + 4, true);
  const most = lengthBytes === 0 ? 1 : Math.min(count, MAX_RUN, Math.floor(MAX_RUN_BYTES / lengthBytes));
  let run = 1;
  while (run < most) {
    const next = view.getUint32(list + run * 8 + 4, true);
    if (next !== lengthBytes) {
      if (next !== 0 && next < lengthBytes) run++;
      break;
    }
    run++;
  }
  if (run >= MIN_RUN) return run;
  let streak = 1;
  let before = lengthBytes;
  for (let i = 1; i < count; i++) {
    const next = view.getUint32(list + i * 8 + 4, true);
    streak = next === before && next !== 0 && next * MIN_RUN <= MAX_RUN_BYTES ? streak + 1 : 1;
    before = next;
    if (streak === MIN_RUN && i + 1 > MIN_RUN) return -(i + 1 - MIN_RUN);
  }
  return -count;
}
