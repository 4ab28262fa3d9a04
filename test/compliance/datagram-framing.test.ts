/** What is particular to frames that are a datagram each: what is no frame, who is not the guest, and guests that come and go. */
import { afterEach, describe, expect, it } from 'vitest';
import { createDatagramTransport, type DatagramKind, type DatagramTransport } from './datagram-transport.ts';
import { expectFrames, makeFrame, queueFrame } from './guest-link.ts';

let transport: DatagramTransport | undefined;
afterEach(() => transport?.close());

const start = (kind: DatagramKind) => {
  transport = createDatagramTransport(kind);
  return { transport, peer: transport.connect() };
};

for (const kind of ['pair', 'unix', 'inet4', 'inet6', 'multicast'] as const) {
  describe(`datagrams that are no frames: ${kind}`, () => {
    it('are passed over, empty ones too, and the frames among them arrive', () => {
      const { transport, peer } = start(kind);
      const sent = [makeFrame(1, 60), makeFrame(2, 14), makeFrame(3, 1514)];
      expect(peer.sendFrame(sent[0]!)).toBe(true);
      expect(peer.sendBytes(new Uint8Array(0))).toBe(0);
      expect(peer.sendFrame(sent[1]!)).toBe(true);
      expect(peer.sendBytes(makeFrame(9, 13))).toBe(13);
      expect(peer.sendBytes(new Uint8Array(1))).toBe(1);
      expect(peer.sendFrame(sent[2]!)).toBe(true);
      expectFrames(transport.pump(), sent);
      expect(transport.flaws).toEqual(['empty', 'short', 'short']);
      expect(transport.link.connected).toBe(true);
    });
    it('do not bring a guest that is not there', () => {
      const { transport, peer } = start(kind);
      transport.detach();
      expect(transport.link.connected).toBe(false);
      peer.close();
      const next = transport.connect();
      if (kind === 'pair') return;
      next.close();
      for (let i = 0; i < 3 && transport.link.connected; i++) {
        queueFrame(transport, makeFrame(0, 60));
        transport.pump();
      }
      expect(transport.link.connected).toBe(kind === 'multicast');
    });
    it('never leave us: an empty frame cannot be committed', () => {
      const { transport } = start(kind);
      const at = transport.link.reserve(100);
      expect(() => transport.link.commit(at, 0)).toThrow(RangeError);
      expect(() => transport.link.commit(at, 13)).toThrow(RangeError);
      expect(() => transport.link.commit(at, transport.link.maxFrameBytes + 1)).toThrow(RangeError);
    });
  });
}

describe('datagrams that are too long', () => {
  it('are passed over whole', () => {
    const { transport, peer } = start('pair');
    for (const length of [65_536, 65_600, 70_000, 65_535]) {
      expect(peer.sendBytes(makeFrame(1, length))).toBe(length);
      expectFrames(transport.pump(), length === 65_535 ? [makeFrame(1, length)] : []);
    }
    expect(transport.flaws).toEqual(['cut', 'cut', 'cut']);
  });
});

describe('datagrams of others', () => {
  it('on a unix socket are known by their path', () => {
    const { transport, peer } = start('unix');
    expect(peer.sendAsStranger(makeFrame(1, 60))).toBe(60);
    peer.sendFrame(makeFrame(2, 60));
    expectFrames(transport.pump(), [makeFrame(2, 60)]);
    expect(transport.flaws).toEqual(['stranger']);
  });
  for (const kind of ['inet4', 'inet6'] as const) {
    it(`over UDP the kernel keeps away: ${kind}`, () => {
      const { transport, peer } = start(kind);
      peer.sendAsStranger(makeFrame(1, 60));
      peer.sendFrame(makeFrame(2, 60));
      expectFrames(transport.pump(), [makeFrame(2, 60)]);
      expect(transport.flaws).toEqual([]);
    });
  }
  it('in a flood leave the others their turn, and what is behind them arrives', () => {
    const { transport, peer } = start('unix');
    let arrived = 0;
    for (let number = 0; number < 200; number++) {
      while (peer.sendAsStranger(makeFrame(number, 60)) > 0);
      arrived += transport.pump().length;
      expect(peer.sendFrame(makeFrame(number, 60))).toBe(true);
      arrived += transport.pump().length;
    }
    for (let i = 0; i < 10; i++) arrived += transport.pump().length;
    expect(arrived).toBe(200);
  });
});

describe('a group', () => {
  it('gives us nothing of what we send', () => {
    const { transport, peer } = start('multicast');
    for (let i = 0; i < 5; i++) queueFrame(transport, makeFrame(i, 60));
    transport.link.flush();
    peer.sendFrame(makeFrame(9, 60));
    expectFrames(transport.pump(), [makeFrame(9, 60)]);
    expect(transport.flaws).toEqual(Array(5).fill('stranger'));
    expect(peer.receiveFrames()).toHaveLength(5);
  });
});
