/**
 * TCP's timers. A flow has one timer, for what matters most in its state:
 *
 * - setting up: SYN and SYN-ACK after 1, 2, 4 … s, given up after 6 repetitions; a host connect after 140 s, by which time the
 *   kernel has given its own answer;
 * - something in flight: retransmission timeout (RFC 6298), at least 200 ms, doubling up to 60 s; after two minutes
 *   without an answer both sides are reset. While the link is full nothing is resent: the first copy is still on its way; time
 *   without a link does not count, and when there is one again what waits is sent at once;
 * - the window is closed: probes with an old number, which any TCP answers (as keep-alives are, RFC 9293 §3.8.4), doubling
 *   up to 60 s, for as long as the guest answers;
 * - an acknowledgement is held back (delayed-ack.ts): 8 ms;
 * - nothing to do: after two hours a keep-alive probe, and eight more 75 s apart (RFC 9293 §3.8.4, Linux's defaults). An idle flow
 *   costs nothing before that.
 */
import { FLOW_TCP } from '../flow/table.ts';
import { endFlow, resetBoth, resetHost } from './close.ts';
import {
  FLAG_ACK_DELAYED,
  FLAG_FORCE_SEND,
  FLAG_RECOVERING,
  FLAG_RTO_RESTART,
  FLAG_SYN_DUE,
  STATE_SYN_SENT,
} from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { ACK_DELAY_MS, releaseAcknowledgement } from './delayed-ack.ts';
import { loseEverything, refillHoles } from './recovery.ts';
import { currentRto, RTO_INITIAL_MS, RTO_MAX_MS } from './round-trip.ts';
import { writeAck } from './segment-writer.ts';
import {
  setTimer,
  TIMER_ACK,
  TIMER_CONNECT,
  TIMER_IDLE,
  TIMER_KEEPALIVE,
  TIMER_PERSIST,
  TIMER_RESET,
  TIMER_RETRANSMIT,
  TIMER_SYN,
  TIMER_TIME_WAIT,
} from './timer-kinds.ts';
import { hasUnsent } from './transmit.ts';

/** Linux gives a SYN up after about 130 s (tcp_syn_retries 6). */
const CONNECT_LIMIT_MS = 140_000;
const SYN_RETRIES = 6;
/** How long a guest may leave everything unanswered. */
const SILENCE_LIMIT_MS = 120_000;
const IDLE_MS = 2 * 3600 * 1000;
const KEEPALIVE_INTERVAL_MS = 75_000;
const KEEPALIVE_PROBES = 9;

/** Starts the limit of a host connect. */
export function startConnectTimer(core: TcpCore, index: number): void {
  setTimer(core, index, TIMER_CONNECT, core.ctx.nowMs + CONNECT_LIMIT_MS);
}

/** Starts the retries of a SYN or SYN-ACK. */
export function startSynTimer(core: TcpCore, index: number): void {
  core.columns.retries[index] = 0;
  core.columns.rtoMs[index] = RTO_INITIAL_MS;
  setTimer(core, index, TIMER_SYN, core.ctx.nowMs + RTO_INITIAL_MS);
}

/** Sets the timer of an established flow after it was served. @param waitsForWindow the last transmit ended at the window */
export function updateTimer(core: TcpCore, index: number, waitsForWindow: boolean): void {
  const { columns: c, ctx } = core;
  const flags = c.flags[index]!;
  const kind = c.timerKind[index]!;
  const una = c.sndUna[index]!;
  if (waitsForWindow && c.sndNxt[index] === una) {
    if (kind !== TIMER_PERSIST) {
      c.retries[index] = 0;
      c.rtoMs[index] = currentRto(core, index);
      setTimer(core, index, TIMER_PERSIST, ctx.nowMs + c.rtoMs[index]!);
    }
  } else if (c.sndNxt[index] !== una) {
    if (kind !== TIMER_RETRANSMIT) {
      c.retries[index] = 0;
      c.rtoMs[index] = currentRto(core, index);
      setTimer(core, index, TIMER_RETRANSMIT, ctx.nowMs + c.rtoMs[index]!);
    } else if ((flags & FLAG_RTO_RESTART) !== 0) {
      setTimer(core, index, TIMER_RETRANSMIT, ctx.nowMs + c.rtoMs[index]!);
    }
  } else if ((flags & FLAG_ACK_DELAYED) !== 0) {
    if (kind !== TIMER_ACK) setTimer(core, index, TIMER_ACK, ctx.nowMs + ACK_DELAY_MS);
  } else {
    setTimer(core, index, TIMER_IDLE, ctx.nowMs + IDLE_MS);
  }
  c.flags[index] = flags & ~(FLAG_RTO_RESTART | FLAG_FORCE_SEND);
}

/** The link is there again: what was sent meanwhile, or shortly before, is lost, and timers have backed off for want of answers. */
export function hastenTimers(core: TcpCore): void {
  const { columns: c, ctx, flows } = core;
  for (let index = 0; index < flows.bound; index++) {
    if (!flows.isLive(index) || flows.kind[index] !== FLOW_TCP) continue;
    const kind = c.timerKind[index]!;
    if (kind !== TIMER_RETRANSMIT && kind !== TIMER_PERSIST && kind !== TIMER_SYN) continue;
    c.retries[index] = 0;
    c.rtoMs[index] = kind === TIMER_SYN ? RTO_INITIAL_MS : currentRto(core, index);
    setTimer(core, index, kind, ctx.nowMs);
  }
}

