import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';

interface Figures {
  readonly ns: number[];
  readonly nsWithoutCalls: number[];
  /** Growth of the process. */
  readonly bytesPerFlow: number;
  readonly columnBytes: number;
  readonly live: number;
}

interface Report {
  readonly flows: number[];
  readonly tcp: Figures;
  readonly udp: Figures;
  readonly idleMsPerSecond: number;
}

/** Costs against those with one flow. */
function ratios({ ns }: Figures): number[] {
  return ns.map((cost) => cost / ns[0]!);
}

describe('50 000 flows', () => {
  const directory = mkdtempSync(join(tmpdir(), 'passel-scale-'));
  const bundle = join(directory, 'run.mjs');
  const reports: Report[] = [];

  const run = (): Report => {
    const env = { ...process.env, PASSEL_NATIVE: join(PROJECT_ROOT, 'build/Release/passel.node') };
    const text = execFileSync(process.execPath, ['--expose-gc', bundle], { encoding: 'utf8', env });
    const report = JSON.parse(text) as Report;
    reports.push(report);
    return report;
  };

  beforeAll(() => {
    buildSync({
      entryPoints: [fileURLToPath(new URL('scale.run.ts', import.meta.url))],
      bundle: true,
      platform: 'node',
      format: 'esm',
      outfile: bundle,
      logLevel: 'error',
    });
    run();
  }, 120_000);

  afterAll(() => rmSync(directory, { recursive: true }));

  it.each(['tcp', 'udp'] as const)(
    'make a packet of %s cost at most 1.5 times what it costs with one flow',
    (kind) => {
      // Others that use the machine's caches make many flows look dear, and never cheap.
      while (Math.max(...ratios(reports.at(-1)![kind])) > 1.5 && reports.length < 3) run();
      const shown = JSON.stringify(reports.map((report) => report[kind]));
      expect(reports.at(-1)!.flows.at(-1)).toBe(50_000);
      expect(Math.max(...ratios(reports.at(-1)![kind])), shown).toBeLessThanOrEqual(1.5);
    },
    300_000,
  );

  it.each(['tcp', 'udp'] as const)('take less than 1 KiB each (%s), and all stay', (kind) => {
    const { bytesPerFlow, columnBytes, live } = reports[0]![kind];
    expect(live).toBe(50_000);
    expect(bytesPerFlow).toBeLessThan(1024);
    // Less than the process grows by when all kinds of flows take turns, and does not depend on when memory is given back.
    expect(columnBytes).toBeGreaterThan(100);
    expect(columnBytes).toBeLessThan(1024);
  });

  it('use no CPU while they are silent', () => {
    expect(Math.min(...reports.map((report) => report.idleMsPerSecond))).toBeLessThan(5);
  });
});
