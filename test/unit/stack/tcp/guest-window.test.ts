import { describe, expect, it } from 'vitest';
import { Harness, pattern } from './harness.ts';

describe('the guest window', () => {
  it('of zero stops data, and a probe finds out when it opens', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 0;
    conn.ack();
    conn.socket.deliver('waiting');
    h.turn();
    expect(h.take()).toEqual([]);
    h.advance(300);
    const probe = h.takeOne();
    expect(probe).toMatchObject({ flags: 'A', seq: (conn.ourNext - 1) >>> 0 });
    expect(probe.data).toHaveLength(0);
    // The guest answers with its window still closed, for ten minutes.
    const probes: number[] = [];
    for (let i = 0; i < 600; i++) {
      h.advance(1000);
      for (const _ of h.take()) {
        probes.push(i);
        conn.ack();
      }
    }
    expect(probes.length).toBeGreaterThan(8);
    expect(probes.length).toBeLessThan(20);
    expect(h.liveFlows).toBe(1);
    conn.window = 500;
    conn.ack();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('waiting');
  });

  it('of zero with a guest that does not answer ends in a reset', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 0;
    conn.ack();
    conn.socket.deliver('waiting');
    h.advance(400_000);
    expect(h.take().at(-1)?.flags).toContain('R');
    expect(conn.socket.wasReset).toBe(true);
  });

  it('below one segment is used, however small', () => {
    const h = new Harness();
    const conn = h.openOut({ window: 300 }, 2); // × 128 = 256 bytes
    const data = pattern(2000);
    conn.socket.deliver(data);
    h.turn();
    const received: number[] = [];
    for (let i = 0; i < 20; i++) {
      received.push(...conn.receiveData());
      conn.ack();
    }
    expect(Buffer.from(received).equals(data)).toBe(true);
  });

  it('that has become small after it was large is used after a while', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 5; // 640 bytes, was 64 240
    conn.ack();
    conn.socket.deliver(pattern(2000));
    h.turn();
    expect(h.take()).toEqual([]);
    h.advance(3000);
    expect(h.take()[0]?.data).toHaveLength(640);
  });

  it('that is small does not delay what fits into it', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 5;
    conn.ack();
    conn.socket.deliver(pattern(600));
    h.turn();
    expect(h.takeOne().data).toHaveLength(600);
  });

  it('that shrinks below what is in flight neither breaks nor stalls the flow', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 100;
    conn.ack();
    const data = pattern(30_000);
    conn.socket.deliver(data);
    h.turn();
    const first = h.take();
    expect(first).toHaveLength(8);
    // The guest takes the first segment only and shuts the window.
    conn.ourNext = (conn.ourNext + 1460) >>> 0;
    conn.window = 0;
    conn.ack();
    // A segment of ours that only acknowledges stays inside what the guest accepts.
    conn.sendData('x');
    const ack = h.take().at(-1)!;
    expect(conn.relative(ack.seq)).toBeLessThanOrEqual(1460);
    h.advance(5000);
    h.take();
    conn.window = 500;
    conn.ack();
    const received: number[] = [...data.subarray(0, 1460)];
    for (let i = 0; i < 60; i++) {
      h.advance(100);
      received.push(...conn.receiveData());
      conn.ack();
    }
    expect(Buffer.from(received).equals(data)).toBe(true);
  });
});
