/** The table's rows for the reservation helpers: requests about a device that refuses them, so that the helper is what is measured. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildTool } from '../support/native-tools.ts';
import { findCommand } from '../support/netns/capabilities.ts';
import { runProcess, waitUntil } from '../support/netns/process.ts';
import { type HelperProcess, PROGRAMS, type ProgramName, watchHelper } from '../support/pr-helper/programs.ts';
import type { RowResult } from './report.ts';
import type { Sample } from './statistics.ts';

export interface PrRow {
  readonly name: string;
  readonly title: string;
  readonly connections: number;
}

export const PR_ROWS: readonly PrRow[] = [
  { name: 'pr-requests-1', title: 'Reservation helper, 1 client', connections: 1 },
  { name: 'pr-requests-8', title: 'Reservation helper, 8 clients', connections: 8 },
];

/** As the table names them. */
const STACKS: Readonly<Record<ProgramName, string>> = { ours: 'ours', c: 'debian' };

/** Why the rows cannot be measured, or ''. */
export function missingHelperReason(): string {
  if (process.getuid?.() !== 0) return 'the reservation helpers start as root only';
  return findCommand(PROGRAMS.c) === '' && findCommand('qemu-pr-helper') === '' ? 'qemu-pr-helper is missing' : '';
}

/** Both helpers run all the time, one at a time has clients. @param order - of the helpers in a round */
export async function measurePrRows(
  rows: readonly PrRow[],
  runs: number,
  seconds: number,
  order: <T>(list: readonly T[], round: number) => T[],
  record: (result: RowResult, stack: string, sample: Sample) => void,
): Promise<RowResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'passel-pr-bench-'));
  const helpers: [ProgramName, HelperProcess][] = [];
  try {
    for (const name of ['ours', 'c'] as const) helpers.push([name, await start(name, join(folder, name))]);
    const results: RowResult[] = [];
    for (const { name, title, connections } of rows) {
      const samples = Object.fromEntries(helpers.map(([program]) => [STACKS[program], []]));
      const secondTitle = 'p99 µs';
      const result: RowResult = { name, title, unit: '1/s', lowerIsBetter: false, secondTitle, samples };
      for (let round = 0; round < runs; round++) {
        for (const [program, helper] of order(helpers, round)) {
          record(result, STACKS[program], await measure(helper, connections, seconds));
        }
      }
      results.push(result);
    }
    return results;
  } finally {
    for (const [, helper] of helpers) await helper.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Clients wait in the queue of the socket until the helper takes them. */
async function start(name: ProgramName, socket: string): Promise<HelperProcess> {
  const helper = watchHelper(spawn(PROGRAMS[name], ['-k', socket], { stdio: ['ignore', 'ignore', 'pipe'] }), socket);
  await waitUntil(`${name} to listen`, () => helper.child.exitCode !== null || existsSync(socket), 30_000);
  if (helper.child.exitCode !== null) throw new Error(`${name} did not start: ${helper.stderr()}`);
  return helper;
}

async function measure(helper: HelperProcess, connections: number, seconds: number): Promise<Sample> {
  const args = [helper.socket, '/dev/null', String(connections), String(seconds)];
  const before = readUse(helper.pid);
  const { stdout } = await runProcess(buildTool('pr-load'), args, { timeoutMs: (seconds + 30) * 1000 });
  const after = readUse(helper.pid);
  const { requests, perSecond, p50Us, p99Us } = JSON.parse(stdout) as Record<string, number>;
  const each = (use: keyof Use): number => (after[use] - before[use]) / requests!;
  const others = { 'p50 µs': p50Us!, 'CPU µs': each('cpuUs'), switches: each('switches') };
  return { value: perSecond!, second: p99Us!, others, rssMib: after.rssKib / 1024 };
}

/** What a process has used since its start. */
interface Use {
  /** User and system time of all threads, and what they say that they gave up the processor or lost it. */
  readonly cpuUs: number;
  readonly switches: number;
  readonly rssKib: number;
}

const CLOCK_TICK_US = 10_000;

function readUse(pid: number): Use {
  const status = (path: string): string => readFileSync(`/proc/${pid}/${path}`, 'latin1');
  // Behind the name, which may hold anything, the state is the first field and the times are the twelfth and the one behind.
  const fields = status('stat')
    .replace(/^.*\) /s, '')
    .split(' ');
  const cpuUs = (Number(fields[11]) + Number(fields[12])) * CLOCK_TICK_US;
  let switches = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const counts = status(`task/${thread}/status`).matchAll(/^(?:non)?voluntary_ctxt_switches:\s+(\d+)/gm);
    for (const [, count] of counts) switches += Number(count);
  }
  return { cpuUs, switches, rssKib: Number(/^VmRSS:\s+(\d+)/m.exec(status('status'))?.[1]) };
}
