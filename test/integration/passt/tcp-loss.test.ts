/** TCP over a link that loses, reorders, doubles and damages frames, in both directions. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import type { Faults } from '../../support/pump.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';

const CASES: { name: string; toStack: Faults; toTap: Faults }[] = [
  { name: 'loses 1 % of all frames', toStack: { loss: 1 }, toTap: { loss: 1 } },
  { name: 'loses 5 % of all frames', toStack: { loss: 5 }, toTap: { loss: 5 } },
  { name: 'reorders 5 % of all frames', toStack: { reorder: 5 }, toTap: { reorder: 5 } },
  { name: 'doubles 5 % of all frames', toStack: { dup: 5 }, toTap: { dup: 5 } },
  { name: 'damages 1 % of the frames to the guest', toStack: {}, toTap: { corrupt: 1 } },
  {
    name: 'does all of it, with 2 ms of delay',
    toStack: { loss: 1, reorder: 1, dup: 1, delay: 2 },
    toTap: { loss: 1, reorder: 1, dup: 1, delay: 2 },
  },
];

rigSuiteExceptOnDebian('a lost segment costs it seconds', 'TCP over a bad link', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ mtu: 1500 });
  });
  afterAll(() => rig?.close());

  for (const [index, { name, toStack, toTap }] of CASES.entries()) {
    for (const { family, remote } of FAMILIES) {
      it(`delivers every byte in order over a link that ${name}, ${family}`, async () => {
        const bytes = 1 << 20;
        const options = { addr: remote, port: 5001, send: bytes, timeout: 60 };
        const server = await startListener(rig.wan, 'listen', { ...options, accept: 4 });
        await rig.pump.setFaults('to-stack', { ...toStack, seed: 2 * index + 1 });
        await rig.pump.setFaults('to-tap', { ...toTap, seed: 2 * index + 2 });
        const client = await runPeer(rig.guest, 'connect', { ...options, count: 4 });
        const served = await server.result();
        await rig.pump.setFaults('to-stack', {});
        await rig.pump.setFaults('to-tap', {});
        const expected = { clean: 4, received: 4 * bytes, mismatches: 0, timedOut: false, errors: {} };
        expect(client).toMatchObject(expected);
        expect(served).toMatchObject(expected);
      }, 90_000);
    }
  }

  it('leaves no descriptor open', async () => {
    // A lost last acknowledgement is given up after some time only.
    await rig.waitUntilIdle(30_000);
  }, 40_000);
});
