/** The results as a table for people and as data for later comparison. */
import { advantage, formatNumber, type Sample, type Summary, summarize } from './statistics.ts';

/** All runs of one row. */
export interface RowResult {
  name: string;
  title: string;
  unit: string;
  lowerIsBetter: boolean;
  secondTitle?: string;
  /**
   * Runs by stack, in the order they were made. Stacks whose name begins with `ours` are ours, those with `limit` show what a rig can carry,
   * all others are peers.
   */
  samples: Record<string, Sample[]>;
}

type NumberField = Exclude<keyof Sample, 'others'>;

const COLUMNS = [
  'row',
  'stack',
  'median',
  'range',
  'CPU s/GB',
  'sent again',
  'drops',
  'notes',
  'better than best peer',
  'than Debian',
  'CPU of best',
];

const OURS = 'ours';
const LIMIT = 'limit';
const DEBIAN = 'debian';

function summaryOf(result: RowResult, stack: string, field: NumberField): Summary | undefined {
  return summarize((result.samples[stack] ?? []).map((sample) => sample[field]));
}

/** Titles and medians of what is worth a note. */
function listOthers(samples: readonly Sample[]): string[] {
  return Object.keys(samples[0]?.others ?? {}).map((title) => {
    const summary = summarize(samples.map((sample) => sample.others?.[title]));
    return `${title} ${summary === undefined ? '–' : formatNumber(summary.median)}`;
  });
}

/** The best median of all peers, and whose it is. */
export function findBestPeer(
  result: RowResult,
  field: NumberField,
  lowerIsBetter: boolean,
): { stack: string; median: number } | undefined {
  let best: { stack: string; median: number } | undefined;
  for (const stack of Object.keys(result.samples)) {
    if (stack.startsWith(OURS) || stack.startsWith(LIMIT)) continue;
    const median = summaryOf(result, stack, field)?.median;
    if (median === undefined) continue;
    if (best === undefined || (lowerIsBetter ? median < best.median : median > best.median)) best = { stack, median };
  }
  return best;
}

function cells(result: RowResult, stack: string): string[] {
  const samples = result.samples[stack] ?? [];
  const value = summaryOf(result, stack, 'value');
  const second = summaryOf(result, stack, 'second');
  const rss = summaryOf(result, stack, 'rssMib');
  const notes: string[] = [];
  if (second !== undefined && result.secondTitle !== undefined) {
    const best = stack.startsWith(OURS) ? findBestPeer(result, 'second', true) : undefined;
    // Second values are times, of which less is better.
    const ratio =
      best === undefined || !(second.median > 0)
        ? ''
        : ` (×${formatNumber(best.median / second.median)} ${best.stack})`;
    notes.push(`${result.secondTitle} ${formatNumber(second.median)}${ratio}`);
  }
  notes.push(...listOthers(samples));
  if (rss !== undefined) notes.push(`RSS ${formatNumber(rss.median)} MiB`);
  const list = (field: NumberField): string =>
    samples.some((sample) => sample[field] !== undefined)
      ? samples.map((sample) => sample[field] ?? '–').join(' ')
      : '';
  const cpu = summaryOf(result, stack, 'cpuSecondsPerGb');
  return [
    result.title,
    stack,
    value === undefined ? '–' : `${formatNumber(value.median)} ${result.unit}`,
    value === undefined ? '' : `${formatNumber(value.min)}–${formatNumber(value.max)}`,
    cpu === undefined ? '' : formatNumber(cpu.median),
    list('retransmits'),
    list('drops'),
    notes.join(', '),
    ...(stack.startsWith(OURS) ? comparisons(result, stack) : ['', '', '']),
  ];
}

/** Against the best peer, against Debian's, and CPU against the least that a peer needs: above 1 is better, but for CPU. */
function comparisons(result: RowResult, stack: string): string[] {
  const ours = summaryOf(result, stack, 'value');
  const best = findBestPeer(result, 'value', result.lowerIsBetter);
  const debian = summaryOf(result, DEBIAN, 'value');
  const compare = (theirs: number | undefined): string =>
    ours === undefined || theirs === undefined
      ? ''
      : `×${formatNumber(advantage(ours.median, theirs, result.lowerIsBetter))}`;
  const cpu = summaryOf(result, stack, 'cpuSecondsPerGb');
  const leastCpu = findBestPeer(result, 'cpuSecondsPerGb', true);
  return [
    best === undefined || ours === undefined ? '' : `${compare(best.median)} ${best.stack}`,
    compare(debian?.median),
    cpu === undefined || leastCpu === undefined
      ? ''
      : `${formatNumber(cpu.median / leastCpu.median)} ${leastCpu.stack}`,
  ];
}

function tableRows(results: readonly RowResult[]): string[][] {
  return results.flatMap((result) =>
    Object.keys(result.samples).map((stack, index) => {
      const row = cells(result, stack);
      if (index > 0) row[0] = '';
      return row;
    }),
  );
}

function padColumns(results: readonly RowResult[]): string[][] {
  const rows = [COLUMNS, ...tableRows(results)];
  const widths = COLUMNS.map((_, column) => Math.max(3, ...rows.map((row) => (row[column] ?? '').length)));
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)));
}

/** A table of aligned columns. */
export function formatText(results: readonly RowResult[]): string {
  return padColumns(results)
    .map((row) => row.join('  ').trimEnd())
    .join('\n');
}

/** The same as Markdown. */
export function formatMarkdown(results: readonly RowResult[], heading: string): string {
  const [head = [], ...rows] = padColumns(results);
  const rule = head.map((cell) => '-'.repeat(cell.length));
  const lines = [head, rule, ...rows].map((row) => `| ${row.join(' | ')} |`);
  return `${heading}\n\n${lines.join('\n')}\n`;
}
