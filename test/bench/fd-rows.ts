/**
 * The table's rows for the broker of descriptors, beside s6-fdholder: moves (a descriptor is given and taken away, two requests) and copies by clients
 * that wait for each answer, and starts of a command that inherits a descriptor.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildTool, PROJECT_ROOT } from '../support/native-tools.ts';
import { findCommand } from '../support/netns/capabilities.ts';
import { runProcess, stopChild, waitUntil } from '../support/netns/process.ts';
import { alternate, leaveOut, type Session } from './alternate.ts';
import type { RowResult } from './report.ts';
import type { RowTitle } from './rows.ts';
import type { Sample } from './statistics.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker');
const TRUE = '/bin/true';
/** Starts of one sample, which is their mean. */
const STARTS = 10;
const TICKS_PER_SECOND = 100;

interface RateRow extends RowTitle {
  readonly kind: 'move' | 'copy';
  readonly clients: number;
}

function rateRow(kind: 'move' | 'copy', clients: number): RateRow {
  const what = kind === 'move' ? 'given and taken' : 'copied';
  return {
    name: `fd-${kind}-${clients}`,
    title: `Descriptors ${what}, ${clients} client${clients === 1 ? '' : 's'}`,
    unit: '1/s',
    secondTitle: 'p99 µs',
    kind,
    clients,
  };
}

const RATE_ROWS: readonly RateRow[] = [rateRow('move', 1), rateRow('move', 8), rateRow('copy', 1), rateRow('copy', 8)];

const cpuRow = (row: RateRow): RowTitle => ({
  name: `${row.name}-cpu`,
  title: `${row.title}: CPU of the keeper`,
  unit: 'µs each',
  lowerIsBetter: true,
});

const START_BARE: RowTitle = {
  name: 'fd-start-bare',
  title: 'Start `true`, or Node, with nothing',
  unit: 'ms',
  lowerIsBetter: true,
};
const START_LISTEN: RowTitle = {
  name: 'fd-start-listen',
  title: 'Bind and listen, become `true`',
  unit: 'ms',
  lowerIsBetter: true,
};
const START_FETCH: RowTitle = {
  name: 'fd-start-fetch',
  title: 'Fetch a copy, become `true`',
  unit: 'ms',
  lowerIsBetter: true,
};

/** Rows that are measured, in order; those of CPU time come with their rates. */
export const FD_ROWS: readonly RowTitle[] = [...RATE_ROWS, START_BARE, START_LISTEN, START_FETCH];

const S6_DAEMON = 's6-fdholder-daemon';

/** Why s6 cannot be measured, or ''. */
function missingS6Reason(): string {
  if (findCommand(S6_DAEMON) === '') return `${S6_DAEMON} is missing (Debian: s6)`;
  try {
    buildS6Load();
  } catch (error) {
    return `its library is missing (Debian: libs6-dev): ${(error as Error).message}`;
  }
  return '';
}

function buildS6Load(): string {
  return buildTool('fd-load', ['-DWITH_S6', '-Wl,--no-as-needed', '-ls6', '-lskarnet']);
}

/** A program that keeps descriptors. */
interface Keeper {
  readonly child: ChildProcess;
  readonly socket: string;
  /** As fd-load calls it. */
  readonly protocol: 'ours' | 's6';
}

export async function measureFdRows(session: Session, rows: readonly RowTitle[]): Promise<RowResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'passel-fd-bench-'));
  const keepers = new Map<string, Keeper>();
  try {
    const serve = (name: string, ...options: string[]): Promise<Keeper> => {
      const socket = join(folder, name);
      return start(BROKER, ['serve', '--socket', socket, ...options], socket, 'ours');
    };
    keepers.set('ours', await serve('ours', '--quiet'));
    keepers.set('ours-logged', await serve('ours-logged', '--log-file', join(folder, 'log')));
    const reason = missingS6Reason();
    if (reason === '') keepers.set('s6', await startS6(folder));
    else leaveOut(session, 's6', reason);

    const results: RowResult[] = [];
    for (const row of RATE_ROWS.filter((each) => rows.includes(each))) {
      const cpu = new Map<string, number[]>();
      const rates = await alternate(
        session,
        row,
        new Map([...keepers].map((each) => [each[0], each])),
        ([name, keeper]) =>
          measureRate(keeper, row, session.seconds, (us) => cpu.set(name, [...(cpu.get(name) ?? []), us])),
      );
      const samples = Object.fromEntries([...cpu].map(([name, list]) => [name, list.map((value) => ({ value }))]));
      results.push(rates, { ...cpuRow(row), lowerIsBetter: true, samples });
    }
    if (rows.includes(START_BARE)) {
      const lines = new Map<string, Line>([
        ['true', [TRUE, []]],
        ['node', [process.execPath, ['-e', '0']]],
      ]);
      results.push(await measureLines(session, START_BARE, lines));
    }
    if (rows.includes(START_LISTEN)) results.push(await measureListening(session, folder, reason === ''));
    if (rows.includes(START_FETCH)) results.push(await measureFetching(session, keepers));
    return results;
  } finally {
    await Promise.all([...keepers.values()].map(({ child }) => stopChild(child)));
    rmSync(folder, { recursive: true, force: true });
  }
}

