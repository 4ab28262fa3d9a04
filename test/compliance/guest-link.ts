/**
 * What every transport to the guest has to do, whatever it is made of. A new one needs a {@link TransportUnderTest} and one call of
 * {@link describeGuestLink}.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Arena } from '../../src/base/arena.ts';
import type { GuestLink } from '../../src/stack/ports.ts';
import { VNET_HEADER_BYTES, writeVnetWhole } from '../../src/wire/vnet.ts';
import { seededRandom } from '../support/seeded-random.ts';

const MIN_FRAME_BYTES = 14;

/** The guest's end. */
export interface Peer {
  /** @returns false when the transport takes nothing now */
  sendFrame(frame: Uint8Array): boolean;
  /** The frames that have arrived. @param limitBytes - read no more than about this much */
  receiveFrames(limitBytes?: number): Uint8Array[];
  /** Whether the other side has closed the connection; only to be asked when nothing else is there to read. */
  isEnded(): boolean;
  close(): void;
}

export interface TransportUnderTest {
  readonly link: GuestLink;
  readonly arena: Arena;
  /** Why guests were dropped, oldest first. */
  readonly gone: string[];
  /** Calls of `onRoom`. */
  rooms: number;
  /** Attaches a new guest. */
  connect(): Peer;
  /** One turn of the event loop: events, frames from the guest, flush. @returns the frames */
  pump(): Uint8Array[];
  detach(): void;
  close(): void;
}

/** What a kind of transport cannot do. */
export interface TransportTraits {
  /** When it shows that the guest has gone: at once, with frames that are sent to it, or never. */
  readonly end?: 'at once' | 'with frames' | 'never';
  /** What the guest does not take is lost on the way, and nobody waits for it. */
  readonly isLossy?: boolean;
}

/** A frame whose contents tell its number and prove every byte. */
export function makeFrame(number: number, length: number): Uint8Array {
  const frame = new Uint8Array(length);
  for (let i = 0; i < length; i++) frame[i] = number * 31 + i * 7 + (i >> 8);
  new DataView(frame.buffer).setUint32(0, number);
  return frame;
}

/** Lays a frame for the guest. @returns false when there is no room */
export function queueFrame(transport: TransportUnderTest, frame: Uint8Array): boolean {
  const { link } = transport;
  const start = link.reserve(link.headroomBytes + frame.length);
  if (start < 0) return false;
  layFrame(transport, start, frame);
  return true;
}

/** Writes and commits a frame whose headroom begins at `start`. @returns where the next one's does */
function layFrame({ link, arena }: TransportUnderTest, start: number, frame: Uint8Array): number {
  const at = start + link.headroomBytes;
  if (link.hasVnetHeader) writeVnetWhole(arena.view, at - VNET_HEADER_BYTES);
  arena.bytes.set(frame, at);
  link.commit(at, frame.length);
  return at + frame.length;
}

/** Compares quickly: `toEqual` on a million bytes takes its time. */
export function expectFrames(got: readonly Uint8Array[], expected: readonly Uint8Array[]): void {
  expect(got.map((f) => f.length)).toEqual(expected.map((f) => f.length));
  for (let i = 0; i < got.length; i++) expect(Buffer.compare(got[i]!, expected[i]!), `frame ${i}`).toBe(0);
}

