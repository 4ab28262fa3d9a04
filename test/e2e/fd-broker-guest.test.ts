/** A card on a network of the stack under test comes into a running guest, gets a lease, moves data, and goes, by `passel-fd-broker qmp`. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { runProcess } from '../support/netns/process.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';
import { fetchAndHash, GET_DHCPV4_LEASE, parseEnvironment } from './guest-commands.ts';
import { type ListeningStack, startListeningStack } from './listening-stack.ts';

const BROKER = join(PROJECT_ROOT, 'dist/helpers/passel-fd-broker.cjs');
const MAC = '52:54:00:70:61:75';
const BYTES = 1024 * 1024;
const suite = await requireOrSkip(needNamespaces, needVeth, ...needGuest('cloud'));

suite('a card plugged into a running guest', () => {
  let host: Host;
  let onWan: Agent;
  let stack: ListeningStack;
  let guest: Guest;
  let monitor: string;
  const qmp = (...args: string[]) =>
    runProcess(process.execPath, [BROKER, 'qmp', monitor, ...args], { timeoutMs: 90_000 });

  beforeAll(async () => {
    host = await createHost();
    onWan = await startAgent(host.wan);
    await onWan.serveHttp({ host: '0.0.0.0', port: 8080 });
    stack = await startListeningStack(host, []);
    monitor = join(host.directory, 'monitor');
    guest = await bootGuest({ extraArgs: ['-qmp', `unix:${monitor},server=on,wait=off`] });
  }, 120_000);
  afterAll(async () => {
    await guest?.stop();
    await stack?.stop();
    await host?.close();
  });

  it.each(['first', 'second'])(
    'appears, gets a lease, moves data and goes: the %s time',
    async () => {
      expect(await guest.check('ls /sys/class/net')).not.toContain('eth0');
      await qmp('hotplug-nic', 'hot0', '--passt', stack.socketPath, '--mac', MAC);
      await guest.check('until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; ip link set eth0 up');
      expect(await guest.check('cat /sys/class/net/eth0/address')).toBe(MAC);
      await guest.check(GET_DHCPV4_LEASE);
      expect(parseEnvironment(await guest.check('cat /tmp/dhcp4.env'))).toMatchObject({ ip: HOST_NET.hostV4 });
      const expected = await onWan.hashPattern({ lengthBytes: BYTES, seed: 4 });
      expect(await guest.check(fetchAndHash(`http://${HOST_NET.remoteV4}:8080/bytes/${BYTES}/4`))).toBe(expected);

      await qmp('hot-unplug', 'hot0', '--timeout', '60');
      await guest.check('while [ -e /sys/class/net/eth0 ]; do sleep 0.1; done');
      expect(await guest.qmp.executeHuman('info network')).not.toContain('hot0');
      // The stack has seen its guest go, or the second card would get no lease from it.
      expect(stack.running()).toBe(true);
    },
    120_000,
  );
});
