/** A link made worse on purpose, on a clock of the test's own. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Arena, createArena } from '../../../src/base/arena.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { createImpairLink, type ImpairLink } from '../../../src/link/impair.ts';
import { NO_IMPAIRMENT, type WayImpairment } from '../../../src/link/impairment.ts';
import { OFFLOAD_CHECKSUM } from '../../../src/stack/ports.ts';
import { FakeLink } from '../../support/fake-link.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const NONE: WayImpairment = {
  delayMs: 0,
  jitterMs: 0,
  loss: 0,
  duplicate: 0,
  reorder: 0,
  bitsPerSecond: 0,
  limitBytes: 0,
  seed: 1,
};

/** A frame that begins with its number. */
function frame(number: number, length = 100): Uint8Array {
  const bytes = new Uint8Array(length).fill(number);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

function numberOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
}

interface SetUp {
  readonly arena: Arena;
  readonly inner: FakeLink;
  readonly link: ImpairLink;
  /** Lays frames for the guest and ends the turn. @returns how many had room */
  send(...frames: Uint8Array[]): number;
  /** Frames from the guest, in one turn. */
  comeFromGuest(...frames: Uint8Array[]): void;
  /** [time, number] of the frames that have reached the guest, and the stack. */
  readonly toGuest: [number, number][];
  readonly fromGuest: [number, number][];
}

/** What an owner does: a turn when the link wakes it. */
function setUp(
  ways: { toGuest?: Partial<WayImpairment>; fromGuest?: Partial<WayImpairment> },
  { offloads = 0, txBytes = 1 << 20 } = {},
): SetUp {
  const arena = createArena(16 << 20);
  const inner = new FakeLink(arena, txBytes, 1 << 20, offloads);
  const link = createImpairLink({ link: inner, arena, clock: systemClock });
  const way = (given: Partial<WayImpairment> | undefined): WayImpairment | undefined =>
    given === undefined ? undefined : { ...NONE, ...given };
  link.configure({ toGuest: way(ways.toGuest), fromGuest: way(ways.fromGuest) });
  const startMs = performance.now();
  const frames = new Int32Array(64);
  const toGuest: [number, number][] = [];
  const fromGuest: [number, number][] = [];
  let seen = 0;
  const turn = (): void => {
    for (let count = link.receive(frames); count > 0; count = link.receive(frames)) {
      for (let i = 0; i < count; i++) {
        const data = arena.bytes.slice(frames[2 * i]!, frames[2 * i]! + frames[2 * i + 1]!);
        fromGuest.push([performance.now() - startMs, numberOf(data)]);
      }
    }
    link.flush();
    for (; seen < inner.sent.length; seen++) toGuest.push([performance.now() - startMs, numberOf(inner.sent[seen]!)]);
  };
  link.onWake = turn;
  return {
    arena,
    inner,
    link,
    toGuest,
    fromGuest,
    send(...all) {
      let laid = 0;
      for (const data of all) {
        const start = link.reserve(link.headroomBytes + data.length);
        if (start < 0) break;
        arena.bytes.set(data, start + link.headroomBytes);
        link.commit(start + link.headroomBytes, data.length);
        laid++;
      }
      turn();
      return laid;
    },
    comeFromGuest(...all) {
      for (const data of all) inner.pushFromGuest(data);
      turn();
    },
  };
}

const range = (count: number, first = 0): number[] => Array.from({ length: count }, (_, i) => first + i);

