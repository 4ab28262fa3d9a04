import { describe, expect, it } from 'vitest';
import { type Connection, Harness, openWithTenSent, pattern } from './harness.ts';

function drainToGuest(conn: Connection): number {
  let total = 0;
  for (let i = 0; i < 100; i++) {
    const got = conn.receiveData().length;
    if (got === 0) return total;
    total += got;
    conn.ack();
  }
  return total;
}

describe('losses on the way to the guest', () => {
  it('are made good after a timeout that doubles', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('lost');
    h.turn();
    h.take();
    const start = h.nowMs;
    const times: number[] = [];
    for (let i = 0; i < 20_000; i += 50) {
      h.advance(50);
      for (const s of h.take()) {
        expect(new TextDecoder().decode(s.data)).toBe('lost');
        times.push(Math.round((h.nowMs - start) / 100) / 10);
      }
    }
    expect(times).toEqual([0.2, 0.6, 1.4, 3, 6.2, 12.6]);
    expect(h.ctx.counters.tcpRetransmits).toBe(6);
    conn.ourNext = (conn.ourNext + 4) >>> 0;
    conn.ack();
    expect(conn.socket.queue).toHaveLength(0);
    h.advance(100_000);
    expect(h.take()).toEqual([]);
  });

  it('that never end lead to a reset of both sides after two minutes', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('lost');
    h.advance(300_000);
    expect(h.take().at(-1)?.flags).toBe('RA');
    expect(conn.socket.wasReset).toBe(true);
    expect(h.liveFlows).toBe(0);
  });

  it('wait for the measured round trip, at least 200 ms', () => {
    const h = new Harness();
    const conn = h.openOut();
    for (let i = 0; i < 10; i++) {
      conn.socket.deliver('ping');
      h.turn();
      conn.receiveData();
      h.nowMs += 2;
      conn.ack();
    }
    conn.socket.deliver('lost');
    h.turn();
    h.take();
    h.advance(190);
    expect(h.take()).toEqual([]);
    h.advance(20);
    expect(h.take()).toHaveLength(1);
  });

  it('are filled at once after three duplicate acknowledgements', () => {
    const { h, conn, sent } = openWithTenSent();
    // The second segment was lost.
    conn.ourNext = (conn.ourNext + 1460) >>> 0;
    conn.ack();
    conn.ack();
    conn.ack();
    expect(h.take()).toEqual([]);
    conn.ack();
    const again = h.takeOne();
    expect(again.seq).toBe(sent[1]!.seq);
    expect(again.data).toEqual(sent[1]!.data);
    conn.ack();
    expect(h.take()).toEqual([]);
    // The rest had arrived.
    conn.ourNext = (conn.ourFirst + 14_600) >>> 0;
    conn.ack();
    conn.socket.deliver('next');
    h.turn();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('next');
    expect(h.ctx.counters.tcpRetransmits).toBe(1);
  });

  it('of several segments are filled by the extent that SACK tells', () => {
    const { h, conn, sent } = openWithTenSent();
    const sack = [sent[4]!.seq, (sent[9]!.seq + 1460) >>> 0];
    for (let i = 0; i < 3; i++) conn.send('A', { sack });
    const again = h.take();
    expect(again.map((s) => conn.relative(s.seq))).toEqual([0, 1460, 2920, 4380]);
    // Acknowledgements inside what was sent again make nothing be sent a third time.
    conn.ourNext = sent[2]!.seq;
    conn.send('A', { sack });
    expect(h.take()).toEqual([]);
    conn.ourNext = (sent[9]!.seq + 1460) >>> 0;
    conn.ack();
    expect(h.take()).toEqual([]);
    expect(conn.socket.queue).toHaveLength(0);
  });

  it('in two places are filled one after the other', () => {
    const { h, conn, sent } = openWithTenSent();
    for (let i = 0; i < 4; i++) conn.ack();
    expect(h.takeOne().seq).toBe(sent[0]!.seq);
    // Partial acknowledgement up to the second hole.
    conn.ourNext = sent[5]!.seq;
    conn.ack();
    expect(h.takeOne().seq).toBe(sent[5]!.seq);
  });

  it('after a timeout are sent again from one segment on, growing', () => {
    const { h, conn } = openWithTenSent();
    h.advance(250);
    const first = h.takeOne();
    expect(conn.relative(first.seq)).toBe(0);
    conn.ourNext = (conn.ourNext + 1460) >>> 0;
    conn.ack();
    expect(h.take()).toHaveLength(2);
    conn.ourNext = (conn.ourNext + 2920) >>> 0;
    conn.ack();
    expect(h.take()).toHaveLength(4);
    expect(drainToGuest(conn)).toBe(0);
  });

  it('are not suspected while the link has no room', () => {
    const h = new Harness({ roomBytes: 100_000 });
    const conn = h.openOut();
    conn.window = 4000;
    conn.ack();
    h.link.stalled = true;
    conn.socket.deliver(pattern(300_000));
    h.turn();
    h.advance(3000);
    h.link.stalled = false;
    let total = 0;
    for (let i = 0; i < 20; i++) {
      h.turn();
      total += conn.receiveData().length;
      conn.ack();
    }
    expect(total).toBe(300_000);
    expect(h.ctx.counters.tcpRetransmits).toBe(0);
  });
});
