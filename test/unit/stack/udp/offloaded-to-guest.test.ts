/** All that is asked of datagrams to the guest, with one that cuts frames itself; and what the frames then are. */
import { describe, expect, it } from 'vitest';
import { OFFLOAD_CHECKSUM, OFFLOAD_UDP4, OFFLOAD_UDP6 } from '../../../../src/stack/ports.ts';
import { endpoint, GUEST_4, GUEST_6, parseUdp, pattern, setDefaultOffloads, TestStack, udpPacket } from './support.ts';

setDefaultOffloads(OFFLOAD_CHECKSUM | OFFLOAD_UDP4 | OFFLOAD_UDP6);
await import('./to-guest.test.ts');

describe.each([
  [GUEST_4, '198.51.100.9', 42],
  [GUEST_6, '2001:db8:9::9', 62],
])('datagrams in one frame (%s)', (guest, peer, headers) => {
  /** Lets the peer answer with datagrams of these lengths. @returns payloads of the frames; the datagrams in them, which may not be fragments */
  function answer(lengths: readonly number[]): { frames: number[]; takeData(): Uint8Array[] } {
    const stack = new TestStack();
    stack.fromGuest(udpPacket(guest, 4000, peer, 53, pattern(1)));
    const socket = stack.sockets.last;
    for (const [i, length] of lengths.entries()) {
      socket.deliverDatagram({ source: endpoint(peer, 53), data: pattern(length, i) });
    }
    stack.handleEvents();
    const frames = stack.link.sent.map((frame) => frame.length - headers);
    return { frames, takeData: () => stack.takePackets().map((packet) => parseUdp(packet).data) };
  }

  it('are those of equal length, and a shorter one behind them', () => {
    const lengths = [1000, 1000, 1000, 400, 400, 1200, 1300, 1300];
    const { frames, takeData } = answer(lengths);
    expect(frames).toEqual([3400, 400, 1200, 2600]);
    expect(takeData()).toEqual(lengths.map((length, i) => pattern(length, i)));
  });

  it('are no more than 64 KiB, and none that has to be cut into fragments or is empty', () => {
    const { frames, takeData } = answer([...new Array<number>(60).fill(1400), 0, 0]);
    expect(frames.slice(0, 2)).toEqual([46 * 1400, 14 * 1400]);
    expect(takeData()).toHaveLength(62);
    const long = answer([3000, 3000]);
    expect(long.frames.every((bytes) => bytes < 1500)).toBe(true);
  });
});
