/**
 * What the parts of TCP share: the columns, scratch areas in the arena, the list of flows to serve when the turn ends, and the
 * stores of the few flows that need memory of their own.
 *
 * Nothing is sent towards the guest where it comes up. Input, host events and timers only change columns and put the flow
 * on the turn list; `serveTurn` (service.ts) then does for each flow once what is due: discard, half-close, data, FIN,
 * acknowledgement, end. So acknowledgements coalesce, data carries them, and there is one place that can find the link full.
 */

import { createTcpOptions, type TcpOptions } from '../../wire/tcp.ts';
import type { StackContext } from '../context.ts';
import type { FlowTable } from '../flow/table.ts';
import type { HostSockets } from '../ports.ts';
import { FLAG_IN_TURN, TcpColumns } from './columns.ts';
import type { GapStore } from './out-of-order.ts';
import type { Scoreboard } from './recovery.ts';
import type { Spill } from './spill.ts';

/** Flows whose segments are gathered side by side in one read of the link. */
export const GATHER_SLOTS = 16;
/** Segments gathered for one flow before they are sent: iovecs of one sendmsg (UIO_MAXIOV). */
export const GATHER_SEGMENTS = 1024;
/** Segments laid by one peek. */
export const PEEK_SEGMENTS = 1024;

/** Bytes per gathered segment in the list that sendSegments reads. */
export const LIST_ENTRY_BYTES = 8;

export class TcpCore {
  readonly ctx: StackContext;
  readonly sockets: HostSockets;
  readonly view: DataView;
  readonly flows: FlowTable;
  readonly columns: TcpColumns;
  /** Options of the segment at hand. */
  readonly options: TcpOptions = createTcpOptions();

  /** GATHER_SLOTS lists of GATHER_SEGMENTS (offset, length) pairs. */
  readonly listOffset: number;
  readonly slotFlow = new Int32Array(GATHER_SLOTS);
  readonly slotCount = new Int32Array(GATHER_SLOTS);
  readonly slotBytes = new Int32Array(GATHER_SLOTS);
  /** Slots in use are those below this, some of them maybe empty again. */
  slotTop = 0;

  /** Checksums of the segments peeked. */
  readonly sumsOffset: number;

  /** Flows to be served at the end of the turn. */
  readonly turnFlows: Int32Array;
  turnCount = 0;

  /** A descriptor held in reserve for when there are no others, see accept.ts; -1: none. Owned here. */
  spareFd = -1;
  /** Number of the port that a client of a unix socket was last given, see accept.ts. */
  unixPort: number;
  /** Flows in STATE_TIME_WAIT. */
  timeWaitCount = 0;

  readonly spills = new Map<number, Spill>();
  readonly gaps = new Map<number, GapStore>();
  readonly scoreboards = new Map<number, Scoreboard>();

  constructor(ctx: StackContext) {
    this.ctx = ctx;
    this.sockets = ctx.sockets;
    this.view = ctx.view;
    this.flows = ctx.flows;
    const { capacity, columns } = ctx.flows;
    this.columns = new TcpColumns(capacity, columns);
    // Not the same after a restart: the guest may still have the connections of the time before.
    this.unixPort = ctx.secret[0]! & 0x3fff;
    // Twice: while the list is served, flows file themselves again behind those that are still to come.
    this.turnFlows = columns.int32(2 * capacity);
    this.listOffset = ctx.arena.allocate(GATHER_SLOTS * GATHER_SEGMENTS * LIST_ENTRY_BYTES);
    this.sumsOffset = ctx.arena.allocate(PEEK_SEGMENTS * 4);
  }
}

/** Has the flow served when the turn ends. */
export function addToTurn(core: TcpCore, index: number): void {
  const { flags } = core.columns;
  const value = flags[index]!;
  if ((value & FLAG_IN_TURN) !== 0) return;
  flags[index] = value | FLAG_IN_TURN;
  core.turnFlows[core.turnCount++] = index;
}
