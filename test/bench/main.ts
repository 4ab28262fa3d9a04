/**
 * The benchmark: our stack and Debian's passt on the same rig, alternating, so that what else the machine does hits both.
 *
 *   npm run bench -- [--runs 5] [--seconds 3] [--rows tcp-tx,udp,pasta] [--stacks ours,debian] [--pasta-stacks ours,slirp4netns]
 *     [--markdown FILE] [--list]
 *
 * Prints a table, and writes all samples to test/bench/out.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import { HOST_NET, type Host } from '../support/netns/host.ts';
import { createRig, type Rig } from '../support/rig.ts';
import { type StackCommand, stackCommand } from '../support/stack-under-test.ts';
import { type BenchRig, measureStartup, UDP_FORWARDED_PORT } from './measure.ts';
import {
  createOpenHost,
  createPastaRig,
  isBare,
  measurePastaStartup,
  missingReason,
  PASTA_STACKS,
  type PastaRig,
} from './pasta-rig.ts';
import { PASTA_ROWS, type PastaRow } from './pasta-rows.ts';
import { measurePrRows, missingHelperReason, PR_ROWS } from './pr-rows.ts';
import { formatMarkdown, formatText, type RowResult } from './report.ts';
import { measureRigLimit, RIG_LIMIT_MTUS, ROWS, type Row } from './rows.ts';
import type { Sample } from './statistics.ts';

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '3' },
    rows: { type: 'string', default: '' },
    stacks: { type: 'string', default: 'ours,debian' },
    'pasta-stacks': { type: 'string', default: '' },
    markdown: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
});
const runs = Number(options.runs);
const seconds = Number(options.seconds);
const wanted = options.rows.split(',').filter((name) => name !== '');
const stacks = options.stacks.split(',').map((name) => stackCommand(name));
const isWanted = (name: string, optional = false): boolean =>
  wanted.length === 0 ? !optional : wanted.some((prefix) => name.startsWith(prefix));

/** Every round has the opposite order of the one before, so that no stack always runs on a warmer machine. */
function orderOfRound<T>(list: readonly T[], round: number): T[] {
  return round % 2 === 0 ? [...list] : [...list].reverse();
}

function newResult(
  row: Pick<Row, 'name' | 'title' | 'unit' | 'lowerIsBetter' | 'secondTitle'>,
  names: string[],
): RowResult {
  return {
    name: row.name,
    title: row.title,
    unit: row.unit,
    lowerIsBetter: row.lowerIsBetter === true,
    ...(row.secondTitle === undefined ? {} : { secondTitle: row.secondTitle }),
    samples: Object.fromEntries(names.map((name) => [name, []])),
  };
}

/** A sample that does not come must not hold up all others for ever. */
async function withinLimit(sample: Promise<Sample>): Promise<Sample> {
  const limitMs = (seconds + 60) * 1000;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result within ${limitMs / 1000} s`)), limitMs);
  });
  try {
    return await Promise.race([sample, late]);
  } finally {
    clearTimeout(timer);
  }
}

function record(result: RowResult, stack: string, sample: Sample): void {
  result.samples[stack]?.push(sample);
  process.stderr.write(`${result.name} ${stack}: ${JSON.stringify(sample)}\n`);
}

function describeRig(rig: Rig): BenchRig {
  return {
    stackName: rig.stackName,
    host: rig.host,
    guest: rig.guest,
    hostSeenByGuest: HOST_NET.gatewayV4,
    guestSeenByHost: '127.0.0.1',
    stack: rig.stack,
    guestRetransmits: () => rig.guestRetransmits(),
    countDrops: async () => {
      const { tap, toTap } = await rig.pump.counters();
      return tap.txDropped + tap.rxDropped + toTap.errors;
    },
  };
}

/** The rows of one MTU: every stack's rig is up all the time, one at a time has traffic. */
async function measureRows(rows: readonly Row[], mtu: number): Promise<RowResult[]> {
  const rigs: Rig[] = [];
  try {
    for (const stack of stacks) {
      rigs.push(await createRig({ stack, mtu, args: ['--quiet', '-u', String(UDP_FORWARDED_PORT)] }));
    }
    const results: RowResult[] = [];
    for (const row of rows) {
      const result = newResult(
        row,
        stacks.map((stack) => stack.name),
      );
      for (let round = 0; round < runs; round++) {
        for (const rig of orderOfRound(rigs, round))
          record(result, rig.stackName, await withinLimit(row.measure(describeRig(rig), seconds)));
      }
      results.push(result);
    }
    return results;
  } finally {
    for (const rig of rigs) {
      await rig.close().catch((error: Error) => process.stderr.write(`${rig.stackName}: ${error.message}\n`));
    }
  }
}

/** The same for programs that join a network namespace; one that is missing or does not come up is left out, and said. */
async function measurePastaRows(rows: readonly PastaRow[], mtu: number): Promise<RowResult[]> {
  const rigs: PastaRig[] = [];
  try {
    for (const name of pastaStacks) {
      try {
        rigs.push(await createPastaRig(name, mtu));
      } catch (error) {
        process.stderr.write(`${name} is left out at MTU ${mtu}: ${(error as Error).message}\n`);
      }
    }
    const results: RowResult[] = [];
    for (const row of rows) {
      const taking = rigs.filter((rig) => row.stacks === undefined || row.stacks.includes(rig.stackName));
      const result = newResult(
        row,
        taking.map((rig) => rig.stackName),
      );
      for (let round = 0; round < runs; round++) {
        for (const rig of orderOfRound(taking, round)) {
          try {
            record(result, rig.stackName, await withinLimit(row.measure(rig, seconds)));
          } catch (error) {
            process.stderr.write(`${row.name} ${rig.stackName}: ${(error as Error).message}\n`);
          }
        }
      }
      results.push(result);
    }
    return results;
  } finally {
    for (const rig of rigs) await rig.close();
  }
}

async function measurePastaStartupRow(host: Host): Promise<RowResult> {
  const row = { name: 'pasta-startup', title: 'pasta: start, run `true`, end', unit: 'ms', lowerIsBetter: true };
  const names = pastaStacks.filter((name) => !isBare(name));
  const result = newResult(row, names);
  for (let round = 0; round < Math.max(runs, 5); round++) {
    for (const name of orderOfRound(names, round)) record(result, name, await measurePastaStartup(name, host));
  }
  return result;
}

async function measureStartupRow(host: Host): Promise<RowResult> {
  const row = { name: 'startup', title: 'Start to listening (daemon)', unit: 'ms', lowerIsBetter: true };
  const result = newResult(
    row,
    stacks.map((stack) => stack.name),
  );
  for (let round = 0; round < Math.max(runs, 5); round++) {
    for (const stack of orderOfRound<StackCommand>(stacks, round)) {
      record(result, stack.name, await measureStartup(host, stack));
    }
  }
  return result;
}

async function measureLimitRow(mtu: number, host: Host): Promise<RowResult> {
  const row = { name: `rig-limit-${mtu}`, title: `The rig's own limit, MTU ${mtu}`, unit: 'Gbit/s' };
  const result = newResult(row, ['rig']);
  for (let round = 0; round < runs; round++) record(result, 'rig', await measureRigLimit(mtu, host.directory, seconds));
  return result;
}

