/**
 * `passel demo` with every kind of guest it knows: it shows all scenes, says what the guest was and what would be more real,
 * is done within a minute and leaves nothing behind. In an isolated host, so its servers meet nobody else's.
 */
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  findCommand,
  needNamespaces,
  needTun,
  needVeth,
  type Requirement,
  requireOrSkip,
} from '../support/netns/capabilities.ts';
import { createHost, type Host } from '../support/netns/host.ts';
import { needGuest } from '../support/qemu-guest/guest.ts';
import { getKernel } from '../support/qemu-guest/kernel.ts';

const PASSEL = fileURLToPath(new URL('../../dist/helpers/passel.cjs', import.meta.url));
const MINUTE_MS = 60_000;

const KINDS: { kind: string; description: RegExp; needs: Requirement[] }[] = [
  { kind: 'qemu', description: /The guest is a QEMU virtual machine/, needs: needGuest('cloud') },
  { kind: 'namespace', description: /The guest is a network namespace/, needs: [needTun] },
  { kind: 'built-in', description: /The guest is a small network host inside this program/, needs: [] },
];

/** What a new user must have seen, each as a line that begins with `ok`. */
const SCENES = [
  'DHCP lease',
  'router advertisement',
  'name resolution',
  'web page over IPv4',
  'web page over IPv6',
  'connection into the guest',
  'host to guest',
  'guest to host',
];

for (const { kind, description, needs } of KINDS) {
  const describeKind = await requireOrSkip(needNamespaces, needVeth, ...needs);

  describeKind(`passel demo with a guest of kind ${kind}`, () => {
    let host: Host;

    beforeAll(async () => {
      host = await createHost();
    });

    afterAll(async () => {
      await host?.close();
    });

    it('shows every scene within a minute and leaves nothing behind', async () => {
      const env = kind === 'qemu' ? { PASSEL_KERNEL: (await getKernel('cloud')).image } : {};
      const { status, stdout, stderr } = await host.run(process.execPath, [PASSEL, 'demo', '--guest', kind], {
        check: false,
        timeoutMs: MINUTE_MS,
        env,
      });
      expect(stdout).toMatch(description);
      const shown = stdout
        .split('\n')
        .filter((line) => line.startsWith('  ok '))
        .map((line) => SCENES.find((scene) => line.includes(scene)));
      expect(shown, `${stdout}${stderr}`).toEqual(SCENES);
      expect(status).toBe(0);
      expect(host.processes()).toEqual([]);
    });
  });
}

const describePoor = await requireOrSkip(needNamespaces, needVeth);

describePoor('passel demo without QEMU', () => {
  let host: Host;

  beforeAll(async () => {
    host = await createHost();
  });

  afterAll(async () => {
    await host?.close();
  });

  it('takes the next best guest by itself and says what a better one needs', async () => {
    const programs = join(host.directory, 'programs');
    await mkdir(programs);
    await symlink(findCommand('sh'), join(programs, 'sh'));
    const { status, stdout } = await host.run('env', [`PATH=${programs}`, process.execPath, PASSEL, 'demo'], {
      check: false,
      timeoutMs: MINUTE_MS,
    });
    expect(stdout).toMatch(/The guest is (a network namespace|a small network host)/);
    expect(stdout).toMatch(/more real[^\n]*qemu/i);
    expect(status).toBe(0);
  });

  it('refuses a guest that this computer does not allow, with the reason', async () => {
    const { status, stderr } = await host.run(
      'env',
      [`PATH=${host.directory}`, process.execPath, PASSEL, 'demo', '--guest', 'qemu'],
      { check: false },
    );
    expect(status).toBe(1);
    expect(stderr).toContain('qemu');
  });
});
