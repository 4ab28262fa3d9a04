// Runs the benchmark. Node 20 does not strip types, so the TypeScript is bundled first; the bundle lies in node_modules/.cache.
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const folder = dirname(fileURLToPath(import.meta.url));
// Links are measured without guests, by a program of their own.
const program = process.argv[2] === 'links' ? 'links' : 'main';
const outfile = join(folder, `../../node_modules/.cache/passel-bench/${program}.mjs`);
await build({
  entryPoints: [join(folder, `${program}.ts`)],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  external: ['esbuild'],
  logLevel: 'warning',
  // Asked for an addon, whoever is bundled finds require() only where somebody has made it.
  ...(program === 'links' && {
    banner: {
      js: "import { createRequire as makeRequire } from 'node:module'; const require = makeRequire(import.meta.url);",
    },
  }),
});
// The bundle does not lie where the addon is looked for.
if (program === 'links') process.env.PASSEL_NATIVE ??= join(folder, '../../build/Release/passel.node');
await import(pathToFileURL(outfile).href);
