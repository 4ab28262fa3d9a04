/** Options whose effect shows only outside: on sockets, on the wire, on what is printed. */
import { afterEach, expect } from 'vitest';
import { type Agent, startAgent } from '../../support/netns/agent.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

const SECOND_V4 = '192.0.2.16';
const SECOND_V6 = '2001:db8:1::16';
const PORT = 8080;

rigSuite('an option', () => {
  let rig: Rig | undefined;
  afterEach(async () => {
    await rig?.close();
    rig = undefined;
  });

  const makeRig = async (...args: string[]): Promise<Rig> => {
    rig = await createRig({ args });
    return rig;
  };

  /** What a server beyond the gateway sees as the source of the guest's connection. */
  async function readSource(from: Rig, target: string): Promise<string> {
    const { stdout } = await from.guest.run('socat', ['-t', '10', '-', `TCP:${target}:${PORT},shut-none`], {
      input: 'GET /from HTTP/1.0\r\n\r\n',
    });
    return stdout.trim();
  }

  async function serve(on: Rig): Promise<Agent> {
    const agent = await startAgent(on.wan);
    await Promise.all([
      agent.serveHttp({ host: HOST_NET.remoteV4, port: PORT }),
      agent.serveHttp({ host: HOST_NET.remoteV6, port: PORT }),
      agent.serveUdpEcho({ host: HOST_NET.remoteV4, port: 7 }),
      agent.serveUdpEcho({ host: HOST_NET.remoteV6, port: 7 }),
    ]);
    return agent;
  }

  itExceptOnDebian(
    'has no such option',
    '--outbound, for each family, is the source of connections and datagrams',
    async () => {
      const current = await makeRig('--outbound', SECOND_V4, `-o${SECOND_V6}`);
      await current.host.sh(`ip addr add ${SECOND_V4}/24 dev eth0; ip addr add ${SECOND_V6}/64 dev eth0 nodad`);
      const onWan = await serve(current);
      expect(await readSource(current, HOST_NET.remoteV4)).toContain(SECOND_V4);
      expect(await readSource(current, `[${HOST_NET.remoteV6}]`)).toContain(SECOND_V6);
      const inGuest = await startAgent(current.guest);
      for (const host of [HOST_NET.remoteV4, HOST_NET.remoteV6]) {
        expect(await inGuest.exchangeUdp({ host, port: 7, lengthBytes: 100 })).toMatchObject({ same: true });
      }
      const seen = (await onWan.listUdpSeen()).map(({ address }) => address);
      expect(new Set(seen)).toEqual(new Set([SECOND_V4, SECOND_V6]));
    },
  );

  itExceptOnDebian(
    'has no such option',
    '--outbound-if4 and --outbound-if6 bind what leaves to an interface',
    async () => {
      const current = await makeRig('--outbound-if4', 'eth0', '--outbound-if6=eth0');
      await serve(current);
      expect(await readSource(current, HOST_NET.remoteV4)).toContain(HOST_NET.hostV4);
      expect(await readSource(current, `[${HOST_NET.remoteV6}]`)).toContain(HOST_NET.hostV6);
      for (const target of [HOST_NET.remoteV4, HOST_NET.remoteV6]) {
        const held = current.guest.spawn('socat', [
          '-u',
          `TCP:${target.includes(':') ? `[${target}]` : target}:${PORT}`,
          '-',
        ]);
        const isBound = async (): Promise<boolean> =>
          (await current.host.run('ss', ['-Htn'])).stdout
            .split('\n')
            .some((line) => line.includes(target) && line.includes('%eth0'));
        await waitUntil('a connection that is bound', isBound);
        held.kill();
      }
    },
  );

  for (const [name, works, fails] of [
    ['--no-tcp', 'udp', 'tcp'],
    ['--no-udp', 'tcp', 'udp'],
  ] as const) {
    itExceptOnDebian('stalls after a FIN from the guest', `${name} leaves ${works} alone`, async () => {
      const current = await makeRig(name);
      await serve(current);
      const inGuest = await startAgent(current.guest);
      const attempt = {
        tcp: () =>
          current.guest.run('busybox', ['nc', '-w', '2', HOST_NET.remoteV4, String(PORT)], {
            input: 'GET /from HTTP/1.0\r\n\r\n',
          }),
        udp: () => inGuest.exchangeUdp({ host: HOST_NET.remoteV4, port: 7, lengthBytes: 100, timeoutMs: 3_000 }),
      };
      await attempt[works]();
      await expect(attempt[fails]()).rejects.toThrow();
    });
  }

  itExceptOnDebian('has no --chroot-fallback', 'that changes nothing is accepted, more than once too', async () => {
    const current = await makeRig('-e', '--stderr', '--chroot-fallback');
    await serve(current);
    expect(await readSource(current, HOST_NET.remoteV4)).toContain(HOST_NET.hostV4);
  });
});
