/** Round-trip times and what timeouts follow from them (RFC 6298). One segment is timed at a time. */
import type { TcpCore } from './core.ts';

/** RFC 6298 §2.1. */
export const RTO_INITIAL_MS = 1000;
/** As Linux has it. */
const RTO_MIN_MS = 200;
export const RTO_MAX_MS = 60_000;
/** Below this a retransmission would overtake a guest that is merely busy. */
const RECOVERY_MIN_MS = 10;

/** Smooths a measured round trip (RFC 6298 §2). */
export function takeRoundTrip(core: TcpCore, index: number, sampleMs: number): void {
  const { columns: c } = core;
  const smoothed = c.srttMs[index]!;
  // Below a tick of the timers the value does not matter, but zero means "none".
  const sample = Math.max(sampleMs, 0.01);
  if (smoothed === 0) {
    c.srttMs[index] = sample;
    c.rttVarMs[index] = sample / 2;
  } else {
    c.rttVarMs[index] = c.rttVarMs[index]! * 0.75 + Math.abs(smoothed - sample) * 0.25;
    c.srttMs[index] = smoothed * 0.875 + sample * 0.125;
  }
}

/** The retransmission timeout without back-off. */
export function currentRto(core: TcpCore, index: number): number {
  const { columns: c } = core;
  if (c.srttMs[index] === 0) return RTO_INITIAL_MS;
  const rto = c.srttMs[index]! + 4 * c.rttVarMs[index]!;
  return rto < RTO_MIN_MS ? RTO_MIN_MS : Math.min(rto, RTO_MAX_MS);
}

/** How long to wait in recovery before what was sent again counts as lost again. */
export function recoveryInterval(core: TcpCore, index: number): number {
  const { columns: c } = core;
  if (c.srttMs[index] === 0) return RTO_MIN_MS;
  return Math.min(Math.max(2 * c.srttMs[index]!, RECOVERY_MIN_MS), currentRto(core, index));
}
