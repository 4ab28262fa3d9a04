/** Links that are lost and found again, with a real Linux as the guest, which does not know of it. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { FlowView, StatusView } from '../../../src/cli/control/view.ts';
import { DatagramGuest } from '../../support/datagram-guest.ts';
import { transferTcp } from '../../support/exchange.ts';
import { FrameProxy } from '../../support/frame-proxy.ts';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { createHost, HOST_NET, type Host } from '../../support/netns/host.ts';
import { createNamespace, type Namespace, stopChild, waitUntil } from '../../support/netns/namespace.ts';
import { runProcess } from '../../support/netns/process.ts';
import { startPump, waitForPump } from '../../support/pump.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';
import { type StackProcess, startStack } from '../../support/stack-process.ts';
import { stackCommand } from '../../support/stack-under-test.ts';

const MEGABYTE = 1 << 20;

async function ctl<T>(controlPath: string, what: string): Promise<T> {
  const cli = [`${PROJECT_ROOT}/dist/helpers/passel.cjs`, 'ctl', '-s', controlPath, what, '--json'];
  return JSON.parse((await runProcess(process.execPath, cli)).stdout) as T;
}

rigSuiteExceptOnDebian('it does not know one guest from another', 'a link that is lost', () => {
  let host: Host;
  let guest: Namespace;
  let stack: StackProcess;
  let proxy: FrameProxy;
  let socketPath: string;
  let controlPath: string;

  beforeAll(async () => {
    [host, guest] = await Promise.all([createHost(), createNamespace('guest')]);
    socketPath = join(host.directory, 'stack');
    controlPath = join(host.directory, 'control');
    const proxyPath = join(host.directory, 'proxy');
    stack = startStack(host, stackCommand(), ['--foreground', '--socket', socketPath, '--conf-path', controlPath]);
    proxy = await FrameProxy.open(proxyPath, socketPath);
    const pump = startPump(guest, { socket: proxyPath, mtu: 65520, connectTimeoutMs: 20_000 });
    await waitForPump(pump, 20_000);
    await waitUntil('the stack to listen', () => stack.output().includes('listening on'), 20_000);
    await proxy.join();
    await plugIn(guest, pump.tapName);
  }, 60_000);
  afterAll(async () => {
    proxy?.close();
    await stack?.stop();
    await Promise.all([guest?.close(), host?.close()]);
  });

  async function plugIn(namespace: Namespace, tap: string): Promise<void> {
    await namespace.sh(
      `echo 0 > /proc/sys/net/ipv6/conf/${tap}/accept_ra; ip link set ${tap} up; ip addr add ${HOST_NET.hostV4}/${HOST_NET.prefixV4} dev ${tap}; ip route add default via ${HOST_NET.gatewayV4} dev ${tap}`,
    );
  }

  const countFlows = async (port: number): Promise<number> => {
    const { flows } = await ctl<{ flows: FlowView[] }>(controlPath, 'flows');
    return flows.filter(({ peer }) => peer.port === port).length;
  };

  it.each([
    ['to the guest', 0, 192],
    ['from the guest', 192, 0],
    ['both ways', 128, 128],
  ] as const)(
    'costs no byte of a transfer %s, cut twice',
    async (_way, up, down) => {
      const start = proxy.passedBytes;
      const moved = (megabytes: number) => () => proxy.passedBytes - start > megabytes * MEGABYTE;
      const whole = transferTcp(
        { in: host.wan, port: 7000 },
        { in: guest, addr: HOST_NET.remoteV4, port: 7000 },
        { up: Math.max(1, up * MEGABYTE), down: Math.max(1, down * MEGABYTE), timeout: 100 },
      );
      for (const megabytes of [16, 64]) {
        await waitUntil(`${megabytes} MiB to have passed`, moved(megabytes), 60_000, 2);
        proxy.cut();
        // Something is lost in both directions: whoever waits repeats it.
        await waitUntil(
          'the stack to notice',
          () => stack.output().split('guest disconnected').length > stack.output().split('guest connected').length - 1,
          20_000,
        );
        await proxy.join();
      }
      const { client, server } = await whole;
      expect([client.mismatches, server.mismatches]).toEqual([0, 0]);
      expect([client.received, server.received]).toEqual([Math.max(1, down * MEGABYTE), Math.max(1, up * MEGABYTE)]);
    },
    150_000,
  );

  it('is the end of all connections when another guest comes', async () => {
    const run = (namespace: Namespace, script: string) =>
      namespace.spawn(process.execPath, ['-e', `const net = require('node:net'); ${script}`], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
    const listener = run(
      host.wan,
      'net.createServer((peer) => peer.on("error", ({ code }) => console.log(code))).listen(7100, () => console.log("ready"))',
    );
    let heard = '';
    listener.stdout!.on('data', (chunk: Buffer) => (heard += chunk.toString()));
    await waitUntil('the listener to be ready', () => heard.includes('ready'), 20_000);
    // It says nothing, so that nobody notices anything by itself.
    const client = run(guest, `net.connect(7100, '${HOST_NET.remoteV4}').on('error', () => {})`);
    await expect.poll(() => countFlows(7100), { timeout: 20_000 }).toBe(1);
    proxy.cut();
    const other = await createNamespace('other');
    try {
      const pump = startPump(other, { socket: socketPath, mac: '52:54:00:00:00:99', connectTimeoutMs: 20_000 });
      await waitForPump(pump, 20_000);
      // Still there: nobody knows yet whose link this is.
      await plugIn(other, pump.tapName);
      await other.run('ping', ['-c', '1', '-W', '10', HOST_NET.gatewayV4], { check: false });
      await expect.poll(() => countFlows(7100), { timeout: 20_000 }).toBe(0);
      const { guests } = await ctl<StatusView>(controlPath, 'status');
      expect(guests[0]!.guest.mac).toBe('52:54:00:00:00:99');
      await waitUntil('the remote to see a reset', () => heard.includes('ECONNRESET'), 20_000);
      expect(stack.output()).toMatch(/another guest has come: \d+ flows end/);
    } finally {
      await other.close();
      await Promise.all([stopChild(listener), stopChild(client)]);
    }
  }, 90_000);
});

rigSuiteExceptOnDebian('it has no such link', 'a guest on a datagram link', () => {
  it('is taken to be gone when it is silent, and is there again with its next frame', async () => {
    const host = await createHost();
    const controlPath = join(host.directory, 'control');
    const [ours, theirs] = [join(host.directory, 'ours'), join(host.directory, 'theirs')];
    const link = `dgram,local.type=unix,local.path=${ours},remote.type=unix,remote.path=${theirs}`;
    const args = ['--foreground', '--netdev', link, '--conf-path', controlPath, '--guest-silence', '2', '--one-off'];
    const stack = startStack(host, stackCommand(), args);
    // Its socket stays open all the time: nobody says that it is gone.
    const guest = new DatagramGuest(theirs, ours);
    try {
      await waitUntil('the stack to be ready', () => stack.output().includes('-netdev'), 20_000);
      const isConnected = async (): Promise<boolean> =>
        (await ctl<StatusView>(controlPath, 'status')).guests[0]!.guest.connected;
      for (let round = 0; round < 2; round++) {
        await guest.checkAlive();
        expect(await isConnected()).toBe(true);
        await expect.poll(isConnected, { timeout: 30_000, interval: 200 }).toBe(false);
      }
      expect(stack.output()).toContain('the guest has been silent for long and does not answer');
      expect(stack.running()).toBe(true);
    } finally {
      guest.close();
      await stack.stop();
      await host.close();
    }
  }, 90_000);
});
