import { beforeEach, describe, expect, it } from 'vitest';
import {
  REASSEMBLY_SLOTS,
  REASSEMBLY_TIMEOUT_4_MS,
  REASSEMBLY_TIMEOUT_6_MS,
} from '../../../../src/stack/fragment/reassembly.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import {
  concat,
  GUEST_4,
  GUEST_6,
  type IpOptions,
  ipPacket,
  isIcmpChecksumRight,
  pattern,
  ROUTER_4,
  ROUTER_6,
  TestStack,
  udpMessage,
  udpPacket,
} from '../udp/support.ts';

const PEER_4 = '198.51.100.9';
const PEER_6 = '2001:db8:9::9';

let stack: TestStack;
beforeEach(() => {
  stack = new TestStack();
});

interface Piece {
  readonly from: number;
  readonly to: number;
  readonly more: boolean;
}

/** Cuts [0, total) at multiples of 8. */
function cut(total: number, pieceBytes: number): Piece[] {
  const pieces: Piece[] = [];
  for (let from = 0; from < total; from += pieceBytes) {
    pieces.push({ from, to: Math.min(total, from + pieceBytes), more: from + pieceBytes < total });
  }
  return pieces;
}

function fragment(guest: string, message: Uint8Array, id: number, piece: Piece, options: IpOptions = {}): Uint8Array {
  const peer = guest.includes(':') ? PEER_6 : PEER_4;
  const payload = message.slice(piece.from, piece.to);
  return ipPacket(guest, peer, 17, payload, { id, offset: piece.from, more: piece.more, ...options });
}

function message(guest: string, data: Uint8Array, port = 4000): Uint8Array {
  return udpMessage(guest, port, guest.includes(':') ? PEER_6 : PEER_4, 53, data);
}

/** Data of all datagrams that have left, by order. */
function sent(): Uint8Array[] {
  return stack.sockets.all.flatMap((socket) => socket.sentDatagrams.map((d) => d.data));
}