export function describeGuestLink(
  name: string,
  create: () => TransportUnderTest,
  { end = 'at once', isLossy = false }: TransportTraits = {},
): void {
  describe(`guest link: ${name}`, () => {
    let transport: TransportUnderTest;
    beforeEach(() => {
      transport = create();
    });
    afterEach(() => transport.close());

    /** Pumps until `count` frames are there or nothing comes any more. */
    function pumpFrames(count: number): Uint8Array[] {
      const got: Uint8Array[] = [];
      for (let idle = 0; got.length < count && idle < 3; ) {
        const some = transport.pump();
        if (some.length === 0) idle++;
        got.push(...some);
      }
      return got;
    }

    /** Sends what shows that nobody is there any more, where nothing else does. */
    function provokeEnd(): void {
      for (let tries = 0; tries < 3 && end === 'with frames' && transport.link.connected; tries++) {
        queueFrame(transport, makeFrame(0, 60));
        transport.pump();
      }
    }
    const itWithoutLoss = it.skipIf(isLossy);
    const itWithEnd = it.skipIf(end === 'never');

    it('is without a guest at first: nothing can be queued or received', () => {
      const { link } = transport;
      expect(link.connected).toBe(false);
      expect(link.reserve(100)).toBe(-1);
      expect(link.roomBytes()).toBe(0);
      expect(link.flush()).toBe(0);
      expect(link.receive(new Int32Array(8))).toBe(0);
    });

    it('carries frames of all sizes from the guest, from the shortest to the longest', () => {
      const peer = transport.connect();
      const sizes = [MIN_FRAME_BYTES, 15, 59, 60, 61, 1514, 9014, transport.link.maxFrameBytes];
      const sent = sizes.map((size, i) => makeFrame(i, size));
      for (const frame of sent) expect(peer.sendFrame(frame)).toBe(true);
      expectFrames(pumpFrames(sent.length), sent);
      expect(transport.link.connected).toBe(true);
    });

    it('carries frames of all sizes to the guest, from the shortest to the longest', () => {
      const peer = transport.connect();
      const sizes = [MIN_FRAME_BYTES, 15, 59, 60, 61, 1514, 9014, transport.link.maxFrameBytes];
      const sent = sizes.map((size, i) => makeFrame(i, size));
      for (const frame of sent) expect(queueFrame(transport, frame)).toBe(true);
      expect(transport.link.flush()).toBe(0);
      expectFrames(peer.receiveFrames(), sent);
    });

    it('sends nothing before the flush', () => {
      const peer = transport.connect();
      queueFrame(transport, makeFrame(1, 60));
      expect(peer.receiveFrames()).toEqual([]);
      transport.link.flush();
      expectFrames(peer.receiveFrames(), [makeFrame(1, 60)]);
    });

    it('lets several frames be laid into one reservation, and fewer than reserved', () => {
      const peer = transport.connect();
      const { link } = transport;
      const start = link.reserve(10_000);
      const sent = [makeFrame(1, 100), makeFrame(2, 200)];
      let at = start;
      for (const frame of sent) at = layFrame(transport, at, frame);
      expect(link.reserve(64)).toBe(at);
      link.flush();
      expectFrames(peer.receiveFrames(), sent);
    });

    it('grants the room that it says it has, and no more', () => {
      transport.connect();
      const { link } = transport;
      const room = link.roomBytes();
      expect(room).toBeGreaterThan(link.maxFrameBytes);
      expect(link.reserve(room + 1)).toBe(-1);
      expect(link.reserve(room)).toBeGreaterThan(0);
    });

    itWithoutLoss('loses nothing and keeps the order while the guest does not read', () => {
      const peer = transport.connect();
      const { link } = transport;
      let queued = 0;
      for (let refused = 0; refused < 3; ) {
        if (queueFrame(transport, makeFrame(queued, 1514))) {
          queued++;
          refused = 0;
        } else {
          refused++;
          transport.pump();
        }
      }
      expect(link.flush()).toBeGreaterThan(0);
      expect(transport.rooms).toBe(0);
      let next = 0;
      for (let idle = 0; idle < 3; ) {
        const got = peer.receiveFrames(200_000);
        idle = got.length === 0 ? idle + 1 : 0;
        for (const frame of got) expect(Buffer.compare(frame, makeFrame(next++, 1514))).toBe(0);
        transport.pump();
      }
      expect(next).toBe(queued);
      expect(transport.rooms).toBeGreaterThan(0);
      expect(link.flush()).toBe(0);
    });

    it('takes frames from the guest while the guest does not read', () => {
      const peer = transport.connect();
      while (queueFrame(transport, makeFrame(0, 65_000)));
      transport.pump();
      expect(peer.sendFrame(makeFrame(7, 100))).toBe(true);
      expectFrames(pumpFrames(1), [makeFrame(7, 100)]);
    });

    it('gives out what one call cannot hold with the next ones', () => {
      const peer = transport.connect();
      for (let i = 0; i < 10; i++) peer.sendFrame(makeFrame(i, 60));
      const few = new Int32Array(12);
      const numbers: number[] = [];
      for (let count = transport.link.receive(few); count > 0; count = transport.link.receive(few)) {
        expect(count).toBeLessThanOrEqual(6);
        for (let i = 0; i < count; i++) numbers.push(transport.arena.view.getUint32(few[2 * i]!));
      }
      expect(numbers).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    });

    itWithEnd('delivers what was sent before the guest went, and then says once that it is gone', () => {
      const peer = transport.connect();
      // A unix datagram socket has ten frames waiting for it at most, by default.
      const sent = Array.from({ length: 40 }, (_, i) => makeFrame(i, 1000)).filter((frame) => peer.sendFrame(frame));
      expect(sent.length).toBeGreaterThanOrEqual(10);
      peer.close();
      expectFrames(pumpFrames(sent.length), sent);
      provokeEnd();
      transport.pump();
      transport.pump();
      expect(transport.gone).toEqual(['closed']);
      expect(transport.link.connected).toBe(false);
      expect(transport.link.reserve(100)).toBe(-1);
    });

    itWithEnd('notices a guest that went without having sent anything', () => {
      transport.connect().close();
      expect(transport.pump()).toEqual([]);
      provokeEnd();
      expect(transport.gone).toEqual(['closed']);
    });

    itWithEnd('bears frames that are committed after the guest has gone', () => {
      const peer = transport.connect();
      const { link } = transport;
      const start = link.reserve(1000);
      peer.close();
      transport.pump();
      provokeEnd();
      expect(link.connected).toBe(false);
      link.commit(start + link.headroomBytes, 60);
      expect(link.flush()).toBe(0);
    });

    it('closes the connection when it is told to', () => {
      const peer = transport.connect();
      transport.detach();
      expect(transport.gone).toEqual(['detached']);
      expect(peer.isEnded()).toBe(true);
    });

    itWithEnd('serves the next guest as if there had been none before', () => {
      const first = transport.connect();
      first.sendFrame(makeFrame(1, 60));
      while (queueFrame(transport, makeFrame(0, 60_000)));
      transport.pump();
      first.close();
      transport.pump();
      provokeEnd();
      for (let i = 0; i < 5; i++) {
        const peer = transport.connect();
        const sent = makeFrame(10 + i, 1000);
        expect(peer.sendFrame(sent)).toBe(true);
        expectFrames(pumpFrames(1), [sent]);
        queueFrame(transport, sent);
        expect(transport.link.flush()).toBe(0);
        expectFrames(peer.receiveFrames(), [sent]);
        peer.close();
        transport.pump();
        provokeEnd();
        expect(transport.link.connected).toBe(false);
      }
    });

    it.runIf(isLossy)('carries a mixed load in both directions, each frame whole or not at all, in order', () => {
      const random = seededRandom(21);
      const peer = transport.connect();
      const sizes = Array.from({ length: 2000 }, () => MIN_FRAME_BYTES + Math.floor(random() * 3000));
      const count = { down: 0, up: 0 };
      const next = { down: 0, up: 0 };
      const take = (way: 'down' | 'up', frame: Uint8Array): void => {
        const number = new DataView(frame.buffer, frame.byteOffset).getUint32(0);
        expect(number).toBeGreaterThanOrEqual(next[way]);
        expect(Buffer.compare(frame, makeFrame(number, sizes[number]!))).toBe(0);
        next[way] = number + 1;
        count[way]++;
      };
      sizes.forEach((size, number) => {
        expect(queueFrame(transport, makeFrame(number, size))).toBe(true);
        peer.sendFrame(makeFrame(number, size));
        // Fewer than what the smallest buffer holds.
        if (number % 20 !== 19) return;
        for (const frame of transport.pump()) take('up', frame);
        for (const frame of peer.receiveFrames()) take('down', frame);
      });
      // The loopback of an idle machine loses none; a busy one may.
      expect(count.down).toBeGreaterThan(1000);
      expect(count.up).toBeGreaterThan(1000);
    });

    itWithoutLoss('carries a long mixed load in both directions at once, byte for byte', () => {
      const random = seededRandom(20);
      const peer = transport.connect();
      const total = 4000;
      const size = (): number => {
        const kind = random();
        if (kind < 0.5) return MIN_FRAME_BYTES + Math.floor(random() * 100);
        if (kind < 0.9) return MIN_FRAME_BYTES + Math.floor(random() * 1501);
        return MIN_FRAME_BYTES + Math.floor(random() * (transport.link.maxFrameBytes - MIN_FRAME_BYTES + 1));
      };
      const down = Array.from({ length: total }, size);
      const up = Array.from({ length: total }, size);
      let [queued, arrived, sent, got] = [0, 0, 0, 0];
      for (let round = 0; arrived < total || got < total; round++) {
        expect(round).toBeLessThan(100_000);
        for (let burst = Math.floor(random() * 60); burst > 0 && queued < total; burst--) {
          if (!queueFrame(transport, makeFrame(queued, down[queued]!))) break;
          queued++;
        }
        // Never so much that the peer could get stuck inside a frame.
        for (let room = 100_000; sent < total; sent++) {
          room -= up[sent]! + 600;
          if (room < 0 || random() < 0.02 || !peer.sendFrame(makeFrame(sent, up[sent]!))) break;
        }
        for (const frame of transport.pump()) expect(Buffer.compare(frame, makeFrame(got, up[got++]!))).toBe(0);
        const limitBytes = random() < 0.3 ? 0 : Math.floor(random() * 300_000);
        for (const frame of peer.receiveFrames(limitBytes)) {
          expect(Buffer.compare(frame, makeFrame(arrived, down[arrived++]!))).toBe(0);
        }
      }
      expect([queued, arrived, sent, got]).toEqual([total, total, total, total]);
      expect(transport.gone).toEqual([]);
    });
  });
}
