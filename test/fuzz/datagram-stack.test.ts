/** Mutated packets through dispatch, UDP, echo and reassembly: nothing throws, nothing grows without bound, frames out are sound. */
import { expect, it } from 'vitest';
import { REASSEMBLY_SLOTS } from '../../src/stack/fragment/reassembly.ts';
import { seededRandom } from '../support/seeded-random.ts';
import { errorEntry } from '../unit/stack/icmp/support.ts';
import {
  echoMessage,
  echoRequest,
  endpoint,
  GUEST_4,
  GUEST_6,
  ipPacket,
  pattern,
  TestStack,
  udpMessage,
  udpPacket,
} from '../unit/stack/udp/support.ts';

const PEER_4 = '198.51.100.9';
const PEER_6 = '2001:db8:9::9';

function templates(): Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (const [guest, peer] of [
    [GUEST_4, PEER_4],
    [GUEST_6, PEER_6],
  ] as const) {
    packets.push(udpPacket(guest, 4000, peer, 53, pattern(100)), echoRequest(guest, peer, 5, 6, pattern(30)));
    const message = udpMessage(guest, 4000, peer, 53, pattern(500));
    for (const offset of [0, 160, 320]) {
      const payload = message.slice(offset, offset + 160);
      packets.push(ipPacket(guest, peer, 17, payload, { id: 9, offset, more: offset < 320 }));
    }
  }
  return packets;
}

/** Repairs the IPv4 header checksum, so that what is behind the header is reached. */
function repair(packet: Uint8Array): Uint8Array {
  if (packet.length < 20 || packet[0]! >> 4 !== 4) return packet;
  const headerBytes = Math.min(packet.length, (packet[0]! & 15) * 4) & ~1;
  if (headerBytes < 20) return packet;
  packet[10] = 0;
  packet[11] = 0;
  let sum = 0;
  for (let i = 0; i < headerBytes; i += 2) sum += packet[i]! * 256 + packet[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet[10] = (~sum >> 8) & 255;
  packet[11] = ~sum & 255;
  return packet;
}

it.each([1, 2, 3])('survives mutated packets, replies and error queues (seed %i)', (seed) => {
  const random = seededRandom(seed);
  const pick = (n: number): number => Math.floor(random() * n);
  const stack = new TestStack({ capacity: 64, mtu: 576 });
  const originals = templates();
  for (let round = 0; round < 3000; round++) {
    let packet: Uint8Array = originals[pick(originals.length)]!.slice();
    for (let i = pick(4); i > 0; i--) packet[pick(packet.length)] = pick(256);
    if (random() < 0.2) packet = packet.slice(0, 1 + pick(packet.length));
    if (random() < 0.8) packet = repair(packet);
    stack.fromGuest(packet);
    const open = [...stack.sockets.sockets.values()];
    const socket = open[pick(open.length)];
    if (socket !== undefined && random() < 0.5) {
      const isPing = socket.protocol !== 0;
      const data = isPing
        ? echoMessage(PEER_4, PEER_4, [0, 129, 8][pick(3)]!, 1, 2, pattern(pick(900)))
        : pattern(pick(3000));
      socket.deliverDatagram({ source: random() < 0.8 ? socket.peer : endpoint(PEER_4, 1), data });
      if (random() < 0.3) {
        const entry = { origin: pick(5), type: pick(14), code: pick(16), info: pick(70_000), offender: PEER_6 };
        socket.errors.push(errorEntry(entry, pattern(pick(1300))));
      }
      stack.handleEvents();
    }
    // Reading them checks addresses, lengths and IPv4 checksums.
    for (const sent of stack.takePackets()) expect(sent.bytes.length).toBeLessThanOrEqual(1280);
    stack.advance(pick(100));
  }
  expect(stack.reassembly.pendingCount).toBeLessThanOrEqual(REASSEMBLY_SLOTS);
  expect(stack.sockets.openCount).toBeLessThanOrEqual(64);
  stack.advance(130_000);
  stack.advance(1000);
  expect(stack.sockets.openCount).toBe(0);
  expect(stack.ctx.flows.count).toBe(0);
  expect(stack.reassembly.pendingCount).toBe(0);
});
