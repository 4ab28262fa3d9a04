import { describe, expect, it } from 'vitest';
import { ECONNRESET, EPIPE } from '../../../support/fake-socket.ts';
import { type Connection, GUEST_ISS, Harness, pattern } from './harness.ts';

function finGuest(conn: Connection): void {
  conn.send('FA');
  conn.guestNext = (conn.guestNext + 1) >>> 0;
}

describe('closing', () => {
  it('by the guest first: half-close is passed on, data still flows back, then all ends', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.sendData('question');
    h.take();
    finGuest(conn);
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.writeShut).toBe(true);
    conn.socket.deliver('answer');
    h.turn();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('answer');
    conn.ack();
    conn.socket.end();
    h.turn();
    const fin = h.takeOne();
    expect(fin).toMatchObject({ flags: 'FA', seq: conn.ourNext });
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    conn.ack();
    expect(h.liveFlows).toBe(0);
    expect(conn.socket.state).toBe('closed');
    expect(conn.socket.wasReset).toBe(false);
    expect(conn.socket.closedUnread).toBe(false);
  });

  it('by the host first: the guest may go on sending, then all ends with the last acknowledgement on the link', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('goodbye');
    conn.socket.end();
    h.turn();
    expect(h.take().map((s) => s.flags)).toEqual(['PA', 'FA']);
    conn.ourNext = (conn.ourNext + 8) >>> 0;
    conn.sendData('wait');
    expect(conn.sentToHost).toBe('wait');
    expect(h.takeOne().ack).toBe(conn.guestNext);
    expect(h.liveFlows).toBe(1);
    finGuest(conn);
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.state).toBe('closed');
    expect(conn.socket.closedUnread).toBe(false);
    expect(conn.socket.writeShut).toBe(true);
    // A guest that has missed the acknowledgement gets it again; then the flow is gone.
    h.advance(300);
    conn.send('FA', { seq: (conn.guestNext - 1) >>> 0 });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    h.advance(2000);
    expect(h.liveFlows).toBe(0);
    expect(h.take()).toEqual([]);
  });

  it('by the host first gives way to a new connection with the same numbers at once', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.end();
    h.turn();
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    finGuest(conn);
    h.take();
    h.send({ flags: 'S', seq: (conn.guestNext + 5000) >>> 0, mss: 1460 });
    expect(h.sockets.all).toHaveLength(2);
    expect(h.liveFlows).toBe(1);
  });

  it('by the host first does not fill the table', () => {
    const h = new Harness({ capacity: 8 });
    for (let i = 0; i < 20; i++) {
      const conn = h.openOut({ srcPort: 50_000 + i });
      conn.socket.end();
      h.turn();
      conn.ourNext = (conn.ourNext + 1) >>> 0;
      finGuest(conn);
      h.take();
    }
    expect(h.liveFlows).toBe(2);
    expect(h.sockets.openCount).toBe(0);
  });

  it('at once from both sides', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.end();
    h.queue(conn.make('FA'));
    h.turn();
    const all = h.take();
    expect(all.map((s) => s.flags)).toEqual(['FA']);
    expect(all[0]!.ack).toBe((conn.guestNext + 1) >>> 0);
    conn.guestNext = (conn.guestNext + 1) >>> 0;
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    conn.ack();
    expect(h.liveFlows).toBe(0);
  });

  it('with data in the segment that has the FIN', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.sendData('last words', 'FPA');
    expect(conn.sentToHost).toBe('last words');
    expect(conn.socket.writeShut).toBe(true);
    expect(h.takeOne().ack).toBe(conn.guestNext);
  });

  it('by the guest waits until the host has taken everything', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.setSpace(5);
    conn.sendData('hello world', 'FPA');
    expect(h.takeOne().ack).toBe(conn.guestNext);
    expect(conn.socket.writeShut).toBe(false);
    conn.socket.setSpace(3);
    h.turn();
    expect(conn.socket.writeShut).toBe(false);
    conn.socket.setSpace(100);
    h.turn();
    expect(conn.sentToHost).toBe('hello world');
    expect(conn.socket.writeShut).toBe(true);
  });

  it('by both with a slow host: the guest is left alone, and its reset does not cost what it had sent', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.end();
    h.turn();
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    h.take();
    conn.socket.setSpace(1000);
    const data = pattern(60_000);
    conn.sendData(data, 'FPA');
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    conn.socket.setSpace(30_000);
    h.turn();
    // Nothing may go to a guest for which the connection is over.
    expect(h.take()).toEqual([]);
    conn.send('R');
    expect(conn.socket.state).toBe('connected');
    conn.socket.setSpace(100_000);
    h.turn();
    expect(Buffer.from(conn.socket.sent).equals(data)).toBe(true);
    expect(conn.socket.state).toBe('closed');
    expect(conn.socket.wasReset).toBe(false);
    expect(h.liveFlows).toBe(0);
  });

  it('by the host comes after all of its data, however long the guest takes', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 20; // 2560 bytes
    conn.ack();
    const data = pattern(10_000);
    conn.socket.deliver(data);
    conn.socket.end();
    h.turn();
    const received: number[] = [];
    let sawFin = false;
    for (let i = 0; i < 30 && !sawFin; i++) {
      const before = conn.ourNext;
      received.push(...conn.receiveData());
      sawFin = conn.relative(conn.ourNext) === 10_001;
      if (!sawFin) expect(conn.relative(conn.ourNext)).toBeLessThanOrEqual(10_000);
      if (conn.ourNext !== before) conn.ack();
      h.advance(10);
    }
    expect(sawFin).toBe(true);
    expect(Buffer.from(received).equals(data)).toBe(true);
  });

  it('by the host waits while the guest window is closed', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.window = 0;
    conn.ack();
    conn.socket.deliver('x');
    conn.socket.end();
    h.turn();
    expect(h.take()).toEqual([]);
    conn.window = 10;
    conn.ack();
    expect(h.take().map((s) => s.flags)).toEqual(['PA', 'FA']);
  });

  it('repeats the FIN until it is acknowledged', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.end();
    h.turn();
    const fin = h.takeOne();
    expect(fin.flags).toBe('FA');
    h.advance(250);
    expect(h.takeOne()).toEqual(fin);
    h.advance(400);
    expect(h.takeOne()).toEqual(fin);
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    conn.ack();
    h.advance(60_000);
    expect(h.take()).toEqual([]);
    expect(h.liveFlows).toBe(1);
  });

  it('repeats data and FIN when both were lost', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('tail');
    conn.socket.end();
    h.turn();
    h.take();
    h.advance(250);
    const first = h.take();
    expect(new TextDecoder().decode(first[0]!.data)).toBe('tail');
    conn.ourNext = (conn.ourNext + 4) >>> 0;
    conn.ack();
    expect([...first.slice(1), ...h.take()].some((s) => s.flags === 'FA')).toBe(true);
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    finGuest(conn);
    expect(conn.socket.state).toBe('closed');
  });

  it('gives up on a FIN that is never acknowledged', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.end();
    h.turn();
    h.advance(400_000);
    expect(h.take().at(-1)?.flags).toBe('RA');
    expect(h.liveFlows).toBe(0);
  });

  it('acknowledges a FIN that the guest repeats', () => {
    const h = new Harness();
    const conn = h.openOut();
    finGuest(conn);
    h.take();
    conn.send('FA', { seq: (conn.guestNext - 1) >>> 0 });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
  });

  it('does not take data after the FIN of the guest', () => {
    const h = new Harness();
    const conn = h.openOut();
    finGuest(conn);
    h.take();
    conn.send('PA', { data: new Uint8Array(5) });
    expect(conn.socket.sentLength).toBe(0);
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
  });

  it('stays half closed for as long as both sides like', () => {
    const h = new Harness();
    const conn = h.openOut();
    finGuest(conn);
    h.take();
    h.advance(3_600_000);
    expect(h.liveFlows).toBe(1);
    conn.socket.deliver('late');
    h.turn();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('late');
  });

  it('keeps the flow until the link has taken the last acknowledgement', () => {
    const h = new Harness({ roomBytes: 20_000 });
    const conn = h.openOut();
    conn.socket.end();
    h.turn();
    h.take();
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    h.link.limitRoom(0);
    finGuest(conn);
    expect(h.liveFlows).toBe(1);
    h.link.limitRoom(20_000);
    h.turn();
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.state).toBe('closed');
  });

  it('with a short answer and the end in one event sends both', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('all');
    conn.socket.end();
    h.turn();
    expect(h.take().map((s) => s.flags)).toEqual(['PA', 'FA']);
  });

  it('lets a new connection take the place of one that is over but for an acknowledgement', () => {
    const h = new Harness({ roomBytes: 20_000 });
    const conn = h.openOut();
    conn.socket.end();
    h.turn();
    h.take();
    conn.ourNext = (conn.ourNext + 1) >>> 0;
    h.link.limitRoom(0);
    finGuest(conn);
    h.link.limitRoom(20_000);
    h.queue({ flags: 'S', seq: (conn.guestNext + 5000) >>> 0, mss: 1460 });
    h.turn();
    expect(h.sockets.all).toHaveLength(2);
  });
});

