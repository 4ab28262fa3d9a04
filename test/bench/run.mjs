// Runs the benchmark. Node 20 does not strip types, so the TypeScript is bundled first; the bundle lies in node_modules/.cache.
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const folder = dirname(fileURLToPath(import.meta.url));
const outfile = join(folder, '../../node_modules/.cache/passel-bench/main.mjs');
await build({
  entryPoints: [join(folder, 'main.ts')],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  external: ['esbuild'],
  logLevel: 'warning',
});
await import(pathToFileURL(outfile).href);
