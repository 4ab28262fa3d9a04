// Makes the executables in dist/helpers. Each one of helpers/ is bundled into one CommonJS file, since unbundled ESM starts in twice
// the time (about 190 ms against 100), and is run once, so that V8's bytecode can be kept beside it, which halves it again.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = dirname(fileURLToPath(import.meta.url));
const helpers = join(root, 'dist/helpers');
const programs = join(root, 'dist/programs');
const names = readdirSync(join(root, 'helpers'))
  .filter((name) => name.endsWith('.ts'))
  .map((name) => name.replace(/\.ts$/, ''));

/** Executables that are started by a program in C first, by that program's name in binding.gyp. */
const FRONTS = {
  // Must hand on what it inherited.
  'passel-qrap': 'front',
  'passel-pr-helper': 'front',
  'passel-fd-broker': 'front',
  // Go to the background.
  'passel-passt': 'launcher',
  'passel-pasta': 'launcher',
};

/** Command lines for the run that gives the bytecode; others show their help. */
const TRIALS = {
  'passel-passt': (folder) => ['--quiet', '--socket', `${folder}/socket`, '--pid', `${folder}/pid`],
  // To where it would become the command, which cannot be executed: the bytecode is written at the end of the process.
  'passel-fd-broker': (folder) => {
    writeFileSync(`${folder}/command`, '#!/no/such/interpreter\n', { mode: 0o755 });
    const opened = ['--fd', `a=unix-listen:${folder}/socket`, '--monitor', `${folder}/monitor`];
    return ['run', ...opened, '--', `${folder}/command`, '@a@'];
  },
};

const TRIAL_TIMEOUT_MS = 60_000;

/**
 * pino without what it writes with when it is given no destination, and in threads of its own. Its loggers here have destinations, and loading
 * the rest takes a tenth of a short start.
 */
const pinoWithoutThreads = {
  name: 'pino-without-threads',
  setup(builder) {
    builder.onResolve({ filter: /^(sonic-boom|worker_threads|\.\/(lib\/)?transport)$/ }, ({ path, importer }) =>
      importer.includes('/node_modules/pino/') ? { path, namespace: 'absent' } : undefined,
    );
    builder.onLoad({ filter: /./, namespace: 'absent' }, ({ path }) => ({
      contents:
        path === 'worker_threads'
          ? 'exports.isMainThread = true;'
          : `module.exports = function () { throw new Error('${path} is not in the bundle'); };`,
    }));
  },
};

const common = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  // A CommonJS file has no import.meta; sources that use it ask for __filename first.
  define: { 'import.meta.url': 'undefined' },
  // Addons of their own, loaded only when used.
  external: ['raw-socket', 'unix-dgram'],
  // Its other half cuts long lines inside words.
  alias: { cliui: join(root, 'node_modules/cliui/build/index.cjs') },
  logLevel: 'warning',
  write: false,
};

mkdirSync(helpers, { recursive: true });
mkdirSync(programs, { recursive: true });
mkdirSync(join(root, 'dist/native'), { recursive: true });
installBinary('passel.node', 'dist/native/passel.node');
installBinary('namespace-agent', 'dist/native/namespace-agent');
installBinary('remover', 'dist/native/remover');
installBinary('services-agent', 'dist/native/services-agent');
const { outputFiles } = await build({
  ...common,
  entryPoints: names.map((name) => `helpers/${name}.ts`),
  outdir: programs,
  plugins: [pinoWithoutThreads],
  // Names stay, for stack traces.
  minifyWhitespace: true,
  minifySyntax: true,
});
const loader = readFileSync(join(root, 'bundle/loader.cjs'), 'utf8');
const current = new Set();
for (const [i, name] of names.entries()) {
  // As Node's own loader has it, for bundle/loader.cjs.
  const text = `(function (exports, require, module, __filename, __dirname) {${outputFiles[i].text}\n})`;
  // A name for each content: bytecode never meets a source that it was not made from, not even while this runs.
  const program = `${name}-${createHash('sha256').update(text).digest('hex').slice(0, 12)}`;
  const executable = join(helpers, `${name}.cjs`);
  writeFileSync(join(programs, `${program}.cjs`), text);
  replaceFile(executable, `#!/usr/bin/env node\n${loader.replaceAll('PROGRAM', program)}`, 0o755);
  await keepBytecode(executable, TRIALS[name], join(programs, `${program}.cache`));
  current.add(`${program}.cjs`).add(`${program}.cache`);
}
for (const name of readdirSync(programs)) if (!current.has(name)) rmSync(join(programs, name));
// The library, for programs that embed the helpers.
await build({
  ...common,
  entryPoints: ['src/index.ts'],
  outfile: join(root, 'dist/lib/index.js'),
  format: 'esm',
  define: {},
  packages: 'external',
  write: true,
});
const tables = await build({ ...common, entryPoints: ['bundle/front-tables.ts'], format: 'esm', outdir: programs });
const { FRONT_TABLES } = await import(`data:text/javascript,${encodeURIComponent(tables.outputFiles[0].text)}`);
for (const [name, text] of Object.entries(FRONT_TABLES)) replaceFile(join(helpers, `${name}.options`), text, 0o644);
for (const [name, front] of Object.entries(FRONTS)) installBinary(front, join('dist/helpers', name));

/** Runs an executable to where it is ready, or its end if it has one. What comes of it is a matter of speed only. */
async function keepBytecode(executable, trial = () => ['--help'], cache) {
  const folder = mkdtempSync(join(tmpdir(), 'passel-trial-'));
  const child = spawn(
    process.execPath,
    ['--require', join(root, 'bundle/note-bytecode.cjs'), executable, ...trial(folder)],
    {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      env: { PATH: process.env.PATH, PASSEL_BYTECODE: `${cache}.new`, PASSEL_DAEMON: '3' },
      timeout: TRIAL_TIMEOUT_MS,
    },
  );
  child.stdio[3].once('data', () => child.kill('SIGTERM'));
  await once(child, 'close');
  rmSync(folder, { recursive: true });
  if (existsSync(`${cache}.new`)) renameSync(`${cache}.new`, cache);
}

function replaceFile(path, content, mode) {
  writeFileSync(`${path}.new`, content, { mode });
  renameSync(`${path}.new`, path);
}

/** Replaced as a whole: a process that has the old one mapped would crash if its pages changed underneath. */
function installBinary(built, target) {
  const path = join(root, target);
  copyFileSync(join(root, 'build/Release', built), `${path}.new`);
  renameSync(`${path}.new`, path);
}
