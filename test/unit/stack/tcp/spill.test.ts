import { describe, expect, it } from 'vitest';
import type { HostSockets } from '../../../../src/stack/ports.ts';
import { Spill } from '../../../../src/stack/tcp/spill.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import { Harness, pattern } from './harness.ts';

describe('the spill', () => {
  it('gives every byte back in order, over many chunks, whatever the socket takes', () => {
    for (let seed = 1; seed <= 5; seed++) {
      const random = seededRandom(seed);
      const spill = new Spill();
      const total = 2_000_000;
      const source = pattern(total);
      const out = new Uint8Array(total);
      let outLength = 0;
      const sockets = {
        sendBuffer(_fd: number, buffer: Uint8Array, offset: number, length: number): number {
          const count = random() < 0.2 ? 0 : Math.min(length, 1 + Math.floor(random() * 300_000));
          if (count === 0) return -11;
          out.set(buffer.subarray(offset, offset + count), outLength);
          outLength += count;
          return count;
        },
      } as unknown as HostSockets;
      let written = 0;
      while (outLength < total) {
        const length = Math.min(total - written, Math.floor(random() * 200_000));
        spill.append(source, written, length);
        written += length;
        spill.drain(sockets, 1);
        expect(spill.lengthBytes).toBe(written - outLength);
      }
      expect(Buffer.from(out).equals(source)).toBe(true);
    }
  });
});

describe('a host socket that takes any number of bytes', () => {
  for (let seed = 1; seed <= 6; seed++) {
    it(`gets every byte in order, and nothing advertised is lost, seed ${seed}`, () => {
      const random = seededRandom(seed);
      const h = new Harness();
      const conn = h.openOut();
      const total = 600_000;
      const source = pattern(total);
      let at = 0;
      let edge = 65_535;
      for (let step = 0; step < 20_000 && conn.socket.sentLength < total; step++) {
        const count = Math.floor(random() * 12);
        for (let i = 0; i < count && at < total; i++) {
          const length = Math.min(total - at, edge - at, 1 + Math.floor(random() * 1460));
          if (length <= 0) break;
          h.queue(conn.make('A', { data: source.subarray(at, at + length) }));
          conn.guestNext = (conn.guestNext + length) >>> 0;
          at += length;
        }
        h.turn();
        for (const segment of h.take()) {
          expect(segment.ack).toBe(conn.guestNext);
          const next = at + segment.window * 256;
          expect(next).toBeGreaterThanOrEqual(edge);
          edge = next;
        }
        conn.socket.setSpace(random() < 0.5 ? 0 : Math.floor(random() * 9000));
      }
      expect(Buffer.from(conn.socket.sent).equals(source)).toBe(true);
    });
  }
});
