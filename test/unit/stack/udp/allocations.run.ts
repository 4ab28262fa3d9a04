/**
 * Measures what datagrams leave on the heap, in a process of its own and bundled as the executables are: the test runner's module
 * wrappers keep functions from being inlined, and then numbers above 2^31 become objects between them.
 * Prints JSON: bytes by direction and family, per datagram, and per frame where a frame holds many.
 */
import { createPacketMeta } from '../../../../src/stack/packet-meta.ts';
import {
  DATAGRAM_META_BYTES,
  DATAGRAM_META_LENGTH,
  OFFLOAD_CHECKSUM,
  OFFLOAD_UDP4,
  OFFLOAD_UDP6,
} from '../../../../src/stack/ports.ts';
import { endpoint, GUEST_4, GUEST_6, ip, pattern, TestStack, udpPacket } from './support.ts';

const PEER = { 4: '198.51.100.9', 6: '2001:db8:9::9' } as const;
const GUEST = { 4: GUEST_4, 6: GUEST_6 } as const;
const BATCH = 64;
const UNITS = 20_480;

/**
 * Heap growth in bytes for each of 20 480 datagrams, or frames, once all is compiled, which takes its time on a busy machine: the least of up to 100
 * rounds, ended by the third that leaves less than a byte. A round in which the heap shrank says nothing: there was a collection.
 */
function measure(run: (batches: number) => void, perBatch = BATCH): number {
  const batches = UNITS / perBatch;
  run(3000);
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0, good = 0; round < 100 && good < 3; round++) {
    const before = process.memoryUsage().heapUsed;
    run(batches);
    const growth = process.memoryUsage().heapUsed - before;
    if (growth < 0) continue;
    if (growth < least) least = growth;
    if (growth < UNITS) good++;
  }
  return least / UNITS;
}

function measureFromGuest(family: 4 | 6): number {
  const stack = new TestStack();
  const packet = udpPacket(GUEST[family], 4000, PEER[family], 53, pattern(1000));
  const at = stack.arena.allocate(2048);
  stack.arena.bytes.set(packet, at);
  const meta = createPacketMeta();
  meta.family = family;
  meta.l3Offset = at;
  meta.l4Offset = at + (family === 4 ? 20 : 40);
  meta.l4Length = 1008;
  meta.hopLimit = 64;
  meta.source.set(ip(GUEST[family]));
  meta.destination.set(ip(PEER[family]));
  stack.sockets.sendEqualDatagrams = (_fd, _list, count) => count;
  return measure((batches) => {
    for (let batch = 0; batch < batches; batch++) {
      for (let i = 0; i < BATCH; i++) stack.udp.input(meta);
      stack.udp.endInput();
    }
  });
}

/** @param offloads - of the link; the datagrams of a run then leave as one frame, which the guest cuts */
function measureToGuest(family: 4 | 6, offloads = 0): number {
  const stack = new TestStack({ offloads });
  stack.fromGuest(udpPacket(GUEST[family], 4000, PEER[family], 53, pattern(10)));
  const { ctx, link, sockets } = stack;
  const source = endpoint(PEER[family], 53);
  let filled = -1;
  let remaining = 0;
  sockets.receiveDatagrams = (_fd, _offset, _stride, _max, count, metas) => {
    if (remaining === 0) return -11;
    remaining = 0;
    if (filled === metas) return count;
    filled = metas;
    for (let i = 0; i < count; i++) {
      ctx.arena.bytes.set(source, metas + i * DATAGRAM_META_BYTES);
      ctx.view.setUint32(metas + i * DATAGRAM_META_BYTES + DATAGRAM_META_LENGTH, 1000, true);
    }
    return count;
  };
  sockets.receiveSplitDatagrams = sockets.receiveDatagrams;
  link.keepFrames = false;
  const run = (batches: number): void => {
    for (let batch = 0; batch < batches; batch++) {
      remaining = 1;
      stack.udp.onRoom(0);
      link.flush();
    }
  };
  const growth = measure(run, offloads === 0 ? BATCH : 1);
  if (link.framesSent < 3000 * (offloads === 0 ? BATCH : 1))
    throw new Error(`only ${link.framesSent} frames reached the link`);
  return growth;
}

console.log(
  JSON.stringify({
    fromGuest4: measureFromGuest(4),
    fromGuest6: measureFromGuest(6),
    toGuest4: measureToGuest(4),
    toGuest6: measureToGuest(6),
    offloadedToGuest4: measureToGuest(4, OFFLOAD_CHECKSUM | OFFLOAD_UDP4 | OFFLOAD_UDP6),
    offloadedToGuest6: measureToGuest(6, OFFLOAD_CHECKSUM | OFFLOAD_UDP4 | OFFLOAD_UDP6),
  }),
);
