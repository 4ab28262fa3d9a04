/** TCP through the stack with a Linux guest: plain transfers, every byte compared by position. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HOST_NET } from '../../support/netns/host.ts';
import { needNamespaces, needTun, needVeth, requireOrSkip } from '../../support/netns/capabilities.ts';
import { runPeer, startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';

const suite = await requireOrSkip(needNamespaces, needVeth, needTun);

suite('TCP transfers', () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await createRig();
  });
  afterAll(() => rig?.close());

  for (const [family, address] of [
    ['IPv4', HOST_NET.remoteV4],
    ['IPv6', HOST_NET.remoteV6],
  ] as const) {
    it(`carries 20 MB each way at once over ${family}`, async () => {
      const server = await startListener(rig.wan, 'listen', { addr: address, port: 5001, send: '20m', accept: 1 });
      const client = await runPeer(rig.guest, 'connect', { addr: address, port: 5001, send: '20m' });
      const served = await server.result();
      expect(client).toMatchObject({ clean: 1, mismatches: 0, received: 20 << 20, errors: {} });
      expect(served).toMatchObject({ clean: 1, mismatches: 0, received: 20 << 20, errors: {} });
    });
  }
});