describe('delay', () => {
  it('holds frames for just that long, in each direction on its own', () => {
    const { send, comeFromGuest, toGuest, fromGuest } = setUp({ toGuest: { delayMs: 20 }, fromGuest: { delayMs: 5 } });
    send(frame(1));
    comeFromGuest(frame(2));
    vi.advanceTimersByTime(3);
    send(frame(3));
    vi.advanceTimersByTime(100);
    expect(toGuest).toEqual([
      [20, 1],
      [23, 3],
    ]);
    expect(fromGuest).toEqual([[5, 2]]);
  });

  it('lets the other direction be', () => {
    const { send, comeFromGuest, toGuest, fromGuest } = setUp({ fromGuest: { delayMs: 5 } });
    send(frame(1));
    comeFromGuest(frame(2));
    expect(toGuest).toEqual([[0, 1]]);
    vi.advanceTimersByTime(100);
    expect(fromGuest).toEqual([[5, 2]]);
  });

  it('varies by the jitter, evenly, and no frame overtakes another', () => {
    const { send, toGuest } = setUp({ toGuest: { delayMs: 50, jitterMs: 20 } });
    for (const number of range(400)) {
      send(frame(number));
      vi.advanceTimersByTime(40);
    }
    vi.advanceTimersByTime(100);
    expect(toGuest.map(([, number]) => number)).toEqual(range(400));
    const delays = toGuest.map(([time, number]) => time - 40 * number);
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(30);
    expect(Math.min(...delays)).toBeLessThan(33);
    expect(Math.max(...delays)).toBeLessThanOrEqual(71);
    expect(Math.max(...delays)).toBeGreaterThan(67);
    const mean = delays.reduce((sum, delay) => sum + delay, 0) / delays.length;
    expect(Math.abs(mean - 50)).toBeLessThan(2.5);
  });

  it('keeps the order of frames that come faster than the jitter is wide', () => {
    const { send, toGuest } = setUp({ toGuest: { delayMs: 50, jitterMs: 50 } });
    for (const number of range(300)) {
      send(frame(number));
      vi.advanceTimersByTime(1);
    }
    vi.advanceTimersByTime(200);
    expect(toGuest.map(([, number]) => number)).toEqual(range(300));
  });

  it('keeps what stands in front of frames with virtio-net headers', () => {
    const { arena, inner, link } = setUp(
      { toGuest: { delayMs: 1 }, fromGuest: { delayMs: 1 } },
      { offloads: OFFLOAD_CHECKSUM },
    );
    const header = Uint8Array.from({ length: 12 }, (_, i) => i + 1);
    const list = new Int32Array(8);
    inner.pushFromGuest(frame(1), header);
    expect(link.receive(list)).toBe(0);
    const start = link.reserve(link.headroomBytes + 100);
    arena.bytes.set(header, start + link.headroomBytes - 12);
    arena.bytes.set(frame(2), start + link.headroomBytes);
    link.commit(start + link.headroomBytes, 100);
    link.flush();
    link.onWake = () => {};
    vi.advanceTimersByTime(2);
    expect(link.receive(list)).toBe(1);
    expect(arena.bytes.slice(list[0]! - 12, list[0]!)).toEqual(header);
    expect(arena.bytes.slice(list[0]!, list[0]! + list[1]!)).toEqual(frame(1));
    link.flush();
    expect([inner.sentHeaders, inner.sent]).toEqual([[header], [frame(2)]]);
  });
});

describe('chance', () => {
  it('loses its share, the same frames with the same seed', () => {
    const lose = (seed: number): number[] => {
      const { send, toGuest, link } = setUp({ toGuest: { loss: 0.1, seed } });
      for (const number of range(2000)) send(frame(number));
      expect(link.toGuest.counters.lost).toBe(2000 - toGuest.length);
      expect(link.toGuest.counters.passed).toBe(toGuest.length);
      return toGuest.map(([, number]) => number);
    };
    const left = lose(7);
    expect(left.length).toBeGreaterThan(1740);
    expect(left.length).toBeLessThan(1860);
    expect(lose(7)).toEqual(left);
    expect(lose(8)).not.toEqual(left);
  });

  it('loses everything at 100 %, and nothing at 0 %', () => {
    for (const [loss, count] of [
      [1, 0],
      [0, 500],
    ] as const) {
      const { comeFromGuest, fromGuest } = setUp({ fromGuest: { loss } });
      for (const number of range(500)) comeFromGuest(frame(number));
      expect(fromGuest).toHaveLength(count);
    }
  });

  it('doubles its share, the copy behind the frame', () => {
    const { send, toGuest, link } = setUp({ toGuest: { duplicate: 0.2 } });
    for (const number of range(1000)) send(frame(number));
    const doubled = toGuest.length - 1000;
    expect(doubled).toBeGreaterThan(150);
    expect(doubled).toBeLessThan(250);
    expect(link.toGuest.counters.duplicated).toBe(doubled);
    expect(toGuest.map(([, number]) => number)).toEqual(toGuest.map(([, number]) => number).sort((a, b) => a - b));
  });

  it('sends its share ahead of those that are delayed', () => {
    const { send, toGuest, link } = setUp({ toGuest: { delayMs: 10, reorder: 0.25 } });
    for (const number of range(400)) {
      send(frame(number));
      vi.advanceTimersByTime(1);
    }
    vi.advanceTimersByTime(20);
    expect(toGuest.map(([, number]) => number).sort((a, b) => a - b)).toEqual(range(400));
    const early = toGuest.filter(([time, number]) => time === number);
    expect(early.length).toBe(link.toGuest.counters.reordered);
    expect(early.length).toBeGreaterThan(70);
    expect(early.length).toBeLessThan(130);
    const late = toGuest.filter(([time, number]) => time !== number);
    for (const [time, number] of late) expect(time).toBe(number + 10);
  });
});

