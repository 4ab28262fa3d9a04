import { describe, expect, it } from 'vitest';
import { MAP_AS_IS, MAP_REFUSED, MAP_REWRITTEN } from '../../../../src/stack/ports.ts';
import {
  ECONNREFUSED,
  EINPROGRESS,
  endpointRecord,
  endpointText,
  SO_LINGER,
  SOL_SOCKET,
} from '../../../support/fake-socket.ts';
import { GUEST_ISS, GUEST_PORT, Harness, REMOTE_PORT, REMOTE4 } from './harness.ts';

const SYN = { flags: 'S', seq: GUEST_ISS, mss: 1460, scale: 7, sackOk: true };

describe('a connection that the guest opens', () => {
  it('is answered when the host has connected, not before', () => {
    const h = new Harness();
    h.send(SYN);
    expect(h.take()).toEqual([]);
    const socket = h.sockets.last;
    expect(endpointText(socket.peer)).toBe('198.51.100.1:80');
    socket.completeConnect();
    h.turn();
    const answer = h.takeOne();
    expect(answer).toMatchObject({ flags: 'SA', ack: GUEST_ISS + 1, mss: 1460, scale: 8, sackOk: true, window: 65535 });
    expect(answer).toMatchObject({ srcPort: REMOTE_PORT, dstPort: GUEST_PORT });
  });

  it('works over IPv6, with an MSS of its own', () => {
    const h = new Harness({ mtu: 65520 });
    const conn = h.openOut({ family: 6 });
    expect(conn.synAck).toMatchObject({ mss: 65460, family: 6 });
    conn.sendData('over six');
    expect(conn.sentToHost).toBe('over six');
    conn.socket.deliver('and back');
    h.turn();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('and back');
  });

  it('is answered at once when the host connects at once', () => {
    const h = new Harness();
    h.sockets.connectResult = 0;
    h.send(SYN);
    expect(h.takeOne().flags).toBe('SA');
  });

  it('offers only what the guest has asked for', () => {
    const h = new Harness();
    const conn = h.openOut({ mss: undefined, scale: undefined, sackOk: undefined, window: 8000 });
    expect(conn.synAck?.scale).toBeUndefined();
    expect(conn.synAck?.sackOk).toBeUndefined();
    conn.window = 8000;
    conn.ack();
    conn.socket.deliver(new Uint8Array(3000));
    h.turn();
    expect(h.take().map((s) => s.data.length)).toEqual([536, 536, 536, 536, 536, 320]);
  });

  it('is not disturbed by a repeated SYN while the host connects', () => {
    const h = new Harness();
    h.send(SYN);
    h.advance(1000);
    h.send(SYN);
    h.advance(2000);
    h.send(SYN);
    expect(h.take()).toEqual([]);
    expect(h.sockets.all).toHaveLength(1);
    h.sockets.last.completeConnect();
    h.turn();
    expect(h.takeOne().flags).toBe('SA');
  });

  it('takes the numbers of a guest that has started over while the host connects', () => {
    const h = new Harness();
    h.send(SYN);
    h.send({ ...SYN, seq: 777 });
    h.sockets.last.completeConnect();
    h.turn();
    expect(h.takeOne()).toMatchObject({ flags: 'SA', ack: 778 });
    expect(h.sockets.all).toHaveLength(1);
  });

  it('gets its SYN-ACK again when it repeats the SYN', () => {
    const h = new Harness();
    h.send(SYN);
    h.sockets.last.completeConnect();
    h.turn();
    const first = h.takeOne();
    h.send(SYN);
    expect(h.takeOne()).toEqual(first);
  });

  it('gets its SYN-ACK again after 1, 2, 4 … seconds and is reset in the end', () => {
    const h = new Harness();
    h.send(SYN);
    const socket = h.sockets.last;
    socket.completeConnect();
    h.turn();
    h.take();
    const times: number[] = [];
    const start = h.nowMs;
    for (let i = 0; i < 130_000; i += 100) {
      h.advance(100);
      for (const s of h.take()) times.push(s.flags === 'SA' ? Math.round((h.nowMs - start) / 1000) : -1);
    }
    expect(times).toEqual([1, 3, 7, 15, 31, 63, -1]);
    expect(socket.wasReset).toBe(true);
    expect(h.liveFlows).toBe(0);
  });

  it('is refused with a RST when the host is refused', () => {
    const h = new Harness();
    h.send(SYN);
    h.sockets.last.completeConnect(ECONNREFUSED);
    h.turn();
    expect(h.takeOne()).toMatchObject({ flags: 'RA', ack: GUEST_ISS + 1 });
    expect(h.sockets.openCount).toBe(0);
    expect(h.liveFlows).toBe(0);
  });

  it('is refused with a RST when connect fails at once', () => {
    const h = new Harness();
    h.sockets.connectResult = -101;
    h.send(SYN);
    expect(h.takeOne()).toMatchObject({ flags: 'RA', ack: GUEST_ISS + 1 });
    expect(h.sockets.openCount).toBe(0);
  });

  it('is refused when the address map refuses its destination', () => {
    const h = new Harness({ map: { toHost: () => MAP_REFUSED } });
    h.send(SYN);
    expect(h.takeOne()).toMatchObject({ flags: 'RA', ack: GUEST_ISS + 1, seq: 0 });
    expect(h.sockets.all).toHaveLength(0);
  });

  it('goes where the address map leads, and the guest does not notice', () => {
    const h = new Harness({
      map: {
        toHost: (address) => {
          address.set([0, 0, 0xffff, 0x7f000001]);
          return MAP_REWRITTEN;
        },
      },
      outboundAddress: 0x0a000001,
    });
    const conn = h.openOut();
    expect(endpointText(conn.socket.peer)).toBe('127.0.0.1:80');
    // An outbound address has no business on loopback.
    expect(conn.socket.local[0]).toBe(0);
    conn.sendData('hello');
    expect(conn.sentToHost).toBe('hello');
  });

  it('to a link-local destination uses the interface of the host', () => {
    const h = new Harness({
      map: {
        toHost: (address) => {
          address.set([0xfe800000, 0, 0, 9]);
          return MAP_AS_IS;
        },
      },
    });
    h.send({ ...SYN, family: 6 });
    expect(new DataView(h.sockets.last.peer.buffer).getUint32(4, true)).toBe(7);
  });

  it('leaves from the outbound address and interface', () => {
    const h = new Harness({ outboundAddress: 0x0a000001, outboundInterface: 'eth7' });
    const conn = h.openOut();
    expect(endpointText(conn.socket.local)).toBe('10.0.0.1:0');
    expect(conn.socket.options.get('1:25')).toBe('eth7');
  });

  it('is left to retry when no descriptor or flow is free', () => {
    const h = new Harness({ capacity: 1 });
    h.sockets.openResult = -24;
    h.send(SYN);
    expect(h.take()).toEqual([]);
    expect(h.liveFlows).toBe(0);
    h.sockets.openResult = 0;
    h.send(SYN);
    h.send({ ...SYN, srcPort: 40001 });
    expect(h.sockets.all).toHaveLength(1);
    expect(h.ctx.counters.flowTableFull).toBe(1);
  });

  it('resets the host when the guest gives up before the answer', () => {
    const h = new Harness();
    h.send(SYN);
    const socket = h.sockets.last;
    h.send({ flags: 'R', seq: GUEST_ISS + 1 });
    expect(socket.state).toBe('closed');
    expect(h.liveFlows).toBe(0);
  });

  it('is reset by an answer to the SYN-ACK that acknowledges something else', () => {
    const h = new Harness();
    h.send(SYN);
    h.sockets.last.completeConnect();
    h.turn();
    const synAck = h.takeOne();
    h.send({ flags: 'A', seq: GUEST_ISS + 1, ack: synAck.seq + 77 });
    expect(h.takeOne()).toMatchObject({ flags: 'R', seq: synAck.seq + 77 });
  });

  it('may send data with the last segment of the handshake', () => {
    const h = new Harness();
    h.send(SYN);
    const socket = h.sockets.last;
    socket.completeConnect();
    h.turn();
    const synAck = h.takeOne();
    h.send({ flags: 'PA', seq: GUEST_ISS + 1, ack: synAck.seq + 1, data: new Uint8Array([1, 2, 3]) });
    expect([...socket.sent]).toEqual([1, 2, 3]);
    expect(h.takeOne()).toMatchObject({ flags: 'A', ack: GUEST_ISS + 4 });
  });

  it('waits for the host as long as the kernel does, then is reset', () => {
    const h = new Harness();
    h.send(SYN);
    h.advance(139_000);
    expect(h.take()).toEqual([]);
    h.advance(2000);
    expect(h.takeOne().flags).toBe('RA');
    expect(h.liveFlows).toBe(0);
  });

  it('sees data that the remote has sent before the guest has answered', () => {
    const h = new Harness();
    h.send(SYN);
    const socket = h.sockets.last;
    socket.completeConnect();
    socket.deliver('banner');
    h.turn();
    const synAck = h.takeOne();
    h.turn();
    expect(h.take()).toEqual([]);
    h.send({ flags: 'A', seq: GUEST_ISS + 1, ack: synAck.seq + 1 });
    expect(new TextDecoder().decode(h.takeOne().data)).toBe('banner');
  });

  it('asks for a port only when it connects, and binds nothing otherwise', () => {
    const h = new Harness();
    expect(h.sockets.connectResult).toBe(-EINPROGRESS);
    h.openOut();
    expect(h.sockets.calls.get('bind')).toBeUndefined();
  });
});

