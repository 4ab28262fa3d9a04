/**
 * Measures what frames leave on the heap as they pass a stream link or a tap, in a process of its own and bundled as the executables are, so
 * that the test runner's wrappers do not take part. Prints JSON: bytes per frame by direction.
 */
import { createArena } from '../../../src/base/arena.ts';
import { createStreamLink } from '../../../src/link/stream.ts';
import { createTapLink } from '../../../src/link/tap.ts';
import { EVENT_IN, type GuestLink, type HostSockets } from '../../../src/stack/ports.ts';

const FRAME_BYTES = 1514;
const BATCH = 64;
/** 20 480 frames. */
const BATCHES = 320;

const arena = createArena(32 << 20);
const prepared = arena.allocate(BATCH * (4 + FRAME_BYTES));
for (let i = 0; i < BATCH; i++) arena.view.setUint32(prepared + i * (4 + FRAME_BYTES), FRAME_BYTES);

let ready = false;
const sockets = {
  watch: () => 0,
  setOption: () => 0,
  getOption: () => 1 << 24,
  receive(_fd: number, offset: number): number {
    if (!ready) return -11;
    ready = false;
    arena.bytes.copyWithin(offset, prepared, prepared + BATCH * (4 + FRAME_BYTES));
    return BATCH * (4 + FRAME_BYTES);
  },
  send: (_fd: number, _offset: number, lengthBytes: number): number => lengthBytes,
} as unknown as HostSockets;
const stream = createStreamLink({ arena, sockets });
stream.attach(3);

const tapFrames = arena.allocate(BATCH * 2048);
const tun = {
  setNonBlocking: () => 0,
  tunRead(_fd: number, _offset: number, _bytes: number, _slot: number, headerBytes: number, list: Int32Array): number {
    if (!ready) return -11;
    ready = false;
    for (let i = 0; i < BATCH; i++) {
      list[2 * i] = tapFrames + i * 2048 + headerBytes;
      list[2 * i + 1] = FRAME_BYTES;
    }
    return BATCH;
  },
  tunWrite: (_fd: number, _offset: number, lengthBytes: number): number => lengthBytes,
};
const tap = createTapLink({ arena, sockets, native: tun, vnetHeader: true, udpSegmentation: true });
tap.attach(4);

/** A link and how it hears of events. */
type Link = GuestLink & { onHostEvent(events: number): unknown };

const frames = new Int32Array(8192);

function receiveBatches(link: Link, count: number): number {
  let total = 0;
  for (let batch = 0; batch < count; batch++) {
    ready = true;
    link.onHostEvent(EVENT_IN);
    for (let got = link.receive(frames); got > 0; got = link.receive(frames)) total += got;
  }
  return total;
}

function sendBatches(link: Link, count: number): number {
  let total = 0;
  for (let batch = 0; batch < count; batch++) {
    for (let i = 0; i < BATCH; i++) {
      const start = link.reserve(link.headroomBytes + FRAME_BYTES);
      link.commit(start + link.headroomBytes, FRAME_BYTES);
      total++;
    }
    link.flush();
  }
  return total;
}

/** The least of some rounds, as compilers allocate too; a round in which the heap shrank says nothing: there was a collection. */
function measure(run: (batches: number) => number): number {
  if (run(3000) !== 3000 * BATCH) throw new Error('frames were lost');
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 7; round++) {
    const before = process.memoryUsage().heapUsed;
    run(BATCHES);
    const growth = process.memoryUsage().heapUsed - before;
    if (growth >= 0 && growth < least) least = growth;
  }
  return least / (BATCHES * BATCH);
}

function measureNs(run: (batches: number) => number): number {
  const start = process.hrtime.bigint();
  const count = run(BATCHES * 5);
  return Number(process.hrtime.bigint() - start) / count;
}

const receiveStream = (batches: number): number => receiveBatches(stream, batches);
const sendStream = (batches: number): number => sendBatches(stream, batches);
const receiveTap = (batches: number): number => receiveBatches(tap, batches);
const sendTap = (batches: number): number => sendBatches(tap, batches);

console.log(
  JSON.stringify({
    bytes: {
      fromGuest: measure(receiveStream),
      toGuest: measure(sendStream),
      fromTap: measure(receiveTap),
      toTap: measure(sendTap),
    },
    ns: { fromGuest: measureNs(receiveStream), toGuest: measureNs(sendStream) },
  }),
);
