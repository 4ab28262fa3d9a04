/** Runs rows so that what else the machine does hits every stack alike: all rigs are up, one at a time has traffic, in changing order. */
import { setCongestionControl } from './congestion.ts';
import type { BenchRig } from './measure.ts';
import type { RowResult } from './report.ts';
import type { RowTitle } from './rows.ts';
import type { Sample } from './statistics.ts';

/** A row measured on a rig. */
export interface RigRow<R extends BenchRig> extends RowTitle {
  /** MTU of the guest's interface, bytes. */
  readonly mtu: number;
  /** The stacks that have what it measures; all by default. */
  readonly stacks?: readonly string[];
  measure(rig: R, seconds: number): Promise<Sample>;
}

/** What a whole run of the benchmark shares. */
export interface Session {
  readonly runs: number;
  readonly seconds: number;
  /** TCP's congestion control at the ends. */
  readonly congestion: string;
  /** What was not measured and why, for the report. */
  readonly leftOut: string[];
}

/** Every round has the opposite order of the one before, so that no stack always runs on a warmer machine. */
export function orderOfRound<T>(list: readonly T[], round: number): T[] {
  return round % 2 === 0 ? [...list] : [...list].reverse();
}

/** An empty result. */
export function newResult(row: RowTitle, stacks: readonly string[]): RowResult {
  return {
    name: row.name,
    title: row.title,
    unit: row.unit,
    lowerIsBetter: row.lowerIsBetter === true,
    ...(row.secondTitle === undefined ? {} : { secondTitle: row.secondTitle }),
    samples: Object.fromEntries(stacks.map((name) => [name, []])),
  };
}

/** Adds a sample, and shows it: a run takes minutes. */
export function record(result: RowResult, stack: string, sample: Sample): void {
  result.samples[stack]?.push(sample);
  process.stderr.write(`${result.name} ${stack}: ${JSON.stringify(sample)}\n`);
}

/** Notes and shows what is not measured. */
export function leaveOut(session: Session, what: string, reason: string): void {
  const text = `${what}: ${reason.split('\n', 1)[0]}`;
  if (session.leftOut.includes(text)) return;
  session.leftOut.push(text);
  process.stderr.write(`left out: ${what}: ${reason}\n`);
}

/** A sample that does not come must not hold up all others for ever. */
export async function withinLimit(session: Session, sample: Promise<Sample>): Promise<Sample> {
  const limitMs = (session.seconds + 90) * 1000;
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

/** Measures a sample of each stack in each round; one that fails is left out. */
export async function alternate<T>(
  session: Session,
  row: RowTitle,
  stacks: ReadonlyMap<string, T>,
  measure: (stack: T) => Promise<Sample>,
): Promise<RowResult> {
  const result = newResult(row, [...stacks.keys()]);
  for (let round = 0; round < session.runs; round++) {
    for (const [name, stack] of orderOfRound([...stacks], round)) {
      try {
        record(result, name, await withinLimit(session, measure(stack)));
      } catch (error) {
        leaveOut(session, `${row.name}, ${name}, run ${round + 1}`, (error as Error).message);
      }
    }
  }
  return result;
}

/** All rows, grouped by MTU, on rigs that are made for each group; a rig that does not come up is left out. */
export async function measureOnRigs<N extends string, R extends BenchRig>(
  session: Session,
  rows: readonly RigRow<R>[],
  stacks: readonly N[],
  createRig: (name: N, mtu: number) => Promise<R>,
): Promise<RowResult[]> {
  const results: RowResult[] = [];
  for (const mtu of new Set(rows.map((row) => row.mtu))) {
    const rigs = new Map<string, R>();
    try {
      for (const name of stacks) {
        try {
          const rig = await createRig(name, mtu);
          rigs.set(name, rig);
          await setCongestionControl(rig, session.congestion);
        } catch (error) {
          leaveOut(session, `${name} at MTU ${mtu}`, (error as Error).message);
        }
      }
      for (const row of rows.filter((one) => one.mtu === mtu)) {
        const taking = new Map([...rigs].filter(([name]) => row.stacks?.includes(name) ?? true));
        results.push(await alternate(session, row, taking, (rig) => row.measure(rig, session.seconds)));
      }
    } finally {
      for (const [name, rig] of rigs) {
        await rig.close().catch((error: Error) => process.stderr.write(`${name}: ${error.message}\n`));
      }
    }
  }
  return results;
}
