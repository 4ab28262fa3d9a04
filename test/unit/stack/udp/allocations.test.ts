import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { expect, it } from 'vitest';

it('20 000 datagrams in each direction and family leave less than a byte each on the heap, and so do frames of many', () => {
  const directory = mkdtempSync(join(tmpdir(), 'passel-allocations-'));
  try {
    const bundle = join(directory, 'run.cjs');
    const entry = fileURLToPath(new URL('allocations.run.ts', import.meta.url));
    buildSync({ entryPoints: [entry], bundle: true, platform: 'node', outfile: bundle, logLevel: 'error' });
    const figures = JSON.parse(execFileSync(process.execPath, [bundle], { encoding: 'utf8' })) as Record<
      string,
      number
    >;
    expect(Object.keys(figures)).toHaveLength(6);
    for (const [direction, bytes] of Object.entries(figures)) expect(bytes, direction).toBeLessThan(1);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
