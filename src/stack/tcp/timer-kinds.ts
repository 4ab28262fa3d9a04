/** What a flow's one timer stands for. */
import type { TcpCore } from './core.ts';

export const TIMER_NONE = 0;
/** The host's connect does not finish. */
export const TIMER_CONNECT = 1;
/** Our SYN or SYN-ACK is not answered. */
export const TIMER_SYN = 2;
/** Data or FIN is not acknowledged (RFC 6298). */
export const TIMER_RETRANSMIT = 3;
/** The guest's window is closed (RFC 9293 §3.8.6.1). */
export const TIMER_PERSIST = 4;
/** Nothing has happened for a long time (RFC 9293 §3.8.4). */
export const TIMER_IDLE = 5;
/** A keep-alive probe is not answered. */
export const TIMER_KEEPALIVE = 6;
/** A RST waits for room on the link. */
export const TIMER_RESET = 7;
/** TIME-WAIT ends. */
export const TIMER_TIME_WAIT = 8;
/** An acknowledgement is held back (RFC 9293 §3.8.6.3). */
export const TIMER_ACK = 9;

/** Arms the flow's timer for `deadlineMs`, whatever it stood for before. */
export function setTimer(core: TcpCore, index: number, kind: number, deadlineMs: number): void {
  core.columns.timerKind[index] = kind;
  core.ctx.timers.arm(index, deadlineMs);
}
