import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { expect, it } from 'vitest';

it('20 000 frames in each direction, of a stream and of a tap with offloads, leave less than a byte each on the heap', () => {
  const directory = mkdtempSync(join(tmpdir(), 'passel-link-allocations-'));
  try {
    const outfile = join(directory, 'run.cjs');
    const entry = fileURLToPath(new URL('allocations.run.ts', import.meta.url));
    buildSync({ entryPoints: [entry], bundle: true, platform: 'node', outfile, logLevel: 'error' });
    const { bytes } = JSON.parse(execFileSync(process.execPath, [outfile], { encoding: 'utf8' })) as {
      bytes: Record<string, number>;
    };
    expect(Object.keys(bytes)).toEqual(['fromGuest', 'toGuest', 'fromTap', 'toTap']);
    for (const [direction, perFrame] of Object.entries(bytes)) expect(perFrame, direction).toBeLessThan(1);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
