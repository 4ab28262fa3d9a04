/**
 * PERSISTENT RESERVE IN and OUT: SPC-4, 6.15 and 6.16. Tables of service actions and types, and the command descriptor block.
 *
 * A reservation belongs to a logical unit and is held by an initiator port that has registered a key there. IN asks, OUT changes. The
 * device alone decides; here commands are read to be described, checked for their form, and, for multipath, repeated.
 */

export const PERSISTENT_RESERVE_IN = 0x5e;
export const PERSISTENT_RESERVE_OUT = 0x5f;

/** Bytes of either command on the wire of a SCSI transport. */
export const CDB_BYTES = 10;

/** Service actions of PERSISTENT RESERVE IN. */
export const PR_IN_READ_KEYS = 0;
export const PR_IN_READ_RESERVATION = 1;
export const PR_IN_REPORT_CAPABILITIES = 2;
export const PR_IN_READ_FULL_STATUS = 3;

/** Service actions of PERSISTENT RESERVE OUT. */
export const PR_OUT_REGISTER = 0;
export const PR_OUT_RESERVE = 1;
export const PR_OUT_RELEASE = 2;
export const PR_OUT_CLEAR = 3;
export const PR_OUT_PREEMPT = 4;
export const PR_OUT_PREEMPT_AND_ABORT = 5;
export const PR_OUT_REGISTER_AND_IGNORE = 6;
export const PR_OUT_REGISTER_AND_MOVE = 7;
export const PR_OUT_REPLACE_LOST = 8;

const IN_ACTIONS: readonly string[] = ['READ KEYS', 'READ RESERVATION', 'REPORT CAPABILITIES', 'READ FULL STATUS'];

const OUT_ACTIONS: readonly string[] = [
  'REGISTER',
  'RESERVE',
  'RELEASE',
  'CLEAR',
  'PREEMPT',
  'PREEMPT AND ABORT',
  'REGISTER AND IGNORE EXISTING KEY',
  'REGISTER AND MOVE',
  'REPLACE LOST RESERVATION',
];

/** Types of a reservation; the other numbers are obsolete or reserved. */
const TYPES: Readonly<Record<number, string>> = {
  1: 'write exclusive',
  3: 'exclusive access',
  5: 'write exclusive, registrants only',
  6: 'exclusive access, registrants only',
  7: 'write exclusive, all registrants',
  8: 'exclusive access, all registrants',
};

/** Actions to which scope and type mean something. */
const TYPED_ACTIONS: ReadonlySet<number> = new Set([
  PR_OUT_RESERVE,
  PR_OUT_RELEASE,
  PR_OUT_PREEMPT,
  PR_OUT_PREEMPT_AND_ABORT,
  PR_OUT_REPLACE_LOST,
]);

/** A command descriptor block, taken apart. */
export interface PrCommand {
  readonly isOut: boolean;
  /** 5 bits. */
  readonly serviceAction: number;
  /** OUT: 0 is the whole logical unit, the only one that is defined. */
  readonly scope: number;
  /** OUT: a key of the type table, or a number that is not defined. */
  readonly type: number;
  /** IN: allocation length (16 bits); OUT: parameter list length (32 bits). */
  readonly lengthBytes: number;
}

/** @returns undefined for another command or fewer than {@link CDB_BYTES} bytes */
export function parseCommand(cdb: Uint8Array): PrCommand | undefined {
  if (cdb.length < CDB_BYTES) return undefined;
  const [opcode, action = 0, scopeType = 0] = cdb;
  if (opcode !== PERSISTENT_RESERVE_IN && opcode !== PERSISTENT_RESERVE_OUT) return undefined;
  const isOut = opcode === PERSISTENT_RESERVE_OUT;
  const view = new DataView(cdb.buffer, cdb.byteOffset, cdb.byteLength);
  return {
    isOut,
    serviceAction: action & 0x1f,
    scope: isOut ? scopeType >> 4 : 0,
    type: isOut ? scopeType & 0xf : 0,
    lengthBytes: isOut ? view.getUint32(5) : view.getUint16(7),
  };
}

/** Writes a command to the first {@link CDB_BYTES} bytes of `out`, all of which are set. */
export function writeCommand(out: Uint8Array, command: PrCommand): void {
  const view = new DataView(out.buffer, out.byteOffset, CDB_BYTES);
  view.setUint8(0, command.isOut ? PERSISTENT_RESERVE_OUT : PERSISTENT_RESERVE_IN);
  view.setUint8(1, command.serviceAction & 0x1f);
  view.setUint8(2, command.isOut ? (command.scope << 4) | command.type : 0);
  view.setUint16(3, 0);
  view.setUint32(5, command.isOut ? command.lengthBytes : command.lengthBytes & 0xffff);
  view.setUint8(9, 0);
}

/** A command of {@link CDB_BYTES} bytes that asks. @param allocationBytes - at most 65535 */
export function createReserveIn(serviceAction: number, allocationBytes: number): Uint8Array {
  const cdb = new Uint8Array(CDB_BYTES);
  writeCommand(cdb, { isOut: false, serviceAction, scope: 0, type: 0, lengthBytes: allocationBytes });
  return cdb;
}

/** A command of {@link CDB_BYTES} bytes that changes. @param type - 0 where the action has none */
export function createReserveOut(serviceAction: number, type: number, parameterBytes: number): Uint8Array {
  const cdb = new Uint8Array(CDB_BYTES);
  writeCommand(cdb, { isOut: true, serviceAction, scope: 0, type, lengthBytes: parameterBytes });
  return cdb;
}

/** The standard's name of a service action, or its number where it has none. */
export function nameAction(isOut: boolean, serviceAction: number): string {
  return (isOut ? OUT_ACTIONS : IN_ACTIONS)[serviceAction] ?? `service action ${serviceAction}`;
}

/** The name of a reservation's type, or its number where it has none. */
export function nameType(type: number): string {
  return TYPES[type] ?? `type ${type}`;
}

/** Whether a service action of PERSISTENT RESERVE OUT has scope and type. */
export function hasType(serviceAction: number): boolean {
  return TYPED_ACTIONS.has(serviceAction);
}
