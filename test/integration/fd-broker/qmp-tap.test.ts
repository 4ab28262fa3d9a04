/** A tap on a bridge, made by the broker, for a card of a QEMU that runs as an ordinary user and has no right to networks. */
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type BridgePlace, createBridgePlace } from '../../support/bridge/caller.ts';
import {
  needCommand,
  needNamespaces,
  needQemu,
  needRoot,
  needTun,
  type Requirement,
  requireOrSkip,
} from '../../support/netns/capabilities.ts';
import { stopChild, waitUntil } from '../../support/netns/process.ts';

const C_HELPER = '/usr/lib/qemu/qemu-bridge-helper';
const SOCKET = '/mnt/broker.sock';
const MONITOR = '/mnt/user/qmp';
const USER = ['--reuid=1000', '--regid=1000', '--clear-groups', '--inh-caps=-all', '--bounding-set=-all'];

const needHelper: Requirement = {
  name: 'qemu-bridge-helper',
  probe: () => (existsSync(C_HELPER) ? '' : `${C_HELPER} is not there (Debian: qemu-system-common)`),
};

const suite = await requireOrSkip(
  needNamespaces,
  needRoot,
  needTun,
  needQemu,
  needHelper,
  needCommand('setpriv', 'util-linux'),
);

suite('passel-fd-broker qmp with a tap', () => {
  let place: BridgePlace;
  const running: ChildProcess[] = [];
  let log = '';

  const qmp = (...args: string[]) => {
    const [command, ...words] = [...place.broker, 'qmp', MONITOR, ...args, '--broker-socket', SOCKET];
    return place.namespace.run('setpriv', [...USER, command!, ...words], { check: false });
  };
  const ports = async (): Promise<string[]> =>
    (await place.namespace.sh('ls /sys/class/net/br0/brif')).stdout.split('\n').filter((name) => name !== '');

  beforeAll(async () => {
    place = await createBridgePlace(C_HELPER);
    await place.namespace.sh("printf 'allow br0\\n' > /etc/qemu/bridge.conf; install -d -o 1000 /mnt/user");
    const [command, ...args] = [...place.broker, 'serve', '--socket', SOCKET];
    const broker = place.namespace.spawn(command!, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    running.push(broker);
    broker.stderr!.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    await waitUntil('the broker', () => log.includes('serving on'), 20_000);
    const fixed = ['-M', 'pc', '-S', '-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'tcg'];
    const line = [...USER, 'qemu-system-x86_64', ...fixed, '-qmp', `unix:${MONITOR},server=on,wait=off`];
    running.push(place.namespace.spawn('setpriv', line, { stdio: ['ignore', 'ignore', 'inherit'] }));
    await waitUntil('QEMU', async () => (await qmp('query-fdsets')).status === 0, 30_000);
  }, 90_000);
  afterAll(async () => {
    await Promise.all(running.map((child) => stopChild(child)));
    await place?.close();
  });

  it('plugs the card in: the tap is a port of the bridge, and goes with the netdev', async () => {
    expect(await qmp('hotplug-nic', 'net1', '--tap', 'br0', '--mac', '52:54:00:00:00:09')).toEqual({
      status: 0,
      stdout: '',
      stderr: '',
    });
    expect(await ports()).toHaveLength(1);
    // The same card again: QEMU refuses, and what was made for it goes.
    expect(await qmp('hotplug-nic', 'net1', '--tap', 'br0')).toMatchObject({ status: 1 });
    expect(await ports()).toHaveLength(1);
    // No card of that name: the netdev that was made goes.
    expect((await qmp('hotplug-nic', 'net2', '--tap', 'br0', '--driver', 'none')).stderr).toContain('none');
    await waitUntil('the tap to go', async () => (await ports()).length === 1, 10_000);
  }, 60_000);

  it('gives a card with two queues a descriptor for each, and as many to a netdev', async () => {
    const plugged = await qmp('hotplug-nic', 'net4', '--fd', 'tap:br0,vnet,queues=2', '--property', 'mq=on');
    expect(plugged).toEqual({ status: 0, stdout: '', stderr: '' });
    expect(await ports()).toHaveLength(2);
    const one = await qmp('getfd', 'x', '--fd', 'tap:br0,queues=2');
    expect(one.stderr).toContain(
      "'tap:br0,queues=2' cannot be given to QEMU: QEMU takes one descriptor at a time here: these are 2",
    );
    await waitUntil('the tap to go', async () => (await ports()).length === 2, 10_000);
  }, 60_000);

  it('makes the tap itself where it may, without a broker', async () => {
    const [command, ...words] = [...place.broker, 'qmp', MONITOR, 'netdev-add', 'net5', '--fd', 'tap:br0'];
    const before = (await ports()).length;
    // A broker would be asked at this path.
    const env = 'PASSEL_BROKER=/no/such/socket';
    expect(await place.namespace.run('env', [env, command!, ...words], { check: false })).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(await ports()).toHaveLength(before + 1);
    const asked = await place.namespace.run('env', [command!, ...words, '--broker-socket', '/no/such'], {
      check: false,
    });
    expect(asked).toMatchObject({ status: 1 });
    expect(asked.stderr).toContain("the fd broker at '/no/such': ENOENT");
  }, 60_000);

  it('says why there is no tap', async () => {
    const denied = await qmp('hotplug-nic', 'net3', '--tap', 'br-jumbo');
    expect(denied).toMatchObject({ status: 1, stdout: '' });
    expect(denied.stderr).toContain("--tap: cannot open 'br-jumbo': access denied by acl file");
  });
});
