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

  it('an acknowledgement that nothing carries goes out after a moment, and the next ones do not wait', () => {
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

  it('waiting is tried again after many answers', () => {
    const { h, conn } = openDialogue();
    const waits: boolean[] = [];
    for (let i = 0; i < 70; i++) {
      conn.sendData('request');
      const sent = h.take();
      waits.push(sent.length === 0);
      // The first answer is late.
      if (i === 0) {
        h.advance(13);
        h.take();
      }
      conn.socket.deliver('answer');
      h.turn();
      conn.receiveData();
      conn.ack();
      h.take();
    }
    expect(waits.indexOf(true, 1)).toBe(64);
    expect(waits.slice(64).every((wait) => wait)).toBe(true);
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

  it('what asks for an answer gets it at once: a keep-alive, a gap, a FIN beyond one', () => {
    const { h, conn } = openDialogue();
    conn.ack();
    conn.send('A', { seq: (conn.guestNext - 1) >>> 0 });
    expect(h.take()).toHaveLength(1);
    conn.send('A', { seq: (conn.guestNext + 10) >>> 0, data: pattern(5) });
    expect(h.take()).toHaveLength(1);
    conn.sendData(pattern(10));
    expect(h.take()).toHaveLength(1);
    conn.guestNext = (conn.guestNext + 5) >>> 0;
    conn.send('FA', { seq: (conn.guestNext + 10) >>> 0 });
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    // Its acknowledgement was not held back either.
    h.advance(13);
    expect(h.take()).toEqual([]);
  });

  it("the host's FIN carries the acknowledgement of the guest's", () => {
    const { h, conn } = openDialogue();
    conn.ack();
    conn.send('FA');
    expect(h.take()).toEqual([]);
    expect(conn.socket.writeShut).toBe(true);
    conn.socket.end();
    h.turn();
    expect(h.take()).toMatchObject([{ flags: 'FA', ack: (conn.guestNext + 1) >>> 0 }]);
  });

  it("the guest's FIN is acknowledged after a moment when the host goes on", () => {
    const { h, conn } = openDialogue();
    conn.ack();
    conn.sendData('bye', 'FPA');
    expect(h.take()).toEqual([]);
    h.advance(13);
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: conn.guestNext });
    conn.socket.deliver('more');
    h.turn();
    expect(conn.receiveData()).toHaveLength(4);
  });

  it('a FIN that is repeated is acknowledged at once', () => {
    const { h, conn } = openDialogue();
    conn.ack();
    conn.send('FA');
    expect(h.take()).toEqual([]);
    conn.send('FA');
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: (conn.guestNext + 1) >>> 0 });
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
