/** The data path makes no objects: the heap must not grow with the number of segments. */
import { describe, expect, it } from 'vitest';
import { type HostSockets, OFFLOAD_CHECKSUM, OFFLOAD_TCP4, OFFLOAD_TCP6 } from '../../../../src/stack/ports.ts';
import { buildFrame, type Connection, Harness, pattern } from './harness.ts';

const SEGMENTS_PER_TURN = 500;
const TURNS = 40;
const PAYLOAD_BYTES = 1460;

/** Replaces what the fakes would allocate for. */
function quieten(h: Harness, available: () => number): void {
  h.link.keepFrames = false;
  const { view } = h.arena;
  Object.assign(h.sockets, {
    send: (_fd, _offset, length) => length,
    sendSegments: (_fd, list, count) => {
      let total = 0;
      for (let i = 0; i < count; i++) total += view.getUint32(list + 8 * i + 4, true);
      return total;
    },
    peekSegments: (_fd, _offset, _stride, segmentBytes, count) => {
      const bytes = available();
      return bytes === 0 ? -11 : Math.min(bytes, segmentBytes * count);
    },
    discard: (_fd, length) => length,
    setOption: () => 0,
  } satisfies Partial<HostSockets>);
}

/**
 * Least growth of the heap over several runs, in bytes: other parts of the process allocate too, and until all is compiled numbers
 * above 2^31 are objects.
 */
function leastGrowth(run: () => void): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 200 && least >= SEGMENTS_PER_TURN * TURNS; i++) {
    const before = process.memoryUsage().heapUsed;
    run();
    const growth = process.memoryUsage().heapUsed - before;
    // A collection in between says nothing.
    if (growth >= 0 && growth < least) least = growth;
  }
  return least;
}

function layFrames(h: Harness, conn: Connection, count: number): { offsets: Int32Array; length: number } {
  const frame = buildFrame(conn.make('A', { data: pattern(PAYLOAD_BYTES) }));
  const offsets = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    offsets[i] = h.arena.allocate(frame.length);
    h.arena.bytes.set(frame, offsets[i]);
  }
  return { offsets, length: frame.length };
}

const OFFLOADED = OFFLOAD_CHECKSUM | OFFLOAD_TCP4 | OFFLOAD_TCP6;

describe.each([
  ['plain', 0],
  ['with offloads', OFFLOADED],
])('on a link that is %s, the heap grows by less than a byte', (_, offloads) => {
  it('for each segment of the guest', () => {
    const h = new Harness({ offloads });
    const conn = h.openOut();
    conn.sendData(pattern(PAYLOAD_BYTES));
    quieten(h, () => 0);
    const { offsets, length } = layFrames(h, conn, SEGMENTS_PER_TURN);
    const run = (): void => {
      for (let turn = 0; turn < TURNS; turn++) {
        for (let i = 0; i < SEGMENTS_PER_TURN; i++) {
          h.arena.view.setUint32(offsets[i]! + 38, conn.guestNext);
          conn.guestNext = (conn.guestNext + PAYLOAD_BYTES) >>> 0;
          h.input(offsets[i]!, length);
        }
        h.tcp.endInput();
        h.tcp.endTurn();
        h.link.flush();
      }
    };
    run();
    expect(leastGrowth(run)).toBeLessThan(SEGMENTS_PER_TURN * TURNS);
  });

  it('for each segment to the guest', () => {
    const h = new Harness({ offloads });
    const conn = h.openOut();
    conn.window = 60_000;
    conn.ack();
    let available = 0;
    quieten(h, () => available);
    const { offsets, length } = layFrames(h, conn, 1);
    const ack = offsets[0]!;
    // The acknowledgement of all, without payload: IP length, then the number, then no checksum worries.
    const run = (): void => {
      for (let turn = 0; turn < TURNS; turn++) {
        available = SEGMENTS_PER_TURN * PAYLOAD_BYTES;
        h.tcp.onHostEvent(0, 1);
        h.tcp.endTurn();
        h.link.flush();
        available = 0;
        conn.ourNext = (conn.ourNext + h.link.bytesSent - 54 * h.link.framesSent) >>> 0;
        h.link.bytesSent = 0;
        h.link.framesSent = 0;
        h.arena.view.setUint32(ack + 38, conn.guestNext);
        h.arena.view.setUint32(ack + 42, conn.ourNext);
        conn.guestNext = (conn.guestNext + PAYLOAD_BYTES) >>> 0;
        h.arena.view.setUint16(ack + 48, conn.window);
        h.input(ack, length);
        h.tcp.endInput();
      }
    };
    h.link.bytesSent = 0;
    h.link.framesSent = 0;
    run();
    expect(leastGrowth(run)).toBeLessThan(SEGMENTS_PER_TURN * TURNS);
    // Counted in payload, as a frame with offloads holds many segments.
    expect(h.ctx.counters.hostBytes).toBeGreaterThan(SEGMENTS_PER_TURN * TURNS * 3 * PAYLOAD_BYTES);
  });
});
