/** The pump (see pump/pump.c): a tap in a guest namespace joined to the stack's stream socket. */
import { type JsonChild, type JsonEvent, wrapJsonChild } from './json-child.ts';
import { buildTool } from './native-tools.ts';
import type { Namespace } from './netns/namespace.ts';

/** One direction's counters. `partial` are sends the stack's socket took only part of; `errors` frames the tap refused. */
export interface PumpDirection {
  frames: number;
  bytes: number;
  calls: number;
  partial: number;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
  errors: number;
  lastErrno: number;
  held: number;
}

/** Counters of the pump and of the tap as the guest's kernel sees it (`txDropped`: the tap's queue was full). */
export interface PumpCounters extends JsonEvent {
  reason: string;
  toStack: PumpDirection;
  toTap: PumpDirection;
  tap: {
    rxPackets: number;
    rxErrors: number;
    rxDropped: number;
    txPackets: number;
    txErrors: number;
    txDropped: number;
  };
  cpuSeconds: number;
}

/** Faults of one direction: percentages of frames, delays in milliseconds. */
export interface Faults {
  loss?: number;
  dup?: number;
  reorder?: number;
  corrupt?: number;
  delay?: number;
  /** How long a reordered frame is held while others pass; 2 ms by default. */
  'reorder-delay'?: number;
  seed?: number;
}

/** Options of {@link startPump}. */
export interface PumpOptions {
  /** Path of the stack's socket; `listen: true` waits there for the other end instead of connecting. */
  socket: string;
  listen?: boolean;
  tapName?: string;
  mac?: string;
  /** Bytes, 68 to 65521. */
  mtu?: number;
  /** How long to try to connect; 5 s by default. */
  connectTimeoutMs?: number;
}

/** A running pump. */
export interface Pump {
  readonly tapName: string;
  readonly process: JsonChild;
  /** Sets the faults of one direction; none when empty. */
  setFaults(direction: 'to-stack' | 'to-tap', faults: Faults): Promise<void>;
  /** Stops reading the stack's socket, or the tap, for so many milliseconds. Resolves when the pause has begun. */
  pause(side: 'stack' | 'tap', durationMs: number): Promise<void>;
  counters(): Promise<PumpCounters>;
  /** Ends the pump and resolves with its last counters. */
  stop(): Promise<PumpCounters>;
  /** Resolves when the stack has closed the socket, or the pump ended for another reason. */
  ended(timeoutMs?: number): Promise<PumpCounters>;
}

/** Starts a pump in `guest`. The tap exists once {@link waitForPump} resolves; addresses are the caller's business. */
export function startPump(guest: Namespace, options: PumpOptions): Pump {
  const tapName = options.tapName ?? 'tap0';
  const args = ['--tap', tapName, options.listen === true ? '--listen' : '--socket', options.socket];
  args.push('--mac', options.mac ?? '52:54:00:12:34:56', '--mtu', String(options.mtu ?? 65520));
  args.push('--connect-timeout-ms', String(options.connectTimeoutMs ?? 5_000));
  const child = guest.spawn(buildTool('pump'), args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const tool = wrapJsonChild('pump', child);
  const ask = async (line: string): Promise<void> => {
    tool.send(line);
    await tool.next('done', 5_000);
  };
  return {
    tapName,
    process: tool,
    setFaults: (direction, faults) =>
      ask(
        `faults ${direction} ${Object.entries(faults)
          .map(([key, value]) => `${key}=${value}`)
          .join(' ')}`,
      ),
    pause: (side, durationMs) => ask(`pause ${side} ${durationMs}`),
    counters: () => {
      tool.send('counters');
      return tool.next<PumpCounters>('counters', 5_000);
    },
    stop: async () => {
      tool.child.kill('SIGTERM');
      const counters = await tool.next<PumpCounters>('counters', 5_000);
      await tool.exited();
      return counters;
    },
    ended: (timeoutMs = 10_000) => tool.next<PumpCounters>('counters', timeoutMs),
  };
}

/** Resolves when the pump has its tap and its socket. */
export async function waitForPump(pump: Pump, timeoutMs = 10_000): Promise<void> {
  await pump.process.next('ready', timeoutMs);
}
