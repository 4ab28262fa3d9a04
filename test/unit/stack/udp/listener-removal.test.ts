/** What becomes of UDP flows when the forwarded port that they came by is closed, and what is told about flows. */
import { expect, it } from 'vitest';
import { createFlowDescription } from '../../../../src/stack/flow/description.ts';
import { FLOW_UDP } from '../../../../src/stack/flow/table.ts';
import { endpoint, GUEST_4, ip, parseUdp, pattern, TestStack, udpPacket } from './support.ts';

const PEER = '198.51.100.7';
const LOCAL = '203.0.113.1';

function liveFlows(stack: TestStack): number {
  return stack.ctx.flows.live[FLOW_UDP]!;
}

it('flows that came by a closed port end, others stay', () => {
  const stack = new TestStack();
  const first = stack.addListener({ guestPort: 5000 });
  const second = stack.addListener({ guestPort: 6000 });
  first.deliverDatagram({ source: endpoint(PEER, 1000), local: endpoint(LOCAL, 0), data: pattern(10) });
  second.deliverDatagram({ source: endpoint(PEER, 1000), local: endpoint(LOCAL, 0), data: pattern(10) });
  stack.fromGuest(udpPacket(GUEST_4, 4000, PEER, 53, pattern(5)));
  stack.handleEvents();
  expect(liveFlows(stack)).toBe(3);
  stack.udp.onListenerRemoved(0);
  stack.endTurn();
  expect(liveFlows(stack)).toBe(2);
  second.deliverDatagram({ source: endpoint(PEER, 1000), local: endpoint(LOCAL, 0), data: pattern(11) });
  stack.handleEvents();
  expect(liveFlows(stack)).toBe(2);
});

it('a closed port that comes back as another is set up anew', () => {
  const stack = new TestStack();
  const listener = stack.addListener({ guestPort: 5000 });
  listener.deliverDatagram({ source: endpoint(PEER, 1000), local: endpoint(LOCAL, 0), data: pattern(10) });
  stack.handleEvents();
  stack.udp.onListenerRemoved(0);
  stack.endTurn();
  stack.takePackets();
  stack.sockets.calls.clear();
  listener.deliverDatagram({ source: endpoint(PEER, 1001), local: endpoint(LOCAL, 0), data: pattern(12) });
  stack.handleEvents();
  expect(stack.sockets.calls.get('setOption')).toBeGreaterThan(0);
  expect(stack.takePackets().map(parseUdp)).toMatchObject([{ to: `${GUEST_4} 5000` }]);
});

it('a flow is described with both sides, its bytes and its age', () => {
  const stack = new TestStack();
  stack.ctx.flows.nowMs = stack.ctx.nowMs;
  const listener = stack.addListener({ guestPort: 5000 });
  for (let i = 0; i < 3; i++) {
    listener.deliverDatagram({ source: endpoint(PEER, 1000), local: endpoint(LOCAL, 0), data: pattern(100) });
  }
  stack.handleEvents();
  stack.fromGuest(udpPacket(GUEST_4, 5000, PEER, 1000, pattern(7)));
  stack.endTurn();
  const description = createFlowDescription(stack.ctx, 0, stack.ctx.nowMs + 1500);
  stack.udp.describe(0, description);
  expect(description).toMatchObject({
    proto: 'udp',
    startedBy: 'host',
    state: 'replied',
    ageMs: 1500,
    bytesToGuest: 300,
    bytesToHost: 7,
    guestAddress: ip(GUEST_4),
    guestPort: 5000,
    peerAddress: ip(PEER),
    peerPort: 1000,
    localAddress: ip(LOCAL),
    remoteAddress: ip(PEER),
    remotePort: 1000,
    fd: -1,
    listener: 0,
  });
});