describe.each([GUEST_4, GUEST_6])('fragments from %s', (guest) => {
  it('become the datagram that they were, in whatever order they come', () => {
    const whole = message(guest, pattern(5120));
    const pieces = cut(whole.length, 1480);
    for (const order of [pieces, pieces.toReversed(), [pieces[1]!, pieces[3]!, pieces[0]!, pieces[2]!]]) {
      stack.fromGuest(...order.map((piece) => fragment(guest, whole, 7, piece)));
    }
    expect(sent()).toEqual([pattern(5120), pattern(5120), pattern(5120)]);
    expect(stack.ctx.counters.reassembled).toBe(3);
    expect(stack.reassembly.pendingCount).toBe(0);
  });

  it('may come one read after the other, mixed with those of other datagrams', () => {
    const datagrams = [0, 1, 2].map((i) => message(guest, pattern(3000 + i, i), 4000 + i));
    const pieces = cut(datagrams[0]!.length, 800);
    for (const piece of pieces) {
      datagrams.forEach((whole, i) => {
        const to = piece.more ? piece.to : whole.length;
        stack.fromGuest(fragment(guest, whole, 100 + i, { ...piece, to }));
      });
    }
    expect(sent()).toEqual([0, 1, 2].map((i) => pattern(3000 + i, i)));
  });

  it('make datagrams up to the longest', () => {
    const data = pattern(guest === GUEST_4 ? 65_507 : 65_527);
    const whole = message(guest, data);
    stack.fromGuest(...cut(whole.length, 1448).map((piece) => fragment(guest, whole, 7, piece)));
    expect(sent()).toEqual([data]);
  });

  it('of many datagrams in one read all arrive, though they outnumber the slots', () => {
    stack = new TestStack({ rxBytes: 1 << 20 });
    const count = 3 * REASSEMBLY_SLOTS;
    const packets: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const whole = message(guest, pattern(2000, i), 4000 + (i % 3));
      packets.push(...cut(whole.length, 1480).map((piece) => fragment(guest, whole, i, piece)));
    }
    stack.fromGuest(...packets);
    const byPort = [0, 1, 2].flatMap((port) =>
      Array.from({ length: count / 3 }, (_, i) => pattern(2000, 3 * i + port)),
    );
    expect(sent()).toEqual(byPort);
  });

  it('that come twice are taken once', () => {
    const whole = message(guest, pattern(4000));
    const pieces = cut(whole.length, 1480);
    stack.fromGuest(
      ...[...pieces.slice(0, 2), ...pieces.slice(0, 2), pieces[2]!].map((p) => fragment(guest, whole, 7, p)),
    );
    expect(sent()).toEqual([pattern(4000)]);
  });

  it.each<[string, Piece, number]>([
    ['overlap with other bytes', { from: 1472, to: 2952, more: true }, 9],
    ['lie inside another with other bytes', { from: 8, to: 80, more: true }, 9],
    ['cover another', { from: 0, to: 2960, more: true }, 0],
    ['reach beyond the end', { from: 4000, to: 4016, more: true }, 0],
    ['set another end', { from: 2960, to: 3960, more: false }, 0],
    ['go on where the end was', { from: 4008, to: 4016, more: true }, 0],
  ])('that %s condemn their datagram for good', (_what, bad, seed) => {
    const whole = message(guest, pattern(4000));
    const other = concat(whole, pattern(100)).map((byte) => byte ^ seed);
    const pieces = cut(whole.length, 1480);
    stack.fromGuest(
      fragment(guest, whole, 7, pieces[0]!),
      fragment(guest, whole, 7, pieces[2]!),
      fragment(guest, other, 7, bad),
      fragment(guest, whole, 7, pieces[1]!),
      fragment(guest, whole, 7, pieces[0]!),
    );
    expect(sent()).toEqual([]);
    expect(stack.ctx.counters.reassemblyFailed).toBe(1);
    // Another datagram is not concerned; the condemned one's identification serves again when its time is over.
    stack.fromGuest(...pieces.map((piece) => fragment(guest, whole, 8, piece)));
    expect(sent()).toEqual([pattern(4000)]);
    stack.advance(61_000);
    stack.fromGuest(...pieces.map((piece) => fragment(guest, whole, 7, piece)));
    expect(sent()).toHaveLength(2);
    expect(stack.takePackets()).toEqual([]);
  });

  it('that are empty, or end off the grid, are ignored', () => {
    const whole = message(guest, pattern(100));
    stack.fromGuest(
      fragment(guest, whole, 7, { from: 0, to: 0, more: true }),
      fragment(guest, whole, 7, { from: 0, to: 37, more: true }),
      ...cut(whole.length, 48).map((piece) => fragment(guest, whole, 7, piece)),
    );
    expect(sent()).toEqual([pattern(100)]);
  });

  it('that would make more than a packet can be are refused', () => {
    const whole = pattern(65_536);
    stack.fromGuest(fragment(guest, whole, 7, { from: 65_528, to: 65_536, more: false }));
    expect(stack.ctx.counters.reassemblyFailed).toBe(1);
  });

  it('are forgotten in time, and the guest is told if the beginning had come', () => {
    const timeoutMs = guest === GUEST_4 ? REASSEMBLY_TIMEOUT_4_MS : REASSEMBLY_TIMEOUT_6_MS;
    const whole = message(guest, pattern(4000));
    const pieces = cut(whole.length, 1200);
    const first = fragment(guest, whole, 7, pieces[0]!);
    stack.fromGuest(first, fragment(guest, whole, 7, pieces[1]!), fragment(guest, whole, 8, pieces[1]!));
    expect(stack.reassembly.pendingCount).toBe(2);
    stack.advance(timeoutMs - 100);
    expect(stack.reassembly.pendingCount).toBe(2);
    stack.advance(1100);
    expect(stack.reassembly.pendingCount).toBe(0);
    expect(stack.reassembly.nextDueMs()).toBe(Number.POSITIVE_INFINITY);
    const told = stack.takePackets();
    expect(told).toHaveLength(1);
    expect(told[0]).toMatchObject({ source: guest === GUEST_4 ? ROUTER_4 : ROUTER_6, destination: guest });
    expect([...told[0]!.payload.slice(0, 2)]).toEqual(guest === GUEST_4 ? [11, 1] : [3, 1]);
    const quote = told[0]!.payload.slice(8);
    expect(quote).toEqual(first.slice(0, quote.length));
    expect(isIcmpChecksumRight(told[0]!)).toBe(true);
    stack.fromGuest(...pieces.slice(1).map((piece) => fragment(guest, whole, 7, piece)));
    expect(sent()).toEqual([]);
  });

  it('without end take no more than their slots, the oldest giving way', () => {
    const whole = message(guest, pattern(3000));
    const [first, ...rest] = cut(whole.length, 1480);
    for (let id = 0; id < REASSEMBLY_SLOTS + 10; id++) {
      stack.ctx.nowMs += 1;
      stack.fromGuest(fragment(guest, whole, id, first!));
    }
    expect(stack.reassembly.pendingCount).toBe(REASSEMBLY_SLOTS);
    stack.fromGuest(...rest.map((piece) => fragment(guest, whole, 5, piece)));
    expect(sent()).toEqual([]);
    stack.fromGuest(...rest.map((piece) => fragment(guest, whole, REASSEMBLY_SLOTS + 9, piece)));
    expect(sent()).toEqual([pattern(3000)]);
  });

  it('agree with a naive model, whatever comes', () => {
    const random = seededRandom(guest === GUEST_4 ? 4 : 6);
    const pick = (n: number): number => Math.floor(random() * n);
    let expected = 0;
    for (let round = 0; round < 400; round++) {
      const total = 16 + pick(3000);
      const whole = message(guest, pattern(total - 8, round));
      // At least two, or it would be no fragment.
      const pieces = cut(whole.length, 8 * (1 + pick(Math.min(60, Math.ceil(total / 8) - 1))));
      // Some are lost, some repeated, some contradict; then all are shuffled.
      const queue = pieces.filter(() => random() > 0.02);
      if (random() < 0.3 && queue.length > 0) queue.push(queue[pick(queue.length)]!);
      let bad: Piece | undefined;
      if (random() < 0.2) {
        const from = 8 * pick(Math.ceil(total / 8));
        bad = { from, to: from + 8 * (1 + pick(20)), more: true };
        queue.push(bad);
      }
      for (let i = queue.length - 1; i > 0; i--) {
        const j = pick(i + 1);
        [queue[i], queue[j]] = [queue[j]!, queue[i]!];
      }
      const damaged = concat(whole, pattern(300)).map((byte) => byte ^ 0x5a);
      if (modelCompletes(queue, bad, whole.length)) expected++;
      for (const piece of queue) stack.fromGuest(fragment(guest, piece === bad ? damaged : whole, round, piece));
      expect(stack.ctx.counters.reassembled, `round ${round}`).toBe(expected);
      stack.advance(200);
    }
    expect(expected).toBeGreaterThan(100);
    expect(expected).toBeLessThan(390);
    expect(stack.reassembly.pendingCount).toBeGreaterThan(0);
    stack.advance(62_000);
    expect(stack.reassembly.pendingCount).toBe(0);
  });
});