/** The flow's timer is due. */
export function fireTimer(core: TcpCore, index: number): void {
  switch (core.columns.timerKind[index]) {
    case TIMER_CONNECT:
      resetBoth(core, index);
      break;
    case TIMER_SYN:
      onSynTimeout(core, index);
      break;
    case TIMER_RETRANSMIT:
      onRetransmitTimeout(core, index);
      break;
    case TIMER_PERSIST:
      onPersistTimeout(core, index);
      break;
    case TIMER_ACK:
      releaseAcknowledgement(core, index);
      break;
    case TIMER_IDLE:
    case TIMER_KEEPALIVE:
      onIdleTimeout(core, index);
      break;
    // A RST that nobody was there for, or TIME-WAIT.
    case TIMER_RESET:
    case TIMER_TIME_WAIT:
      endFlow(core, index);
      break;
  }
}

function onSynTimeout(core: TcpCore, index: number): void {
  const { columns: c } = core;
  const retries = c.retries[index]! + 1;
  if (retries > SYN_RETRIES) {
    // Nobody answered the SYN: there is no connection at the guest to be reset.
    if (c.state[index] === STATE_SYN_SENT) resetHost(core, index);
    else resetBoth(core, index);
    return;
  }
  c.retries[index] = retries;
  c.rtoMs[index] = Math.min(c.rtoMs[index]! * 2, RTO_MAX_MS);
  c.flags[index] = c.flags[index]! | FLAG_SYN_DUE;
  setTimer(core, index, TIMER_SYN, core.ctx.nowMs + c.rtoMs[index]!);
  addToTurn(core, index);
}

/** Notes one more unanswered attempt. @returns true when it was one too many and the flow was reset */
function countAttempt(core: TcpCore, index: number): boolean {
  const { columns: c, ctx } = core;
  const retries = c.retries[index]!;
  if (retries === 0 || !ctx.link.connected) c.stalledMs[index] = ctx.nowMs;
  else if (ctx.nowMs - Math.max(c.stalledMs[index]!, c.heardMs[index]!) >= SILENCE_LIMIT_MS) {
    resetBoth(core, index);
    return true;
  }
  c.retries[index] = retries < 255 ? retries + 1 : 255;
  return false;
}

function onRetransmitTimeout(core: TcpCore, index: number): void {
  const { columns: c, ctx } = core;
  if (countAttempt(core, index)) return;
  const doubled = Math.min(c.rtoMs[index]! * 2, RTO_MAX_MS);
  const rto = currentRto(core, index);
  const isShort = (c.flags[index]! & FLAG_RECOVERING) !== 0 && doubled < rto;
  c.rtoMs[index] = isShort ? doubled : Math.max(doubled, rto);
  setTimer(core, index, TIMER_RETRANSMIT, ctx.nowMs + c.rtoMs[index]!);
  // What waits in front of a guest that does not read is not lost.
  if (ctx.link.roomBytes() < ctx.link.maxFrameBytes) return;
  if (isShort) refillHoles(core, index);
  else loseEverything(core, index);
  if (c.sndWnd[index] === 0) probe(core, index);
}

function onPersistTimeout(core: TcpCore, index: number): void {
  const { columns: c, ctx } = core;
  if (!hasUnsent(core, index)) {
    addToTurn(core, index);
    return;
  }
  if (countAttempt(core, index)) return;
  c.rtoMs[index] = Math.min(c.rtoMs[index]! * 2, RTO_MAX_MS);
  setTimer(core, index, TIMER_PERSIST, ctx.nowMs + c.rtoMs[index]!);
  if (c.sndWnd[index]! > 0) {
    // Too little for a decent segment for too long: send what fits.
    c.flags[index] = c.flags[index]! | FLAG_FORCE_SEND;
    addToTurn(core, index);
  } else {
    probe(core, index);
  }
}

function onIdleTimeout(core: TcpCore, index: number): void {
  const { columns: c, ctx } = core;
  const fresh = c.timerKind[index] === TIMER_IDLE;
  // The timer is not moved by every segment: see when the guest was heard last.
  const silentMs = ctx.nowMs - c.heardMs[index]!;
  if (silentMs < (fresh ? IDLE_MS : KEEPALIVE_INTERVAL_MS)) {
    setTimer(core, index, TIMER_IDLE, c.heardMs[index]! + IDLE_MS);
    return;
  }
  const probes = fresh ? 1 : c.retries[index]! + 1;
  if (probes > KEEPALIVE_PROBES) {
    resetBoth(core, index);
    return;
  }
  c.retries[index] = probes;
  setTimer(core, index, TIMER_KEEPALIVE, ctx.nowMs + KEEPALIVE_INTERVAL_MS);
  probe(core, index);
}

/** Sends a segment that the guest has to answer. One that finds no room is made good by the next. */
function probe(core: TcpCore, index: number): void {
  const { columns: c } = core;
  writeAck(core, index, (c.sndUna[index]! - 1) >>> 0, false);
}
