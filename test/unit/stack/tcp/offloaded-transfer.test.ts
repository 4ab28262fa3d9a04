/** All that is asked of transfers, with a guest that cuts frames itself: what it then sees must be the same. */
import { describe, expect, it } from 'vitest';
import { OFFLOAD_CHECKSUM, OFFLOAD_TCP4, OFFLOAD_TCP6 } from '../../../../src/stack/ports.ts';
import { Harness, pattern, setDefaultOffloads } from './harness.ts';

setDefaultOffloads(OFFLOAD_CHECKSUM | OFFLOAD_TCP4 | OFFLOAD_TCP6);
await import('./transfer.test.ts');

/** Frame lengths less the headers of IPv4 (54) or IPv6 (74). */
function payloads(h: Harness, headerBytes: number): number[] {
  return h.link.sent.map((frame) => frame.length - headerBytes);
}

describe('frames for a guest that cuts them', () => {
  it('hold as many whole segments as 64 KiB take, over both families', () => {
    for (const [family, mss, full] of [
      [4, 1460, 44 * 1460],
      [6, 1440, 45 * 1440],
    ] as const) {
      const h = new Harness();
      const conn = h.openOut({ family, mss }, 4000);
      conn.socket.deliver(pattern(200_000));
      h.turn();
      const rest = 200_000 - 3 * full;
      expect(payloads(h, family === 4 ? 54 : 74)).toEqual([full, full, full, rest]);
      expect(h.sockets.calls.get('peekSegments')).toBe(1);
      expect(Buffer.from(conn.receiveData()).equals(pattern(200_000))).toBe(true);
    }
  });

  it('end with the window, and at a whole segment', () => {
    const h = new Harness();
    const conn = h.openOut({}, 100_000 >> 7);
    conn.socket.deliver(pattern(150_000));
    h.turn();
    const window = (100_000 >> 7) << 7;
    const left = window - 44 * 1460;
    expect(payloads(h, 54)).toEqual([44 * 1460, left - (left % 1460)]);
    h.take();
    conn.ourNext = (conn.ourNext + window - (window % 1460)) >>> 0;
    conn.ack();
    expect(Buffer.from(conn.receiveData()).equals(pattern(150_000).subarray(window - (window % 1460)))).toBe(true);
  });

  it('are single segments where that is all a frame holds', () => {
    const h = new Harness({ mtu: 65_520 });
    const conn = h.openOut({ mss: 65_480 }, 4000);
    conn.socket.deliver(pattern(100_000));
    h.turn();
    expect(payloads(h, 54)).toEqual([65_480, 100_000 - 65_480]);
    expect(h.link.sentHeaders.every((header) => header[0] === 1 && header[1] === 0)).toBe(true);
  });

  it('are cut short where the link has less room than a whole one takes', () => {
    const h = new Harness({ roomBytes: 20_000 });
    const conn = h.openOut({}, 4000);
    conn.socket.deliver(pattern(50_000));
    h.turn();
    expect(payloads(h, 54)[0]).toBe(13 * 1460);
  });

  it('leave the cutting to us where the guest takes checksums only', () => {
    const h = new Harness({ offloads: OFFLOAD_CHECKSUM });
    const conn = h.openOut({}, 4000);
    conn.socket.deliver(pattern(4000));
    h.turn();
    expect(payloads(h, 54)).toEqual([1460, 1460, 1080]);
    expect(Buffer.from(conn.receiveData()).equals(pattern(4000))).toBe(true);
  });
});
