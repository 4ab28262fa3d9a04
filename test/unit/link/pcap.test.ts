import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createArena } from '../../../src/base/arena.ts';
import { createPcapLink } from '../../../src/link/pcap.ts';
import { FakeLink } from '../../support/fake-link.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-pcap-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function frame(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

function setUp(name: string, flags = 'w') {
  const path = name.startsWith('/') ? name : join(folder, name);
  const arena = createArena(4 << 20);
  const inner = new FakeLink(arena);
  let timeMs = 1_700_000_000_123.456;
  const errors: Error[] = [];
  const link = createPcapLink({
    link: inner,
    arena,
    fd: openSync(path, flags),
    now: () => timeMs++,
    onError: (error) => errors.push(error),
  });
  return {
    path,
    arena,
    inner,
    link,
    errors,
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

/** Records as [time in microseconds, bytes]. */
function parse(file: Buffer): [number, Buffer][] {
  expect(file.subarray(0, 24).toString('hex')).toBe('d4c3b2a1020004000000000000000000000004000100000000'.slice(0, 48));
  const records: [number, Buffer][] = [];
  for (let at = 24; at < file.length; ) {
    const length = file.readUInt32LE(at + 8);
    expect(file.readUInt32LE(at + 12)).toBe(length);
    expect(file.readUInt32LE(at + 4)).toBeLessThan(1_000_000);
    records.push([file.readUInt32LE(at) * 1e6 + file.readUInt32LE(at + 4), file.subarray(at + 16, at + 16 + length)]);
    at += 16 + length;
  }
  return records;
}

describe('recorder', () => {
  it('writes frames of both directions with their times, in order', () => {
    const { path, link, queue, receive } = setUp('both');
    expect(receive(frame(60, 1), frame(14, 2))).toBe(2);
    queue(frame(1514, 3));
    expect(link.flush()).toBe(0);
    link.close();
    link.close();
    const records = parse(readFileSync(path));
    expect(records.map(([, data]) => [data.length, data[0]])).toEqual([
      [60, 1],
      [14, 2],
      [1514, 3],
    ]);
    const times = records.map(([time]) => time);
    expect(times[0]).toBe(times[1]);
    expect(times[0]).toBeCloseTo(1_700_000_000_123_456, -1);
    expect(times[2]! - times[0]!).toBe(1000);
  });

  it('has the header in the file from the start', () => {
    const { path, link } = setUp('empty');
    expect(parse(readFileSync(path))).toEqual([]);
    link.close();
  });

  it('writes by itself after a moment', async () => {
    const { path, link, queue } = setUp('delayed');
    queue(frame(60, 1));
    expect(parse(readFileSync(path))).toHaveLength(0);
    await expect.poll(() => parse(readFileSync(path)).length, { timeout: 5000 }).toBe(1);
    link.close();
  });

  it('does not lose records when there are more than it gathers', () => {
    const { path, link, queue } = setUp('many');
    for (let i = 0; i < 300; i++) {
      queue(frame(65_535, i & 255));
      link.flush();
    }
    link.close();
    expect(parse(readFileSync(path)).map(([, data]) => data[0])).toEqual(
      Array.from({ length: 300 }, (_, i) => i & 255),
    );
  });

  it('goes on carrying frames when the disk is full, and says so once', () => {
    const { inner, errors, link, queue, receive } = setUp('/dev/full');
    expect(errors).toHaveLength(1);
    expect(errors[0]!.message).toContain('ENOSPC');
    queue(frame(60, 1));
    link.flush();
    expect(inner.sent).toHaveLength(1);
    expect(receive(frame(60, 2))).toBe(1);
    link.close();
    expect(errors).toHaveLength(1);
  });

  it('does not record what went nowhere for want of a guest', () => {
    const { path, inner, link, queue } = setUp('gone');
    queue(frame(60, 1));
    link.flush();
    inner.connected = false;
    expect(link.reserve(64)).toBe(-1);
    link.close();
    expect(parse(readFileSync(path))).toHaveLength(1);
  });
});
