/** The kernel's buffers of a link's socket: their size decides more about throughput than anything else. */
import type { HostSockets } from '../stack/ports.ts';

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;

/** Asked for; the kernel gives at most its `wmem_max`. */
const SOCKET_BUFFER_BYTES = 16 << 20;
/** With less than this the system-wide limit is low, and a process that may exceed it does. */
const SOCKET_BUFFER_ENOUGH_BYTES = 4 << 20;

/** Makes both buffers of a socket as large as is useful and allowed. */
export function raiseBuffers(sockets: HostSockets, fd: number): void {
  raiseBuffer(sockets, fd, SO_SNDBUF, SO_SNDBUFFORCE);
  raiseBuffer(sockets, fd, SO_RCVBUF, SO_RCVBUFFORCE);
}

function raiseBuffer(sockets: HostSockets, fd: number, option: number, forceOption: number): void {
  sockets.setOption(fd, SOL_SOCKET, option, SOCKET_BUFFER_BYTES);
  // The kernel reports twice what it was asked for: its own bookkeeping is in there (socket(7)).
  if (sockets.getOption(fd, SOL_SOCKET, option) < 2 * SOCKET_BUFFER_ENOUGH_BYTES) {
    sockets.setOption(fd, SOL_SOCKET, forceOption, SOCKET_BUFFER_ENOUGH_BYTES);
  }
}
