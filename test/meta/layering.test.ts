import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

/**
 * Which folder of src may import which: the order in which the project can be understood, and what keeps a change local.
 * `stack/ports` stands for the interfaces that the stack declares and others implement.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  base: [],
  wire: [],
  native: [],
  sys: ['base', 'wire', 'stack/ports'],
  link: ['base', 'wire', 'sys', 'stack/ports'],
  stack: ['base', 'wire'],
  forward: ['base', 'wire', 'stack/ports'],
  scsi: ['base', 'wire', 'sys'],
  bridge: ['base', 'wire', 'sys'],
  broker: ['base', 'wire', 'sys'],
  qemu: ['base'],
  'index.ts': ['base', 'wire', 'sys', 'link', 'stack', 'forward', 'scsi', 'bridge', 'broker', 'qemu'],
  cli: ['base', 'wire', 'sys', 'link', 'stack', 'forward', 'scsi', 'bridge', 'broker', 'qemu'],
};

/** Executables have no logic: they name a command. */
const HELPER_LINES_MAX = 15;

const root = resolve(import.meta.dirname, '../..');
const src = join(root, 'src');

function listSources(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name));
}

/** Paths that a file imports, statically, as a type or on demand; packages included. */
function listImports(file: string): string[] {
  const text = readFileSync(file, 'utf8').replace(/^\s*(\/\/|\*|\/\*).*$/gm, '');
  return [...text.matchAll(/\b(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
}

/** The folder of src that a path lies in, or `stack/ports` for that one file. */
function folderOf(file: string): string {
  const path = relative(src, file);
  return path === 'stack/ports.ts' ? 'stack/ports' : path.split('/')[0]!;
}

describe('the layers', () => {
  it('are known for every folder of src', () => {
    const folders = readdirSync(src, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(folders.map((f) => f.name).filter((name) => !(name in MAY_IMPORT))).toEqual([]);
  });
  it('import only what stands above them', () => {
    const wrong: string[] = [];
    for (const file of listSources(src)) {
      const own = relative(src, file).split('/')[0]!;
      for (const path of listImports(file).filter((p) => p.startsWith('.'))) {
        const target = folderOf(resolve(dirname(file), path));
        if (target === own || (target === 'stack/ports' && own === 'stack')) continue;
        if (target === 'stack/ports' && MAY_IMPORT[own]!.includes('stack')) continue;
        if (!MAY_IMPORT[own]!.includes(target)) wrong.push(`${relative(root, file)} imports ${path}`);
      }
    }
    expect(wrong).toEqual([]);
  });
  it('make stacks in one file, which the one that makes the system parts joins with them', () => {
    const importing = (what: string): string[] =>
      listSources(join(src, 'cli'))
        .filter((file) => listImports(file).some((path) => path.includes(what)))
        .map((file) => relative(src, file));
    expect(importing('stack/stack.ts')).toEqual(['cli/guest-side.ts']);
    expect(importing('sys/host-sockets.ts')).toEqual(['cli/compose.ts']);
    expect(importing('guest-side.ts')).toContain('cli/compose.ts');
    const system = listImports(join(src, 'cli/guest-side.ts')).filter((path) => path.includes('/sys/'));
    expect(system).toEqual([]);
  });
  it('do no I/O in wire and stack', () => {
    const wrong: string[] = [];
    for (const folder of ['wire', 'stack']) {
      for (const file of listSources(join(src, folder))) {
        const packages = listImports(file).filter((path) => !path.startsWith('.'));
        if (packages.length > 0) wrong.push(`${relative(root, file)} imports ${packages.join(', ')}`);
      }
    }
    expect(wrong).toEqual([]);
  });
  it('spell out the extension of every import', () => {
    const wrong: string[] = [];
    for (const file of listSources(src)) {
      for (const path of listImports(file)) {
        if (path.startsWith('.') && !/\.(ts|json)$/.test(path)) wrong.push(`${relative(root, file)} imports ${path}`);
      }
    }
    expect(wrong).toEqual([]);
  });
});

describe('the executables', () => {
  it.each(readdirSync(join(root, 'helpers')))('%s is short and imports cli only', (name) => {
    const file = join(root, 'helpers', name);
    expect(readFileSync(file, 'utf8').split('\n').length).toBeLessThanOrEqual(HELPER_LINES_MAX + 1);
    for (const path of listImports(file)) expect(path).toMatch(/^\.\.\/src\/cli\//);
  });
  it('are bundled as CommonJS: nothing in src depends on being a module at run time', () => {
    const wrong = listSources(src).filter((file) => {
      const text = stripComments(readFileSync(file, 'utf8'));
      // `import.meta` is fine where `__filename` takes its place in the bundle.
      return /^await /m.test(text) || (/\bimport\.meta\b/.test(text) && !text.includes('typeof __filename'));
    });
    expect(wrong.map((file) => relative(root, file))).toEqual([]);
  });
  it('know the version of the package', async () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    const { VERSION } = await import('../../src/cli/version.ts');
    expect(VERSION).toBe(version);
  });
});

function stripComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
}
