/**
 * A machine with nothing to boot from but its network: the ROM of QEMU's virtio card (iPXE) finds a script and a kernel by DHCP and TFTP. The
 * kernel has no root file system: its first lines on the serial console tell that it runs, and with which command line.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, type Host } from '../support/netns/host.ts';
import { stopChild, waitUntil } from '../support/netns/namespace.ts';
import { needGuest } from '../support/qemu-guest/guest.ts';
import { getKernel } from '../support/qemu-guest/kernel.ts';
import { isDebianStack } from '../support/stack-under-test.ts';
import { type ListeningStack, startListeningStack } from './listening-stack.ts';

const BOOT_TIMEOUT_MS = 110_000;

const describeSuite = await requireOrSkip(needNamespaces, needVeth, ...needGuest('cloud'));

(isDebianStack() ? describe.skip : describeSuite)('a machine without disks in the network of -netdev user', () => {
  let host: Host;
  let stack: ListeningStack;
  let machine: ChildProcess;

  beforeAll(async () => {
    host = await createHost();
    const folder = join(host.directory, 'boot');
    await mkdir(folder);
    await copyFile((await getKernel('cloud')).image, join(folder, 'vmlinuz'));
    await writeFile(join(folder, 'boot.ipxe'), '#!ipxe\nkernel vmlinuz console=ttyS0 panic=-1 came-by-tftp\nboot\n');
    stack = await startListeningStack(host, ['--debug', '--user-net', `tftp=${folder},bootfile=/boot.ipxe`]);
  });

  afterAll(async () => {
    if (machine !== undefined) await stopChild(machine);
    await stack?.stop();
    await host?.close();
  });

  it('boots a kernel by TFTP', async () => {
    const console = join(host.directory, 'console');
    machine = spawn(
      'qemu-system-x86_64',
      [
        ...[
          '-nodefaults',
          '-no-user-config',
          '-display',
          'none',
          '-machine',
          'pc,graphics=off',
          '-accel',
          'tcg',
          '-no-reboot',
        ],
        ...['-m', '192', '-serial', `file:${console}`, '-boot', 'n'],
        ...['-netdev', stack.netdev, '-device', 'virtio-net-pci,netdev=n0'],
      ],
      { stdio: 'ignore' },
    );
    const read = (): Promise<string> => readFile(console, 'latin1').catch(() => '');
    await waitUntil(
      'a kernel on the console',
      async () => /Command line:[^\n]*\n/.test(await read()),
      BOOT_TIMEOUT_MS,
      200,
    );
    expect(await read()).toContain('came-by-tftp');
    expect(stack.output()).toContain("TFTP: '/boot.ipxe' sent");
  });
});
