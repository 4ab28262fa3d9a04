// Makes a fresh clone ready: installs packages, builds the addon, bundles the executables. Uses Node's own modules only, since it
// runs before anything is installed. Each step keeps a stamp of what went into it, so a second call with nothing changed costs
// a few milliseconds and prints nothing.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(fileURLToPath(import.meta.url));
const stampDir = join(root, '.bootstrap');

/** Every file below `path` (or `path` itself), sorted, so that the stamp does not depend on directory order. */
function filesBelow(path) {
  const full = join(root, path);
  if (!existsSync(full)) return [];
  if (statSync(full).isFile()) return [path];
  return readdirSync(full)
    .sort()
    .flatMap((name) => filesBelow(join(path, name)));
}

function stampOf(inputs) {
  const hash = createHash('sha256').update(process.version).update(process.arch);
  for (const file of inputs.flatMap(filesBelow)) hash.update(file).update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

/** Runs a command quietly; its output is shown only when it fails, since that is when a reader needs it. */
function runQuietly(what, command, args, cwd = root) {
  const result = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 64 << 20 });
  if (result.status === 0) return;
  process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`);
  process.stderr.write(
    `bootstrap: ${what} failed (${command} ${args.join(' ')}): ${result.error?.message ?? `exit ${result.status}`}\n`,
  );
  process.exit(1);
}

/**
 * Two bootstraps at once (two test runs, say) would pull the packages from under each other: the second waits. The lock names its
 * owner, so that one left behind by a killed process is taken over.
 */
function takeLock() {
  const lock = join(stampDir, 'lock');
  mkdirSync(stampDir, { recursive: true });
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      process.on('exit', () => rmSync(lock, { force: true }));
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    let owner = '';
    try {
      owner = readFileSync(lock, 'utf8');
    } catch {}
    if (owner !== '' && !existsSync(`/proc/${owner}`)) rmSync(lock, { force: true });
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
}

function step(name, message, inputs, outputs, work) {
  const stamp = stampOf(inputs);
  const file = join(stampDir, name);
  const done =
    existsSync(file) && readFileSync(file, 'utf8') === stamp && outputs.every((o) => existsSync(join(root, o)));
  if (done) return;
  process.stderr.write(`bootstrap: ${message}\n`);
  work();
  mkdirSync(stampDir, { recursive: true });
  writeFileSync(file, stamp);
}

/** Node's headers beside the running executable, when it has them: node-gyp then has nothing to download. */
function headerArgs() {
  const prefix = dirname(dirname(process.execPath));
  return existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

const nodeGyp = join(root, 'node_modules/node-gyp/bin/node-gyp.js');

function buildAddon(what, cwd, extra = []) {
  runQuietly(what, process.execPath, [nodeGyp, 'rebuild', ...headerArgs(), ...extra], cwd);
}

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(`bootstrap: Node ${process.versions.node} is too old: passel needs 20.19 or newer\n`);
  process.exit(1);
}

takeLock();

step(
  'install',
  'installing packages',
  ['package.json', 'package-lock.json'],
  ['node_modules/typescript', 'node_modules/raw-socket/build'],
  () => {
    // Install scripts stay off: newer npm versions refuse them unless approved, and the two addons are built below in the same way everywhere.
    runQuietly('npm ci', 'npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
    for (const name of ['raw-socket', 'unix-dgram']) buildAddon(`building ${name}`, join(root, 'node_modules', name));
  },
);

step(
  'addon',
  'building the C addon',
  ['binding.gyp', 'src/native'],
  ['passel.node', 'front', 'launcher', 'namespace-agent', 'remover', 'services-agent'].map(
    (name) => `build/Release/${name}`,
  ),
  () => buildAddon('building the C addon', root),
);

step(
  'bundle',
  'bundling the executables',
  ['src', 'helpers', 'bundle', 'bundle.mjs', 'package-lock.json'],
  ['passel.cjs', 'passel-qrap', 'passel-pr-helper', 'passel-passt', 'passel-fd-broker'].map(
    (name) => `dist/helpers/${name}`,
  ),
  () => runQuietly('bundling', process.execPath, [join(root, 'bundle.mjs')]),
);

// For packing only: it takes longer than all that is needed to run.
if (process.argv.includes('--types')) {
  step(
    'types',
    "declaring the library's types",
    ['src', 'tsconfig.json', 'tsconfig.types.json', 'package-lock.json'],
    ['dist/lib/index.d.ts'],
    () => {
      for (const name of filesBelow('dist/lib')) if (name.endsWith('.d.ts')) rmSync(join(root, name));
      runQuietly('tsc', process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.types.json']);
    },
  );
}
