/**
 * What is due for a flow at the end of a turn, in the one order that is right:
 *
 * 1. discard what the guest has acknowledged (which lets the remote send on);
 * 2. pass the guest's FIN on, once the host socket has taken everything before it;
 * 3. send data, then our FIN;
 * 4. acknowledge, if no data has done so;
 * 5. end the flow if both directions are closed and acknowledged;
 * 6. set the timer.
 *
 * Flows that have used up their share while others waited are served again in rounds, for as long as the link has room: a busy flow
 * delays another by one share, not by its whole window.
 */
import { SHUT_WRITE } from '../ports.ts';
import { endFlow, enterTimeWait, payReset, resetBoth } from './close.ts';
import {
  FLAG_ACK_DUE,
  FLAG_FIN_ACKED,
  FLAG_GUEST_FIN,
  FLAG_HAS_SPILL,
  FLAG_HOST_FAILED,
  FLAG_HOST_SHUT,
  FLAG_IN_TURN,
  FLAG_SACK_OK,
  FLAG_SYN_DUE,
  STATE_ESTABLISHED,
  STATE_RESET,
  STATE_SYN_RECEIVED,
  STATE_SYN_SENT,
  STATE_TIME_WAIT,
} from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { holdAcknowledgement } from './delayed-ack.ts';
import { flushGathered } from './gather.ts';
import { ownMss } from './handshake.ts';
import { acceptableSeq, writeAck, writeSyn } from './segment-writer.ts';
import { updateTimer } from './timers.ts';
import {
  discardAcknowledged,
  SENT_ALL,
  SENT_FAILED,
  SENT_NO_ROOM,
  SENT_SHARE,
  SENT_WINDOW,
  transmit,
} from './transmit.ts';
import { RCV_SCALE, SYN_WINDOW_BYTES } from './window.ts';

/** Both directions closed, passed on and acknowledged. */
const FLAGS_ALL_CLOSED = FLAG_GUEST_FIN | FLAG_HOST_SHUT | FLAG_FIN_ACKED;

/** Serves every flow on the turn list until nothing is left to do or the link is full. */
export function serveTurn(core: TcpCore): void {
  flushGathered(core);
  const { turnFlows, flows } = core;
  const { flags } = core.columns;
  while (core.turnCount > 0) {
    const count = core.turnCount;
    // Those who have more to send file themselves again behind `count`; then they move to the front.
    for (let i = 0; i < count; i++) {
      const index = turnFlows[i]!;
      flags[index] = flags[index]! & ~FLAG_IN_TURN;
      if (flows.isLive(index)) serveFlow(core, index);
    }
    const added = core.turnCount - count;
    if (added > 0) turnFlows.copyWithin(0, count, core.turnCount);
    core.turnCount = added;
  }
}

function serveFlow(core: TcpCore, index: number): void {
  switch (core.columns.state[index]) {
    case STATE_ESTABLISHED:
      serveEstablished(core, index);
      break;
    case STATE_SYN_SENT:
    case STATE_SYN_RECEIVED:
      serveHandshake(core, index);
      break;
    case STATE_TIME_WAIT:
      acknowledgeIfDue(core, index);
      break;
    case STATE_RESET:
      if (!payReset(core, index)) core.ctx.roomQueue.add(index);
      break;
  }
}

function serveHandshake(core: TcpCore, index: number): void {
  const { columns: c } = core;
  const flags = c.flags[index]!;
  if ((flags & FLAG_HOST_FAILED) !== 0) {
    resetBoth(core, index);
    return;
  }
  if ((flags & FLAG_SYN_DUE) === 0) return;
  const answers = c.state[index] === STATE_SYN_RECEIVED;
  // An answer offers only what was asked for.
  const scale = answers && c.rcvScale[index] === 0 ? -1 : RCV_SCALE;
  const sack = !answers || (flags & FLAG_SACK_OK) !== 0;
  if (!writeSyn(core, index, answers, ownMss(core, index), scale, sack)) {
    core.ctx.roomQueue.add(index);
    return;
  }
  c.flags[index] = flags & ~(FLAG_SYN_DUE | FLAG_ACK_DUE);
  // Only a SYN that is answered without having been repeated tells a round trip.
  c.rttStartMs[index] = c.retries[index] === 0 ? core.ctx.nowMs : 0;
  const next = (c.iss[index]! + 1) >>> 0;
  c.sndNxt[index] = next;
  if (answers) c.rcvEdge[index] = (c.rcvNxt[index]! + SYN_WINDOW_BYTES) >>> 0;
}

/** @returns false when an acknowledgement is due that the link has no room for */
function acknowledgeIfDue(core: TcpCore, index: number): boolean {
  if ((core.columns.flags[index]! & FLAG_ACK_DUE) === 0) return true;
  if (writeAck(core, index, acceptableSeq(core, index), false)) return true;
  core.ctx.roomQueue.add(index);
  return false;
}

function serveEstablished(core: TcpCore, index: number): void {
  const { columns: c } = core;
  discardAcknowledged(core, index);
  let flags = c.flags[index]!;
  // Whatever has made an acknowledgement due came from the guest, for the most part by the short cut that does not note it.
  if ((flags & FLAG_ACK_DUE) !== 0) c.heardMs[index] = core.ctx.nowMs;
  if ((flags & (FLAG_GUEST_FIN | FLAG_HOST_SHUT | FLAG_HAS_SPILL)) === FLAG_GUEST_FIN) {
    core.sockets.shutdown(core.flows.fd[index]!, SHUT_WRITE);
    c.flags[index] = flags | FLAG_HOST_SHUT;
  }
  const outcome = transmit(core, index);
  flags = c.flags[index]!;
  if (outcome === SENT_FAILED || (flags & FLAG_HOST_FAILED) !== 0) {
    resetBoth(core, index);
    return;
  }
  const isHeld = (flags & FLAG_ACK_DUE) !== 0 && outcome === SENT_ALL && holdAcknowledgement(core, index);
  if (!isHeld && acknowledgeIfDue(core, index) && (flags & FLAGS_ALL_CLOSED) === FLAGS_ALL_CLOSED) {
    if ((flags & FLAG_ACK_DUE) !== 0) enterTimeWait(core, index);
    else endFlow(core, index);
    return;
  }
  if (outcome === SENT_NO_ROOM) core.ctx.roomQueue.add(index);
  updateTimer(core, index, outcome === SENT_WINDOW);
  if (outcome === SENT_SHARE) addToTurn(core, index);
}
