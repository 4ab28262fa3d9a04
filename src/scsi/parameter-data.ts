/**
 * What goes with PERSISTENT RESERVE commands: the parameter list of OUT (SPC-4, 6.16.3) and the parameter data of IN (6.15.2 to 6.15.5).
 * Keys are 64-bit numbers. Readers take what is there: an allocation length may cut the data anywhere, and the lengths inside them
 * are those of the whole.
 */

/** The basic parameter list. */
export const PARAMETER_LIST_BYTES = 24;

const FLAG_APTPL = 0x01;
const FLAG_ALL_TARGET_PORTS = 0x04;
const FLAG_SPECIFY_INITIATORS = 0x08;

/** The basic parameter list of PERSISTENT RESERVE OUT, taken apart. */
export interface ParameterList {
  /** The key under which the sender is registered. */
  readonly reservationKey: bigint;
  /** The key to register, or the one to preempt. */
  readonly actionKey: bigint;
  /** Registrations shall outlive a loss of power. */
  readonly persistThroughPowerLoss: boolean;
  readonly allTargetPorts: boolean;
  /** The list goes on with TransportIDs of initiators to register. */
  readonly specifyInitiators: boolean;
}

/** @returns undefined for fewer than {@link PARAMETER_LIST_BYTES} bytes */
export function parseParameterList(bytes: Uint8Array): ParameterList | undefined {
  if (bytes.length < PARAMETER_LIST_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flags = view.getUint8(20);
  return {
    reservationKey: view.getBigUint64(0),
    actionKey: view.getBigUint64(8),
    persistThroughPowerLoss: (flags & FLAG_APTPL) !== 0,
    allTargetPorts: (flags & FLAG_ALL_TARGET_PORTS) !== 0,
    specifyInitiators: (flags & FLAG_SPECIFY_INITIATORS) !== 0,
  };
}

/** A basic parameter list; what is not given is 0. */
export function createParameterList(list: Partial<ParameterList>): Uint8Array {
  const bytes = new Uint8Array(PARAMETER_LIST_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, list.reservationKey ?? 0n);
  view.setBigUint64(8, list.actionKey ?? 0n);
  const flags =
    (list.persistThroughPowerLoss ? FLAG_APTPL : 0) |
    (list.allTargetPorts ? FLAG_ALL_TARGET_PORTS : 0) |
    (list.specifyInitiators ? FLAG_SPECIFY_INITIATORS : 0);
  view.setUint8(20, flags);
  return bytes;
}

/** READ KEYS. */
export interface RegisteredKeys {
  /** Counts changes of registrations; wraps at 2^32. */
  readonly generation: number;
  /** Those that came: fewer than there are when the data were cut. */
  readonly keys: readonly bigint[];
  /** How many there are. */
  readonly total: number;
}

/** Generation and length of what follows, which all but REPORT CAPABILITIES begin with. */
const HEADER_BYTES = 8;
const KEY_BYTES = 8;

export function parseKeys(bytes: Uint8Array): RegisteredKeys | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const listBytes = view.getUint32(4);
  const keys: bigint[] = [];
  const end = Math.min(bytes.length, HEADER_BYTES + listBytes);
  for (let at = HEADER_BYTES; at + KEY_BYTES <= end; at += KEY_BYTES) keys.push(view.getBigUint64(at));
  return { generation: view.getUint32(0), keys, total: Math.floor(listBytes / KEY_BYTES) };
}

/** READ RESERVATION. */
export interface CurrentReservation {
  readonly generation: number;
  /** undefined: nobody has reserved, or the data were cut. `key` is 0 for the types of all registrants. */
  readonly held: { readonly key: bigint; readonly scope: number; readonly type: number } | undefined;
}

const RESERVATION_BYTES = 16;

export function parseReservation(bytes: Uint8Array): CurrentReservation | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const generation = view.getUint32(0);
  if (view.getUint32(4) < RESERVATION_BYTES || bytes.length < HEADER_BYTES + RESERVATION_BYTES) {
    return { generation, held: undefined };
  }
  const scopeType = view.getUint8(21);
  return { generation, held: { key: view.getBigUint64(8), scope: scopeType >> 4, type: scopeType & 0xf } };
}

/** READ FULL STATUS: one registration. */
export interface Registrant {
  readonly key: bigint;
  readonly isHolder: boolean;
  readonly allTargetPorts: boolean;
  readonly scope: number;
  readonly type: number;
  /** Relative target port; means nothing with `allTargetPorts`. */
  readonly targetPort: number;
  /** As the device writes it: SPC-4, 7.6.4. */
  readonly transportId: Uint8Array;
}

const DESCRIPTOR_BYTES = 24;

/** The registrations that came whole. @returns undefined for fewer than 8 bytes */
export function parseFullStatus(bytes: Uint8Array): readonly Registrant[] | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = Math.min(bytes.length, HEADER_BYTES + view.getUint32(4));
  const registrants: Registrant[] = [];
  for (let at = HEADER_BYTES; at + DESCRIPTOR_BYTES <= end; ) {
    const flags = view.getUint8(at + 12);
    const scopeType = view.getUint8(at + 13);
    const next = at + DESCRIPTOR_BYTES + view.getUint32(at + 20);
    if (next > end) break;
    registrants.push({
      key: view.getBigUint64(at),
      isHolder: (flags & 1) !== 0,
      allTargetPorts: (flags & 2) !== 0,
      scope: scopeType >> 4,
      type: scopeType & 0xf,
      targetPort: view.getUint16(at + 18),
      transportId: bytes.slice(at + DESCRIPTOR_BYTES, next),
    });
    at = next;
  }
  return registrants;
}

/** REPORT CAPABILITIES. */
export interface ReservationCapabilities {
  /** The device can keep registrations over a loss of power, and does so now. */
  readonly persistCapable: boolean;
  readonly persistActive: boolean;
  readonly specifyInitiatorsCapable: boolean;
  readonly allTargetPortsCapable: boolean;
  /** Types that can be reserved; undefined: the device does not say. */
  readonly types: readonly number[] | undefined;
}

/** In the mask, a type has the bit that its number says: the second byte of the mask is its upper half. */
const TYPES: readonly number[] = [1, 3, 5, 6, 7, 8];

export function parseCapabilities(bytes: Uint8Array): ReservationCapabilities | undefined {
  if (bytes.length < 8) return undefined;
  const [, , first = 0, second = 0, low = 0, high = 0] = bytes;
  const mask = low | (high << 8);
  return {
    persistCapable: (first & 0x01) !== 0,
    persistActive: (second & 0x01) !== 0,
    specifyInitiatorsCapable: (first & 0x08) !== 0,
    allTargetPortsCapable: (first & 0x04) !== 0,
    types: (second & 0x80) === 0 ? undefined : TYPES.filter((type) => (mask & (1 << type)) !== 0),
  };
}
