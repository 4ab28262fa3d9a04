/** Many TCP connections, at once and one after the other. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, rigSuite } from '../../support/rig-suite.ts';

rigSuite('many TCP connections', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ args: ['-t', '6001'] });
  });
  afterAll(() => rig?.close());

  for (const { family, remote } of FAMILIES) {
    it(`keeps 1 000 connections of the guest open at once over ${family} and carries data on each`, async () => {
      const count = 1000;
      const bytes = 32 << 10;
      const server = await startListener(rig.wan, 'listen', { addr: remote, port: 5001, send: bytes, accept: count });
      const client = await runPeer(rig.guest, 'connect', {
        addr: remote,
        port: 5001,
        send: bytes,
        count,
        barrier: true,
        'finish-after-recv': bytes,
      });
      const expected = { established: count, clean: count, mismatches: 0, received: count * bytes, errors: {} };
      expect(client).toMatchObject(expected);
      expect(await server.result()).toMatchObject(expected);
      await rig.waitUntilIdle();
    });
  }

  it('accepts 300 connections at once for the guest', async () => {
    const count = 300;
    const bytes = 32 << 10;
    const { own } = FAMILIES[0];
    const server = await startListener(rig.guest, 'listen', { addr: own, port: 6001, send: bytes, accept: count });
    const client = await runPeer(rig.wan, 'connect', {
      addr: own,
      port: 6001,
      send: bytes,
      count,
      barrier: true,
      'finish-after-recv': bytes,
    });
    const expected = { established: count, clean: count, mismatches: 0, received: count * bytes, errors: {} };
    expect(client).toMatchObject(expected);
    expect(await server.result()).toMatchObject(expected);
    await rig.waitUntilIdle();
  });

  it('opens and closes 10 000 connections one after the other, without growing', async () => {
    const count = 10_000;
    const { remote } = FAMILIES[0];
    const server = await startListener(rig.wan, 'listen', { addr: remote, port: 5002, echo: true });
    const rssBefore = rig.stack.rssBytes();
    const options = {
      addr: remote,
      port: 5002,
      send: 100,
      'finish-after-recv': 100,
      count,
      parallel: 1,
      timeout: 90,
    };
    const client = await runPeer(rig.guest, 'connect', options, 100_000);
    expect(client).toMatchObject({ clean: count, mismatches: 0, received: count * 100, errors: {} });
    expect(await server.stop()).toMatchObject({ clean: count, received: count * 100, errors: {} });
    await rig.waitUntilIdle();
    expect(rig.stack.rssBytes() - rssBefore).toBeLessThan(32 << 20);
  });
});
