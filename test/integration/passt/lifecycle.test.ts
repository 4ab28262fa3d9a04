/** How a stack starts and ends, as callers and guests see it; what only concerns our command line is tested with it. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { createHost, type Host } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';
import { ScriptedGuest, sleep } from '../../support/scripted-guest.ts';
import { type StackProcess, startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

rigSuite('the life of a stack', () => {
  let host: Host;
  let serial = 0;
  let stack: StackProcess | undefined;
  let guest: ScriptedGuest | undefined;
  beforeAll(async () => {
    host = await createHost();
  });
  afterEach(async () => {
    await guest?.close();
    await stack?.stop();
    guest = undefined;
    stack = undefined;
  });
  afterAll(() => host?.close());

  const newPath = (): string => `${host.directory}/stack-${serial++}`;

  for (const signal of ['SIGTERM', 'SIGQUIT'] as const) {
    it(`ends with status 0 on ${signal}, with a guest connected`, async () => {
      const path = newPath();
      stack = startStack(host, stackCommand(), ['--foreground', '--socket', path]);
      guest = await ScriptedGuest.connect(path);
      await guest.checkAlive();
      stack.child.kill(signal);
      expect(await stack.exited()).toBe(0);
      await guest.closed;
    });
  }

  it('ends with status 0 when its only guest has left, with --one-off', async () => {
    const path = newPath();
    stack = startStack(host, stackCommand(), ['--foreground', '--one-off', '--socket', path]);
    guest = await ScriptedGuest.connect(path);
    await guest.checkAlive();
    await guest.close();
    expect(await Promise.race([stack.exited(), sleep(3_000).then(() => 'still there')])).toBe(0);
  });

  it('waits for the next guest without --one-off', async () => {
    const path = newPath();
    stack = startStack(host, stackCommand(), ['--foreground', '--socket', path]);
    for (let i = 0; i < 3; i++) {
      guest = await ScriptedGuest.connect(path);
      await guest.checkAlive();
      await guest.close();
    }
    expect(stack.running()).toBe(true);
  });

  it('listens and has written its PID file when its launcher exits with status 0', async () => {
    const path = newPath();
    const { command, args } = stackCommand();
    const started = await host.run(command, [...args, '--socket', path, '--pid', `${path}.pid`], { check: false });
    expect(started).toMatchObject({ status: 0 });
    const pid = Number(readFileSync(`${path}.pid`, 'utf8'));
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    guest = await ScriptedGuest.connect(path, 0);
    await guest.checkAlive();
    process.kill(pid, 'SIGTERM');
    await waitUntil('the daemon to end', () => !existsSync(`/proc/${pid}`));
  });

  for (const [what, ...bad] of [
    ['an unknown option', '--no-such-option'],
    ['a port that is none', '-t', '70000'],
    ['a range that runs backwards', '-t', '20-10'],
    ['an address that is none', '--address', '192.0.2.300'],
    ['an MTU that is too small', '--mtu', '67'],
    ['both families alone', '--ipv4-only', '--ipv6-only'],
  ] as const) {
    it(`does not begin with ${what}: a message, status 1, no socket`, async () => {
      const path = newPath();
      const { command, args } = stackCommand();
      const result = await host.run(command, [...args, '--socket', path, ...bad], { check: false });
      expect(result.status).toBe(1);
      expect(result.stderr).not.toBe('');
      expect(existsSync(path)).toBe(false);
    });
  }
});

rigSuite('a guest that is unplugged', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig();
  });
  afterAll(() => rig?.close());

  itExceptOnDebian(
    'it goes on with the flows of the guest that is gone',
    'in the middle of transfers leaves nothing behind, and is served again when it is back',
    async () => {
      const { remote } = FAMILIES[0];
      const endless = { addr: remote, port: 5001, duration: 20, timeout: 25 };
      const server = await startListener(rig.wan, 'listen', { ...endless, accept: 20 });
      const cut = runPeer(rig.guest, 'connect', { ...endless, count: 20, timeout: 2 });
      await sleep(700);
      await rig.reconnect();
      await cut;
      // The guest's kernel forgot its connections; the stack has to tell the other side, then or when it hears of them again.
      await server.stop();
      await rig.waitUntilIdle();
      const again = await startListener(rig.wan, 'listen', { addr: remote, port: 5002, send: '5m', accept: 1 });
      const client = await runPeer(rig.guest, 'connect', { addr: remote, port: 5002, send: '5m' });
      expect(client).toMatchObject({ clean: 1, received: 5 << 20, mismatches: 0, errors: {} });
      await again.result();
    },
  );
});