describe('resets', () => {
  it('by the guest reach the host as a reset, after the data before it', () => {
    const h = new Harness();
    const conn = h.openOut();
    h.queue(conn.make('PA', { data: new Uint8Array([1, 2, 3]) }));
    h.queue(conn.make('R', { seq: (conn.guestNext + 3) >>> 0 }));
    h.turn();
    expect([...conn.socket.sent]).toEqual([1, 2, 3]);
    expect(conn.socket.wasReset).toBe(true);
    expect(h.liveFlows).toBe(0);
    expect(h.take()).toEqual([]);
  });

  it('by the guest inside the window but not at its edge are questioned', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.send('R', { seq: (conn.guestNext + 10) >>> 0 });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    expect(conn.socket.state).toBe('connected');
    conn.send('R', { seq: (conn.guestNext - 10) >>> 0 });
    conn.send('R', { seq: (conn.guestNext + 10_000_000) >>> 0 });
    expect(h.take()).toEqual([]);
    expect(h.liveFlows).toBe(1);
  });

  it('by a SYN in the middle are questioned, and the answer clears the way', () => {
    const h = new Harness();
    const conn = h.openOut();
    h.send({ flags: 'S', seq: 12_345, mss: 1460 });
    const challenge = h.takeOne();
    expect(challenge).toMatchObject({ flags: 'A', ack: conn.guestNext });
    h.send({ flags: 'R', seq: challenge.ack });
    expect(conn.socket.wasReset).toBe(true);
    h.send({ flags: 'S', seq: 12_345, mss: 1460 });
    expect(h.sockets.all).toHaveLength(2);
  });

  it('by the host reach the guest as a RST that fits', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.fail(ECONNRESET);
    h.turn();
    expect(h.takeOne()).toMatchObject({ flags: 'RA', seq: conn.ourNext, ack: conn.guestNext });
    expect(h.liveFlows).toBe(0);
    expect(h.sockets.openCount).toBe(0);
  });

  it('by the host come after what it had sent', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('response');
    conn.socket.fail(ECONNRESET);
    h.turn();
    const all = h.take();
    expect(all.map((s) => s.flags)).toEqual(['PA', 'RA']);
    expect(new TextDecoder().decode(all[0]!.data)).toBe('response');
    expect(all[1]!.seq).toBe((conn.ourNext + 8) >>> 0);
  });

  it('noticed only by sending reach the guest too', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.pendingError = EPIPE;
    conn.sendData('anyone there?');
    expect(h.takeOne().flags).toBe('RA');
    expect(h.liveFlows).toBe(0);
  });

  it('noticed while the spill is sent reach the guest too', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.setSpace(2);
    conn.sendData('too much');
    h.take();
    conn.socket.writeShut = true;
    conn.socket.setSpace(10);
    h.turn();
    expect(h.takeOne().flags).toBe('RA');
    expect(h.liveFlows).toBe(0);
  });

  it('are owed to the guest while the link is full, and paid later', () => {
    const h = new Harness({ roomBytes: 20_000 });
    const conn = h.openOut();
    h.link.limitRoom(0);
    conn.socket.fail(ECONNRESET);
    h.turn();
    expect(h.liveFlows).toBe(1);
    expect(conn.socket.state).toBe('closed');
    h.link.limitRoom(20_000);
    h.turn();
    expect(h.takeOne().flags).toBe('RA');
    expect(h.liveFlows).toBe(0);
  });

  it('owed to a guest that never comes back are forgiven', () => {
    const h = new Harness({ roomBytes: 20_000 });
    const conn = h.openOut();
    h.link.connected = false;
    conn.socket.fail(ECONNRESET);
    h.turn();
    h.advance(121_000);
    h.link.connected = true;
    h.turn();
    expect(h.liveFlows).toBe(0);
  });

  it('leave no descriptor behind when the flow waits for room', () => {
    const h = new Harness({ roomBytes: 20_000 });
    const conn = h.openOut();
    h.link.limitRoom(0);
    conn.socket.deliver('stuck');
    h.turn();
    h.send({ flags: 'R', seq: conn.guestNext });
    expect(conn.socket.state).toBe('closed');
    expect(h.sockets.openCount).toBe(0);
  });
});

describe('a guest that is disconnected', () => {
  it('finds its connection when it comes back in time', () => {
    const h = new Harness();
    const conn = h.openOut();
    h.link.connected = false;
    h.tcp.onGuestGone();
    conn.socket.deliver('while you were away');
    h.advance(10_000);
    h.link.connected = true;
    h.settle();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('while you were away');
    conn.ack();
    conn.sendData('still here');
    expect(conn.sentToHost).toBe('still here');
  });

  it('gets again what was lost with the link', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('lost');
    h.turn();
    h.take();
    h.link.connected = false;
    h.advance(10_000);
    h.link.connected = true;
    h.advance(20_000);
    expect(new TextDecoder().decode(conn.receiveData())).toBe('lost');
  });

  it('that has forgotten everything resets its old connections', () => {
    const h = new Harness();
    const conn = h.openOut();
    conn.socket.deliver('hello?');
    h.turn();
    const data = h.takeOne();
    h.send({ flags: 'R', seq: data.ack });
    expect(conn.socket.wasReset).toBe(true);
    expect(h.liveFlows).toBe(0);
    expect(GUEST_ISS).toBeGreaterThan(0);
  });
});
