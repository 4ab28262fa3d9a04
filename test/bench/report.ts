/** The results as a table for people and as data for later comparison. */
import { advantage, formatNumber, type Sample, type Summary, summarize } from './statistics.ts';

/** All runs of one row. */
export interface RowResult {
  name: string;
  title: string;
  unit: string;
  lowerIsBetter: boolean;
  secondTitle?: string;
  /** Runs by stack, in the order they were made. */
  samples: Record<string, Sample[]>;
}

const COLUMNS = ['row', 'stack', 'median', 'range', 'CPU s/GB', 'retransmits', 'drops', 'notes', 'ours is better by'];

function cells(result: RowResult, stack: string): string[] {
  const samples = result.samples[stack] ?? [];
  const pick = (field: keyof Sample): Summary | undefined => summarize(samples.map((sample) => sample[field]));
  const value = pick('value');
  const second = pick('second');
  const rss = pick('rssMib');
  const notes: string[] = [];
  if (second !== undefined && result.secondTitle !== undefined) {
    notes.push(`${result.secondTitle} ${formatNumber(second.median)}`);
  }
  if (rss !== undefined) notes.push(`RSS ${formatNumber(rss.median)} MiB`);
  const list = (field: keyof Sample): string =>
    samples.some((sample) => sample[field] !== undefined)
      ? samples.map((sample) => sample[field] ?? '–').join(' ')
      : '';
  const cpu = pick('cpuSecondsPerGb');
  return [
    result.title,
    stack,
    value === undefined ? '–' : `${formatNumber(value.median)} ${result.unit}`,
    value === undefined ? '' : `${formatNumber(value.min)}–${formatNumber(value.max)}`,
    cpu === undefined ? '' : formatNumber(cpu.median),
    list('retransmits'),
    list('drops'),
    notes.join(', '),
    stack === 'ours' ? formatAdvantage(result) : '',
  ];
}

function formatAdvantage(result: RowResult): string {
  const ours = summarize((result.samples['ours'] ?? []).map((sample) => sample.value));
  const theirs = summarize((result.samples['debian'] ?? []).map((sample) => sample.value));
  if (ours === undefined || theirs === undefined) return '';
  return `×${formatNumber(advantage(ours.median, theirs.median, result.lowerIsBetter))}`;
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

/** A table of aligned columns. */
export function formatText(results: readonly RowResult[]): string {
  const rows = [COLUMNS, ...tableRows(results)];
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** The same as Markdown. */
export function formatMarkdown(results: readonly RowResult[], heading: string): string {
  const lines = [`| ${COLUMNS.join(' | ')} |`, `|${COLUMNS.map(() => '---').join('|')}|`];
  for (const row of tableRows(results)) lines.push(`| ${row.join(' | ')} |`);
  return `${heading}\n\n${lines.join('\n')}\n`;
}
