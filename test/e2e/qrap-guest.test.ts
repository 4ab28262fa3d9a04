/**
 * Real guests behind qrap: ours in both of its modes with our passt and with Debian's, and Debian's qrap with our passt. A guest
 * that has its lease has a card, a netdev and a socket that fit together.
 */
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { needDebianQrap, needMounts } from '../integration/qrap/place.ts';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/namespace.ts';
import { bootGuest, needGuest } from '../support/qemu-guest/guest.ts';
import { startStack } from '../support/stack-process.ts';
import { type StackName, stackCommand } from '../support/stack-under-test.ts';
import { GET_DHCPV4_LEASE } from './guest-commands.ts';

/**
 * Runs a command where /tmp has the folders that it has outside, and `SOCKET` as the only socket of a passt. PATH has one QEMU, so
 * that a `kvm` of the machine's is not found.
 */
const ENTER = `
  for folder in /tmp/*/; do mkdir "$VIEW/tmp/$(basename "$folder")" && mount --bind "$folder" "$VIEW/tmp/$(basename "$folder")"; done
  touch "$VIEW/tmp/passt_1.socket"
  mount --bind "$SOCKET" "$VIEW/tmp/passt_1.socket"
  mount --rbind "$VIEW/tmp" /tmp
  export PATH="$VIEW/bin"
  exec "$@"`;

const OURS = join(PROJECT_ROOT, 'dist/helpers/passel-qrap');
const DEBIANS = '/usr/bin/qrap';

/** For the mode that patches: bootGuest puts the program's name in front of the arguments, where qrap wants none. */
const WITHOUT_NAME = ['/bin/sh', '-c', 'qrap=$1; shift 2; exec "$qrap" "$@"', 'sh'];

/** With the port that C's qrap names for this machine. */
const Q35 = ['-machine', 'pc-q35-7.2', '-device', 'pcie-root-port,id=pci.3,chassis=3'];
const FIVE = ['-netdev', 'socket,fd=5,id=n0', '-device', 'virtio-net-pci,netdev=n0'];

interface Combination {
  readonly name: string;
  readonly launcher: readonly string[];
  readonly extraArgs: readonly string[];
  readonly passt: StackName;
}

const COMBINATIONS: readonly Combination[] = [
  { name: 'a patched line, ports, our passt', launcher: [...WITHOUT_NAME, OURS], extraArgs: Q35, passt: 'ours' },
  {
    name: "a patched line, no ports, Debian's passt",
    launcher: [...WITHOUT_NAME, OURS],
    extraArgs: [],
    passt: 'debian',
  },
  { name: 'number and command, our passt', launcher: [OURS, '5'], extraArgs: FIVE, passt: 'ours' },
  { name: "number and command, Debian's passt", launcher: [OURS, '5'], extraArgs: FIVE, passt: 'debian' },
  {
    name: "Debian's qrap, a patched line, our passt",
    launcher: [...WITHOUT_NAME, DEBIANS],
    extraArgs: Q35,
    passt: 'ours',
  },
];

const describeGuests = await requireOrSkip(needNamespaces, needVeth, needMounts, needDebianQrap, ...needGuest('cloud'));

describeGuests('a guest behind qrap gets its lease', () => {
  let host: Host;
  beforeAll(async () => {
    host = await createHost();
  });
  afterAll(async () => {
    await host?.close();
  });

  it.each(COMBINATIONS)('$name', async ({ launcher, extraArgs, passt, name }) => {
    const view = join(host.directory, `view-${COMBINATIONS.findIndex((each) => each.name === name)}`);
    await mkdir(join(view, 'tmp'), { recursive: true });
    await mkdir(join(view, 'bin'));
    await symlink('/usr/bin/qemu-system-x86_64', join(view, 'bin/qemu-system-x86_64'));
    const socket = join(host.directory, `${passt}-${view.at(-1)}`);
    const stack = startStack(host, stackCommand(passt), ['--foreground', '--socket', socket]);
    try {
      await waitUntil('passt to listen', async () => {
        const { stdout } = await host.run('cat', ['/proc/net/unix']);
        return stdout.split('\n').some((text) => text.endsWith(` ${socket}`) && text.includes(' 00010000 '));
      });
      const unshare = process.getuid?.() === 0 ? ['-m'] : ['-U', '-r', '-m'];
      const [command, args] = host.enter('env', [`VIEW=${view}`, `SOCKET=${socket}`, 'unshare', ...unshare]);
      const guest = await bootGuest({ launcher: [command, ...args, 'sh', '-c', ENTER, 'sh', ...launcher], extraArgs });
      try {
        await guest.check(GET_DHCPV4_LEASE);
        expect(await guest.check('ip -4 -o addr show dev eth0')).toContain(`${HOST_NET.hostV4}/24`);
      } finally {
        await guest.stop();
      }
      expect(guest.child.exitCode).toBe(0);
    } finally {
      await stack.stop();
    }
  });
});
