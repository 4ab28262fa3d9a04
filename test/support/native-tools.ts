/**
 * Our own C test tools, compiled when a test first asks for them and kept by the hash of their sources: no build step to
 * remember, no stale binary.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's root directory. */
export const PROJECT_ROOT = findRoot(dirname(fileURLToPath(import.meta.url)));

/** Not in node_modules: a new installation empties that, perhaps while a test runs. */
const CACHE = join(PROJECT_ROOT, '.bootstrap/test-tools');
const FLAGS = ['-std=c11', '-O2', '-Wall', '-Wextra', '-Wconversion'];

/** The benchmark runs from a bundle elsewhere in the tree, so the root is looked for, not counted in "..". */
function findRoot(from: string): string {
  for (let folder = from; ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'binding.gyp'))) return folder;
    if (folder === dirname(folder)) throw new Error('project root not found');
  }
}

/**
 * Path of a tool from `test/support/NAME/NAME.c`, compiled if its sources changed.
 * @param flags - more for the compiler, such as `-static` for a guest that has no libraries
 * @throws when there is no C compiler or the source does not compile; the compiler's words are in the message
 */
export function buildTool(
  name: 'pump' | 'peer' | 'fake-qemu' | 'pr-load' | 'fake-sg' | 'kill-at' | 'fd-load',
  flags: readonly string[] = [],
): string {
  const folder = join(PROJECT_ROOT, 'test/support', name);
  const hash = createHash('sha256')
    .update(process.arch)
    .update([...FLAGS, ...flags].join(' '));
  for (const file of readdirSync(folder).sort()) {
    if (/\.[ch]$/.test(file)) hash.update(file).update(readFileSync(join(folder, file)));
  }
  const target = join(CACHE, `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(target)) return target;
  mkdirSync(CACHE, { recursive: true });
  // Two test processes may compile at the same time: each its own file, the last rename wins.
  const partial = `${target}.${process.pid}`;
  const compiler = process.env['CC'] ?? 'cc';
  const result = spawnSync(compiler, [...FLAGS, ...flags, '-o', partial, join(folder, `${name}.c`)], {
    encoding: 'utf8',
  });
  if (result.status !== 0)
    throw new Error(`${compiler} cannot build ${name}: ${result.error?.message ?? result.stderr}`);
  renameSync(partial, target);
  return target;
}
