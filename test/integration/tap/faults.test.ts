/** TCP over a tap whose frames of up to 64 KiB are lost, doubled and overtaken, and what a capture shows of them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runPeer, startListener } from '../../support/peer.ts';
import { FAMILIES, rigSuite } from '../../support/rig-suite.ts';
import { createTapRig, type TapRig } from '../../support/tap-stack/start.ts';

const BYTES = 10 << 20;
const EXCHANGE = { send: BYTES, 'finish-after-recv': BYTES, timeout: 60 };

/** Frames of a capture file: the bytes of each. */
function readFrames(path: string): Buffer[] {
  const file = readFileSync(path);
  const frames: Buffer[] = [];
  for (let at = 24; at + 16 <= file.length; ) {
    const length = file.readUInt32LE(at + 8);
    frames.push(file.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return frames;
}

rigSuite('a tap that loses, doubles and reorders large frames', () => {
  let rig: TapRig;
  beforeAll(async () => {
    const faults = { loss: 0.02, duplicate: 0.01, reorder: 0.01 };
    rig = await createTapRig({ mtu: 1500, faults });
  });
  afterAll(() => rig?.close());

  for (const { family, remote } of FAMILIES) {
    it(`carries ${BYTES >> 20} MB each way over ${family}, every byte in its place`, async () => {
      const server = await startListener(rig.host.wan, 'listen', { addr: remote, port: 5001, ...EXCHANGE, accept: 1 });
      const client = await runPeer(rig.guest, 'connect', { addr: remote, port: 5001, ...EXCHANGE });
      const served = await server.result(60_000);
      const expected = { clean: 1, mismatches: 0, received: BYTES, errors: {} };
      expect(client).toMatchObject(expected);
      expect(served).toMatchObject(expected);
    });
  }

  it('had something to send again, and nothing that the device refused', async () => {
    const end = await rig.stop();
    expect(end.tcpRetransmits).toBeGreaterThan(0);
    expect(end.refusedFrames).toBe(0);
  });
});

rigSuite('a capture of a tap with offloads', () => {
  let rig: TapRig;
  beforeAll(async () => {
    rig = await createTapRig({ mtu: 1500, pcap: true });
  });
  afterAll(() => rig?.close());

  it('has the frames as they crossed the link: whole IP packets, longer than the MTU, that make up the stream', async () => {
    const { remote } = FAMILIES[0];
    const server = await startListener(rig.host.wan, 'listen', { addr: remote, port: 5001, ...EXCHANGE, accept: 1 });
    await runPeer(rig.guest, 'connect', { addr: remote, port: 5001, ...EXCHANGE });
    await server.result();
    await rig.stop();
    let longest = 0;
    const payload = { toGuest: 0, fromGuest: 0 };
    for (const frame of readFrames(join(rig.host.directory, 'stack.pcap'))) {
      if (frame.readUInt16BE(12) !== 0x0800 || frame[23] !== 6) continue;
      const total = frame.readUInt16BE(16);
      expect(frame.length).toBe(Math.max(14 + total, frame.length === 60 ? 60 : 0));
      longest = Math.max(longest, total);
      const bytes = total - 20 - (frame.readUInt8(46) >> 4) * 4;
      if (frame.readUInt16BE(34) === 5001) payload.toGuest += bytes;
      else payload.fromGuest += bytes;
    }
    expect(longest).toBeGreaterThan(30_000);
    expect(payload).toEqual({ toGuest: BYTES, fromGuest: BYTES });
  });
});
