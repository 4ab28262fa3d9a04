/**
 * How flows end.
 *
 * - Both directions closed and acknowledged: `endFlow`. The host socket is closed in the ordinary way; its kernel delivers what is
 *   still in its send buffer.
 * - The guest resets: `resetHost` closes the host socket with SO_LINGER 0, so that the remote sees a reset as well.
 * - The host side fails, or the guest does not answer: `resetBoth`. The RST for the guest is owed: the flow stays, in STATE_RESET and
 *   without a socket, until the link has taken it.
 *
 * When the host closes first, TIME-WAIT is ours: the flow stays, without a socket, for as long as a guest that has missed our last
 * acknowledgement is likely to repeat its FIN. That is two seconds and not two maximum segment lifetimes, because the link
 * cannot hold old segments back. A new SYN ends it at once, and only a part of the table may be spent on it. When the guest
 * closes first, TIME-WAIT is the guest's.
 */
import { FLAG_HAS_GAP, FLAG_SYN_DUE, STATE_NONE, STATE_RESET, STATE_SYN_SENT, STATE_TIME_WAIT } from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { closeSpill, forgetGathered } from './gather.ts';
import { writeReset } from './segment-writer.ts';
import { setTimer, TIMER_RESET, TIMER_TIME_WAIT } from './timer-kinds.ts';

const SOL_SOCKET = 1;
const SO_LINGER = 13;
/** How long a RST may wait for room on the link. */
const RESET_WAIT_MS = 120_000;
const TIME_WAIT_MS = 2000;
/** At most one in so many entries of the table is in TIME-WAIT. */
const TIME_WAIT_SHARE = 4;

/** Takes the flow out of the table; the sweep closes its socket. */
export function endFlow(core: TcpCore, index: number): void {
  forgetGathered(core, index);
  releaseStores(core, index);
  // An entry in the room queue is swept only when the queue lets go of it: its descriptor must not wait for that.
  if (core.flows.roomQueued[index] !== 0) closeSocket(core, index);
  if (core.columns.state[index] === STATE_TIME_WAIT) core.timeWaitCount--;
  core.columns.state[index] = STATE_NONE;
  core.ctx.timers.cancel(index);
  core.flows.retire(index);
}

/** Both directions are closed, and ours was the last acknowledgement: the guest may not have got it. */
export function enterTimeWait(core: TcpCore, index: number): void {
  if (core.timeWaitCount >= Math.trunc(core.flows.capacity / TIME_WAIT_SHARE)) {
    endFlow(core, index);
    return;
  }
  core.timeWaitCount++;
  forgetGathered(core, index);
  releaseStores(core, index);
  closeSocket(core, index);
  core.columns.state[index] = STATE_TIME_WAIT;
  setTimer(core, index, TIMER_TIME_WAIT, core.ctx.nowMs + TIME_WAIT_MS);
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
