import { describe, expect, it } from 'vitest';
import { EVENT_OUT } from '../../../../src/stack/ports.ts';
import { Harness, openWithTenSent, pattern, REMOTE_PORT } from './harness.ts';

const CAP = 4 << 20;

describe('data from the guest', () => {
  it('reaches the host in order and is acknowledged once a turn', () => {
    const h = new Harness();
    const conn = h.openOut();
    for (let i = 0; i < 5; i++) {
      h.queue(conn.make('A', { data: pattern(1000, i * 1000) }));
      conn.guestNext = (conn.guestNext + 1000) >>> 0;
    }
    h.turn();
    expect(Buffer.from(conn.socket.sent).equals(pattern(5000))).toBe(true);
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    // Five segments, one system call.
    expect(h.sockets.calls.get('sendSegments')).toBe(1);
  });

  it('of several connections is gathered side by side', () => {
    const h = new Harness();
    const conns = [0, 1, 2].map((i) => h.openOut({ srcPort: 50_000 + i }));
    h.take();
    for (let round = 0; round < 4; round++) {
      for (const conn of conns) {
        h.queue(conn.make('A', { data: pattern(100, round * 100) }));
        conn.guestNext = (conn.guestNext + 100) >>> 0;
      }
    }
    h.turn();
    for (const conn of conns) expect(Buffer.from(conn.socket.sent).equals(pattern(400))).toBe(true);
    expect(h.sockets.calls.get('sendSegments')).toBe(3);
    expect(h.take()).toHaveLength(3);
  });

  it('of more connections than are gathered at a time arrives too', () => {
    const h = new Harness();
    const conns = Array.from({ length: 40 }, (_, i) => h.openOut({ srcPort: 50_000 + i }));
    for (let round = 0; round < 3; round++) {
      for (const conn of conns) {
        h.queue(conn.make('A', { data: pattern(50, round * 50) }));
        conn.guestNext = (conn.guestNext + 50) >>> 0;
      }
    }
    h.turn();
    for (const conn of conns) expect(Buffer.from(conn.socket.sent).equals(pattern(150))).toBe(true);
  });

  it('in more segments than one call takes arrives too', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.sendData('x');
    conn.sendData('y');
    for (let i = 0; i < 2500; i++) {
      h.queue(conn.make('A', { data: pattern(10, i * 10) }));
      conn.guestNext = (conn.guestNext + 10) >>> 0;
    }
    h.turn();
    expect(Buffer.from(conn.socket.sent.subarray(2)).equals(pattern(25_000))).toBe(true);
  });

  it('that repeats what was taken is acknowledged and not passed on again', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.sendData('abcdef');
    h.take();
    conn.send('A', { seq: (conn.guestNext - 6) >>> 0, data: new Uint8Array([97, 98, 99]) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    // Half old, half new.
    conn.send('A', { seq: (conn.guestNext - 2) >>> 0, data: new TextEncoder().encode('efgh') });
    expect(conn.sentToHost).toBe('abcdefgh');
    expect(h.takeOne().ack).toBe((conn.guestNext + 2) >>> 0);
  });

  it('beyond the window is cut off and answered', () => {
    const h = new Harness();
    const conn = h.openOut();
    // Right after the handshake the window is that of the SYN-ACK.
    const far = (conn.guestNext + 65_535) >>> 0;
    conn.send('A', { seq: far, data: new Uint8Array(10) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    conn.send('A', { seq: (far + 1) >>> 0, data: new Uint8Array(10) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.sentLength).toBe(0);
  });

  it('with a bad checksum and no payload is dropped', () => {
    const h = new Harness();
    const conn = h.openOut();
    const before = h.ctx.counters.badTcp;
    conn.send('FA', {});
    conn.guestNext = (conn.guestNext + 1) >>> 0;
    h.take();
    expect(h.ctx.counters.badTcp).toBe(before);
  });

  it('opens the window to its cap with the first acknowledgement', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.sendData(pattern(10_000));
    expect(h.takeOne().window).toBe(CAP >> 8);
  });

  it('is taken while the socket is full, acknowledged, and passed on when there is space', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.setSpace(700);
    conn.sendData(pattern(1000));
    const ack = h.takeOne();
    expect(ack.ack).toBe(conn.guestNext);
    expect(conn.socket.sentLength).toBe(700);
    conn.sendData(pattern(1000, 1000));
    expect(conn.socket.sentLength).toBe(700);
    conn.socket.setSpace(200);
    h.turn();
    expect(conn.socket.sentLength).toBe(900);
    conn.socket.setSpace(Number.POSITIVE_INFINITY);
    h.turn();
    expect(Buffer.from(conn.socket.sent).equals(pattern(2000))).toBe(true);
  });

  it.each([
    ['the host opened', (h: Harness) => h.openIn()],
    [
      'the guest opened, and the host connected at once',
      (h: Harness) => {
        h.sockets.connectResult = 0;
        return h.openOut();
      },
    ],
  ])('has its socket watched for space only once that has run out, on a connection that %s', (_, open) => {
    const h = new Harness();
    const conn = open(h);
    conn.sendData(pattern(1000));
    expect((conn.socket.watched?.events ?? 0) & EVENT_OUT).toBe(0);
    conn.socket.setSpace(0);
    conn.sendData(pattern(1000, 1000));
    expect((conn.socket.watched?.events ?? 0) & EVENT_OUT).toBe(EVENT_OUT);
    conn.socket.setSpace(Number.POSITIVE_INFINITY);
    h.turn();
    expect(Buffer.from(conn.socket.sent).equals(pattern(2000))).toBe(true);
  });

  it('closes the window as the spill fills, never moves its edge back, and reopens it', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.sendData('x');
    conn.socket.setSpace(0);
    let ack = h.takeOne();
    let total = 1;
    let edge = total + ack.window * 256;
    for (let i = 0; i < 200 && ack.window > 0; i++) {
      const room = edge - total;
      const length = Math.min(60_000, room);
      if (length === 0) break;
      conn.sendData(pattern(length, total));
      total += length;
      ack = h.takeOne();
      expect(ack.ack).toBe(conn.guestNext);
      const next = total + ack.window * 256;
      expect(next).toBeGreaterThanOrEqual(edge);
      edge = next;
    }
    expect(ack.window).toBe(0);
    expect(total).toBeGreaterThan(CAP - 70_000);
    expect(total).toBeLessThan(CAP + 70_000);
    // A zero-window probe is answered and not taken.
    conn.send('A', { data: new Uint8Array(1) });
    expect(h.takeOne()).toMatchObject({ ack: conn.guestNext, window: 0 });
    conn.socket.setSpace(1 << 20);
    h.turn();
    expect(h.takeOne().window * 256).toBeGreaterThan(900_000);
    conn.socket.setSpace(Number.POSITIVE_INFINITY);
    h.turn();
    h.take();
    expect(conn.socket.sentLength).toBe(total);
    expect(Buffer.from(conn.socket.sent.subarray(1)).equals(pattern(total - 1, 1))).toBe(true);
  });

  it('in tiny segments cannot fill more than the cap and a little', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.setSpace(0);
    conn.sendData('x');
    let ack = h.takeOne();
    let spilled = 1;
    // Bring it near the cap first.
    while (ack.window * 256 > 300) {
      const length = Math.min(60_000, ack.window * 256 - 256);
      conn.sendData(new Uint8Array(length));
      spilled += length;
      ack = h.take().at(-1)!;
    }
    for (let i = 0; i < 3000 && ack.window > 0; i++) {
      const length = Math.min(100, ack.window * 256);
      conn.sendData(new Uint8Array(length));
      spilled += length;
      ack = h.take().at(-1)!;
    }
    expect(ack.window).toBe(0);
    expect(spilled).toBeLessThanOrEqual(CAP + 66_000);
  });
});

