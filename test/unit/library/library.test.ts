import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';

it('the library can be imported by its name, and a helper made of it answers', () => {
  const program = `
    import { createPrHelperServer, createSocketPair, loadNative, openPrManager, silentLogger } from 'passel';
    import { openSync } from 'node:fs';
    const native = loadNative();
    const server = createPrHelperServer({ native, log: silentLogger });
    const [ours, theirs] = createSocketPair(native);
    server.attach(theirs);
    const client = await openPrManager(native, ours);
    const { status } = await client.reserveIn(openSync('/dev/null', 'r'), 0);
    client.close();
    await server.stop();
    console.log(status);`;
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: PROJECT_ROOT,
    encoding: 'utf8',
    timeout: 15_000,
  });
  expect(output).toBe('2\n');
});
