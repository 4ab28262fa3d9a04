/** Which addresses and ports the world sees of a guest's datagrams, where that is not a matter of course. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

const SECOND = { IPv4: '192.0.2.16', IPv6: '2001:db8:1::16' } as const;

const any = (family: keyof typeof SECOND): string => (family === 'IPv4' ? '0.0.0.0' : '::');

rigSuite('addresses of datagrams', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ mtu: 1500, args: ['-u', '6001,6002'] });
    // Deprecated, so that the host does not prefer it as source.
    const second6 = `ip addr add ${SECOND.IPv6}/64 dev eth0 nodad preferred_lft 0`;
    await rig.host.sh(`ip addr add ${SECOND.IPv4}/24 dev eth0\n${second6}`);
  });
  afterAll(() => rig?.close());

  for (const { family, remote, gateway, own, loopback } of FAMILIES) {
    itExceptOnDebian(
      'it answers from the first address',
      `answers leave from the address of the host that was written to, over ${family}`,
      async () => {
        const echo = await startListener(rig.guest, 'udp-listen', { addr: own, port: 6001, echo: true });
        for (const address of [SECOND[family], own]) {
          // The peer is connected: what came from another address would not be heard.
          const options = { addr: address, port: 6001, bind: `${remote},4570`, 'expect-echo': true, 'wait-ms': 1000 };
          expect(await runPeer(rig.wan, 'udp-send', options)).toMatchObject({ echoed: 1 });
        }
        await echo.stop();
      },
    );

    it(`two programs of the host reach the guest from different loopback ports, over ${family}`, async () => {
      // The host's loopback appears as the router, over IPv6 a link-local address, and speaks to the guest's own one.
      const echo = await startListener(rig.guest, 'udp-listen', { addr: any(family), port: 6001, echo: true });
      const send = (port: number) =>
        runPeer(rig.host, 'udp-send', {
          addr: loopback,
          port: 6001,
          bind: `${loopback},${port}`,
          sizes: '10,20,30',
          'expect-echo': true,
        });
      for (const result of await Promise.all([send(4571), send(4572)])) expect(result).toMatchObject({ echoed: 3 });
      await echo.stop();
    });

    it(`two peers see the same port when the guest talks to both from one, over ${family}`, async () => {
      const first = await startListener(rig.wan, 'udp-listen', { addr: remote, port: 7005, echo: true });
      const second = await startListener(rig.wan, 'udp-listen', { addr: remote, port: 7006, echo: true });
      for (const port of [7005, 7006]) {
        const options = { addr: remote, port, bind: `${own},4573`, 'expect-echo': true };
        expect(await runPeer(rig.guest, 'udp-send', options)).toMatchObject({ echoed: 1 });
      }
      expect((await first.stop()).sources).toEqual([`${own},4573`]);
      expect((await second.stop()).sources).toEqual([`${own},4573`]);
    });

    itExceptOnDebian(
      'it does not read the error queue',
      `a closed port of the host is closed from the same port of the guest too, over ${family}`,
      async () => {
        const options = {
          addr: gateway,
          port: 7010,
          bind: `${any(family)},7010`,
          'expect-echo': true,
          'wait-ms': 1000,
        };
        const sent = await runPeer(rig.guest, 'udp-send', options);
        expect(sent).toMatchObject({ sent: 1, echoed: 0, errors: { ECONNREFUSED: 1 } });
      },
    );

    it(`what the guest sends from a forwarded port leaves from it, over ${family}`, async () => {
      const echo = await startListener(rig.wan, 'udp-listen', { addr: remote, port: 7007, echo: true });
      const options = { addr: remote, port: 7007, bind: `${own},6002`, 'expect-echo': true };
      expect(await runPeer(rig.guest, 'udp-send', options)).toMatchObject({ echoed: 1 });
      expect((await echo.stop()).sources).toEqual([`${own},6002`]);
    });
  }
});