describe('data from the host', () => {
  it('fills the window with full segments and waits', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 100; // × 128 = 12 800
    conn.ack();
    conn.socket.deliver(pattern(100_000));
    h.turn();
    const sent = h.take();
    expect(sent.map((s) => s.data.length)).toEqual(Array(8).fill(1460));
    expect(sent.at(-1)?.flags).toBe('PA');
    h.turn();
    expect(h.take()).toEqual([]);
    conn.ourNext = (conn.ourNext + 8 * 1460) >>> 0;
    conn.ack();
    expect(h.take().map((s) => s.data.length)).toEqual(Array(8).fill(1460));
    // What was acknowledged has left the queue; the rest is still in it.
    expect(conn.socket.queue.length).toBe(100_000 - 8 * 1460);
  });

  it('arrives complete and in order', () => {
    const h = new Harness({ mtu: 65520 });
    const conn = h.openOut({ mss: 65480 });
    conn.window = 30_000;
    conn.ack();
    const data = pattern(5_000_000);
    conn.socket.deliver(data);
    const received: Uint8Array[] = [];
    h.turn();
    for (let i = 0; i < 100; i++) {
      const got = conn.receiveData();
      if (got.length === 0) break;
      received.push(got);
      conn.ack();
    }
    expect(Buffer.concat(received).equals(Buffer.from(data))).toBe(true);
    expect(conn.socket.queue.length).toBe(0);
    expect(h.ctx.counters.tcpRetransmits).toBe(0);
  });

  it('carries the acknowledgement of what came in', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('response');
    conn.sendData('request');
    expect(h.takeOne()).toMatchObject({ flags: 'PA', ack: conn.guestNext });
  });

  it('that is very short is padded to a legal frame', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('a');
    h.turn();
    // Unless there is no wire that would want it.
    expect(h.link.sent[0]).toHaveLength(h.link.hasVnetHeader ? 55 : 60);
    expect(h.takeOne().data).toHaveLength(1);
  });

  it('goes on after a short peek only when an event says so', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('one');
    h.turn();
    const peeks = h.sockets.calls.get('peekSegments');
    h.turn();
    expect(h.sockets.calls.get('peekSegments')).toBe(peeks);
    conn.socket.deliver('two');
    h.turn();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('onetwo');
  });

  it('is not forgotten while the link is full', () => {
    const h = new Harness({ roomBytes: 20_000 });
    const conn = h.openOut();
    conn.window = 4000;
    conn.ack();
    h.link.stalled = true;
    conn.socket.deliver(pattern(200_000));
    h.settle();
    expect(h.take()).toEqual([]);
    h.link.stalled = false;
    let total = 0;
    for (let i = 0; i < 40; i++) {
      h.turn();
      total += conn.receiveData().length;
    }
    expect(total).toBe(200_000);
  });

  it('of one busy flow does not keep another one from its turn', () => {
    const h = new Harness({ roomBytes: 3 << 20, mtu: 65520 });
    const busy = h.openOut({ mss: 65480 });
    busy.window = 60_000;
    busy.ack();
    const other = h.openOut({ mss: 65480, srcPort: 50_001 });
    h.take();
    busy.socket.deliver(new Uint8Array(6_000_000));
    other.socket.deliver('me too');
    h.turn();
    const order = h.take().map((s) => s.dstPort);
    expect(order.indexOf(50_001)).toBeGreaterThan(0);
    expect(order.indexOf(50_001)).toBeLessThan(20);
  });

  it('sets SO_PEEK_OFF only once something is to be sent behind what is not acknowledged', () => {
    const h = new Harness();
    const conn = h.openOut();
    for (let i = 0; i < 3; i++) {
      conn.socket.deliver('answer');
      h.turn();
      expect(conn.receiveData()).toHaveLength(6);
      conn.ack();
    }
    expect(conn.socket.options.has('1:42')).toBe(false);
    conn.socket.deliver('one');
    h.turn();
    conn.socket.deliver('two');
    h.turn();
    conn.socket.deliver('three');
    h.turn();
    expect(Buffer.from(conn.receiveData()).toString()).toBe('onetwothree');
    expect(conn.socket.options.get('1:42')).toBe(3);
  });

  it('works without SO_PEEK_OFF', () => {
    const h = new Harness();
    h.sockets.peekOffSupported = false;
    const conn = h.openOut();
    conn.window = 100;
    conn.ack();
    const data = pattern(50_000);
    conn.socket.deliver(data);
    conn.socket.end();
    h.turn();
    const received: Uint8Array[] = [];
    for (let i = 0; i < 30; i++) {
      const got = conn.receiveData();
      received.push(got);
      conn.ack();
    }
    expect(Buffer.concat(received).equals(Buffer.from(data))).toBe(true);
    expect(conn.relative(conn.ourNext)).toBe(50_001);
  });

  it('keeps going past an urgent mark, where a peek stops short', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('be');
    h.turn();
    expect(conn.receiveData()).toHaveLength(2);
    expect(conn.socket.options.get('1:10')).toBe(1);
  });

  it('is taken from the queue before the remote needs the space, with one call a turn', () => {
    const { h, conn, sent } = openWithTenSent();
    const before = h.sockets.calls.get('discard') ?? 0;
    for (const segment of sent) {
      h.queue(conn.make('A', { ack: (segment.seq + segment.data.length) >>> 0 }));
    }
    h.turn();
    expect((h.sockets.calls.get('discard') ?? 0) - before).toBe(1);
    expect(conn.socket.queue.length).toBe(0);
  });
});

