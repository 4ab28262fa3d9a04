/** A flow as it is shown to people and programs. Made on request, never on the data path. */
import type { StackContext } from '../context.ts';
import { getEndpointPort, loadEndpointAddress } from '../endpoint.ts';
import {
  FLAG_GUEST_FIN,
  FLAG_HOST_FIN,
  STATE_CONNECTING,
  STATE_RESET,
  STATE_SYN_RECEIVED,
  STATE_SYN_SENT,
  STATE_TIME_WAIT,
} from '../tcp/columns.ts';
import { FLOW_PING, FLOW_TCP } from './table.ts';

/** Addresses are 4 words, IPv4 v4-mapped; all zero where unknown. */
export interface FlowDescription {
  readonly proto: 'tcp' | 'udp' | 'ping';
  /** Index and generation tell flows apart for ever. */
  readonly index: number;
  readonly generation: number;
  readonly startedBy: 'guest' | 'host';
  state: string;
  readonly ageMs: number;
  /** Payload. */
  bytesToGuest: number;
  readonly bytesToHost: number;
  /** The guest's side, as the guest sees it. For ping, guestPort is the identifier. */
  readonly guestAddress: Uint32Array;
  readonly guestPort: number;
  readonly peerAddress: Uint32Array;
  readonly peerPort: number;
  /** The host's side: our socket's name and its peer. */
  localAddress: Uint32Array;
  localPort: number;
  remoteAddress: Uint32Array;
  remotePort: number;
  /** The flow's own socket, or -1. */
  readonly fd: number;
  /** The listener by which the flow's datagrams leave, or -1. */
  listener: number;
}

/** What all kinds of flows have; the owner of the flow adds the rest. */
export function createFlowDescription(ctx: StackContext, index: number, nowMs: number): FlowDescription {
  const { flows, sockets, view, endpoint } = ctx;
  const at = index * 4;
  const kind = flows.kind[index]!;
  const fd = flows.fd[index]!;
  const description: FlowDescription = {
    proto: kind === FLOW_TCP ? 'tcp' : kind === FLOW_PING ? 'ping' : 'udp',
    index,
    generation: flows.generation[index]!,
    startedBy: flows.fromHost[index] === 0 ? 'guest' : 'host',
    state: '',
    ageMs: Math.max(0, nowMs - flows.openedMs[index]!),
    bytesToGuest: flows.bytesToGuest[index]!,
    bytesToHost: flows.bytesToHost[index]!,
    guestAddress: flows.guestAddress.slice(at, at + 4),
    guestPort: flows.guestPort[index]!,
    peerAddress: flows.peerAddress.slice(at, at + 4),
    peerPort: flows.peerPort[index]!,
    localAddress: new Uint32Array(4),
    localPort: 0,
    remoteAddress: new Uint32Array(4),
    remotePort: 0,
    fd,
    listener: -1,
  };
  if (fd < 0) return description;
  if (sockets.getName(fd, endpoint) >= 0) {
    loadEndpointAddress(view, endpoint, description.localAddress, 0);
    description.localPort = getEndpointPort(view, endpoint);
  }
  if (sockets.getPeer(fd, endpoint) >= 0) {
    loadEndpointAddress(view, endpoint, description.remoteAddress, 0);
    description.remotePort = getEndpointPort(view, endpoint);
  }
  return description;
}

/** A connection's state by a name that people know, where there is one. */
export function describeTcpState(state: number, flags: number): string {
  switch (state) {
    case STATE_CONNECTING:
      return 'connecting';
    case STATE_SYN_SENT:
      return 'syn-sent';
    case STATE_SYN_RECEIVED:
      return 'syn-received';
    case STATE_RESET:
      return 'reset';
    case STATE_TIME_WAIT:
      return 'time-wait';
  }
  const hostEnded = (flags & FLAG_HOST_FIN) !== 0;
  const guestEnded = (flags & FLAG_GUEST_FIN) !== 0;
  if (hostEnded && guestEnded) return 'closing';
  if (hostEnded) return 'host-ended';
  return guestEnded ? 'guest-ended' : 'established';
}
