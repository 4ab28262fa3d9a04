/** The process beside the stack that opens commands and files for the guest's network: how it starts and ends. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createHost, type Host } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

rigSuiteExceptOnDebian('it has no --user-net', 'the services of a stack in the background', () => {
  let host: Host;
  beforeAll(async () => {
    host = await createHost();
  });
  afterAll(async () => {
    await host?.close();
  });

  it('hold no stream of whoever started it, have no privileges, and end with it', async () => {
    const { command, args } = stackCommand();
    const pidPath = join(host.directory, 'pid');
    const options = ['--user-net', `tftp=${host.directory},guestfwd=tcp:10.0.2.100:1-cmd:cat`];
    // Ends once nobody has its standard error any more.
    const started = await host.run(command, [
      ...args,
      '-s',
      join(host.directory, 'socket'),
      '--pid',
      pidPath,
      ...options,
    ]);
    expect(started.status).toBe(0);
    const agent = host
      .processes()
      .find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith('passel-services'));
    expect(agent).toBeDefined();
    const status = readFileSync(`/proc/${agent}/status`, 'latin1');
    // An ordinary user's host is a user namespace whose root stays root.
    const isRoot = process.getuid?.() === 0;
    for (const line of isRoot ? ['Uid:\t65534\t65534', 'CapPrm:\t0+$', 'CapEff:\t0+$', 'CapAmb:\t0+$'] : []) {
      expect(status).toMatch(new RegExp(`^${line}`, 'm'));
    }
    await host.sh(`kill $(cat ${pidPath})`);
    await waitUntil('both to end', () => host.processes().length === 0, 30_000);
  });

  it('are refused when the folder is not there', async () => {
    const { command, args } = stackCommand();
    const options = ['-s', join(host.directory, 'socket'), '--user-net', 'tftp=/nowhere'];
    const { status, stderr } = await host.run(command, [...args, ...options], { check: false });
    expect(status).toBe(1);
    expect(stderr).toContain("--user-net tftp: cannot open '/nowhere'");
  });
});