describe('a connection that comes from the host', () => {
  it('becomes a SYN to the guest at once, from the remote address', () => {
    const h = new Harness();
    const conn = h.openIn();
    expect(conn.socket.state).toBe('connected');
    conn.socket.deliver('hi');
    h.turn();
    expect(new TextDecoder().decode(conn.receiveData())).toBe('hi');
    conn.sendData('ho');
    expect(conn.sentToHost).toBe('ho');
  });

  it('is acknowledged in the same turn as the SYN-ACK arrives', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    h.sockets.connectTo(listener, endpointRecord(REMOTE4, 5555));
    h.turn();
    const syn = h.takeOne();
    expect(syn).toMatchObject({ flags: 'S', dstPort: 22, srcPort: 5555, mss: 1460, scale: 8, sackOk: true, ack: 0 });
    h.send({ flags: 'SA', seq: 5, ack: syn.seq + 1, srcPort: 22, dstPort: 5555, mss: 1460, scale: 7 });
    expect(h.takeOne()).toMatchObject({ flags: 'A', seq: syn.seq + 1, ack: 6 });
  });

  it('from a unix socket comes from the loopback of the host, each from a port of its own', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    const nobody = new Uint8Array(24);
    for (let i = 0; i < 3; i++) h.sockets.connectTo(listener, nobody);
    h.turn();
    const syns = h.take();
    expect(syns.map(({ flags, dstPort }) => `${flags} ${dstPort}`)).toEqual(['S 22', 'S 22', 'S 22']);
    const [first, ...others] = syns.map(({ srcPort }) => srcPort) as [number, number, number];
    expect(first).toBeGreaterThanOrEqual(32_768);
    expect(others).toEqual([first + 1, first + 2]);
    expect(h.liveFlows).toBe(3);
  });

  it('repeats the SYN after 1, 2, 4, 8, 16, 32 seconds and then resets the remote', () => {
    const h = new Harness();
    const socket = h.sockets.connectTo(h.addListener(1, 22), endpointRecord(REMOTE4, 5555));
    h.turn();
    const start = h.nowMs;
    const times: number[] = [];
    for (let i = 0; i < 130_000; i += 100) {
      h.advance(100);
      for (const s of h.take()) {
        expect(s.flags).toBe('S');
        times.push(Math.round((h.nowMs - start) / 1000));
      }
    }
    expect(times).toEqual([0, 1, 3, 7, 15, 31, 63]);
    expect(socket.wasReset).toBe(true);
    expect(h.liveFlows).toBe(0);
  });

  it('passes the refusal of the guest on as a reset', () => {
    const h = new Harness();
    const socket = h.sockets.connectTo(h.addListener(1, 22), endpointRecord(REMOTE4, 5555));
    h.turn();
    const syn = h.takeOne();
    h.send({ flags: 'RA', seq: 0, ack: syn.seq + 1, srcPort: 22, dstPort: 5555 });
    expect(socket.wasReset).toBe(true);
    expect(socket.options.get(`${SOL_SOCKET}:${SO_LINGER}`)).toBe(0);
    expect(h.liveFlows).toBe(0);
  });

  it('ignores a RST that does not acknowledge the SYN', () => {
    const h = new Harness();
    const socket = h.sockets.connectTo(h.addListener(1, 22), endpointRecord(REMOTE4, 5555));
    h.turn();
    const syn = h.takeOne();
    h.send({ flags: 'R', seq: 0, srcPort: 22, dstPort: 5555 });
    h.send({ flags: 'RA', seq: 0, ack: syn.seq + 2, srcPort: 22, dstPort: 5555 });
    expect(socket.state).toBe('connected');
  });

  it('answers a wrong SYN-ACK with a RST and waits on', () => {
    const h = new Harness();
    h.sockets.connectTo(h.addListener(1, 22), endpointRecord(REMOTE4, 5555));
    h.turn();
    const syn = h.takeOne();
    h.send({ flags: 'SA', seq: 9, ack: syn.seq + 5, srcPort: 22, dstPort: 5555 });
    expect(h.takeOne()).toMatchObject({ flags: 'R', seq: syn.seq + 5 });
    expect(h.liveFlows).toBe(1);
  });

  it('gets along with a guest that opens the same connection at the same time', () => {
    const h = new Harness();
    const socket = h.sockets.connectTo(h.addListener(1, 22), endpointRecord(REMOTE4, 5555));
    h.turn();
    const syn = h.takeOne();
    h.send({ flags: 'S', seq: 300, srcPort: 22, dstPort: 5555, mss: 1460 });
    expect(h.takeOne()).toMatchObject({ flags: 'SA', seq: syn.seq, ack: 301 });
    h.send({ flags: 'SA', seq: 300, ack: syn.seq + 1, srcPort: 22, dstPort: 5555 });
    h.take();
    h.send({ flags: 'PA', seq: 301, ack: syn.seq + 1, srcPort: 22, dstPort: 5555, data: new Uint8Array([9]) });
    expect([...socket.sent]).toEqual([9]);
  });

  it('is refused while the same addresses and ports are in use', () => {
    const h = new Harness();
    h.openIn();
    const second = h.sockets.connectTo(h.listeners.get(1)!.socket, endpointRecord(REMOTE4, 5555));
    h.turn();
    expect(second.wasReset).toBe(true);
    expect(h.liveFlows).toBe(1);
  });

  it('is closed when no flow is free, and nothing leaks', () => {
    const h = new Harness({ capacity: 1 });
    h.openIn();
    const second = h.sockets.connectTo(h.listeners.get(1)!.socket, endpointRecord(REMOTE4, 5556));
    h.turn();
    expect(second.wasReset).toBe(true);
    // The listener, its connection and the descriptor held in reserve.
    expect(h.sockets.openCount).toBe(3);
    h.tcp.close();
    expect(h.sockets.openCount).toBe(2);
  });

  it('is accepted although the one before it failed in the backlog', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    h.sockets.acceptErrors.push(-103, -71);
    h.sockets.connectTo(listener, endpointRecord(REMOTE4, 6000));
    h.turn();
    expect(h.takeOne().srcPort).toBe(6000);
  });

  it('is reset when no descriptor is left, and the listener is emptied', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    h.sockets.descriptorLimit = 4;
    const sockets = [0, 1, 2, 3].map((i) => h.sockets.connectTo(listener, endpointRecord(REMOTE4, 6000 + i)));
    h.turn();
    expect(sockets.map((s) => s.wasReset)).toEqual([false, false, true, true]);
    expect(listener.backlog).toHaveLength(0);
    expect(h.take().map((s) => s.srcPort)).toEqual([6000, 6001]);
  });

  it('waits in the backlog when the kernel has no memory', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    h.sockets.acceptErrors.push(-12);
    h.sockets.connectTo(listener, endpointRecord(REMOTE4, 6000));
    h.turn();
    expect(h.take()).toEqual([]);
    listener.edge = true;
    h.turn();
    expect(h.takeOne().srcPort).toBe(6000);
  });

  it('from a source that the guest could not answer appears as what the address map says', () => {
    const h = new Harness({
      map: {
        toGuest: (address) => {
          address.set([0, 0, 0xffff, 0xc0000201]);
          return MAP_REWRITTEN;
        },
      },
    });
    h.sockets.connectTo(h.addListener(1, 22), endpointRecord(new Uint32Array([0, 0, 0xffff, 0x7f000005]), 7777));
    h.turn();
    const frame = h.link.sent[0]!;
    expect([...frame.subarray(26, 34)]).toEqual([192, 0, 2, 1, 192, 0, 2, 2]);
    expect(h.takeOne()).toMatchObject({ flags: 'S', srcPort: 7777 });
  });

  it('goes to the address that the forward names, or the one that the guest was seen with', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    h.listeners.get(1)!.guestAddress = new Uint32Array([0, 0, 0xffff, 0xc0000209]);
    h.sockets.connectTo(listener, endpointRecord(REMOTE4, 7000));
    h.turn();
    expect([...h.link.sent[0]!.subarray(30, 34)]).toEqual([192, 0, 2, 9]);
    h.take();
    h.sockets.connectTo(h.addListener(2, 22), endpointRecord(REMOTE4, 7001));
    h.ctx.guest.ipv4[3] = 0xc000022a;
    h.turn();
    expect([...h.link.sent[0]!.subarray(30, 34)]).toEqual([192, 0, 2, 42]);
  });

  it('from a link-local address goes to the link-local address of the guest', () => {
    const h = new Harness();
    h.ctx.guest.linkLocal.set([0xfe800000, 0, 0, 0x77]);
    h.sockets.connectTo(h.addListener(1, 22), endpointRecord(new Uint32Array([0xfe800000, 0, 0, 5]), 7000));
    h.turn();
    const frame = h.link.sent[0]!;
    expect([...frame.subarray(38, 54)]).toEqual([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77]);
    expect(h.takeOne()).toMatchObject({ flags: 'S', family: 6 });
  });

  it('of a family that the forward cannot reach is refused', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    h.listeners.get(1)!.guestAddress = new Uint32Array([0x20010db8, 0, 0, 9]);
    const socket = h.sockets.connectTo(listener, endpointRecord(REMOTE4, 7000));
    h.turn();
    expect(socket.wasReset).toBe(true);
    expect(h.liveFlows).toBe(0);
  });

  it('is not accepted once its forward was removed', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    h.sockets.connectTo(listener, endpointRecord(REMOTE4, 7000));
    h.listeners.delete(1);
    h.turn();
    expect(h.take()).toEqual([]);
    expect(listener.backlog).toHaveLength(1);
  });

  it('takes all that wait at the listener', () => {
    const h = new Harness();
    const listener = h.addListener(1, 22);
    for (let i = 0; i < 5; i++) h.sockets.connectTo(listener, endpointRecord(REMOTE4, 6000 + i));
    h.turn();
    expect(h.take().map((s) => s.srcPort)).toEqual([6000, 6001, 6002, 6003, 6004]);
  });
});

describe('a segment of no connection', () => {
  it('with ACK is answered by a RST at the number it acknowledges', () => {
    const h = new Harness();
    h.send({ flags: 'PA', seq: 5, ack: 4242, data: new Uint8Array(3) });
    expect(h.takeOne()).toMatchObject({ flags: 'R', seq: 4242, ack: 0 });
  });

  it('without ACK is answered by a RST that acknowledges it', () => {
    const h = new Harness();
    h.send({ flags: 'F', seq: 5, data: new Uint8Array(3) });
    expect(h.takeOne()).toMatchObject({ flags: 'RA', seq: 0, ack: 9 });
  });

  it('that is a RST is not answered', () => {
    const h = new Harness();
    h.send({ flags: 'R', seq: 5 });
    h.send({ flags: 'RA', seq: 5, ack: 1 });
    expect(h.take()).toEqual([]);
  });
});
