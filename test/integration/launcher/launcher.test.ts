/**
 * The front of executables that go to the background, with a program in place of the real one that tells what it was given. What the real one
 * makes of it is tested with it (test/integration/passel/command-line.test.ts).
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatFrontTable } from '../../../src/cli/options/front-table.ts';
import { PASST_OPTIONS } from '../../../src/cli/options/passt-options.ts';
import { PASTA_OPTIONS } from '../../../src/cli/options/pasta-options.ts';
import { scanOptions } from '../../../src/cli/options/scan.ts';
import { chooseTarget } from '../../../src/cli/pasta-config.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { waitUntil } from '../../support/netns/namespace.ts';

let folder: string;
/** Programs for `start`. */
const PROGRAMS = {
  /** Prints what it sees to a file, and is ready. */
  tell: `
    const fs = require('node:fs');
    const [mark, told] = process.env.PASSEL_DAEMON?.split(' ') ?? [];
    const fds = fs.readdirSync('/proc/self/fd').flatMap((fd) => {
      try { return fs.readlinkSync('/proc/self/fd/' + fd).startsWith(TARGET) ? [Number(fd)] : []; } catch { return []; }
    });
    const status = fs.readFileSync('/proc/self/status', 'latin1');
    const field = (name) => new RegExp('^' + name + ':\\\\s*(.*)$', 'm').exec(status)[1];
    fs.writeFileSync(REPORT + '.new', JSON.stringify({
      background: mark !== undefined, pid: Number(fs.readlinkSync('/proc/self')), told: Number(told), ownPid: process.pid, args: process.argv.slice(2), fds,
      authorities: process.env.NODE_EXTRA_CA_CERTS, filters: field('Seccomp_filters'), noNewPrivileges: field('NoNewPrivs'),
      session: fs.readFileSync('/proc/self/stat', 'latin1').replace(/^.*\\) /, '').split(' ')[3],
    }));
    fs.renameSync(REPORT + '.new', REPORT);
    if (mark !== undefined) fs.writeSync(Number(mark), Uint8Array.of(0));
  `,
  fail: `require('node:fs').writeSync(2, 'as expected\\n'); process.exit(7)`,
  leave: '',
  abort: 'process.abort()',
  /** Ready, and then there for a while. */
  serve: `
    require('node:fs').writeFileSync(REPORT, require('node:fs').readlinkSync('/proc/self'));
    require('node:fs').writeSync(Number.parseInt(process.env.PASSEL_DAEMON), Uint8Array.of(0));
    setTimeout(() => {}, 60_000);
  `,
  hang: `require('node:fs').writeFileSync(REPORT, require('node:fs').readlinkSync('/proc/self')); setTimeout(() => {}, 60_000)`,
} as const;

let serial = 0;

interface Started {
  readonly child: ChildProcess;
  readonly report: string;
  ended(): Promise<{ status: number | null; signal: string | null; stderr: string }>;
}

/** Starts the front under a name of its own. @param table - undefined: none is beside it */
function start(
  program: keyof typeof PROGRAMS,
  args: readonly string[],
  options: SpawnOptions = {},
  table: string | undefined = formatFrontTable(PASST_OPTIONS, 'none'),
  wrapper: readonly string[] = [],
): Started {
  const own = join(folder, `front-${serial++}`);
  const report = `${own}.report`;
  copyFileSync(join(PROJECT_ROOT, 'build/Release/launcher'), own);
  const constants = `const REPORT = ${JSON.stringify(report)}, TARGET = ${JSON.stringify(folder)};`;
  writeFileSync(`${own}.cjs`, constants + PROGRAMS[program]);
  if (table !== '') writeFileSync(`${own}.options`, table);
  const [command = '', ...rest] = [...wrapper, own, ...args];
  const child = spawn(command, rest, { stdio: ['ignore', 'ignore', 'pipe'], ...options });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  return {
    child,
    report,
    async ended() {
      const [status, signal] = (await once(child, 'close')) as [number | null, string | null];
      return { status, signal, stderr: stderr.replaceAll(own.slice(folder.length + 1), 'NAME') };
    },
  };
}

