/** The commands about this machine, as they are run: passel doctor and passel install-links. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { type RunResult, runProcess } from '../../support/netns/process.ts';

const passel = (args: string[], env: Record<string, string> = {}): Promise<RunResult> =>
  runProcess(process.execPath, [join(PROJECT_ROOT, 'dist/helpers/passel.cjs'), ...args], { check: false, env });

describe('passel doctor', () => {
  it('says the same to people and to programs', async () => {
    const [people, programs] = [await passel(['doctor']), await passel(['doctor', '--json'])];
    expect([people.status, programs.status, people.stderr, programs.stderr]).toEqual([0, 0, '', '']);
    const { findings } = JSON.parse(programs.stdout) as { findings: { id: string; found: string; remedy: string }[] };
    for (const { id, found, remedy } of findings) {
      expect(people.stdout).toMatch(new RegExp(`^(ok|limited|MISSING) +${id} `, 'm'));
      expect(people.stdout).toContain(found);
      expect(people.stdout).toContain(remedy);
    }
  });
  it('ends with status 1 where the addon does not load', async () => {
    const answer = await passel(['doctor'], { PASSEL_NATIVE: '/nonexistent.node' });
    expect(answer).toMatchObject({ status: 1, stderr: '' });
    expect(answer.stdout).toMatch(/^MISSING addon /m);
  });
});

describe('passel install-links', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'passel links '));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('makes names that start ours, and says who finds what', async () => {
    const answer = await passel(['install-links', folder]);
    expect(answer).toMatchObject({ status: 0, stderr: '' });
    expect(answer.stdout).toContain(`export PATH='${folder}':"$PATH"`);
    expect(answer.stdout).toMatch(/^programs started from here:\n {2}passt: .*put .* in front$|passt: not found; add/m);
    const version = await runProcess('passt', ['--version'], { env: { PATH: `${folder}:${process.env['PATH']}` } });
    expect(version.stdout).toMatch(/^passel-passt \d/);
    const again = await passel(['install-links', folder], { PATH: `${folder}:${process.env['PATH']}` });
    expect(again.stdout).toContain('programs started from here:\n  passt: ours');
  });
  it('leaves alone what is not ours', async () => {
    await rm(join(folder, 'passt'));
    await writeFile(join(folder, 'passt'), 'mine');
    const answer = await passel(['install-links', folder]);
    expect(answer).toMatchObject({ status: 1, stdout: '' });
    expect(answer.stderr).toContain('--force replaces it');
    expect(await readFile(join(folder, 'passt'), 'utf8')).toBe('mine');
  });
  it.each([[[]], [['a', 'b']]])('needs one directory (%j)', async (args) => {
    const answer = await passel(['install-links', ...args]);
    expect(answer.status).toBe(1);
    expect(answer.stderr).toContain('expected one directory');
  });
});
