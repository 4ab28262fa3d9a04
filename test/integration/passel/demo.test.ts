/** `passel demo` with every kind of guest that this machine allows. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join, resolve } from 'node:path';
import { expect, it } from 'vitest';
import { needCommand, needNamespaces, needQemu, needTun, requireOrSkip } from '../../support/netns/capabilities.ts';
import { getKernel, needKernel } from '../../support/qemu-guest/kernel.ts';

const PASSEL = join(resolve(import.meta.dirname, '../../..'), 'dist/helpers/passel.cjs');
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

async function runDemo(kind: string, env: NodeJS.ProcessEnv = {}): Promise<{ status: number | null; output: string }> {
  const child = spawn(process.execPath, [PASSEL, 'demo', '--guest', kind], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, output };
}

function expectAllShown(output: string, title: RegExp): void {
  expect(output).toMatch(title);
  expect(output).not.toContain('FAIL');
  for (const scene of SCENES) expect(output).toMatch(new RegExp(`^ {2}(ok|- ) +${scene} `, 'm'));
  expect(output).toMatch(/host to guest +\d+\.\d\d Gbit\/s/);
  expect(output).toMatch(/guest to host +\d+\.\d\d Gbit\/s/);
}

const anywhere = await requireOrSkip();
anywhere('the demo on any machine', () => {
  it('shows everything with the built-in guest', async () => {
    const { status, output } = await runDemo('built-in');
    expectAllShown(output, /The guest is a small network host inside this program/);
    expect(status).toBe(0);
  });
});

const withNamespaces = await requireOrSkip(needNamespaces, needTun);
withNamespaces('the demo with namespaces', () => {
  it("shows everything with the kernel's own network stack as guest", async () => {
    const { status, output } = await runDemo('namespace');
    expectAllShown(output, /The guest is a network namespace/);
    expect(status).toBe(0);
  });
});

const withQemu = await requireOrSkip(needQemu, needCommand('busybox', 'busybox-static'), needKernel('cloud'));
withQemu('the demo with QEMU', () => {
  it('shows everything with a virtual machine as guest', async () => {
    const kernel = await getKernel('cloud');
    const { status, output } = await runDemo('qemu', { PASSEL_KERNEL: kernel.image });
    expectAllShown(output, /The guest is a QEMU virtual machine \(.*, Linux \d/);
    expect(status).toBe(0);
  });
});
