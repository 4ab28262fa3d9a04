/** Datagrams over a tap: many of one length at once, which cross in one frame where the kernel can cut it. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { FAMILIES, rigSuite } from '../../support/rig-suite.ts';
import { createTapRig, type TapRig } from '../../support/tap-stack/start.ts';

for (const offloads of [true, false]) {
  rigSuite(`datagrams over a tap ${offloads ? 'with' : 'without'} offloads`, () => {
    let rig: TapRig;
    beforeAll(async () => {
      rig = await createTapRig({ mtu: 1500, offloads, udpPorts: [6001] });
    });
    afterAll(() => rig?.close());

    for (const { family, own, remote } of FAMILIES) {
      it(`reach the guest whole, of all sizes, and are answered, over ${family}`, async () => {
        const server = await startListener(rig.guest, 'udp-listen', { port: 6001, addr: own, echo: true });
        const sizes = '0,1,64,1400,1400,1400,1400,1400,700,1472,4000,65000';
        const client = await runPeer(rig.host.wan, 'udp-send', { addr: own, port: 6001, sizes, 'expect-echo': true });
        expect(client).toMatchObject({ bad: 0, missing: [], errors: {} });
        expect(await server.stop()).toMatchObject({ bad: 0, errors: {} });
      });

      it(`reach the guest in a stream, none damaged, over ${family}`, async () => {
        const server = await startListener(rig.guest, 'udp-listen', { port: 6001, addr: own });
        const result = await runPeer(rig.host.wan, 'udp-stream', { addr: own, port: 6001, size: 1400, duration: 1 });
        expect(result.answered).toBeGreaterThan(100);
        expect(await server.stop()).toMatchObject({ bad: 0, errors: {} });
      });

      it(`leave the guest in a stream, none damaged, over ${family}`, async () => {
        const server = await startListener(rig.host.wan, 'udp-listen', { port: 6002, addr: remote });
        const result = await runPeer(rig.guest, 'udp-stream', { addr: remote, port: 6002, size: 1400, duration: 1 });
        expect(result.answered).toBeGreaterThan(100);
        expect(await server.stop()).toMatchObject({ bad: 0, errors: {} });
      });
    }

    it('had nothing wrong in them, and nothing that the device refused', async () => {
      expect(await rig.stop()).toMatchObject({ badUdp: 0, badEthernet: 0, refusedFrames: 0 });
    });
  });
}