describe('acknowledgements of the guest', () => {
  it('for data never sent are answered and ignored', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.send('PA', { ack: (conn.ourNext + 1000) >>> 0, data: new Uint8Array(4) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.sentLength).toBe(0);
  });

  it('that are older than the largest window are answered and ignored', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.send('PA', { ack: (conn.ourNext - 200_000) >>> 0, data: new Uint8Array(4) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.sentLength).toBe(0);
  });

  it('are looked for under the right connection', () => {
    const h = new Harness();
    h.openOut();
    h.send({ flags: 'A', seq: 1, ack: 2, srcPort: 41_000, dstPort: REMOTE_PORT });
    expect(h.takeOne().flags).toBe('R');
  });
});

describe('an idle connection', () => {
  it('costs nothing for two hours, then is probed, and lives while the guest answers', () => {
    const h = new Harness();
    const conn = h.openOut();
    h.take();
    h.advance(7_190_000);
    expect(h.take()).toEqual([]);
    h.advance(20_000);
    expect(h.takeOne()).toMatchObject({ flags: 'A', seq: (conn.ourNext - 1) >>> 0 });
    conn.ack();
    h.advance(3_600_000);
    expect(h.take()).toEqual([]);
    expect(h.liveFlows).toBe(1);
  });

  it('of a guest that is gone ends after nine probes', () => {
    const h = new Harness();
    const conn = h.openOut();
    h.take();
    h.advance(7_200_000 + 10 * 75_000 + 1000);
    const all = h.take();
    expect(all.filter((s) => s.flags === 'A')).toHaveLength(9);
    expect(all.at(-1)?.flags).toBe('RA');
    expect(conn.socket.wasReset).toBe(true);
  });

  it('answers the keep-alive of the guest', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.send('A', { seq: (conn.guestNext - 1) >>> 0 });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    conn.send('A', { seq: (conn.guestNext - 1) >>> 0, data: new Uint8Array(1) });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.sentLength).toBe(0);
  });
});
