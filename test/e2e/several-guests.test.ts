/** Three QEMU guests on one network of passel-passt, each with its own link: leases, names, ways to each other and to the host, a restart. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/process.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';
import { type StackProcess, startStack } from '../support/stack-process.ts';
import { isDebianStack, stackCommand } from '../support/stack-under-test.ts';
import { GET_DHCPV4_LEASE } from './guest-commands.ts';

const ADDRESSES = { web: '10.0.2.15', db: '10.0.2.16', mail: '10.0.2.17' };
type Name = keyof typeof ADDRESSES;
const NAMES = Object.keys(ADDRESSES) as Name[];
const BYTES = 20 * 1024 * 1024;

const suite = await requireOrSkip(needNamespaces, needVeth, ...needGuest('cloud'));

describe.runIf(!isDebianStack())('several links', () =>
  suite('QEMU guests on one network', () => {
    let host: Host;
    let stack: StackProcess;
    const guests = new Map<Name, Guest>();
    const guest = (name: Name): Guest => guests.get(name)!;
    const socketOf = (name: Name): string => join(host.directory, `${name}.socket`);

    const start = async (): Promise<void> => {
      const links = NAMES.flatMap((name) => [
        '--netdev',
        `stream,id=${name},server=on,addr.type=unix,addr.path=${socketOf(name)}`,
      ]);
      stack = startStack(host, stackCommand(), ['--foreground', ...links, '-t', '2222:db/22']);
      await waitUntil('the network', () => stack.output().includes('mail: QEMU 7.2 or later joins'), 20_000);
    };
    const boot = async (name: Name): Promise<void> => {
      const netdev = `stream,id=n0,server=off,addr.type=unix,addr.path=${socketOf(name)}`;
      guests.set(name, await bootGuest({ netdev, mac: `52:54:00:00:00:0${NAMES.indexOf(name) + 1}` }));
    };
    const leaseOf = async (name: Name): Promise<string> => {
      await guest(name).check(GET_DHCPV4_LEASE, { timeoutMs: 60_000 });
      return guest(name).check("ip -4 -o addr show dev eth0 | sed 's/.*inet //;s/ .*//'");
    };

    beforeAll(async () => {
      host = await createHost();
      await start();
      await Promise.all(NAMES.map(boot));
      for (const name of NAMES) expect([name, await leaseOf(name)]).toEqual([name, `${ADDRESSES[name]}/24`]);
    }, 180_000);

    afterAll(async () => {
      await Promise.all([...guests.values()].map((each) => each.stop()));
      if (stack !== undefined) expect(await stack.stop()).toBe(0);
      await host?.close();
    });

    it('are reached by their names, and reach the host', async () => {
      for (const from of NAMES) {
        for (const to of NAMES) {
          if (from === to) continue;
          expect(await guest(from).check(`ping -c 1 -W 10 ${to}`)).toContain(`(${ADDRESSES[to]})`);
        }
        expect(await guest(from).check('ping -c 1 -W 10 10.0.2.2')).toContain('1 packets received');
      }
    }, 120_000);

    it('move 20 MB from one to another', async () => {
      const receiving = await guest('db').start(
        'socat -u TCP-LISTEN:5000,reuseaddr CREATE:/tmp/received; sha256sum < /tmp/received; wc -c < /tmp/received',
      );
      await guest('db').check("until netstat -ltn | grep -q ':5000 '; do sleep 0.1; done");
      const sent = await guest('web').check(
        `head -c ${BYTES} /dev/urandom > /tmp/sent && socat -u FILE:/tmp/sent TCP:db:5000; sha256sum < /tmp/sent`,
        { timeoutMs: 120_000 },
      );
      const { stdout } = await receiving.wait({ timeoutMs: 120_000 });
      expect(stdout.trim().split('\n')).toEqual([sent, String(BYTES)]);
    }, 240_000);

    it('are reached from beyond the host by a forward to their name', async () => {
      const serving = await guest('db').start('echo hello from db | socat -u - TCP-LISTEN:22,reuseaddr');
      await guest('db').check("until netstat -ltn | grep -q ':22 '; do sleep 0.1; done");
      const { stdout } = await host.wan.run('socat', ['-u', `TCP:${HOST_NET.hostV4}:2222`, '-']);
      expect(stdout).toBe('hello from db\n');
      await serving.wait({ timeoutMs: 30_000 });
    }, 60_000);

    it('have the addresses that they had after a restart of the network, whoever comes first', async () => {
      expect(await stack.stop()).toBe(0);
      await Promise.all([...guests.values()].map((each) => each.stop()));
      await start();
      for (const name of ['mail', 'web'] as const) {
        await boot(name);
        expect([name, await leaseOf(name)]).toEqual([name, `${ADDRESSES[name]}/24`]);
      }
      expect(await guest('mail').check('ping -c 1 -W 10 web')).toContain(`(${ADDRESSES.web})`);
    }, 180_000);
  }),
);
