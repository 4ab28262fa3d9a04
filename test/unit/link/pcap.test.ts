import { mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { createPcapLink } from '../../../src/link/pcap.ts';
import { type CaptureEnd, CaptureFile, type CaptureOptions } from '../../../src/link/pcap-file.ts';
import { type CaptureFormat, createPcapngFormat, PCAP_FORMAT } from '../../../src/link/pcap-format.ts';
import { loadNative } from '../../../src/sys/native.ts';
import { createSocketPair } from '../../../src/sys/unix-socket.ts';
import { FakeLink } from '../../support/fake-link.ts';
import { readPcapng } from '../../support/pcapng.ts';

const PCAPNG_FORMAT = createPcapngFormat({ hardware: 'x64', os: 'Linux 6', application: 'passel test' });
/** Wall-clock time at 0 of the test's clock: 2023-11-14, with a fraction. */
const ORIGIN_MS = 1_700_000_000_123.25;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-pcap-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function frame(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function setUp(name: string, format: CaptureFormat = PCAP_FORMAT, more: Partial<CaptureOptions> = {}) {
  const path = name.startsWith('/') ? name : join(folder, name);
  const arena = createArena(4 << 20);
  const inner = new FakeLink(arena);
  let timeMs = 0.5;
  const ends: CaptureEnd[] = [];
  const file = new CaptureFile({
    ...{ fd: more.fd ?? openSync(path, 'w'), format, interfaces: ['guest'], arena, originMs: ORIGIN_MS },
    ...more,
  });
  file.onEnd = (end) => ends.push(end);
  const link = createPcapLink({ link: inner, sinks: [{ file, link: 0 }], clock: { nowMs: () => timeMs++ } });
  return {
    path,
    arena,
    inner,
    link,
    file,
    ends,
    queue(data: Uint8Array) {
      const start = link.reserve(link.headroomBytes + data.length);
      arena.bytes.set(data, start + link.headroomBytes);
      link.commit(start + link.headroomBytes, data.length);
    },
    receive(...frames: Uint8Array[]) {
      for (const data of frames) inner.pushFromGuest(data);
      return link.receive(new Int32Array(64));
    },
  };
}

/** Records as [time in microseconds, bytes, length of the frame]. */
function parse(file: Buffer): [number, Buffer, number][] {
  expect(file.subarray(0, 16).toString('hex')).toBe('d4c3b2a1020004000000000000000000');
  expect(file.readUInt32LE(20)).toBe(1);
  const records: [number, Buffer, number][] = [];
  for (let at = 24; at < file.length; ) {
    const captured = file.readUInt32LE(at + 8);
    expect(file.readUInt32LE(at + 4)).toBeLessThan(1_000_000);
    const data = file.subarray(at + 16, at + 16 + captured);
    records.push([file.readUInt32LE(at) * 1e6 + file.readUInt32LE(at + 4), data, file.readUInt32LE(at + 12)]);
    at += 16 + captured;
  }
  return records;
}

describe('a recording', () => {
  it('has frames of both directions with their times, in order', () => {
    const { path, link, file, queue, receive } = setUp('both');
    expect(receive(frame(60, 1), frame(14, 2))).toBe(2);
    queue(frame(1514, 3));
    expect(link.flush()).toBe(0);
    file.close();
    file.close();
    const records = parse(readFileSync(path));
    expect(records.map(([time, data, length]) => [time, data.length, data[0], length])).toEqual([
      [1_700_000_000_123_750, 60, 1, 60],
      [1_700_000_000_123_750, 14, 2, 14],
      [1_700_000_000_124_750, 1514, 3, 1514],
    ]);
  });

  it('has its header in the file from the start', () => {
    const { path, file } = setUp('empty');
    expect(parse(readFileSync(path))).toEqual([]);
    file.close();
  });

  it('is written by itself after a moment', async () => {
    const { path, file, queue } = setUp('delayed');
    queue(frame(60, 1));
    expect(parse(readFileSync(path))).toHaveLength(0);
    await expect.poll(() => parse(readFileSync(path)).length, { timeout: 5000 }).toBe(1);
    file.close();
  });

  it.each([
    ['pcap', PCAP_FORMAT],
    ['pcapng', PCAPNG_FORMAT],
  ] as const)('loses nothing when there is more than it gathers, as %s', (name, format) => {
    const { path, link, file, queue } = setUp(`many.${name}`, format);
    for (let i = 0; i < 300; i++) {
      queue(frame(65_535 - (i & 7), i & 255));
      link.flush();
    }
    file.close();
    const data = readFileSync(path);
    expect(file.bytes).toBe(data.length);
    const frames = name === 'pcap' ? parse(data).map(([, bytes]) => bytes) : readPcapng(data).frames.map((f) => f.data);
    expect(frames.map((bytes) => [bytes.length, bytes[0], bytes.at(-1)])).toEqual(
      Array.from({ length: 300 }, (_, i) => [65_535 - (i & 7), i & 255, i & 255]),
    );
  });

  it('has so much of each frame as is asked for, and its length', () => {
    for (const [name, format] of [
      ['snap.pcap', PCAP_FORMAT],
      ['snap.pcapng', PCAPNG_FORMAT],
    ] as const) {
      const { path, file, queue } = setUp(name, format, { snapBytes: 61 });
      queue(frame(60, 1));
      queue(frame(1514, 2));
      file.close();
      const data = readFileSync(path);
      const records =
        format === PCAP_FORMAT
          ? parse(data).map(([, bytes, length]) => [bytes.length, length])
          : readPcapng(data).frames.map((each) => [each.data.length, each.lengthBytes]);
      expect(records).toEqual([
        [60, 60],
        [61, 1514],
      ]);
      if (format === PCAP_FORMAT) expect(data.readUInt32LE(16)).toBe(61);
    }
  });

  it.each([
    ['pcap', PCAP_FORMAT],
    ['pcapng', PCAPNG_FORMAT],
  ] as const)('ends when the file would get larger than it may, as %s', (name, format) => {
    const { path, inner, link, file, ends, queue } = setUp(`limited.${name}`, format, { maxBytes: 10_000 });
    for (let i = 0; i < 20; i++) {
      queue(frame(1000, i));
      link.flush();
    }
    expect(ends).toEqual([{ kind: 'full' }]);
    expect(file.isRecording).toBe(false);
    expect(inner.sent).toHaveLength(20);
    const { size } = statSync(path);
    expect(size).toBeLessThanOrEqual(10_000);
    expect(size).toBeGreaterThan(8_000);
    expect(size).toBe(file.bytes);
  });

  it('goes on carrying frames when the disk is full, and says so once', () => {
    const native = loadNative();
    const [fd, reader] = createSocketPair(native);
    const { inner, ends, file, link, queue, receive } = setUp('disk', PCAP_FORMAT, { fd });
    // As good as a full disk: nothing more can be written.
    native.close(reader);
    for (let i = 0; i < 12; i++) {
      queue(frame(60_000, 1));
      link.flush();
    }
    expect(ends).toMatchObject([{ kind: 'error', error: { code: 'EPIPE' } }]);
    expect(inner.sent).toHaveLength(12);
    expect(receive(frame(60, 2))).toBe(1);
    file.close();
    expect(ends).toHaveLength(1);
  });

  it('is not begun in a file that cannot take its header', () => {
    expect(() => setUp('/dev/full')).toThrow('ENOSPC');
  });

  it('has nothing of what went nowhere for want of a guest', () => {
    const { path, inner, link, file, queue } = setUp('gone');
    queue(frame(60, 1));
    link.flush();
    inner.connected = false;
    expect(link.reserve(64)).toBe(-1);
    file.close();
    expect(parse(readFileSync(path))).toHaveLength(1);
  });

  it('may be one of several of a link, which come and go', () => {
    const first = setUp('first');
    const { link, arena, queue } = first;
    const path = join(folder, 'second');
    const second = new CaptureFile({ fd: openSync(path, 'w'), format: PCAP_FORMAT, interfaces: ['x'], arena });
    queue(frame(60, 1));
    link.add({ file: second, link: 0 });
    queue(frame(60, 2));
    expect(link.remove(first.file)).toBe(true);
    queue(frame(60, 3));
    expect(link.remove(second)).toBe(false);
    queue(frame(60, 4));
    first.file.close();
    second.close();
    const numbers = (file: string) => parse(readFileSync(file)).map(([, data]) => data[0]);
    expect([numbers(first.path), numbers(path)]).toEqual([
      [1, 2],
      [2, 3],
    ]);
  });
});

describe('pcapng', () => {
  it('says who wrote it, which links there are, which way each frame went, and when to the nanosecond', () => {
    const { path, arena, file, queue, receive } = setUp('ng', PCAPNG_FORMAT, {
      interfaces: ['web', 'db'],
      comment: 'Begun for a test.',
    });
    receive(frame(61, 1));
    queue(frame(62, 2));
    arena.bytes.fill(3, 1 << 20, (1 << 20) + 63);
    file.record(1, 1 << 20, 63, 86_400_000.123_456, false);
    file.close('the test is over');
    const { section, interfaces, frames, statistics } = readPcapng(readFileSync(path));
    expect(section).toEqual({
      hardware: 'x64',
      os: 'Linux 6',
      application: 'passel test',
      comment: 'Begun for a test.',
    });
    expect(interfaces).toEqual([
      { name: 'web', linkType: 1, resolution: 9, snapBytes: 262_144 },
      { name: 'db', linkType: 1, resolution: 9, snapBytes: 262_144 },
    ]);
    expect(frames.map(({ data, ...rest }) => ({ ...rest, data: [data.length, data[0]] }))).toEqual([
      { link: 0, timeNs: 1_700_000_000_123_750_000n, lengthBytes: 61, direction: 'inbound', data: [61, 1] },
      { link: 0, timeNs: 1_700_000_000_124_750_000n, lengthBytes: 62, direction: 'outbound', data: [62, 2] },
      { link: 1, timeNs: 1_700_086_400_123_373_456n, lengthBytes: 63, direction: 'inbound', data: [63, 3] },
    ]);
    expect(statistics.map(({ link, received, comment }) => [link, received, comment])).toEqual([
      [0, 2n, 'The recording has ended: the test is over.'],
      [1, 1n, 'The recording has ended: the test is over.'],
    ]);
  });
});
