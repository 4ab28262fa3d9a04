/** Anything a guest, a host and a link can do, in any order: nothing throws, nothing leaks, bytes to the host stay in order. */
import { describe, expect, it } from 'vitest';
import { ECONNRESET, endpointRecord, type FakeSocket } from '../../../support/fake-socket.ts';
import { seededRandom } from '../../../support/seeded-random.ts';
import { Harness, parseFrame, pattern, REMOTE4, type Segment } from './harness.ts';

const FLAGS = ['S', 'A', 'PA', 'FA', 'R', 'RA', 'SA', 'F', '', 'FPA', 'SFRPA'];
const PORTS = [50_000, 50_001, 50_002];

interface Seen {
  ourNext: number;
  guestNext: number;
}

function run(seed: number): void {
  const random = seededRandom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
  const near = (n: number): number => {
    const chance = random();
    if (chance < 0.5) return n;
    if (chance < 0.8) return (n + Math.floor((random() - 0.5) * 6000)) >>> 0;
    if (chance < 0.9) return (n + Math.floor((random() - 0.5) * 8_000_000)) >>> 0;
    return Math.floor(random() * 0x1_0000_0000);
  };
  const h = new Harness({ capacity: 16, roomBytes: 40_000 });
  const listener = h.addListener(1, PORTS[0]!);
  const seen = new Map<number, Seen>(PORTS.map((port) => [port, { ourNext: 0, guestNext: 1000 }]));
  const peers: FakeSocket[] = [];

  for (let step = 0; step < 1500; step++) {
    const what = random();
    if (what < 0.6) {
      const port = pick(PORTS);
      const { ourNext, guestNext } = seen.get(port)!;
      const flags = random() < 0.6 ? pick(['A', 'PA', 'S', 'A']) : pick(FLAGS);
      const data = random() < 0.5 && !flags.includes('S') ? pattern(Math.floor(random() * 1400)) : new Uint8Array(0);
      const segment: Partial<Segment> = {
        flags,
        seq: near(guestNext),
        ack: near(ourNext),
        window: Math.floor(random() * (random() < 0.3 ? 3 : 65_536)),
        data,
        srcPort: port,
        dstPort: random() < 0.9 ? 80 : 5555,
      };
      if (flags.includes('S'))
        Object.assign(segment, { mss: pick([0, 1, 536, 1460, 65_535]), scale: pick([0, 7, 14, 255]) });
      if (random() < 0.3) segment.sackOk = true;
      if (random() < 0.2) segment.sack = [near(ourNext), near(ourNext), near(ourNext), near(ourNext)];
      h.queue(segment);
      if (flags === 'S') seen.get(port)!.guestNext = (segment.seq! + 1) >>> 0;
    } else if (what < 0.8) {
      const socket = pick(h.sockets.all.length > 0 ? h.sockets.all : [undefined]);
      if (socket !== undefined && socket.state !== 'closed' && socket.state !== 'listening') {
        const host = random();
        if (socket.state === 'connecting') socket.completeConnect(random() < 0.8 ? 0 : ECONNRESET);
        else if (host < 0.6) socket.deliver(pattern(Math.floor(random() * 20_000)));
        else if (host < 0.8) socket.setSpace(Math.floor(random() * 3000));
        else if (host < 0.93) socket.end();
        else socket.fail(ECONNRESET);
      }
    } else if (what < 0.83) {
      peers.push(h.sockets.connectTo(listener, endpointRecord(REMOTE4, pick([5555, 80]))));
    } else if (what < 0.86) {
      h.link.limitRoom(Math.floor(random() * 40_000));
    } else if (what < 0.87) {
      h.link.connected = !h.link.connected;
      if (!h.link.connected) h.tcp.onGuestGone();
    } else if (what < 0.9) {
      h.advance(Math.floor(random() * (random() < 0.1 ? 300_000 : 500)));
    } else {
      h.turn();
    }
    for (const frame of h.link.sent.splice(0)) {
      const segment = parseFrame(frame);
      const state = seen.get(segment.dstPort);
      if (state === undefined || segment.flags.includes('R')) continue;
      const fresh = segment.data.length + (/[SF]/.test(segment.flags) ? 1 : 0);
      state.ourNext = (segment.seq + fresh) >>> 0;
      if (segment.flags.includes('A')) state.guestNext = segment.ack;
    }
    expect(h.ctx.flows.count).toBeLessThanOrEqual(16);
  }

  // A guest that is there but says nothing more: everything comes to its end.
  h.link.connected = true;
  h.link.limitRoom(40_000);
  for (const socket of h.sockets.all) if (socket.state !== 'closed') socket.setSpace(1_000_000);
  for (let i = 0; i < 20 && h.liveFlows > 0; i++) h.advance(1_800_000);
  expect(h.liveFlows).toBe(0);
  // The listener and, once a connection was accepted, the descriptor held in reserve.
  expect(h.sockets.openCount - listener.backlog.length).toBeLessThanOrEqual(2);
}

describe('whatever happens', () => {
  for (let seed = 1; seed <= 25; seed++) {
    it(`nothing throws and nothing leaks, seed ${seed}`, () => run(seed));
  }
});
