import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { expectFrames, makeFrame } from './guest-link.ts';
import { createStreamTransport, type StreamTransport } from './stream-transport.ts';

let transport: StreamTransport;
beforeEach(() => {
  transport = createStreamTransport();
});
afterEach(() => transport.close());

function encode(frame: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(frame.length);
  return Buffer.concat([length, frame]);
}

describe('framing of a byte stream', () => {
  it('finds frames that arrive split at every byte', () => {
    const frames = [makeFrame(1, 14), makeFrame(2, 60), makeFrame(3, 77)];
    const bytes = Buffer.concat(frames.map(encode));
    const peer = transport.connect();
    for (let cut = 1; cut < bytes.length; cut++) {
      peer.sendBytes(bytes.subarray(0, cut));
      const got = transport.pump();
      peer.sendBytes(bytes.subarray(cut));
      got.push(...transport.pump());
      expectFrames(got, frames);
    }
  });

  it('finds frames that arrive byte by byte', () => {
    const frames = [makeFrame(1, 14), makeFrame(2, 100)];
    const bytes = Buffer.concat(frames.map(encode));
    const peer = transport.connect();
    const got: Uint8Array[] = [];
    for (let i = 0; i < bytes.length; i++) {
      peer.sendBytes(bytes.subarray(i, i + 1));
      got.push(...transport.pump());
    }
    expectFrames(got, frames);
  });

  it('finds a thousand frames in one write', () => {
    const frames = Array.from({ length: 1000 }, (_, i) => makeFrame(i, 60 + (i % 100)));
    const peer = transport.connect();
    const bytes = Buffer.concat(frames.map(encode));
    expect(peer.sendBytes(bytes)).toBe(bytes.length);
    const got = transport.pump();
    expectFrames(got, frames);
  });

  it.each([0, 1, 13, 65_536, 69_632, 0x7fffffff, 0xffffffff])(
    'drops a guest that announces %d bytes, after the frames before',
    (length) => {
      const peer = transport.connect();
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(length);
      peer.sendBytes(Buffer.concat([encode(makeFrame(1, 60)), prefix]));
      expectFrames(transport.pump(), [makeFrame(1, 60)]);
      expect(transport.gone).toEqual(['bad-length']);
      expect(peer.isEnded()).toBe(true);
      const next = transport.connect();
      next.sendFrame(makeFrame(2, 60));
      expectFrames(transport.pump(), [makeFrame(2, 60)]);
    },
  );

  it('drops the part of a frame that a leaving guest has sent', () => {
    for (let cut = 1; cut < 64; cut++) {
      const peer = transport.connect();
      peer.sendBytes(encode(makeFrame(1, 60)).subarray(0, cut));
      transport.pump();
      peer.close();
      expect(transport.pump()).toEqual([]);
      expect(transport.gone).toHaveLength(cut);
    }
    const peer = transport.connect();
    peer.sendFrame(makeFrame(2, 60));
    expectFrames(transport.pump(), [makeFrame(2, 60)]);
  });

  it('takes a guest that only stops sending for one that is gone', () => {
    const peer = transport.connect();
    peer.sendFrame(makeFrame(1, 60));
    peer.shutDown();
    expectFrames(transport.pump(), [makeFrame(1, 60)]);
    expect(transport.gone).toEqual(['closed']);
    expect(peer.isEnded()).toBe(true);
  });
});
