/**
 * The benchmark: our programs and those that they stand beside on the same rigs, alternating, so that what else the machine does hits
 * all alike.
 *
 *   npm run bench -- [--runs 5] [--seconds 1] [--rows passt,pasta-rr,…] [--stacks ours,debian,qemu]
 *     [--pasta-stacks ours,ours-plain,debian,slirp4netns] [--congestion cubic|reno|bbr] [--json FILE] [--markdown FILE] [--list]
 *
 * `--rows` takes groups and beginnings of names; --list prints both. Prints a table, says what was missing, and writes all samples
 * to test/bench/out, or FILE.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readFileLimit } from '../support/idle-flows.ts';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import type { Host } from '../support/netns/host.ts';
import { stackCommand } from '../support/stack-under-test.ts';
import { alternate, leaveOut, measureOnRigs, orderOfRound, record, type Session } from './alternate.ts';
import { defaultCongestion } from './congestion.ts';
import { FD_ROWS, measureFdRows } from './fd-rows.ts';
import { measureIdleFlows } from './idle-flows.ts';
import { createLanRig, LAN_ROWS, LAN_STACKS, missingLanReason } from './lan-rig.ts';
import { measureStartup } from './measure.ts';
import { createPasstRig, missingPasstReason, PASST_STACKS, type PasstStackName } from './passt-rig.ts';
import {
  createOpenHost,
  createPastaRig,
  isBare,
  measurePastaStartup,
  missingReason,
  PASTA_STACKS,
  type PastaStackName,
} from './pasta-rig.ts';
import { PASTA_ROWS } from './pasta-rows.ts';
import { measurePrRows, missingHelperReason, PR_ROWS } from './pr-rows.ts';
import { formatMarkdown, formatText, type RowResult } from './report.ts';
import { measureRigLimit, RIG_LIMIT_MTUS, rigLimitRow } from './rig-limit.ts';
import { IDLE_FLOWS, IDLE_FLOWS_ROW, ROWS, type RowTitle } from './rows.ts';
import { createTcgRig, createUserNetRig, missingTcgReason, TCG_ROWS, USER_NET_ROWS } from './tcg-rig.ts';

const STARTUP: RowTitle = { name: 'startup', title: 'Start to listening (daemon)', unit: 'ms', lowerIsBetter: true };
const RSS_START: RowTitle = { name: 'rss-start', title: 'Resident set at start', unit: 'MiB', lowerIsBetter: true };
const PASTA_STARTUP: RowTitle = {
  name: 'pasta-startup',
  title: 'pasta: start, run `true`, end',
  unit: 'ms',
  lowerIsBetter: true,
};

/** Rows by group, in the table's order. */
const GROUPS: Record<string, readonly Pick<RowTitle, 'name'>[]> = {
  passt: [...ROWS, STARTUP],
  idle: [IDLE_FLOWS_ROW],
  pasta: [...PASTA_ROWS, PASTA_STARTUP],
  tcg: TCG_ROWS,
  user: USER_NET_ROWS,
  lan: LAN_ROWS,
  pr: PR_ROWS,
  fd: FD_ROWS,
  limit: RIG_LIMIT_MTUS.map(rigLimitRow),
};

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    rows: { type: 'string', default: '' },
    stacks: { type: 'string', default: PASST_STACKS.join(',') },
    'pasta-stacks': { type: 'string', default: 'ours,ours-plain,debian,slirp4netns' },
    json: { type: 'string' },
    markdown: { type: 'string' },
    congestion: { type: 'string', default: defaultCongestion() },
    list: { type: 'boolean', default: false },
  },
});
const session: Session = {
  runs: Number(options.runs),
  seconds: Number(options.seconds),
  congestion: options.congestion,
  leftOut: [],
};
const wanted = options.rows.split(',').filter((name) => name !== '');

/** The rows of a group that `--rows` names. */
function choose<T extends Pick<RowTitle, 'name'>>(group: string, rows: readonly T[]): T[] {
  if (wanted.length === 0 || wanted.includes(group)) return [...rows];
  return rows.filter((row) => wanted.some((prefix) => row.name.startsWith(prefix)));
}

/** Those of `names` that were asked for and are there. */
async function chooseStacks<N extends string>(
  text: string,
  names: readonly N[],
  missing: (name: N) => string | Promise<string>,
): Promise<N[]> {
  const asked = text.split(',');
  const unknown = asked.find((name) => !names.includes(name as N));
  if (unknown !== undefined) throw new Error(`no stack '${unknown}': there are ${names.join(', ')}`);
  const present: N[] = [];
  for (const name of names.filter((one) => asked.includes(one))) {
    const reason = await missing(name);
    if (reason === '') present.push(name);
    else leaveOut(session, name, reason);
  }
  return present;
}

async function measurePasst(): Promise<RowResult[]> {
  const rows = choose('passt', ROWS);
  const idle = choose('idle', [IDLE_FLOWS_ROW]);
  if (rows.length + idle.length === 0) return [];
  const stacks = await chooseStacks(options.stacks, PASST_STACKS, missingPasstReason);
  const results = await measureOnRigs(session, rows, stacks, createPasstRig);
  for (const row of idle) results.push(await alternate(session, row, named(stacks), measureIdleSample));
  return results;
}

async function measureIdleSample(name: PasstStackName) {
  const rig = await createPasstRig(name, 1500);
  try {
    return await measureIdleFlows(rig, countIdleFlows(name), Math.max(session.seconds, 3));
  } finally {
    await rig.close();
  }
}

/** Debian's passt has a timer's descriptor for each flow too, and cuts connections off when it gets no more. */
function countIdleFlows(name: PasstStackName): number {
  return name === 'debian' ? Math.min(IDLE_FLOWS, Math.floor(readFileLimit() / 2) - 1000) : IDLE_FLOWS;
}