/** Byte by byte: whether a datagram comes out of these pieces, `bad` having other bytes than the rest. */
function modelCompletes(queue: readonly Piece[], bad: Piece | undefined, total: number): boolean {
  let owner: (Piece | undefined)[] = [];
  let end = -1;
  for (const piece of queue) {
    const knownEnd = end;
    if (piece.more && knownEnd >= 0 && piece.to >= knownEnd) return false;
    if (!piece.more && owner.length > piece.to) return false;
    let seen = 0;
    let isSame = true;
    for (let at = piece.from; at < piece.to; at++) {
      if (owner[at] === undefined) continue;
      seen++;
      if ((owner[at] === bad) !== (piece === bad)) isSame = false;
    }
    if (seen > 0) {
      if (seen < piece.to - piece.from || !isSame) return false;
      continue;
    }
    for (let at = piece.from; at < piece.to; at++) owner[at] = piece;
    if (!piece.more) end = piece.to;
    if (end >= 0) {
      let complete = true;
      for (let at = 0; at < end; at++) if (owner[at] === undefined) complete = false;
      // What comes after is the beginning of another datagram with the same identification, and stays incomplete.
      if (complete) {
        owner = [];
        return end === total;
      }
    }
  }
  return false;
}

describe('what is put together', () => {
  it('keeps IPv4 options, and loses what made it a fragment', () => {
    const whole = message(GUEST_4, pattern(2000));
    const packets = cut(whole.length, 1480).map((piece) => {
      const packet = fragment(GUEST_4, whole, 7, piece);
      const withOption = concat([0x46], packet.slice(1, 20), [1, 1, 1, 0], packet.slice(20));
      const view = new DataView(withOption.buffer);
      view.setUint16(2, withOption.length);
      view.setUint16(10, 0);
      let sum = 0;
      for (let i = 0; i < 24; i += 2) sum += view.getUint16(i);
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
      view.setUint16(10, ~sum & 0xffff);
      return withOption;
    });
    stack.fromGuest(...packets);
    expect(sent()).toEqual([pattern(2000)]);
    expect(stack.ctx.counters.badIpv4).toBe(0);
  });

  it('keeps the IPv6 extension headers in front of the fragment header', () => {
    const whole = message(GUEST_6, pattern(2000));
    const options = new Uint8Array([0, 0, 1, 4, 0, 0, 0, 0]);
    stack.fromGuest(
      ...cut(whole.length, 1400).map((piece) => fragment(GUEST_6, whole, 7, piece, { extension: [60, options] })),
    );
    expect(sent()).toEqual([pattern(2000)]);
  });

  it('tells IPv4 datagrams with the same identification apart by protocol and addresses', () => {
    const whole = message(GUEST_4, pattern(2000));
    const [first, second] = cut(whole.length, 1480);
    stack.fromGuest(
      fragment(GUEST_4, whole, 7, first!),
      ipPacket(GUEST_4, PEER_4, 6, whole.slice(second!.from), { id: 7, offset: second!.from }),
      ipPacket(GUEST_4, '198.51.100.10', 17, whole.slice(second!.from), { id: 7, offset: second!.from }),
      ipPacket('192.0.2.3', PEER_4, 17, whole.slice(second!.from), { id: 7, offset: second!.from }),
    );
    expect(sent()).toEqual([]);
    stack.fromGuest(fragment(GUEST_4, whole, 7, second!));
    expect(sent()).toEqual([pattern(2000)]);
  });

  it('is sent in its turn with whole datagrams of the same flow', () => {
    const whole = message(GUEST_4, pattern(2000));
    stack.fromGuest(
      udpPacket(GUEST_4, 4000, PEER_4, 53, pattern(1)),
      ...cut(whole.length, 1480).map((piece) => fragment(GUEST_4, whole, 7, piece)),
      udpPacket(GUEST_4, 4000, PEER_4, 53, pattern(2)),
    );
    expect(sent().map((data) => data.length)).toEqual([1, 2000, 2]);
    expect(stack.sockets.calls.get('sendDatagrams')).toBe(1);
  });
});
