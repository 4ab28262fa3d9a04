/** How TCP connections end: half-closed either way, reset either way, refused. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { FAMILIES, itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

rigSuite('TCP connections that end', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig({ args: ['-t', '6001'] });
  });
  afterAll(() => rig?.close());

  for (const { family, remote, own } of FAMILIES) {
    itExceptOnDebian(
      'stalls, and sends wrong bytes',
      `carries the server's data after the guest has half-closed, over ${family}`,
      async () => {
        const server = await startListener(rig.wan, 'listen', {
          addr: remote,
          port: 5001,
          send: '5m',
          'send-after-eof': true,
          accept: 1,
        });
        const client = await runPeer(rig.guest, 'connect', { addr: remote, port: 5001, send: '10k' });
        expect(client).toMatchObject({ clean: 1, received: 5 << 20, mismatches: 0, errors: {} });
        expect(await server.result()).toMatchObject({ clean: 1, received: 10 << 10, mismatches: 0, errors: {} });
      },
    );

    it(`carries the guest's data after the server has half-closed, over ${family}`, async () => {
      const server = await startListener(rig.wan, 'listen', { addr: remote, port: 5001, send: '10k', accept: 1 });
      const options = { addr: remote, port: 5001, send: '5m', 'send-after-eof': true };
      const client = await runPeer(rig.guest, 'connect', options);
      expect(client).toMatchObject({ clean: 1, received: 10 << 10, mismatches: 0, errors: {} });
      expect(await server.result()).toMatchObject({ clean: 1, received: 5 << 20, mismatches: 0, errors: {} });
    });

    it(`carries the guest's data after a client from outside has half-closed, over ${family}`, async () => {
      const options = { addr: own, port: 6001, send: '5m', 'send-after-eof': true, accept: 1 };
      const server = await startListener(rig.guest, 'listen', options);
      const client = await runPeer(rig.wan, 'connect', { addr: own, port: 6001, send: '10k' });
      expect(client).toMatchObject({ clean: 1, received: 5 << 20, mismatches: 0, errors: {} });
      expect(await server.result()).toMatchObject({ clean: 1, received: 10 << 10, mismatches: 0, errors: {} });
    });

    itExceptOnDebian(
      'closes instead of resetting when nothing is unread',
      `passes on the guest's reset over ${family}`,
      async () => {
        const server = await startListener(rig.wan, 'listen', {
          addr: remote,
          port: 5001,
          send: '64k',
          finish: 'wait',
          accept: 1,
          timeout: 10,
        });
        const client = await runPeer(rig.guest, 'connect', {
          addr: remote,
          port: 5001,
          send: '1k',
          finish: 'rst',
          'finish-after-recv': '64k',
        });
        expect(client).toMatchObject({ received: 64 << 10, errors: {} });
        expect(await server.result()).toMatchObject({ timedOut: false, errors: { ECONNRESET: 1 } });
      },
    );

    it(`passes on the server's reset over ${family}`, async () => {
      const server = await startListener(rig.wan, 'listen', {
        addr: remote,
        port: 5001,
        send: '1k',
        finish: 'rst',
        'finish-after-recv': '64k',
        accept: 1,
      });
      const client = await runPeer(rig.guest, 'connect', {
        addr: remote,
        port: 5001,
        send: '64k',
        finish: 'wait',
        timeout: 10,
      });
      expect(client).toMatchObject({ timedOut: false, errors: { ECONNRESET: 1 } });
      expect(await server.result()).toMatchObject({ received: 64 << 10, errors: {} });
    });

    itExceptOnDebian(
      'its reset is not acceptable to a guest in SYN-SENT',
      `refuses a closed port at once over ${family}`,
      async () => {
        const client = await runPeer(rig.guest, 'connect', { addr: remote, port: 5999, timeout: 10 });
        expect(client).toMatchObject({ timedOut: false, errors: { ECONNREFUSED: 1 } });
        expect(client.seconds).toBeLessThan(1);
      },
    );

    itExceptOnDebian(
      'closes instead of resetting',
      `resets a client from outside when the guest's port is closed, over ${family}`,
      async () => {
        // The connection is accepted before the guest can be asked, so what the client sees is a reset, not a refusal.
        const client = await runPeer(rig.wan, 'connect', { addr: own, port: 6001, finish: 'wait', timeout: 10 });
        expect(client).toMatchObject({ timedOut: false, errors: { ECONNRESET: 1 } });
        expect(client.seconds).toBeLessThan(2);
      },
    );

    it(`takes an end in the middle of a transfer over ${family}: the other side is told, nothing is left`, async () => {
      const server = await startListener(rig.wan, 'listen', { addr: remote, port: 5001, duration: 20, accept: 1 });
      const options = { addr: remote, port: 5001, duration: 20, finish: 'fin', timeout: 0.5 };
      // The client's program ends with data unread, which makes its kernel send a reset.
      const client = await runPeer(rig.guest, 'connect', options);
      expect(client).toMatchObject({ timedOut: true, mismatches: 0 });
      const served = await server.result(10_000);
      expect(served.mismatches).toBe(0);
      expect(Object.keys(served.errors)[0]).toMatch(/ECONNRESET|EPIPE/);
    });
  }

  it('leaves no descriptor open', async () => {
    await rig.waitUntilIdle();
  });
});
