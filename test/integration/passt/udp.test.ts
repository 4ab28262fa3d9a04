/** UDP with a Linux guest: every size, both ways, addresses and ports kept, errors told. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

/** Around nothing, a small MTU's fragments, and the largest payloads of IPv4 (65507) and IPv6 (65527). */
const SMALL_SIZES = [1, 2, 7, 8, 9, 64, 511, 512, 1000, 1452];
const LARGE_SIZES = [1453, 1472, 1473, 2000, 2960, 5000, 8972, 16000, 32768, 50000, 65487, 65507];

for (const mtu of [1500, 65520]) {
  rigSuite(`UDP at MTU ${mtu}`, () => {
    let rig: Rig;
    beforeAll(async () => {
      rig = await createRig({ mtu, args: ['-u', '6001'] });
    });
    afterAll(() => rig?.close());

    for (const { family, remote, own } of FAMILIES) {
      it(`carries datagrams of the guest and their answers over ${family}`, async () => {
        const echo = await startListener(rig.wan, 'udp-listen', { addr: remote, port: 7001, echo: true });
        const options = { addr: remote, port: 7001, sizes: SMALL_SIZES.join(','), 'expect-echo': true, count: 3 };
        const sent = await runPeer(rig.guest, 'udp-send', options);
        expect(sent).toMatchObject({ echoed: 3 * SMALL_SIZES.length, bad: 0, missing: [], errors: {} });
        expect(await echo.stop()).toMatchObject({ bad: 0, errors: {} });
      });

      itExceptOnDebian(
        'it drops fragments',
        `carries datagrams larger than the MTU, up to the largest, and their answers over ${family}`,
        async () => {
          const sizes = family === 'IPv6' ? [...LARGE_SIZES, 65527] : LARGE_SIZES;
          const echo = await startListener(rig.wan, 'udp-listen', { addr: remote, port: 7001, echo: true });
          const options = { addr: remote, port: 7001, sizes: sizes.join(','), 'expect-echo': true };
          const sent = await runPeer(rig.guest, 'udp-send', options);
          expect(sent).toMatchObject({ echoed: sizes.length, bad: 0, missing: [], errors: {} });
          expect(await echo.stop()).toMatchObject({ sizes, bad: 0, errors: {} });
        },
      );

      it(`keeps the guest's source port over ${family}`, async () => {
        const echo = await startListener(rig.wan, 'udp-listen', { addr: remote, port: 7002, echo: true });
        const options = { addr: remote, port: 7002, bind: `${own},4567`, 'expect-echo': true };
        expect(await runPeer(rig.guest, 'udp-send', options)).toMatchObject({ echoed: 1 });
        expect((await echo.stop()).sources).toEqual([`${own},4567`]);
      });

      it(`forwards datagrams from outside with their source, and takes the answers back, over ${family}`, async () => {
        const echo = await startListener(rig.guest, 'udp-listen', { addr: own, port: 6001, echo: true });
        const sizes = SMALL_SIZES.join(',');
        const options = { addr: own, port: 6001, bind: `${remote},4568`, sizes, 'expect-echo': true };
        const sent = await runPeer(rig.wan, 'udp-send', options);
        expect(sent).toMatchObject({ echoed: SMALL_SIZES.length, bad: 0, missing: [], errors: {} });
        expect((await echo.stop()).sources).toEqual([`${remote},4568`]);
      });

      itExceptOnDebian(
        'what exceeds the MTU is lost',
        `forwards the largest datagrams from outside and takes the answers back, over ${family}`,
        async () => {
          const echo = await startListener(rig.guest, 'udp-listen', { addr: own, port: 6001, echo: true });
          const sizes = LARGE_SIZES.join(',');
          const options = { addr: own, port: 6001, bind: `${remote},4569`, sizes, 'expect-echo': true };
          const sent = await runPeer(rig.wan, 'udp-send', options);
          expect(sent).toMatchObject({ echoed: LARGE_SIZES.length, bad: 0, missing: [], errors: {} });
          expect(await echo.stop()).toMatchObject({ bad: 0 });
        },
      );

      itExceptOnDebian(
        'it does not read the error queue',
        `tells the guest that a port is closed, over ${family}`,
        async () => {
          const options = { addr: remote, port: 7999, 'expect-echo': true, 'wait-ms': 2000 };
          const sent = await runPeer(rig.guest, 'udp-send', options);
          expect(sent).toMatchObject({ sent: 1, echoed: 0, errors: { ECONNREFUSED: 1 } });
        },
      );

      it(`carries 2 s of datagrams without losing more than one in a hundred, both ways, over ${family}`, async () => {
        const sinkOptions = { addr: remote, port: 7003, 'no-verify': true };
        const sink = await startListener(rig.wan, 'udp-listen', sinkOptions);
        const streamOptions = { size: 1200, duration: 1, window: 64 };
        const out = await runPeer(rig.guest, 'udp-stream', { addr: remote, port: 7003, ...streamOptions });
        await sink.stop();
        const guestSink = await startListener(rig.guest, 'udp-listen', { addr: own, port: 6001, 'no-verify': true });
        const inward = await runPeer(rig.wan, 'udp-stream', { addr: own, port: 6001, bind: remote, ...streamOptions });
        await guestSink.stop();
        for (const result of [out, inward]) {
          expect(result.answered).toBeGreaterThan(1000);
          expect(result.lost / result.sent).toBeLessThan(0.01);
        }
      });
    }
  });
}
