import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Arena, createArena } from '../../../src/base/arena.ts';
import { type Logger, silentLogger } from '../../../src/base/logger.ts';
import { Captures } from '../../../src/cli/captures.ts';
import type { GuestSide } from '../../../src/cli/guest-side.ts';
import type { CaptureSink } from '../../../src/link/pcap.ts';
import { readPcapng } from '../../support/pcapng.ts';

let folder: string;
let arena: Arena;
let captures: Captures;
let warnings: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'passel-captures-'));
  arena = createArena(1 << 20);
  warnings = [];
  const log: Logger = { ...silentLogger, warn: (message) => warnings.push(message) };
  captures = new Captures(arena, log);
});
afterEach(() => {
  captures.stop();
  rmSync(folder, { recursive: true });
});

/** A guest as far as recordings know it: where its frames go. */
function makeGuest(
  name: string,
  pcapPath?: string,
): { side: GuestSide; sinks: CaptureSink[]; send(count: number): void } {
  const sinks: CaptureSink[] = [];
  const side = {
    plan: { name, pcapPath },
    startCapture: (sink: CaptureSink) => sinks.push(sink),
    stopCapture: (file: CaptureSink['file']) => {
      const at = sinks.findIndex((sink) => sink.file === file);
      if (at >= 0) sinks.splice(at, 1);
    },
  } as unknown as GuestSide;
  return {
    side,
    sinks,
    send(count) {
      for (let i = 0; i < count; i++)
        for (const { file, link } of [...sinks]) file.record(link, 1024, 1000, performance.now(), false);
    },
  };
}

const start = (name: string, guests: readonly GuestSide[], maxBytes?: number) => {
  const path = join(folder, name);
  return captures.start({ fd: openSync(path, 'w'), name: path, format: 'pcapng', guests, maxBytes });
};

describe('recordings', () => {
  it('have numbers by which they end, one without the other', () => {
    const guest = makeGuest('web');
    const [first, second] = [start('1', [guest.side]), start('2', [guest.side])];
    expect([first.id, second.id]).toEqual([1, 2]);
    guest.send(2);
    expect(captures.stop(first.id)).toMatchObject([{ id: 1, frames: 2 }]);
    guest.send(3);
    expect(captures.list()).toMatchObject([{ id: 2, frames: 5, guests: ['web'] }]);
    expect(captures.stop(first.id)).toEqual([]);
    expect(captures.stop()).toMatchObject([{ id: 2, frames: 5 }]);
    expect(guest.sinks).toEqual([]);
    expect(readPcapng(readFileSync(join(folder, '1'))).frames).toHaveLength(2);
  });

  it('leave the guests alone once they have ended by themselves, which is said', async () => {
    const guests = [makeGuest('web'), makeGuest('db')];
    start(
      'full',
      guests.map(({ side }) => side),
      8192,
    );
    for (const guest of guests) guest.send(6);
    expect(warnings).toEqual([expect.stringMatching(/full' ended after \d frames: the file has its 8192 bytes$/)]);
    expect(captures.list()).toEqual([]);
    expect(captures.stop()).toEqual([]);
    await expect.poll(() => guests.map(({ sinks }) => sinks.length)).toEqual([0, 0]);
  });

  it('of --pcap are one file for each path', () => {
    const [lan, own] = [join(folder, 'lan.pcapng'), join(folder, 'own.pcap')];
    const guests = [makeGuest('a', lan), makeGuest('b', own), makeGuest('c', lan), makeGuest('d')];
    captures.openAll(
      guests.map(({ side }) => side),
      {},
    );
    for (const [i, guest] of guests.entries()) guest.send(i + 1);
    captures.stop();
    const { interfaces, frames } = readPcapng(readFileSync(lan));
    expect(interfaces.map(({ name }) => name)).toEqual(['a', 'c']);
    expect(frames.map(({ link }) => link)).toEqual([0, 1, 1, 1]);
    expect(readFileSync(own).length).toBe(24 + 2 * 1016);
  });

  it('of --pcap must have files that can be opened, and need not have room', () => {
    const bad = makeGuest('a', join(folder, 'no', 'file'));
    expect(() => captures.openAll([bad.side], {})).toThrow(
      expect.objectContaining({ code: 'PASSEL_E_FILE', message: expect.stringContaining('--pcap: cannot open') }),
    );
    captures.openAll([makeGuest('b', '/dev/full').side], {});
    expect(warnings).toEqual([expect.stringContaining('--pcap: recording ended: ENOSPC')]);
  });
});
