/** The package as npm makes it: the examples of the README compile against its types, strictly, and its library and executables work. */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { type RunResult, runProcess } from '../../support/netns/process.ts';

/** Packing builds what has changed since the last build. */
const TIMEOUT_MS = 300_000;

/** As the strictest of users have it. */
const SETTINGS = {
  compilerOptions: {
    ...{ noEmit: true, strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
    ...{ target: 'es2022', module: 'nodenext', types: ['node'], skipLibCheck: false },
  },
};

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'passel-package-'));
  await runProcess('npm', ['pack', '--silent', '--offline', '--no-update-notifier', '--pack-destination', folder], {
    cwd: PROJECT_ROOT,
    timeoutMs: TIMEOUT_MS,
  });
  const [archive] = readdirSync(folder);
  mkdirSync(join(folder, 'node_modules/@types'), { recursive: true });
  execFileSync('tar', ['-xzf', archive!, '-C', 'node_modules'], { cwd: folder });
  execFileSync('mv', ['node_modules/package', 'node_modules/passel'], { cwd: folder });
  // What npm would install with it, and the types of Node, which users of Node have.
  const { dependencies } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  for (const name of [...Object.keys(dependencies), '@types/node', 'undici-types']) {
    symlinkSync(join(PROJECT_ROOT, 'node_modules', name), join(folder, 'node_modules', name));
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
}, TIMEOUT_MS);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function compile(sources: Readonly<Record<string, string>>): Promise<RunResult> {
  for (const [name, text] of Object.entries(sources)) writeFileSync(join(folder, name), text);
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ ...SETTINGS, files: Object.keys(sources) }));
  const compiler = join(PROJECT_ROOT, 'node_modules/typescript/bin/tsc');
  return runProcess(process.execPath, [compiler, '-p', '.'], { cwd: folder, check: false, timeoutMs: TIMEOUT_MS });
}

describe('the package', () => {
  it('has types by which the examples of the README compile, and what is wrong does not', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const readme = readFileSync(join(PROJECT_ROOT, 'README.md'), 'utf8');
    const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, text], index) => [
      `example-${index}.ts`,
      text!,
    ]);
    expect(examples.length).toBeGreaterThanOrEqual(2);
    // Line 8 is wrong and does not say so, which shows that all of it is looked at.
    const wrong = `import { type FdBroker, type PrAnswer, type PrHelperServer, type PrManagerClient, QmpClient } from 'passel';
      import { connectBroker, createReserveIn, judgeOutcome, loadNative, parseSense, writeSense } from 'passel';
      declare const client: PrManagerClient;
      declare const server: PrHelperServer;
      const broker: FdBroker = connectBroker(loadNative(), '/nowhere');
      const answer: PrAnswer = await client.reserveIn(3, 0);
      server.status().conflicts.toFixed();
      const status: string = answer.status;
      // @ts-expect-error
      client.reserveOut(3, 0, 0, 'no bytes');
      // @ts-expect-error
      server.activity.clients.forEach(({ peer }) => peer.name);
      console.log(broker, status, QmpClient, createReserveIn(0, 1), parseSense, writeSense, judgeOutcome);`;
    const { stdout } = await compile({ ...Object.fromEntries(examples), 'wrong.ts': wrong });
    expect(stdout).toMatch(/^wrong\.ts\(8,13\): error TS2322: [^\n]+\n$/);
  });

  it('has a library and executables that run from where it is installed', async () => {
    const program = `
      import { createPrHelperServer, createSocketPair, loadNative, openPrManager, silentLogger } from 'passel';
      import { openSync } from 'node:fs';
      const native = loadNative();
      const server = createPrHelperServer({ native, log: silentLogger });
      const [ours, theirs] = createSocketPair(native);
      server.attach(theirs);
      const client = await openPrManager(native, ours);
      const { status } = await client.reserveIn(openSync('/dev/null', 'r'), 0);
      console.log(status, server.activity.total.failures);
      client.close();
      await server.stop();`;
    writeFileSync(join(folder, 'program.mjs'), program);
    expect((await runProcess(process.execPath, ['program.mjs'], { cwd: folder })).stdout).toBe('2 1\n');
    const installed = join(folder, 'node_modules/passel');
    const { bin } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as {
      bin: Record<string, string>;
    };
    for (const path of Object.values(bin)) expect(existsSync(join(installed, path)), path).toBe(true);
    for (const path of ['man/passel-pr-helper.8', 'systemd/passel-pr-helper.socket', 'dist/native/remover']) {
      expect(existsSync(join(installed, path)), path).toBe(true);
    }
    const { stdout } = await runProcess(join(installed, bin['passel-pr-helper']!), ['--version']);
    expect(stdout).toMatch(/^passel-pr-helper \d/);
  });
});
