/** Builds the process that tries the sandbox's barriers from inside, and starts it in each way that a helper is started. */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { nativePath } from '../../../src/sys/native.ts';
import { PROJECT_ROOT } from '../native-tools.ts';

/** Who enters the sandbox. */
export type Starter =
  | 'as it is'
  | 'as it is, without the sandbox'
  | 'as an ordinary user'
  | 'in a user namespace'
  | 'detached'
  | 'detached, as an ordinary user';

/** How an attempt ended. */
export interface Attempted {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Its line of JSON, or undefined. */
  readonly answer: unknown;
  readonly stderr: string;
}

export interface Agent {
  attempt(name: string, starter?: Starter): Attempted;
  close(): void;
}

const NOBODY = 65534;

export async function buildAgent(): Promise<Agent> {
  const folder = mkdtempSync(join(tmpdir(), 'passel-sandboxed-'));
  chmodSync(folder, 0o755);
  const program = join(folder, 'agent.cjs');
  const addon = join(folder, 'raw-syscall.node');
  // The front of passel-passt, with an agent for a program.
  const front = join(folder, 'agent');
  copyFileSync(join(PROJECT_ROOT, 'build/Release/launcher'), front);
  writeFileSync(`${front}.options`, 'none\n0 0 s - foreground\n');
  await build({
    entryPoints: [join(PROJECT_ROOT, 'test/support/sandboxed/agent.ts')],
    outfile: program,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    define: { 'import.meta.url': 'undefined' },
    logLevel: 'warning',
  });
  const source = join(PROJECT_ROOT, 'test/support/raw-syscall/raw-syscall.c');
  const compiler = process.env['CC'] ?? 'cc';
  const flags = ['-std=c11', '-O2', '-Wall', '-Wextra', '-shared', '-fPIC', '-o', addon, source];
  const compiled = spawnSync(compiler, flags, { encoding: 'utf8' });
  if (compiled.status !== 0) throw new Error(`${compiler}: ${compiled.error?.message ?? compiled.stderr}`);
  return {
    attempt(name, starter = 'as it is') {
      const scratch = mkdtempSync(join(folder, 'scratch-'));
      const asUser = starter.endsWith('as an ordinary user') && process.getuid!() === 0;
      if (asUser) chownSync(scratch, NOBODY, NOBODY);
      const line = [
        ...(starter.startsWith('detached') ? [front] : [process.execPath, program]),
        name,
        addon,
        scratch,
        starter.endsWith('without the sandbox') ? 'outside' : 'inside',
        ...(starter.startsWith('detached') ? ['--foreground'] : []),
      ];
      const [command = '', ...args] = starter === 'in a user namespace' ? ['unshare', '-U', '-r', '--', ...line] : line;
      const { status, signal, stdout, stderr } = spawnSync(command, args, {
        encoding: 'utf8',
        env: { PATH: process.env['PATH'], PASSEL_NATIVE: nativePath() },
        ...(asUser ? { uid: NOBODY, gid: NOBODY } : {}),
        timeout: 30_000,
      });
      const text = stdout.trim();
      return { status, signal, stderr, answer: text === '' ? undefined : (JSON.parse(text) as unknown) };
    },
    close: () => rmSync(folder, { recursive: true }),
  };
}
