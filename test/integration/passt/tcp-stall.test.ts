/** Readers that stop for ten seconds: nothing is lost, nothing else waits for them. */
import { afterAll, beforeAll, expect } from 'vitest';
import type { TcpResult } from '../../support/peer.ts';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

const BYTES = 64 << 20;
const STALL = { 'stall-ms': 10_000, 'stall-at': '1m' };

for (const mtu of [65520, 1500]) {
  rigSuite(`TCP with readers that stop for 10 s, MTU ${mtu}`, () => {
    let rig: Rig;
    beforeAll(async () => {
      rig = await createRig({ mtu });
    });
    afterAll(() => rig?.close());

    itExceptOnDebian(
      'its transfers to a full socket stall',
      'keeps every byte for a server, and for a guest, that stops reading, and serves others meanwhile',
      async () => {
        const transfers: Promise<TcpResult>[] = [];
        for (const [index, { remote }] of FAMILIES.entries()) {
          const common = { addr: remote, timeout: 60 };
          const slowServer = await startListener(rig.wan, 'listen', { ...common, port: 5001, accept: 1, ...STALL });
          const fastServer = await startListener(rig.wan, 'listen', { ...common, port: 5002, accept: 1, send: BYTES });
          transfers.push(
            slowServer.result(),
            runPeer(rig.guest, 'connect', { ...common, port: 5001, send: BYTES, finish: 'fin' }).then(
              async (client) => {
                expect(client, `sender ${index}`).toMatchObject({ clean: 1, errors: {} });
                return await fastServer.result();
              },
            ),
            runPeer(rig.guest, 'connect', { ...common, port: 5002, finish: 'wait', ...STALL }),
          );
        }
        // In the middle of the stall, a connection of someone else.
        await new Promise((resolve) => setTimeout(resolve, 4_000));
        const { remote } = FAMILIES[0];
        const other = await startListener(rig.wan, 'listen', { addr: remote, port: 5003, send: '2m', accept: 1 });
        const meanwhile = await runPeer(rig.guest, 'connect', { addr: remote, port: 5003, send: '2m', timeout: 20 });
        expect(meanwhile).toMatchObject({ clean: 1, received: 2 << 20, mismatches: 0 });
        expect(meanwhile.seconds).toBeLessThan(4);
        await other.result();

        for (const [index, result] of (await Promise.all(transfers)).entries()) {
          const expected = index % 3 === 1 ? { sent: BYTES } : { received: BYTES, mismatches: 0 };
          expect(result, `transfer ${index}`).toMatchObject({ ...expected, clean: 1, timedOut: false, errors: {} });
        }
        await rig.waitUntilIdle();
      },
      90_000,
    );
  });
}

rigSuite('TCP with a guest whose network card stops', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ mtu: 1500 });
  });
  afterAll(() => rig?.close());

  itExceptOnDebian(
    'it sends wrong bytes afterwards, without end',
    'goes on after the guest took no frame for 10 s',
    async () => {
      const { remote } = FAMILIES[0];
      const options = { addr: remote, port: 5001, send: '200m', timeout: 80 };
      const server = await startListener(rig.wan, 'listen', { ...options, accept: 1 });
      const transfer = runPeer(rig.guest, 'connect', options);
      await new Promise((resolve) => setTimeout(resolve, 200));
      await rig.pump.pause('stack', 10_000);
      const expected = { clean: 1, received: 200 << 20, mismatches: 0, timedOut: false, errors: {} };
      expect(await transfer).toMatchObject(expected);
      expect(await server.result()).toMatchObject(expected);
      await rig.waitUntilIdle();
    },
    90_000,
  );
});