async function tell(args: readonly string[], options?: SpawnOptions, table?: string): Promise<Record<string, unknown>> {
  const started = start('tell', args, options, table);
  expect(await started.ended()).toEqual({ status: 0, signal: null, stderr: '' });
  return { started: started.child.pid, ...JSON.parse(readFileSync(started.report, 'utf8')) };
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-launcher-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('the front of passel-passt', () => {
  const lines: string[][] = [
    ...[[], ['-f'], ['--foreground'], ['--fore'], ['-qf'], ['-qdf1'], ['-q', '-1', '--foreground', '-s', 'x']],
    ...[['-s', '-f'], ['-s-f'], ['-sf'], ['-qsf'], ['--socket', '--foreground'], ['--socket=-f'], ['--soc', '-f']],
    ...[['-t', '2222:22', '-P', '/tmp/f', '-q'], ['--', '-f'], ['--fd=5', '-4'], ['-F', '5', '-f'], ['-4f'], ['-46']],
    ...[['--socket-path', '-f'], ['-h'], ['--version'], ['-q', '--help'], ['--print-cap'], ['--no-sandbox', '-f']],
  ];
  it('knows as well as the program does what stays in the foreground', async () => {
    for (const line of lines) {
      const given = scanOptions(PASST_OPTIONS, line);
      const stays = (['foreground', 'help', 'version', 'print-capabilities'] as const).some((name) => given.has(name));
      expect([line, (await tell(line))['background']]).toEqual([line, !stays]);
    }
  });
  it('becomes the program in the foreground: the pid that was started', async () => {
    const { started, pid, args, background } = await tell(['-f', '--socket', 'a b', '']);
    expect([pid, args, background]).toEqual([started, ['-f', '--socket', 'a b', ''], false]);
  });
  it('starts it in a session of its own in the background, with the same arguments', async () => {
    const { started, pid, told, session, args } = await tell(['--socket', 'a b', '']);
    expect(pid).not.toBe(started);
    expect([told, session, args]).toEqual([pid, String(pid), ['--socket', 'a b', '']]);
  });
  it('closes in the background what it inherited, but for the descriptor that the program was given', async () => {
    const files = Array.from({ length: 30 }, (_, i) => openSync(join(folder, `held-${i}`), 'w'));
    const options: SpawnOptions = { stdio: ['ignore', 'ignore', 'pipe', ...files] };
    expect((await tell(['-q'], options))['fds']).toEqual([]);
    for (const fd of [3, 9, 32]) expect((await tell(['-q', '--fd', String(fd)], options))['fds']).toEqual([fd]);
    // One that is not open does not become another.
    expect((await tell(['-q', '--fd', '40'], options))['fds']).toEqual([]);
  });
  it('lets Node start without what makes it slow, or cannot be confined', async () => {
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: '/nowhere' };
    expect(await tell(['-f'], { env })).toMatchObject({ filters: '1', noNewPrivileges: '1' });
    expect(await tell(['-f'], { env })).not.toHaveProperty('authorities');
    expect(await tell(['-f', '--no-sandbox'], { env })).toMatchObject({ filters: '0', noNewPrivileges: '0' });
  });
  it('leaves it to the program without a table', async () => {
    const { started, pid } = await tell(['-q'], {}, '');
    expect(pid).toBe(started);
  });
});

describe('the front of passel-pasta', () => {
  const table = formatFrontTable(PASTA_OPTIONS, 'namespaces');
  const lines: string[][] = [
    ...[[], ['-q'], ['command'], ['-q', 'command', '--netns', 'x'], ['--config-net', 'sh', '-c', 'true'], ['-f']],
    ...[['1234'], ['-q', '1234'], ['1234', '5'], ['12x'], ['-I', '12', 'x'], ['-I', 'x', '12'], ['-f', '12']],
    ...[['--netns=x'], ['--netns', '/run/x'], ['--netns', 'x', '-f'], ['-fq', '--netns', 'x'], ['--', '12']],
    ...[
      ['--config-net', '-t', 'none', '--netns', 'x'],
      ['-t', '12', '-T', 'none'],
      ['-P', 'p', '-t', 'none', '12'],
    ],
  ];
  it('knows as well as the program does what stays in the foreground', async () => {
    for (const line of lines) {
      const given = scanOptions(PASTA_OPTIONS, line, { stopAtOperand: true });
      const stays = given.has('foreground') || chooseTarget(given).kind === 'command';
      expect([line, (await tell(line, {}, table))['background']]).toEqual([line, !stays]);
    }
  });
  it('leaves a command what it needs to gain privileges', async () => {
    expect(await tell(['command'], {}, table)).toMatchObject({ filters: '0', noNewPrivileges: '0' });
    expect(await tell(['1234'], {}, table)).toMatchObject({ filters: '1', noNewPrivileges: '1' });
  });
});

describe('a launcher in front of', () => {
  it('a program that fails passes on its message and its status', async () => {
    expect(await start('fail', []).ended()).toEqual({ status: 7, signal: null, stderr: 'as expected\n' });
  });
  it('a program that leaves without a word says so', async () => {
    const stderr = 'NAME: the background process ended before it was ready: it exited early\n';
    expect(await start('leave', []).ended()).toEqual({ status: 1, signal: null, stderr });
  });
  it('a program that is killed says by what', async () => {
    // As the first process of a PID namespace it would be deaf to the signal and end by the trap behind it.
    const { status, stderr } = await start('abort', ['--no-sandbox']).ended();
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(/^NAME: the background process ended before it was ready: killed by SIGABRT$/m),
    ]);
  });
  it('a program that is ready leaves it to itself', async () => {
    const started = start('serve', [], { stdio: 'ignore' });
    expect(await started.ended()).toMatchObject({ status: 0 });
    const pid = Number(readFileSync(started.report, 'latin1'));
    expect(readFileSync(`/proc/${pid}/stat`, 'latin1')).toContain('(node)');
    process.kill(pid, 'SIGKILL');
  });
  for (const [signal, status] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ] as const) {
    it(`a program that is not ready yet takes it with it on ${signal}`, async () => {
      const started = start('hang', []);
      await waitUntil('the program to run', () => existsSync(started.report));
      await waitUntil('its pid', () => readFileSync(started.report, 'latin1') !== '');
      const pid = Number(readFileSync(started.report, 'latin1'));
      started.child.kill(signal);
      expect(await started.ended()).toEqual({ status, signal: null, stderr: '' });
      expect(existsSync(`/proc/${pid}`)).toBe(false);
    });
  }
  it('a program stays deaf to a signal that its caller ignores', async () => {
    const started = start('hang', [], {}, undefined, ['sh', '-c', 'trap "" HUP; exec "$@"', 'sh']);
    await waitUntil('the program to run', () => existsSync(started.report));
    started.child.kill('SIGHUP');
    started.child.kill('SIGTERM');
    expect(await started.ended()).toMatchObject({ status: 143 });
  });
});
