/** Addresses that mean something else on the other side: the host's loopback, the host's own address, resolvers. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HOST_NET } from '../../support/netns/host.ts';
import type { Namespace } from '../../support/netns/namespace.ts';
import { runPeer, startListener, type TcpResult, type UdpSendResult } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';
import { isDebianStack } from '../../support/stack-under-test.ts';

/** Addresses that only the mapping makes somebody. */
const ALIASES = {
  IPv4: { loopback: '192.0.2.98', guestAddress: '192.0.2.99', resolver: '192.0.2.53' },
  IPv6: { loopback: '2001:db8:1::98', guestAddress: '2001:db8:1::99', resolver: '2001:db8:1::53' },
} as const;

interface Exchange<T> {
  client: T;
  /** The client's address and port as the server saw them. */
  source: string;
}

/** The wildcard address of both families. */
const ANY = '::';

/** A hundred bytes to an echo server at `at` and back, from a client that calls it `as`. */
async function exchangeTcp(
  server: Namespace,
  at: string,
  client: Namespace,
  as: string,
  port: number,
): Promise<TcpResult> {
  const echo = await startListener(server, 'listen', { addr: at, port, echo: true });
  const result = await runPeer(client, 'connect', { addr: as, port, send: 100, 'finish-after-recv': 100, timeout: 5 });
  await echo.stop();
  return result;
}

async function exchangeUdp(
  server: Namespace,
  at: string,
  client: Namespace,
  as: string,
  port: number,
): Promise<Exchange<UdpSendResult>> {
  const echo = await startListener(server, 'udp-listen', { addr: at, port, echo: true });
  // The socket is connected: an answer from any other address than the one asked would not be taken.
  const result = await runPeer(client, 'udp-send', { addr: as, port, 'expect-echo': true });
  const [source = ''] = (await echo.stop()).sources;
  return { client: result, source: source.split(',')[0] ?? '' };
}

const GOOD_TCP = { clean: 1, received: 100, mismatches: 0, errors: {} };
const GOOD_UDP = { echoed: 1, bad: 0 };

rigSuite('default address mappings', () => {
  let rig: Rig;
  beforeAll(async () => {
    const args = FAMILIES.flatMap(({ family }) => ['--dns-forward', ALIASES[family].resolver]);
    rig = await createRig({ args: ['-t', '6001', '-u', '6001', ...args] });
  });
  afterAll(() => rig?.close());

  for (const { family, gateway, loopback } of FAMILIES) {
    it(`lead from the gateway's address to the host's loopback, over ${family}`, async () => {
      const { host, guest } = rig;
      expect(await exchangeTcp(host, loopback, guest, gateway, 5001)).toMatchObject(GOOD_TCP);
      expect((await exchangeUdp(host, loopback, guest, gateway, 7001)).client).toMatchObject(GOOD_UDP);
    });

    it(`show a client on the host's loopback to the guest as the gateway, over ${family}`, async () => {
      const { host, guest } = rig;
      // The gateway's IPv6 address is link-local, and so is then the guest's: that is where Debian's passt delivers too.
      const { client, source } = await exchangeUdp(guest, ANY, host, loopback, 6001);
      expect(client).toMatchObject(GOOD_UDP);
      expect(source).toBe(gateway.split('%')[0]);
      expect(await exchangeTcp(guest, ANY, host, loopback, 6001)).toMatchObject(GOOD_TCP);
    });

    it(`lead from --dns-forward's address to the first resolver, over ${family}`, async () => {
      const resolver = family === 'IPv4' ? HOST_NET.remoteV4 : HOST_NET.remoteV6;
      const { client } = await exchangeUdp(rig.wan, resolver, rig.guest, ALIASES[family].resolver, 53);
      expect(client).toMatchObject(GOOD_UDP);
    });
  }
});

rigSuite('address mappings that were asked for', () => {
  let rig: Rig;
  beforeAll(async () => {
    const args = FAMILIES.flatMap(({ family }) => [
      '--map-host-loopback',
      ALIASES[family].loopback,
      '--map-guest-addr',
      ALIASES[family].guestAddress,
    ]);
    rig = await createRig({ args: isDebianStack() ? [] : args });
  });
  afterAll(() => rig?.close());

  for (const { family, loopback, own } of FAMILIES) {
    itExceptOnDebian('a later option', `--map-host-loopback moves the host's loopback, over ${family}`, async () => {
      const { host, guest } = rig;
      expect(await exchangeTcp(host, loopback, guest, ALIASES[family].loopback, 5001)).toMatchObject(GOOD_TCP);
      expect((await exchangeUdp(host, loopback, guest, ALIASES[family].loopback, 7001)).client).toMatchObject(GOOD_UDP);
    });

    itExceptOnDebian('a later option', `--map-guest-addr reaches the host's own address, over ${family}`, async () => {
      const { host, guest } = rig;
      expect(await exchangeTcp(host, own, guest, ALIASES[family].guestAddress, 5002)).toMatchObject(GOOD_TCP);
      expect((await exchangeUdp(host, own, guest, ALIASES[family].guestAddress, 7002)).client).toMatchObject(GOOD_UDP);
    });
  }
});

rigSuite('--no-map-gw', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ args: ['--no-map-gw'] });
  });
  afterAll(() => rig?.close());

  it('leaves the gateway what it is', async () => {
    const { gatewayV4 } = HOST_NET;
    expect(await exchangeTcp(rig.wan, gatewayV4, rig.guest, gatewayV4, 5001)).toMatchObject(GOOD_TCP);
    expect((await exchangeUdp(rig.wan, gatewayV4, rig.guest, gatewayV4, 7001)).client).toMatchObject(GOOD_UDP);
  });
});
