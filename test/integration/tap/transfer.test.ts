/** TCP and UDP between a Linux namespace behind a tap and servers on the other side, with offloads and without. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { FAMILIES, rigSuite } from '../../support/rig-suite.ts';
import { createTapRig, type TapRig } from '../../support/tap-stack/start.ts';

const BYTES = 20 << 20;
/** Neither side ends before it has all. */
const EXCHANGE = { send: BYTES, 'finish-after-recv': BYTES };

for (const { mtu, offloads } of [
  { mtu: 1500, offloads: true },
  { mtu: 1500, offloads: false },
  { mtu: 65520, offloads: true },
  { mtu: 1280, offloads: true },
]) {
  rigSuite(`a tap ${offloads ? 'with' : 'without'} offloads at MTU ${mtu}`, () => {
    let rig: TapRig;
    beforeAll(async () => {
      rig = await createTapRig({ mtu, offloads, tcpPorts: [6001] });
    });
    afterAll(() => rig?.close());

    for (const { family, remote } of FAMILIES) {
      it(`carries ${BYTES >> 20} MB each way at once from the guest to a server over ${family}`, async () => {
        const server = await startListener(rig.host.wan, 'listen', {
          addr: remote,
          port: 5001,
          ...EXCHANGE,
          accept: 1,
        });
        const client = await runPeer(rig.guest, 'connect', { addr: remote, port: 5001, ...EXCHANGE });
        const served = await server.result();
        const expected = { clean: 1, mismatches: 0, received: BYTES, errors: {} };
        expect(client).toMatchObject(expected);
        expect(served).toMatchObject(expected);
      });
    }

    for (const { family, own } of FAMILIES) {
      it(`carries ${BYTES >> 20} MB each way at once from a client beyond the host to the guest over ${family}`, async () => {
        const server = await startListener(rig.guest, 'listen', { addr: own, port: 6001, ...EXCHANGE, accept: 1 });
        const client = await runPeer(rig.host.wan, 'connect', { addr: own, port: 6001, ...EXCHANGE });
        const served = await server.result();
        const expected = { clean: 1, mismatches: 0, received: BYTES, errors: {} };
        expect(client).toMatchObject(expected);
        expect(served).toMatchObject(expected);
      });
    }

    it('had nothing wrong in it, and nothing that the device refused', async () => {
      expect(await rig.stop()).toMatchObject({
        badTcp: 0,
        badUdp: 0,
        badEthernet: 0,
        refusedFrames: 0,
      });
    });
  });
}