async function start(
  command: string,
  args: readonly string[],
  socket: string,
  protocol: Keeper['protocol'],
): Promise<Keeper> {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const listens = (): boolean => readFileSync('/proc/net/unix', 'latin1').includes(` 00010000 `) && existsSync(socket);
  await waitUntil(`${command} to listen`, () => child.exitCode !== null || listens(), 30_000);
  if (child.exitCode !== null) throw new Error(`${command} did not start`);
  return { child, socket, protocol };
}

/** Everything is allowed for this user, as for our broker without a policy. */
function startS6(folder: string): Promise<Keeper> {
  const rules = join(folder, 'rules/uid', String(process.getuid?.()));
  mkdirSync(join(rules, 'env'), { recursive: true });
  writeFileSync(join(rules, 'allow'), '');
  for (const name of ['S6_FDHOLDER_STORE_REGEX', 'S6_FDHOLDER_RETRIEVE_REGEX']) {
    writeFileSync(join(rules, 'env', name), '.');
  }
  const socket = join(folder, 's6');
  return start(S6_DAEMON, ['-i', join(folder, 'rules'), socket], socket, 's6');
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function measureRate(
  { child, socket, protocol }: Keeper,
  { kind, clients }: RateRow,
  seconds: number,
  onCpu: (us: number) => void,
): Promise<Sample> {
  const pid = child.pid!;
  const load = protocol === 's6' ? buildS6Load() : buildTool('fd-load');
  const before = cpuSeconds(pid);
  const { stdout } = await runProcess(load, [protocol, socket, String(clients), String(seconds), kind], {
    timeoutMs: (seconds + 60) * 1000,
  });
  const used = cpuSeconds(pid) - before;
  const { perSecond, p99Us } = JSON.parse(stdout) as { perSecond: number; p99Us: number };
  onCpu((used * 1e6) / (perSecond * seconds));
  const rssKib = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);
  return { value: perSecond, second: p99Us, rssMib: rssKib / 1024 };
}

/** Mean of some starts, one after the other, until the command has ended. */
async function measureStarts(command: string, args: readonly string[]): Promise<Sample> {
  const startedMs = performance.now();
  for (let i = 0; i < STARTS; i++) {
    const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${command} ended with ${status}: ${stderr}`);
  }
  return { value: (performance.now() - startedMs) / STARTS };
}

type Line = readonly [command: string, args: readonly string[]];

function measureLines(session: Session, row: RowTitle, lines: ReadonlyMap<string, Line>): Promise<RowResult> {
  return alternate(session, row, lines, ([command, args]) => measureStarts(command, args));
}

function measureListening(session: Session, folder: string, s6: boolean): Promise<RowResult> {
  const lines = new Map<string, Line>([
    ['ours', [BROKER, ['run', '--fd', `s=unix-listen:${folder}/start`, '--', TRUE, '@s@']]],
  ]);
  if (s6) lines.set('s6', ['s6-ipcserver-socketbinder', [`${folder}/start-s6`, TRUE]]);
  return measureLines(session, START_LISTEN, lines);
}

/** Gives the broker a descriptor called "start". */
const PUT = `import json, socket, sys
broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
broker.connect(sys.argv[1])
socket.send_fds(broker, [json.dumps({"version": 1, "id": 1, "verb": "put", "name": "start", "fds": 1}).encode()], [0])
assert "result" in json.loads(broker.recv(65536))`;

async function measureFetching(session: Session, keepers: ReadonlyMap<string, Keeper>): Promise<RowResult> {
  const ours = keepers.get('ours')!;
  const lines = new Map<string, Line>();
  await runProcess('/usr/bin/python3', ['-c', PUT, ours.socket]);
  lines.set('ours', [
    BROKER,
    ['run', '--broker-socket', ours.socket, '--fd', 'd=broker:start,copy', '--', TRUE, '@d@'],
  ]);
  const s6 = keepers.get('s6');
  if (s6 !== undefined) {
    await runProcess('s6-fdholder-store', ['-d', '0', s6.socket, 'start']);
    lines.set('s6', ['s6-fdholder-retrieve', [s6.socket, 'start', TRUE]]);
  }
  return measureLines(session, START_FETCH, lines);
}
