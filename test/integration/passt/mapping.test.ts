/** Addresses that mean something else on the other side: the host's loopback, the host's own address, resolvers. */
import { afterEach, expect, it } from 'vitest';
import { HOST_NET } from '../../support/netns/host.ts';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

rigSuite('address mappings', () => {
  let rig: Rig | undefined;
  afterEach(async () => {
    await rig?.close();
    rig = undefined;
  });

  const start = async (...args: string[]): Promise<Rig> => {
    rig = await createRig({ args });
    return rig;
  };

  for (const { family, gateway, loopback, own } of FAMILIES) {
    it(`reaches the host's loopback under the gateway's address, over ${family}`, async () => {
      const { host, guest } = await start();
      const server = await startListener(host, 'listen', { addr: loopback, port: 5001, send: 100, accept: 1 });
      const client = await runPeer(guest, 'connect', { addr: gateway, port: 5001, finish: 'wait', timeout: 5 });
      expect(client).toMatchObject({ clean: 1, received: 100 });
      await server.result();
      const echo = await startListener(host, 'udp-listen', { addr: loopback, port: 7001, echo: true });
      const sent = await runPeer(guest, 'udp-send', { addr: gateway, port: 7001, 'expect-echo': true });
      expect(sent).toMatchObject({ echoed: 1, bad: 0 });
      await echo.stop();
    });

    it(`shows a client on the host's loopback to the guest as the gateway, over ${family}`, async () => {
      const { host, guest } = await start('-u', '6001', '-t', '6001');
      const echo = await startListener(guest, 'udp-listen', { port: 6001, echo: true });
      const sent = await runPeer(host, 'udp-send', { addr: loopback, port: 6001, 'expect-echo': true });
      expect(sent).toMatchObject({ echoed: 1, bad: 0 });
      expect((await echo.stop()).sources[0]).toMatch(`${gateway.split('%')[0]},`);
      const server = await startListener(guest, 'listen', { port: 6001, send: 100, accept: 1 });
      const client = await runPeer(host, 'connect', { addr: loopback, port: 6001, finish: 'wait', timeout: 5 });
      expect(client).toMatchObject({ clean: 1, received: 100 });
      await server.result();
    });

    itExceptOnDebian('a later option', `--map-host-loopback moves the host's loopback, over ${family}`, async () => {
      const alias = family === 'IPv4' ? '192.0.2.98' : '2001:db8:1::98';
      const { host, guest } = await start('--map-host-loopback', alias);
      const server = await startListener(host, 'listen', { addr: loopback, port: 5001, send: 100, accept: 1 });
      const client = await runPeer(guest, 'connect', { addr: alias, port: 5001, finish: 'wait', timeout: 5 });
      expect(client).toMatchObject({ clean: 1, received: 100 });
      await server.result();
    });

    itExceptOnDebian('a later option', `--map-guest-addr reaches the host's own address, over ${family}`, async () => {
      const alias = family === 'IPv4' ? '192.0.2.99' : '2001:db8:1::99';
      const { host, guest } = await start('--map-guest-addr', alias);
      const server = await startListener(host, 'listen', { addr: own, port: 5001, send: 100, accept: 1 });
      const client = await runPeer(guest, 'connect', { addr: alias, port: 5001, finish: 'wait', timeout: 5 });
      expect(client).toMatchObject({ clean: 1, received: 100 });
      await server.result();
    });

    it(`--dns-forward takes queries to the first resolver, over ${family}`, async () => {
      const [alias, resolver] =
        family === 'IPv4' ? ['192.0.2.53', HOST_NET.remoteV4] : ['2001:db8:1::53', HOST_NET.remoteV6];
      const { wan, guest } = await start('--dns-forward', alias);
      const echo = await startListener(wan, 'udp-listen', { addr: resolver, port: 53, echo: true });
      const sent = await runPeer(guest, 'udp-send', { addr: alias, port: 53, 'expect-echo': true });
      // The socket is connected: an answer from any other address than the one asked would not be taken.
      expect(sent).toMatchObject({ echoed: 1, bad: 0 });
      await echo.stop();
    });
  }

  it('--no-map-gw leaves the gateway what it is', async () => {
    const { wan, guest } = await start('--no-map-gw');
    const server = await startListener(wan, 'listen', { addr: HOST_NET.gatewayV4, port: 5001, send: 100, accept: 1 });
    const options = { addr: HOST_NET.gatewayV4, port: 5001, finish: 'wait', timeout: 5 };
    expect(await runPeer(guest, 'connect', options)).toMatchObject({ clean: 1, received: 100 });
    await server.result();
  });
});