describe('rate', () => {
  it('spaces frames by what they take at that rate', () => {
    // 1 Mbit/s: 1250 bytes take 10 ms.
    const { send, toGuest } = setUp({ toGuest: { bitsPerSecond: 1e6 } });
    send(...range(5).map((number) => frame(number, 1250)));
    vi.advanceTimersByTime(100);
    expect(toGuest.map(([time]) => time)).toEqual([10, 20, 30, 40, 50]);
  });

  it('is kept over a long time, however coarse timers are', () => {
    // 10 Mbit/s: one frame each 80 µs, more than ten in a tick of the timers.
    const { comeFromGuest, fromGuest, link } = setUp({ fromGuest: { bitsPerSecond: 1e7 } });
    for (let ms = 0; ms < 2000; ms++) {
      comeFromGuest(...range(20, 20 * ms).map((number) => frame(number)));
      vi.advanceTimersByTime(1);
    }
    expect(Math.abs(fromGuest.length - 25_000)).toBeLessThan(30);
    expect(link.fromGuest.counters.dropped).toBeGreaterThan(10_000);
  });

  it('drops what comes from the guest beyond the limit, and takes a frame that is longer than it', () => {
    const { comeFromGuest, fromGuest, link } = setUp({ fromGuest: { bitsPerSecond: 8e6, limitBytes: 5000 } });
    comeFromGuest(...range(10).map((number) => frame(number, 1000)));
    vi.advanceTimersByTime(100);
    expect(fromGuest.map(([, number]) => number)).toEqual(range(5));
    expect(link.fromGuest.counters).toMatchObject({ passed: 5, dropped: 5, lost: 0 });
    comeFromGuest(frame(20, 9000));
    vi.advanceTimersByTime(100);
    expect(fromGuest.at(-1)![1]).toBe(20);
  });

  it('has the stack wait instead of dropping, and says when there is room again', () => {
    const { link, send, toGuest } = setUp({ toGuest: { bitsPerSecond: 1e7, limitBytes: 1000 } });
    const total = 2000;
    let next = 0;
    const rooms: number[] = [];
    const turn = link.onWake;
    link.onWake = () => {
      rooms.push(link.roomBytes());
      turn();
      // As the stack does: it does not begin with little room.
      while (next < total && link.roomBytes() >= 128 * 1024)
        next += send(...range(50, next).map((n) => frame(n, 1000)));
    };
    link.onWake();
    let most = 0;
    for (let ms = 0; ms < 5000 && toGuest.length < total; ms += 10) {
      vi.advanceTimersByTime(10);
      most = Math.max(most, link.toGuest.waitingBytes(performance.now()));
    }
    expect(toGuest.map(([, number]) => number)).toEqual(range(total));
    // 1000 bytes each 0.8 ms, and never without anything to send.
    expect(toGuest.at(-1)![0]).toBeLessThan(total * 0.8 + 3);
    expect(link.toGuest.counters).toMatchObject({ dropped: 0, lost: 0 });
    expect(most).toBeLessThanOrEqual(320 * 1024);
    expect(Math.max(...rooms)).toBeGreaterThan(128 * 1024);
  });

  it('says that there is room as soon as there is, however long frames are under way', () => {
    const { link, send, toGuest } = setUp({ toGuest: { bitsPerSecond: 1e8, limitBytes: 1000, delayMs: 500 } });
    let next = 0;
    const turn = link.onWake;
    link.onWake = () => {
      turn();
      while (next < 2000 && link.roomBytes() >= 128 * 1024) next += send(...range(50, next).map((n) => frame(n, 1000)));
    };
    link.onWake();
    vi.advanceTimersByTime(2000);
    // 2 MB take 160 ms.
    expect(toGuest.map(([, number]) => number)).toEqual(range(2000));
    expect(toGuest.at(-1)![0]).toBeLessThan(664);
  });

  it('leaves a switch room that the stack does not lose', () => {
    for (const [limitBytes, kept] of [
      [1000, 320 * 1024 - 1000],
      [10 << 20, 5 << 20],
    ] as const) {
      const { link } = setUp({ toGuest: { bitsPerSecond: 1e7, limitBytes } });
      expect(link.keptBytes).toBe(kept);
    }
    expect(setUp({ toGuest: { delayMs: 5 } }).link.keptBytes).toBeUndefined();
  });
});

