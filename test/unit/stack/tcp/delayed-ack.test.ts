import { describe, expect, it } from 'vitest';
import { type Connection, Harness, pattern } from './harness.ts';

/** A connection on which the host has answered once. */
function openDialogue(): { h: Harness; conn: Connection } {
  const h = new Harness();
  const conn = h.openOut();
  conn.sendData('first');
  expect(h.takeOne().flags).toBe('A');
  conn.socket.deliver('answer');
  h.turn();
  expect(conn.receiveData()).toHaveLength(6);
  return { h, conn };
}

describe('where guest and host take turns', () => {
  it('the response carries the acknowledgement of the request', () => {
    const { h, conn } = openDialogue();
    for (let i = 0; i < 3; i++) {
      conn.sendData('request');
      expect(h.take()).toEqual([]);
      h.nowMs += 1;
      conn.socket.deliver('answer');
      h.turn();
      expect(h.take()).toMatchObject([{ flags: 'PA', ack: conn.guestNext }]);
      conn.ourNext = (conn.ourNext + 6) >>> 0;
    }
    expect(conn.sentToHost).toBe('firstrequestrequestrequest');
    // The last response is acknowledged; nothing is left to be sent.
    conn.ack();
    h.advance(5000);
    expect(h.take()).toEqual([]);
  });

  it('an acknowledgement that nothing carries goes out after a moment, and never waits again', () => {
    const { h, conn } = openDialogue();
    conn.sendData('one');
    expect(h.take()).toEqual([]);
    h.advance(13);
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    conn.socket.deliver('late');
    h.turn();
    conn.receiveData();
    conn.sendData('two');
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
  });

  it('a second request is acknowledged at once', () => {
    const { h, conn } = openDialogue();
    conn.sendData('one');
    expect(h.take()).toEqual([]);
    conn.sendData('two');
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
  });

  it('more than a short request is acknowledged at once', () => {
    const { h, conn } = openDialogue();
    for (let i = 0; i < 4; i++) {
      h.queue(conn.make('A', { data: pattern(1400) }));
      conn.guestNext = (conn.guestNext + 1400) >>> 0;
    }
    h.turn();
    expect(h.takeOne().ack).toBe(conn.guestNext);
  });

  it('what asks for an answer gets it at once: a keep-alive, a FIN, a gap', () => {
    const { h, conn } = openDialogue();
    conn.ack();
    conn.send('A', { seq: (conn.guestNext - 1) >>> 0 });
    expect(h.take()).toHaveLength(1);
    conn.send('A', { seq: (conn.guestNext + 10) >>> 0, data: pattern(5) });
    expect(h.take()).toHaveLength(1);
    conn.sendData(pattern(10));
    expect(h.take()).toHaveLength(1);
    conn.guestNext = (conn.guestNext + 5) >>> 0;
    conn.sendData('bye', 'FPA');
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
  });

  it('a FIN brings the acknowledgement that was held back with it', () => {
    const { h, conn } = openDialogue();
    conn.sendData('last');
    expect(h.take()).toEqual([]);
    conn.send('FA');
    conn.guestNext = (conn.guestNext + 1) >>> 0;
    expect(h.takeOne().ack).toBe(conn.guestNext);
    expect(conn.socket.writeShut).toBe(true);
  });
});
