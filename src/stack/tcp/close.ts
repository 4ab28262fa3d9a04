/**
 * How flows end.
 *
 * - Both directions closed and acknowledged: `endFlow`. The host socket is closed in the ordinary way; its kernel delivers what is
 *   still in its send buffer.
 * - The guest resets: `resetHost` closes the host socket with SO_LINGER 0, so that the remote sees a reset as well.
 * - The host side fails, or the guest does not answer: `resetBoth`. The RST for the guest is owed: the flow stays, in STATE_RESET and
 *   without a socket, until the link has taken it.
 *
 * There is no TIME-WAIT on our side. When the guest closes first, TIME-WAIT is the guest's. When the host closes first, the flow
 * stays until the link has taken the acknowledgement of the guest's FIN, and the link loses nothing; should the guest lose it
 * and send its FIN again, it is answered with a RST as RFC 9293 §3.10.7.1 asks for a connection that does not exist, which
 * finds it in LAST-ACK, where both lead to CLOSED.
 */
import { FLAG_HAS_GAP, FLAG_SYN_DUE, STATE_NONE, STATE_RESET, STATE_SYN_SENT } from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { closeSpill, forgetGathered } from './gather.ts';
import { writeReset } from './segment-writer.ts';
import { setTimer, TIMER_RESET } from './timer-kinds.ts';

const SOL_SOCKET = 1;
const SO_LINGER = 13;
/** How long a RST may wait for room on the link. */
const RESET_WAIT_MS = 120_000;

/** Takes the flow out of the table; the sweep closes its socket. */
export function endFlow(core: TcpCore, index: number): void {
  forgetGathered(core, index);
  releaseStores(core, index);
  // An entry in the room queue is swept only when the queue lets go of it: its descriptor must not wait for that.
  if (core.flows.roomQueued[index] !== 0) closeSocket(core, index);
  core.columns.state[index] = STATE_NONE;
  core.ctx.timers.cancel(index);
  core.flows.retire(index);
}

/** Ends the flow because the guest has reset it, or will not hear of it any more: the remote sees a reset. */
export function resetHost(core: TcpCore, index: number): void {
  abortSocket(core, index);
  endFlow(core, index);
}

/** Resets both sides. */
export function resetBoth(core: TcpCore, index: number): void {
  const { columns: c } = core;
  abortSocket(core, index);
  forgetGathered(core, index);
  releaseStores(core, index);
  // A guest that has not seen our SYN yet has nothing to reset.
  if (c.state[index] === STATE_SYN_SENT && (c.flags[index]! & FLAG_SYN_DUE) !== 0) {
    endFlow(core, index);
    return;
  }
  c.state[index] = STATE_RESET;
  setTimer(core, index, TIMER_RESET, core.ctx.nowMs + RESET_WAIT_MS);
  addToTurn(core, index);
}

/** Pays the RST that is owed. @returns false when the link has no room for it */
export function payReset(core: TcpCore, index: number): boolean {
  const { columns: c } = core;
  if (!writeReset(core, index, c.sndNxt[index]!, c.rcvNxt[index] !== 0)) return false;
  endFlow(core, index);
  return true;
}

/** Frees what belongs to the flow outside the columns. */
export function releaseStores(core: TcpCore, index: number): void {
  closeSpill(core, index);
  core.scoreboards.delete(index);
  const { flags } = core.columns;
  if ((flags[index]! & FLAG_HAS_GAP) !== 0) {
    core.gaps.delete(index);
    flags[index] = flags[index]! & ~FLAG_HAS_GAP;
  }
}

function abortSocket(core: TcpCore, index: number): void {
  const fd = core.flows.fd[index]!;
  if (fd < 0) return;
  core.sockets.setOption(fd, SOL_SOCKET, SO_LINGER, 0);
  closeSocket(core, index);
}

function closeSocket(core: TcpCore, index: number): void {
  const fd = core.flows.fd[index]!;
  if (fd < 0) return;
  core.flows.fd[index] = -1;
  core.sockets.close(fd);
}
