/**
 * Two QEMU guests on one bridge, in a network of their own: the card of one is made by the bridge helper as root, that of the other by an ordinary user's
 * helper through the broker. They find each other and move data.
 */
import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type BridgePlace, C_HELPER, createBridgePlace, needBridgeHelper } from '../support/bridge/caller.ts';
import { needCommand, needNamespaces, needRoot, needTun, requireOrSkip } from '../support/netns/capabilities.ts';
import { stopChild, waitUntil } from '../support/netns/process.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';

const SOCKET = '/mnt/broker.sock';
const BYTES = 20 * 1024 * 1024;

const suite = await requireOrSkip(
  needNamespaces,
  needRoot,
  needTun,
  needBridgeHelper,
  needCommand('setpriv', 'util-linux'),
  ...needGuest('cloud'),
);

suite('QEMU guests on a bridge', () => {
  let place: BridgePlace;
  let broker: ChildProcess;
  let log = '';
  const guests: Guest[] = [];

  const boot = async (netdev: string, mac: string, launcher: readonly string[]): Promise<Guest> => {
    const guest = await bootGuest({ netdev, mac, launcher });
    guests.push(guest);
    return guest;
  };
  const enter = (command: string, args: readonly string[]): string[] => place.namespace.enter(command, args).flat();

  beforeAll(async () => {
    place = await createBridgePlace(C_HELPER);
    await place.namespace.sh("printf 'allow br0\\n' > /etc/qemu/bridge.conf");
    const [command, ...args] = [...place.broker, 'serve', '--socket', SOCKET];
    broker = place.namespace.spawn(command!, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    broker.stderr!.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    await waitUntil('the broker', () => log.includes('serving on'), 20_000);
    const helper = place.helper[1]!;
    // A plain path: QEMU runs the helper itself.
    await boot(`bridge,id=n0,br=br0,helper=${helper}`, '52:54:00:00:00:01', enter('env', []));
    // With blanks: QEMU has a shell run it. The user may read the test's files, which lie in root's folders, but has no right to networks.
    const user = [
      '--reuid=1000',
      '--regid=1000',
      '--clear-groups',
      '--inh-caps=-all,+dac_override',
      '--ambient-caps=-all,+dac_override',
    ];
    await boot(
      `tap,id=n0,br=br0,helper=/usr/bin/env PASSEL_BROKER=${SOCKET} ${helper}`,
      '52:54:00:00:00:02',
      enter('setpriv', [...user, '--bounding-set=-all,+dac_override', 'env']),
    );
    for (const [index, guest] of guests.entries()) {
      await guest.check(`ip addr add 192.0.2.${index + 1}/24 dev eth0 && ip link set eth0 up`);
    }
  }, 180_000);

  afterAll(async () => {
    await Promise.all(guests.map((guest) => guest.stop()));
    if (broker !== undefined) expect(await stopChild(broker)).toBe(0);
    await place?.close();
  });

  it('has a port for each, with the MTU of the bridge and an address that does not become its own', async () => {
    const { stdout } = await place.namespace.sh(
      'for p in $(ls /sys/class/net/br0/brif); do cat /sys/class/net/$p/address; done',
    );
    expect(stdout.split('\n').filter((line) => line.startsWith('fe:'))).toHaveLength(2);
  });

  it('lets them ping each other', async () => {
    const [a, b] = guests;
    expect(await a!.check('ping -c 3 -W 5 192.0.2.2')).toContain(' 0% packet loss');
    expect(await b!.check('ping -c 3 -W 5 192.0.2.1')).toContain(' 0% packet loss');
  }, 60_000);

  it.each([
    [0, 1],
    [1, 0],
  ])(
    'moves 20 MB from guest %i to guest %i',
    async (from, to) => {
      const source = guests[from]!;
      const target = guests[to]!;
      const receiving = await target.start(
        'socat -u TCP-LISTEN:5000,reuseaddr CREATE:/tmp/received; sha256sum < /tmp/received; wc -c < /tmp/received',
      );
      await target.check("until netstat -ltn | grep -q ':5000 '; do sleep 0.1; done");
      const sent = await source.check(
        `head -c ${BYTES} /dev/urandom > /tmp/sent && socat -u FILE:/tmp/sent TCP:192.0.2.${to + 1}:5000; sha256sum < /tmp/sent`,
        { timeoutMs: 120_000 },
      );
      const { stdout } = await receiving.wait({ timeoutMs: 120_000 });
      expect(stdout.trim().split('\n')).toEqual([sent, String(BYTES)]);
    },
    240_000,
  );

  it('went through the broker for the user, and only for the user', () => {
    const lines = log.split('\n').filter((line) => line.includes("tap 'br0'"));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('user 1000');
  });
});
