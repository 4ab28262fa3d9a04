/**
 * What a frame costs our side of a link, by kind of link: stream and datagrams over unix sockets, and datagrams by the `unix-dgram` package, which
 * hands them over one by one. The far end works in between, off the clock, and fills or empties what the kernel has room for: 64 frames at most.
 *
 * `npm run bench -- links`, a table on standard output: microseconds of the thread per frame, median of the rounds.
 */
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDatagramTransport } from '../compliance/datagram-transport.ts';
import type { TransportUnderTest } from '../compliance/guest-link.ts';
import { createStreamTransport } from '../compliance/stream-transport.ts';

const ROUNDS = 400;
const FRAMES_MAX = 64;
const SIZES = [64, 1514, 65_000] as const;

interface Cost {
  readonly receiveUs: number;
  readonly sendUs: number;
  /** Frames that a round had. */
  readonly batch: number;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

function measureLink(create: () => TransportUnderTest, size: number): Cost {
  const transport = create();
  const { link } = transport;
  const peer = transport.connect();
  const frame = new Uint8Array(size).fill(0x5a);
  const frames = new Int32Array(512);
  const receiveTimes: number[] = [];
  const sendTimes: number[] = [];
  let batch = 0;
  for (let round = 0; round < ROUNDS; round++) {
    let sent = 0;
    // A stream's frame that has begun must be finished, so it is not filled to the brim.
    while (sent < FRAMES_MAX && sent * size < 100_000 && peer.sendFrame(frame)) sent++;
    let startMs = performance.now();
    for (let got = 0; got < sent; ) got += Math.max(0, link.receive(frames));
    receiveTimes.push((performance.now() - startMs) / sent);
    const count = sent;
    startMs = performance.now();
    let at = link.reserve(count * (size + link.headroomBytes));
    for (let i = 0; i < count; i++) {
      link.commit(at + link.headroomBytes, size);
      at += link.headroomBytes + size;
    }
    link.flush();
    sendTimes.push((performance.now() - startMs) / count);
    for (let got = 0, idle = 0; got < count && idle < 10; ) {
      const some = peer.receiveFrames().length;
      got += some;
      idle = some === 0 ? idle + 1 : 0;
      transport.pump();
    }
    batch = count;
  }
  transport.close();
  return { receiveUs: 1000 * median(receiveTimes), sendUs: 1000 * median(sendTimes), batch };
}

/** Both ends by the package; what is on the clock is one of them at a time. */
async function measurePackage(size: number): Promise<Cost> {
  interface PackageSocket {
    bind(path: string): void;
    on(event: 'message', listener: () => void): void;
    send(bytes: Buffer, offset: number, length: number, path: string, done: (error?: Error) => void): void;
    close(): void;
  }
  const { createSocket } = createRequire(import.meta.url)('unix-dgram') as {
    createSocket(type: 'unix_dgram'): PackageSocket;
  };
  const paths = ['a', 'b'].map((name) => join(tmpdir(), `passel-bench-${process.pid}-${name}`));
  const [ours, theirs] = paths.map((path) => {
    const socket = createSocket('unix_dgram');
    socket.bind(path);
    return socket;
  });
  let arrived = 0;
  let wanted = 0;
  let wake: () => void = () => {};
  ours!.on('message', () => {
    if (++arrived === wanted) wake();
  });
  const frame = Buffer.alloc(size, 0x5a);
  const send = (from: PackageSocket, to: string): boolean => {
    let taken = true;
    from.send(frame, 0, size, to, (error) => {
      if (error !== undefined) taken = false;
    });
    return taken;
  };
  const sendTimes: number[] = [];
  const receiveTimes: number[] = [];
  let batch = 0;
  for (let round = 0; round < ROUNDS; round++) {
    arrived = 0;
    wanted = Number.POSITIVE_INFINITY;
    let sent = 0;
    const startMs = performance.now();
    while (sent < FRAMES_MAX && send(theirs!, paths[0]!)) sent++;
    sendTimes.push((performance.now() - startMs) / sent);
    wanted = sent;
    const receiveMs = performance.now();
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
    receiveTimes.push((performance.now() - receiveMs) / sent);
    batch = sent;
  }
  for (const socket of [ours!, theirs!]) socket.close();
  for (const path of paths) rmSync(path, { force: true });
  return { receiveUs: 1000 * median(receiveTimes), sendUs: 1000 * median(sendTimes), batch };
}

const KINDS: ReadonlyArray<readonly [string, (size: number) => Cost | Promise<Cost>]> = [
  ['stream, unix', (size) => measureLink(() => createStreamTransport(), size)],
  ['dgram, unix paths', (size) => measureLink(() => createDatagramTransport('unix'), size)],
  ['dgram, unix pair', (size) => measureLink(() => createDatagramTransport('pair'), size)],
  ['dgram, UDP on loopback', (size) => measureLink(() => createDatagramTransport('inet4'), size)],
  ['unix-dgram package', measurePackage],
];

console.log('| link | frame | µs to receive | µs to send | frames at once |\n|---|---:|---:|---:|---:|');
for (const size of SIZES) {
  for (const [name, measure] of KINDS) {
    const { receiveUs, sendUs, batch } = await measure(size);
    console.log(`| ${name} | ${size} | ${receiveUs.toFixed(2)} | ${sendUs.toFixed(2)} | ${batch} |`);
  }
}