async function measurePasta(): Promise<RowResult[]> {
  const rows = choose('pasta', PASTA_ROWS);
  if (rows.length === 0) return [];
  return await measureOnRigs(session, rows, await choosePastaStacks(), createPastaRig);
}

function choosePastaStacks(): Promise<PastaStackName[]> {
  return chooseStacks(options['pasta-stacks'], PASTA_STACKS, missingReason);
}

async function measureTcg(): Promise<RowResult[]> {
  const rows = choose('tcg', TCG_ROWS);
  const userRows = choose('user', USER_NET_ROWS);
  if (rows.length + userRows.length === 0) return [];
  const stacks = await chooseStacks(options.stacks, PASST_STACKS, missingTcgReason);
  // Debian's passt has no such network.
  const userStacks = stacks.filter((name) => name !== 'debian');
  return [
    ...(await measureOnRigs(session, rows, stacks, createTcgRig)),
    ...(await measureOnRigs(session, userRows, userStacks, createUserNetRig)),
  ];
}

async function measureLan(): Promise<RowResult[]> {
  const rows = choose('lan', LAN_ROWS);
  if (rows.length === 0) return [];
  const stacks = await chooseStacks(LAN_STACKS.join(','), LAN_STACKS, missingLanReason);
  return await measureOnRigs(session, rows, stacks, createLanRig);
}

async function measurePr(): Promise<RowResult[]> {
  const rows = choose('pr', PR_ROWS);
  if (rows.length === 0) return [];
  const reason = missingHelperReason();
  if (reason === '') return await measurePrRows(rows, session.runs, session.seconds, orderOfRound, record);
  leaveOut(session, 'reservation helpers', reason);
  return [];
}

async function measureFd(): Promise<RowResult[]> {
  const rows = choose('fd', FD_ROWS);
  return rows.length === 0 ? [] : await measureFdRows(session, rows);
}

async function measureStarts(host: Host): Promise<RowResult[]> {
  const results: RowResult[] = [];
  if (choose('passt', [STARTUP]).length > 0) {
    // QEMU does not go into the background by itself, and its start is that of a machine.
    const stacks = (await chooseStacks(options.stacks, PASST_STACKS, missingPasstReason)).filter(
      (one) => one !== 'qemu',
    );
    const startup = await alternate(session, STARTUP, named(stacks), (name) =>
      measureStartup(host, stackCommand(name)),
    );
    const resident = { ...startup, ...RSS_START, samples: {} as RowResult['samples'] };
    for (const [name, samples] of Object.entries(startup.samples)) {
      resident.samples[name] = samples.map(({ rssMib = Number.NaN }) => ({ value: rssMib }));
    }
    results.push(startup, resident);
  }
  if (choose('pasta', [PASTA_STARTUP]).length > 0) {
    const stacks = (await choosePastaStacks()).filter((name) => !isBare(name));
    results.push(await alternate(session, PASTA_STARTUP, named(stacks), (name) => measurePastaStartup(name, host)));
  }
  for (const mtu of RIG_LIMIT_MTUS) {
    const measure = () => measureRigLimit(mtu, host.directory, session.seconds);
    for (const row of choose('limit', [rigLimitRow(mtu)])) {
      results.push(await alternate(session, row, new Map([['rig', undefined]]), measure));
    }
  }
  return results;
}

function named<N extends string>(names: readonly N[]): Map<string, N> {
  return new Map(names.map((name) => [name, name]));
}

function write(results: readonly RowResult[], loadBefore: number): void {
  const load = `load ${loadBefore.toFixed(1)} before, ${(loadavg()[0] ?? 0).toFixed(1)} after`;
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, Linux ${release()}, Node ${process.version}`;
  const conditions = `${machine}; ${session.runs} alternating runs of ${session.seconds} s; TCP ${session.congestion}; ${load}`;
  const missing = session.leftOut.map((text) => `not measured: ${text}\n`).join('');
  process.stdout.write(`${conditions}\n${formatText(results)}\n${missing}`);
  const date = new Date().toISOString();
  const folder = join(PROJECT_ROOT, 'test/bench/out');
  mkdirSync(folder, { recursive: true });
  const file = options.json ?? join(folder, `${date.replace(/[:.]/g, '-')}.json`);
  writeFileSync(file, `${JSON.stringify({ date, conditions, leftOut: session.leftOut, results }, null, 2)}\n`);
  process.stdout.write(`all samples: ${file}\n`);
  if (options.markdown === undefined) return;
  const heading = `Measured ${date.slice(0, 10)} on ${conditions}.${missing === '' ? '' : `\n\n${missing.trimEnd()}`}`;
  writeFileSync(options.markdown, formatMarkdown(results, heading));
}

if (options.list) {
  for (const [group, rows] of Object.entries(GROUPS)) {
    process.stdout.write(`${group}: ${rows.map((row) => row.name).join(' ')}\n`);
  }
  process.stdout.write('Without guests, by a program of its own: npm run bench -- links\n');
} else {
  const unknown = wanted.find(
    (name) => !(name in GROUPS) && !Object.values(GROUPS).some((rows) => rows.some((row) => row.name.startsWith(name))),
  );
  if (unknown !== undefined) throw new Error(`no row or group begins with '${unknown}': see --list`);
  const loadBefore = loadavg()[0] ?? 0;
  const results = [
    ...(await measurePasst()),
    ...(await measurePasta()),
    ...(await measureTcg()),
    ...(await measureLan()),
    ...(await measurePr()),
    ...(await measureFd()),
  ];
  const host = await createOpenHost();
  try {
    results.push(...(await measureStarts(host)));
  } finally {
    await host.close();
  }
  write(results, loadBefore);
}
