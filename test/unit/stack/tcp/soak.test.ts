/** Whole connections over a link with faults, against a model guest, with chance from a seed. */
import { describe, expect, it } from 'vitest';
import type { FakeSocket } from '../../../support/fake-socket.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import { Harness, parseFrame, pattern } from './harness.ts';
import { ModelGuest } from './model-guest.ts';

interface Faults {
  loss: number;
  duplicate: number;
  reorder: number;
}

interface Scenario {
  seed: number;
  bytesOut: number;
  bytesIn: number;
  faults: Faults;
  sack: boolean;
  windowBytes: number;
  roomBytes: number;
  slowHost: boolean;
  peekOff: boolean;
}

/** Runs one connection to its end. */
function run(s: Scenario): void {
  const random = seededRandom(s.seed);
  const h = new Harness({ roomBytes: s.roomBytes });
  h.sockets.connectResult = 0;
  h.sockets.peekOffSupported = s.peekOff;
  const out = pattern(s.bytesOut, s.seed);
  const inbound = pattern(s.bytesIn, s.seed + 99);
  const iss = Math.floor(random() * 0x1_0000_0000);
  const guest = new ModelGuest(
    { stream: out, port: 41_000, iss, windowBytes: s.windowBytes, sack: s.sack, random },
    h.nowMs,
  );
  const held: (() => void)[] = [];
  const fate = (deliver: () => void): void => {
    const chance = random() * 100;
    if (chance < s.faults.loss) return;
    if (chance < s.faults.loss + s.faults.reorder) {
      held.push(deliver);
      return;
    }
    deliver();
    if (chance > 100 - s.faults.duplicate) deliver();
    if (held.length > 0 && random() < 0.5) held.shift()!();
  };

  let socket: FakeSocket | undefined;
  let delivered = 0;
  for (let step = 0; step < 60_000; step++) {
    guest.exchange(h, fate);
    h.advance(step % 7 === 0 ? 40 : 1);
    for (const frame of h.link.sent.splice(0)) {
      const segment = parseFrame(frame);
      fate(() => guest.take(segment));
    }
    socket ??= h.sockets.all[0];
    if (socket === undefined) continue;
    if (socket.state !== 'closed' && delivered < inbound.length && random() < 0.5) {
      const length = Math.min(inbound.length - delivered, Math.floor(random() * 40_000));
      socket.deliver(inbound.subarray(delivered, delivered + length));
      delivered += length;
      if (delivered === inbound.length) socket.end();
    }
    if (s.slowHost && socket.state !== 'closed') socket.setSpace(random() < 0.7 ? Math.floor(random() * 9000) : 0);
    if (guest.isDone && h.liveFlows === 0) break;
    // The model says no more once it is done: the rest is up to timers.
    if (guest.isDone) h.advance(1000);
  }
  expect(guest.state, 'the guest was reset').toBe('open');
  expect(guest.isDone, 'the guest is not done').toBe(true);
  expect(Buffer.from(socket!.sent).equals(out), 'bytes to the host differ').toBe(true);
  expect(Buffer.from(guest.received).equals(inbound), 'bytes to the guest differ').toBe(true);
  expect(socket!.writeShut, 'no half-close').toBe(true);
  expect(h.liveFlows).toBe(0);
  expect(h.sockets.openCount).toBe(0);
}

const CLEAN: Faults = { loss: 0, duplicate: 0, reorder: 0 };
const BAD: Faults = { loss: 4, duplicate: 3, reorder: 4 };
const BASE: Omit<Scenario, 'seed'> = {
  bytesOut: 60_000,
  bytesIn: 60_000,
  faults: BAD,
  sack: true,
  windowBytes: 64_000,
  roomBytes: 1 << 20,
  slowHost: false,
  peekOff: true,
};

const CASES: { name: string; over: Partial<Scenario> }[] = [
  { name: 'over a clean link', over: { faults: CLEAN, bytesIn: 500_000, bytesOut: 500_000 } },
  { name: 'over a clean link with little room', over: { faults: CLEAN, roomBytes: 8000 } },
  { name: 'to a slow host over a clean link', over: { faults: CLEAN, slowHost: true, bytesOut: 200_000 } },
  { name: 'over a link that loses, doubles and reorders', over: {} },
  { name: 'over such a link without SACK', over: { sack: false } },
  { name: 'over such a link to a slow host', over: { slowHost: true } },
  { name: 'over such a link with little room', over: { roomBytes: 8000 } },
  { name: 'over such a link with a small window', over: { windowBytes: 3000 } },
  { name: 'over such a link without SO_PEEK_OFF', over: { peekOff: false } },
  {
    name: 'over a link that loses a quarter',
    over: { faults: { loss: 25, duplicate: 0, reorder: 0 }, bytesIn: 20_000, bytesOut: 20_000 },
  },
];

describe('every byte arrives in order and nothing is left', () => {
  for (const { name, over } of CASES) {
    for (let seed = 1; seed <= 4; seed++) {
      it(`${name}, seed ${seed}`, () => run({ ...BASE, ...over, seed }));
    }
  }
});
