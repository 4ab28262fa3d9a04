/**
 * Runs the tests of the addon once more against a build with AddressSanitizer and UndefinedBehaviorSanitizer, in a process of its
 * own, since the sanitizer's library has to be loaded before Node.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { runProcess } from '../../support/netns/process.ts';

const CACHE = join(PROJECT_ROOT, 'node_modules/.cache/passel-sanitizer');
const SOURCES = join(PROJECT_ROOT, 'src/native');

/** The sanitizer's library, or undefined when the compiler has none. */
function findRuntime(): string | undefined {
  try {
    const path = execFileSync('gcc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
    // A compiler that does not have the file repeats the bare name.
    return path.includes('/') && existsSync(path) ? path : undefined;
  } catch {
    return undefined;
  }
}

/** Builds the addon with sanitizers, in a copy of its sources, once for each state of them. */
async function buildSanitized(): Promise<string> {
  const hash = createHash('sha256').update(process.version);
  hash.update(readFileSync(join(PROJECT_ROOT, 'binding.gyp')));
  const sources = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter((name) => /\.[ch]$/.test(name));
  for (const name of sources.sort()) hash.update(name).update(readFileSync(join(SOURCES, name)));
  const target = join(CACHE, `${hash.digest('hex').slice(0, 16)}.node`);
  if (existsSync(target)) return target;
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, 'build-'));
  try {
    cpSync(SOURCES, join(work, 'src/native'), { recursive: true });
    cpSync(join(PROJECT_ROOT, 'binding.gyp'), join(work, 'binding.gyp'));
    const prefix = dirname(dirname(process.execPath));
    const headers = existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
    const nodeGyp = join(PROJECT_ROOT, 'node_modules/node-gyp/bin/node-gyp.js');
    await runProcess(process.execPath, [nodeGyp, 'rebuild', '--sanitize=1', '--jobs=2', ...headers], {
      cwd: work,
      timeoutMs: 100_000,
    });
    renameSync(join(work, 'build/Release/passel.node'), target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return target;
}

const runtime = findRuntime();

async function runTests(library: string): Promise<void> {
  const addon = await buildSanitized();
  const binary = readFileSync(addon);
  expect(binary.includes('__asan_report_load'), 'the build has AddressSanitizer in it').toBe(true);
  expect(binary.includes('__ubsan_handle'), 'the build has UndefinedBehaviorSanitizer in it').toBe(true);
  const vitest = join(PROJECT_ROOT, 'node_modules/vitest/vitest.mjs');
  // One process for all files: each start of Node with the sanitizers costs a second.
  const options = ['run', '--project=unit', '--exclude=**/sanitizer.test.ts', '--no-isolate', '--maxWorkers=1'];
  const result = await runProcess(
    process.execPath,
    [vitest, ...options, 'test/unit/native', 'test/unit/sys', 'test/unit/scsi'],
    {
      cwd: PROJECT_ROOT,
      env: {
        LD_PRELOAD: library,
        // Node itself keeps memory until its end, so leaks cannot be told apart.
        ASAN_OPTIONS: 'detect_leaks=0',
        UBSAN_OPTIONS: 'print_stacktrace=1',
        PASSEL_NATIVE: addon,
      },
      timeoutMs: 120_000,
    },
  );
  expect(result.stdout).toContain('passed');
  expect(result.stdout + result.stderr).not.toMatch(/AddressSanitizer|runtime error/);
}

describe('the addon under sanitizers', () => {
  if (runtime === undefined) {
    it('is not tested on this machine: gcc or its libasan is missing', () => {
      expect(process.env['CI']).not.toBe('true');
    });
  } else {
    it('passes its tests without a bad access or undefined behaviour', () => runTests(runtime), 240_000);
  }
});
