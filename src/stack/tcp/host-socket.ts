/** What every host socket of a TCP flow is set to, whichever side opened the connection. */
import { EVENT_EDGE, EVENT_IN, EVENT_OUT, EVENT_RDHUP, KIND_TCP } from '../ports.ts';
import { FLAG_WATCHES_ROOM } from './columns.ts';
import type { TcpCore } from './core.ts';

const SOL_SOCKET = 1;
const SO_KEEPALIVE = 9;
const SO_OOBINLINE = 10;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
/** Urgent data, see epoll_ctl(2). */
export const EVENT_PRI = 0x002;

/** What is watched from the start, edge-triggered. */
const INPUT_EVENTS = (EVENT_IN | EVENT_PRI | EVENT_RDHUP | EVENT_EDGE) >>> 0;
const ALL_EVENTS = (INPUT_EVENTS | EVENT_OUT) >>> 0;

/** Sets the options of a flow's socket. SO_PEEK_OFF comes later, with the flows that need it (transmit.ts). */
export function prepareSocket(core: TcpCore, fd: number): void {
  const { sockets } = core;
  // The guest's TCP has decided what makes a segment; delaying it once more helps nobody (RFC 9293 §3.7.4).
  sockets.setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  sockets.setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  // Urgent bytes count in the stream like others; out of line they would shift every later offset.
  sockets.setOption(fd, SOL_SOCKET, SO_OOBINLINE, 1);
}

/**
 * Has the poller report the events of a flow whose socket is connected. Room is not among them: a socket has some at once, which would be
 * reported, and most flows never wait for more.
 * @returns 0 or -errno
 */
export function watchSocket(core: TcpCore, index: number, fd: number): number {
  return core.sockets.watch(fd, INPUT_EVENTS, KIND_TCP, index);
}

/** Has it report that the socket is connected, as well, and room from then on. @returns 0 or -errno */
export function watchConnect(core: TcpCore, index: number, fd: number): number {
  core.columns.flags[index] = core.columns.flags[index]! | FLAG_WATCHES_ROOM;
  return core.sockets.watch(fd, ALL_EVENTS, KIND_TCP, index);
}

/** Has it report room from now on, and at once if there is some. */
export function watchRoom(core: TcpCore, index: number): void {
  const flags = core.columns.flags[index]!;
  if ((flags & FLAG_WATCHES_ROOM) !== 0) return;
  core.columns.flags[index] = flags | FLAG_WATCHES_ROOM;
  core.sockets.rewatch(core.flows.fd[index]!, ALL_EVENTS, KIND_TCP, index);
}