describe('a transport that is full', () => {
  it('keeps what is due, in order, and gives no room meanwhile', () => {
    const { inner, link, send, toGuest } = setUp({ toGuest: { delayMs: 10 } }, { txBytes: 64 * 1024 });
    inner.stalled = true;
    send(...range(200).map((number) => frame(number, 1000)));
    vi.advanceTimersByTime(20);
    expect(link.roomBytes()).toBe(0);
    expect(link.reserve(100)).toBe(-1);
    expect(link.flush()).toBeGreaterThan(0);
    inner.stalled = false;
    link.onWake();
    expect(toGuest.map(([, number]) => number)).toEqual(range(200));
    expect(link.roomBytes()).toBeGreaterThan(0);
  });
});

describe('a change', () => {
  it('lets what is under way arrive at once when there is to be no impairment any more, and then is idle', () => {
    const { link, send, comeFromGuest, toGuest, fromGuest } = setUp({
      toGuest: { delayMs: 1000 },
      fromGuest: { delayMs: 1000 },
    });
    send(frame(1), frame(2));
    comeFromGuest(frame(3));
    vi.advanceTimersByTime(5);
    link.configure(NO_IMPAIRMENT);
    expect(link.isIdle).toBe(false);
    link.onWake();
    expect(toGuest).toEqual([
      [5, 1],
      [5, 2],
    ]);
    expect(fromGuest).toEqual([[5, 3]]);
    expect(link.isIdle).toBe(true);
  });

  it('does not let frames of the new time overtake those of the old', () => {
    const { link, send, toGuest } = setUp({ toGuest: { delayMs: 100 } });
    send(frame(1));
    link.configure({ toGuest: { ...NONE, delayMs: 1 }, fromGuest: undefined });
    send(frame(2));
    vi.advanceTimersByTime(200);
    expect(toGuest).toEqual([
      [100, 1],
      [100, 2],
    ]);
  });

  it('is drained when the transport was full and nothing tells of it', () => {
    const { inner, link, send, toGuest } = setUp({ toGuest: { delayMs: 10 } }, { txBytes: 64 * 1024 });
    send(...range(200).map((number) => frame(number, 1000)));
    inner.stalled = true;
    vi.advanceTimersByTime(20);
    link.configure(NO_IMPAIRMENT);
    link.onWake();
    expect(link.isIdle).toBe(false);
    inner.stalled = false;
    vi.advanceTimersByTime(200);
    expect(toGuest).toHaveLength(200);
    expect(link.isIdle).toBe(true);
  });
});

describe('a guest that leaves', () => {
  it('takes with it what was under way, and no timer is left', () => {
    const { inner, link, send, comeFromGuest, toGuest, fromGuest } = setUp({
      toGuest: { delayMs: 50, bitsPerSecond: 1e6 },
      fromGuest: { delayMs: 50, bitsPerSecond: 1e6 },
    });
    send(...range(20).map((number) => frame(number)));
    comeFromGuest(...range(20).map((number) => frame(number)));
    expect(link.toGuest.count + link.fromGuest.count).toBe(40);
    inner.connected = false;
    link.flush();
    expect([link.toGuest.count, link.toGuest.bytes, link.fromGuest.count, link.fromGuest.bytes]).toEqual([0, 0, 0, 0]);
    expect(vi.getTimerCount()).toBe(0);
    inner.connected = true;
    vi.advanceTimersByTime(1000);
    expect([toGuest, fromGuest]).toEqual([[], []]);
    send(frame(99));
    vi.advanceTimersByTime(100);
    expect(toGuest.map(([, number]) => number)).toEqual([99]);
  });
});

describe('many frames from the guest', () => {
  it('are taken in turns of a loop that others share', () => {
    const { inner, link } = setUp({ fromGuest: { loss: 1 } });
    let received = 0;
    const receive = inner.receive.bind(inner);
    // A guest that sends without pause.
    inner.receive = (frames) => {
      received++;
      if (received <= 40) inner.pushFromGuest(frame(received));
      return receive(frames);
    };
    link.onWake();
    expect(received).toBeLessThan(10);
    vi.advanceTimersByTime(50);
    expect(link.fromGuest.counters.lost).toBe(40);
    expect(received).toBe(41);
  });
});
