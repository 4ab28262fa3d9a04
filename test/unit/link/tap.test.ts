import { describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { createTapLink, type TapLinkOptions } from '../../../src/link/tap.ts';
import {
  EVENT_EDGE,
  EVENT_ERR,
  EVENT_IN,
  EVENT_OUT,
  type HostSockets,
  KIND_LINK,
  LINK_IDLE,
  OFFLOAD_CHECKSUM,
  OFFLOAD_TCP4,
  OFFLOAD_TCP6,
  OFFLOAD_UDP4,
  OFFLOAD_UDP6,
} from '../../../src/stack/ports.ts';

const FD = 9;
const EIO = -5;
const EAGAIN = -11;
const ENOMEM = -12;
const EINVAL = -22;
const EBADFD = -77;

/** A device in memory: frames of the guest go out by `inbound`; the n-th write is answered by `answers[n]`, else taken. */
function setUp(options: Partial<TapLinkOptions> = {}) {
  const arena = createArena(8 << 20);
  const { view, bytes } = arena;
  const log = {
    inbound: [] as number[],
    readFailure: EAGAIN,
    reads: 0,
    answers: [] as number[],
    written: [] as number[][],
    calls: 0,
    closed: [] as number[],
    watched: [] as number[][],
    rooms: 0,
    gone: [] as [string, number][],
  };
  const native = {
    setNonBlocking: () => 0,
    tunRead(_fd: number, offset: number, length: number, slot: number, header: number, frames: Int32Array): number {
      log.reads++;
      let count = 0;
      for (let at = 0; log.inbound.length > 0 && count < frames.length >> 1 && length - at >= slot; count++) {
        const frame = log.inbound.shift()!;
        bytes.fill(0, offset + at, offset + at + header);
        bytes.fill(count + 1, offset + at + header, offset + at + header + frame);
        frames[2 * count] = offset + at + header;
        frames[2 * count + 1] = frame;
        at += (header + frame + 63) & ~63;
      }
      return count === 0 ? log.readFailure : count;
    },
    tunWrite(_fd: number, offset: number, length: number, header: number): number {
      log.calls++;
      let at = 0;
      while (at < length) {
        const answer = log.answers.shift() ?? 0;
        if (answer < 0) {
          // Asked again for the frame that now comes first, the device says the same.
          if (at > 0) log.answers.unshift(answer);
          return at > 0 ? at : answer;
        }
        const frame = view.getUint32(offset + at, true);
        log.written.push([frame, bytes[offset + at + 4 + header]!]);
        at += 4 + header + frame;
      }
      return at;
    },
  };
  const sockets = {
    watch: (...args: number[]) => {
      log.watched.push(args);
      return 0;
    },
    unwatch: () => 0,
    close: (fd: number) => {
      log.closed.push(fd);
      return 0;
    },
  } as unknown as HostSockets;
  const link = createTapLink({ arena, sockets, native, ...options });
  link.onRoom = () => log.rooms++;
  link.onGone = (reason, error) => log.gone.push([reason, error]);
  expect(link.attach(FD)).toBe(0);
  return {
    link,
    log,
    queue(length: number, value: number): boolean {
      const start = link.reserve(link.headroomBytes + length);
      if (start < 0) return false;
      bytes.fill(value, start + link.headroomBytes, start + link.headroomBytes + length);
      link.commit(start + link.headroomBytes, length);
      return true;
    },
  };
}

describe('tap link', () => {
  it('says what its device can do', () => {
    expect(setUp().link).toMatchObject({ headroomBytes: 4, hasVnetHeader: false, offloads: 0 });
    const tcp = OFFLOAD_CHECKSUM | OFFLOAD_TCP4 | OFFLOAD_TCP6;
    expect(setUp({ vnetHeader: true }).link).toMatchObject({ headroomBytes: 16, hasVnetHeader: true, offloads: tcp });
    const all = tcp | OFFLOAD_UDP4 | OFFLOAD_UDP6;
    expect(setUp({ vnetHeader: true, udpSegmentation: true }).link.offloads).toBe(all);
    expect(setUp({ udpSegmentation: true }).link.offloads).toBe(0);
  });

  it('watches the device once, for edges', () => {
    expect(setUp({ index: 3 }).log.watched).toEqual([[FD, (EVENT_IN | EVENT_OUT | EVENT_EDGE) >>> 0, KIND_LINK, 3]]);
  });

  it('closes a descriptor that cannot be made non-blocking', () => {
    const { link, log } = setUp();
    link.detach();
    const native = { setNonBlocking: () => -9, tunRead: () => 0, tunWrite: () => 0 };
    const other = createTapLink({
      arena: createArena(8 << 20),
      sockets: { close: (fd: number) => log.closed.push(fd) } as unknown as HostSockets,
      native,
    });
    expect(other.attach(12)).toBe(-9);
    expect(log.closed).toEqual([FD, 12]);
    expect(other.connected).toBe(false);
  });

  it('does not ask again after a read that had room for more', () => {
    const { link, log } = setUp();
    const frames = new Int32Array(64);
    log.inbound = [60, 1514];
    expect(link.receive(frames)).toBe(2);
    expect([frames[1], frames[3]]).toEqual([60, 1514]);
    expect(link.receive(frames)).toBe(LINK_IDLE);
    expect(log.reads).toBe(1);
  });

  it('asks again when the list of frames or the region was full', () => {
    const { link, log } = setUp({ receiveBytes: 200_000 });
    log.inbound = [60, 61, 62];
    const few = new Int32Array(4);
    expect(link.receive(few)).toBe(2);
    expect(link.receive(few)).toBe(1);
    log.inbound = [65_000, 65_000, 65_000, 65_000];
    expect(link.receive(few)).toBe(LINK_IDLE);
    const many = new Int32Array(64);
    expect(link.receive(many)).toBe(3);
    expect(link.receive(many)).toBe(1);
    expect(link.receive(many)).toBe(LINK_IDLE);
  });

  it('hands all frames of a turn to one call', () => {
    const { link, log, queue } = setUp({ vnetHeader: true });
    for (let i = 1; i <= 5; i++) queue(59 + i, i);
    expect(link.flush()).toBe(0);
    expect(log.calls).toBe(1);
    expect(log.written).toEqual([
      [60, 1],
      [61, 2],
      [62, 3],
      [63, 4],
      [64, 5],
    ]);
  });

  it.each([EIO, EINVAL])('goes on behind a frame that the device refuses with %d, and counts it', (error) => {
    const { link, log, queue } = setUp();
    for (let i = 1; i <= 3; i++) queue(60, i);
    log.answers = [0, error];
    expect(link.flush()).toBe(0);
    expect(log.written.map(([, value]) => value)).toEqual([1, 3]);
    expect(link.refusedFrames).toBe(1);
    log.answers = [error];
    queue(60, 4);
    expect(link.flush()).toBe(0);
    expect(link.refusedFrames).toBe(2);
    expect(link.connected).toBe(true);
  });

  it('keeps what a full device does not take until it says that it has room', () => {
    const { link, log, queue } = setUp();
    for (let i = 1; i <= 3; i++) queue(60, i);
    log.answers = [0, EAGAIN];
    expect(link.flush()).toBe(128);
    queue(60, 4);
    expect(link.flush()).toBe(192);
    // Blocked: the device is not asked before it says so.
    expect(log.calls).toBe(2);
    expect(link.onHostEvent(EVENT_OUT)).toBe(false);
    expect(log.written.map(([, value]) => value)).toEqual([1, 2, 3, 4]);
    expect(log.rooms).toBe(1);
  });

  it('tries again in the next turn when the kernel was short of memory', () => {
    const { link, log, queue } = setUp();
    queue(60, 1);
    log.answers = [ENOMEM];
    expect(link.flush()).toBe(64);
    expect(link.flush()).toBe(0);
    expect(log.written).toEqual([[60, 1]]);
  });

  it('says that a deleted device is gone, whichever call notices', () => {
    const reading = setUp();
    reading.log.readFailure = EBADFD;
    expect(reading.link.onHostEvent(EVENT_ERR)).toBe(true);
    expect(reading.link.receive(new Int32Array(8))).toBe(EBADFD);
    expect(reading.log.gone).toEqual([['closed', EBADFD]]);
    expect(reading.log.closed).toEqual([FD]);
    const writing = setUp();
    writing.queue(60, 1);
    writing.log.answers = [EBADFD];
    expect(writing.link.flush()).toBe(EBADFD);
    expect(writing.log.gone).toEqual([['closed', EBADFD]]);
    expect(writing.link.connected).toBe(false);
  });

  it('takes any other failure for an error', () => {
    const { link, log } = setUp();
    log.readFailure = -1;
    expect(link.receive(new Int32Array(8))).toBe(-1);
    expect(log.gone).toEqual([['error', -1]]);
  });

  it('looks for the news behind the last frames once the device has failed', () => {
    const { link, log } = setUp();
    log.inbound = [60];
    log.readFailure = EBADFD;
    expect(link.onHostEvent(EVENT_IN | EVENT_ERR)).toBe(true);
    const frames = new Int32Array(8);
    expect(link.receive(frames)).toBe(1);
    expect(link.receive(frames)).toBe(EBADFD);
  });
});