const pastaRows = PASTA_ROWS.filter((row) => isWanted(row.name));
const pastaStacks = PASTA_STACKS.filter((name) => {
  const reason = missingReason(name);
  if (reason !== '' && pastaRows.length > 0) process.stderr.write(`pasta rows: ${reason}\n`);
  const chosen = options['pasta-stacks'];
  return reason === '' && (chosen === '' ? name !== 'ours-bare' : chosen.split(',').includes(name));
});
const limitMtus = RIG_LIMIT_MTUS.filter((mtu) => isWanted(`rig-limit-${mtu}`));
const rows = ROWS.filter((row) => isWanted(row.name, row.optional));
if (options.list) {
  const names = [
    ...[...ROWS, ...PASTA_ROWS, ...PR_ROWS].map((row) => row.name),
    'startup',
    'pasta-startup',
    ...RIG_LIMIT_MTUS.map((mtu) => `rig-limit-${mtu}`),
  ];
  process.stdout.write(`${names.join('\n')}\n`);
} else {
  const results: RowResult[] = [];
  for (const mtu of new Set(rows.map((row) => row.mtu))) {
    results.push(
      ...(await measureRows(
        rows.filter((row) => row.mtu === mtu),
        mtu,
      )),
    );
  }
  for (const mtu of new Set(pastaRows.map((row) => row.mtu))) {
    results.push(
      ...(await measurePastaRows(
        pastaRows.filter((row) => row.mtu === mtu),
        mtu,
      )),
    );
  }
  const prRows = PR_ROWS.filter((row) => isWanted(row.name));
  const prReason = prRows.length > 0 ? missingHelperReason() : '';
  if (prReason !== '') process.stderr.write(`reservation rows are left out: ${prReason}\n`);
  else if (prRows.length > 0) results.push(...(await measurePrRows(prRows, runs, seconds, orderOfRound, record)));
  const host = await createOpenHost();
  try {
    if (isWanted('pasta-startup')) results.push(await measurePastaStartupRow(host));
    if (isWanted('startup')) results.push(await measureStartupRow(host));
    for (const mtu of limitMtus) results.push(await measureLimitRow(mtu, host));
  } finally {
    await host.close();
  }
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, Linux ${release()}, Node ${process.version}`;
  const conditions = `${machine}; ${runs} alternating runs of ${seconds} s`;
  process.stdout.write(`${conditions}\n${formatText(results)}\n`);
  const folder = join(PROJECT_ROOT, 'test/bench/out');
  mkdirSync(folder, { recursive: true });
  const date = new Date().toISOString();
  const file = join(folder, `${date.replace(/[:.]/g, '-')}.json`);
  writeFileSync(file, `${JSON.stringify({ date, conditions, results }, null, 2)}\n`);
  process.stdout.write(`all samples: ${file}\n`);
  if (options.markdown !== undefined) {
    writeFileSync(options.markdown, formatMarkdown(results, `Measured ${date.slice(0, 10)} on ${conditions}.`));
  }
}
// Everything is written; what a rig's program has left open must not keep this process.
process.exit(0);
