/** TCP through the stack with a Linux guest: plain transfers, every byte compared by position. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, rigSuite } from '../../support/rig-suite.ts';
import { isDebianStack } from '../../support/stack-under-test.ts';

/** Debian's passt drops what the host's socket does not take at once, and may then stand still for a minute. */
const BYTES = (isDebianStack() ? 1 : 10) << 20;

/** Neither side ends before it has all: data after a half-close is the concern of another suite. */
const EXCHANGE = { send: BYTES, 'finish-after-recv': BYTES };

for (const mtu of [65520, 1500, 1280]) {
  rigSuite(`TCP transfers at MTU ${mtu}`, () => {
    let rig: Rig;
    beforeAll(async () => {
      rig = await createRig({ mtu, args: ['-t', '6001'] });
    });
    afterAll(() => rig?.close());

    for (const { family, remote } of FAMILIES) {
      it(`carries ${BYTES >> 20} MB each way at once from the guest to a server over ${family}`, async () => {
        const server = await startListener(rig.wan, 'listen', { addr: remote, port: 5001, ...EXCHANGE, accept: 1 });
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
        const client = await runPeer(rig.wan, 'connect', { addr: own, port: 6001, ...EXCHANGE });
        const served = await server.result();
        const expected = { clean: 1, mismatches: 0, received: BYTES, errors: {} };
        expect(client).toMatchObject(expected);
        expect(served).toMatchObject(expected);
      });
    }

    it('leaves no descriptor open', async () => {
      await rig.waitUntilIdle();
    });
  });
}
