/**
 * Every function that touches the arena, called with ranges at and beyond all limits. What the answers show is that ranges are checked;
 * that no byte outside is touched shows when this runs under the sanitizers (sanitizer.test.ts), where one ends the process.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { ENDPOINT_BYTES, SOCKET_DGRAM } from '../../../src/stack/ports.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { createSocketPair } from '../../../src/sys/unix-socket.ts';
import { seededRandom } from '../../support/seeded-random.ts';
import { allocateEndpoint, bindLoopback, connectPair, fillPattern, sumNaively } from '../sys/support.ts';

const native = loadNative();
const ARENA_BYTES = 16_384;
const arena = createArena(ARENA_BYTES);
native.bindArena(arena.buffer);
const endpoint = allocateEndpoint(arena);

const CALLS = 4000;
const EDGES = [
  0, 1, 7, 8, 23, 24, 63, 64, 1023, 1024, 1025, 0x7fffffff, 0x80000000, 0xfffffff8, 0xfffffffe, 0xffffffff,
];

const fds: number[] = [];
afterAll(() => {
  for (const fd of fds.splice(0)) native.close(fd);
});

/** Offsets, lengths and counts: the ends of the arena and of 32 bits more often than anything else. */
function makeChooser(seed: number): () => number {
  const random = seededRandom(seed);
  return () => {
    const kind = random();
    if (kind < 0.3) return EDGES[Math.floor(random() * EDGES.length)]!;
    if (kind < 0.6) return ARENA_BYTES - Math.floor(random() * 100);
    if (kind < 0.7) return ARENA_BYTES + Math.floor(random() * 100);
    return Math.floor(random() * 2000);
  };
}

describe('arena ranges', () => {
  it('are refused outside and used inside, for every function and any numbers', async () => {
    const { client, server } = await connectPair(native, arena, endpoint, 4);
    const datagram = native.open(4, SOCKET_DGRAM, 0);
    fds.push(client, server, datagram);
    bindLoopback(native, arena, endpoint, datagram, 4);
    expect(native.connect(datagram, endpoint)).toBe(0);
    const set = native.epollCreate();
    fds.push(set);
    native.epollControl(set, 1, client, 4, 1, 1);
    native.setOption(server, 1, 42, 0);

    // Keeps frames apart as a tap does; nobody reads, so it is soon full.
    const [tapLike, tapPeer] = createSocketPair(native, 5);
    fds.push(tapLike, tapPeer);
    native.setNonBlocking(tapLike, 1);

    const pairs = new Int32Array(64);
    const calls: Record<string, (n: () => number) => number> = {
      receiveFrames: (n) => native.receiveFrames(datagram, n(), n(), n(), pairs, n()),
      joinGroup: (n) => native.joinGroup(datagram, n(), n()),
      sendToGroupFrom: (n) => native.sendToGroupFrom(datagram, n()),
      sum: (n) => native.sum(n(), n(), n()),
      receive: (n) => native.receive(server, n(), n(), 0),
      send: (n) => native.send(client, n(), n(), 0),
      sendSegments: (n) => native.sendSegments(client, n(), n(), 0),
      peekSegments: (n) => native.peekSegments(server, n(), n(), n(), n(), n(), n()),
      discard: (n) => native.discard(server, n()),
      receiveDatagrams: (n) => native.receiveDatagrams(datagram, n(), n(), n(), n(), n()),
      receiveUnsummed: (n) => native.receiveUnsummed(datagram, n(), n(), n(), n(), n()),
      receiveSplitDatagrams: (n) => native.receiveSplitDatagrams(datagram, n(), n(), n(), n(), n(), n(), n()),
      sendDatagrams: (n) => native.sendDatagrams(datagram, n(), n()),
      sendDatagramsTo: (n) => native.sendDatagramsTo(datagram, n(), n(), n(), n()),
      sendEqualDatagrams: (n) => native.sendEqualDatagrams(datagram, n(), n(), n()),
      sendTo: (n) => native.sendTo(datagram, n(), n(), n()),
      tunRead: (n) => native.tunRead(tapLike, n(), n(), n(), n(), new Int32Array(16)),
      tunWrite: (n) => native.tunWrite(tapLike, n(), n(), n()),
      receiveError: (n) => native.receiveError(datagram, n(), n(), n()),
      getName: (n) => native.getName(datagram, n()),
      getPeer: (n) => native.getPeer(client, n()),
      accept: (n) => native.accept(datagram, n()),
      bind: (n) => native.bind(client, n()),
      getTcpInfo: (n) => native.getTcpInfo(client, n(), n()),
      epollWait: (n) => native.epollWait(set, n(), n(), 0),
    };
    const outcomes: Record<string, { inside: number; outside: number }> = {};
    for (const [index, [name, call]] of Object.entries(calls).entries()) {
      const choose = makeChooser(index + 1);
      const outcome = { inside: 0, outside: 0 };
      for (let i = 0; i < CALLS; i++) {
        if (i % 8 === 0) {
          // Something to receive, and lists that hold small numbers now and then.
          fillPattern(arena.bytes, i + 1);
          arena.view.setUint32(1024, choose(), true);
          arena.view.setUint32(1028, choose(), true);
          native.send(client, 0, 3000, 0);
          native.send(datagram, 0, 100, 0);
        }
        const result = call(choose);
        expect(Number.isInteger(result)).toBe(true);
        if (result === -14) outcome.outside++;
        else outcome.inside++;
      }
      outcomes[name] = outcome;
    }
    for (const [name, outcome] of Object.entries(outcomes)) {
      if (name === 'discard') continue;
      expect(outcome.outside, name).toBeGreaterThan(100);
      expect(outcome.inside, name).toBeGreaterThan(10);
    }
  });

  it('are used to the last byte and no further', async () => {
    const { client, server } = await connectPair(native, arena, endpoint, 4);
    fds.push(client, server);
    fillPattern(arena.bytes, 5);
    const last = arena.bytes.slice(ARENA_BYTES - 40);
    expect(native.sum(ARENA_BYTES - 40, 40, 0)).toBe(sumNaively(last));
    expect(native.send(client, ARENA_BYTES - 40, 40, 0)).toBe(40);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const guard = arena.bytes.slice(0, ARENA_BYTES - 30);
    expect(native.receive(server, ARENA_BYTES - 30, 30, 0)).toBe(30);
    expect(arena.bytes.slice(0, ARENA_BYTES - 30)).toEqual(guard);
    expect(arena.bytes.slice(ARENA_BYTES - 30)).toEqual(last.slice(0, 30));
    expect(native.getName(server, ARENA_BYTES - ENDPOINT_BYTES)).toBe(0);
  });
});
