/**
 * Sense data: why a command ended with CHECK CONDITION. SPC-4, 4.5: fixed format (response codes 70h, 71h) and descriptor format
 * (72h, 73h). What we make ourselves is in fixed format.
 */

/** Room for sense in the answers of the helper protocol, and what the kernel is given. */
export const SENSE_BYTES = 96;

/** Bytes of sense that we make: SPC-4, table 53, up to the field replaceable unit code and what is specific to the key. */
const FIXED_BYTES = 18;

/** Key, additional code and its qualifier. */
export interface Sense {
  readonly key: number;
  readonly asc: number;
  readonly ascq: number;
}

const sense = (key: number, asc: number, ascq: number): Sense => ({ key, asc, ascq });

export const SENSE_MEDIUM_ERROR = sense(0x3, 0x11, 0x00);
export const SENSE_NO_MEDIUM = sense(0x2, 0x3a, 0x00);
export const SENSE_TARGET_FAILURE = sense(0x4, 0x44, 0x00);
export const SENSE_INVALID_OPERATION = sense(0x5, 0x20, 0x00);
export const SENSE_INVALID_FIELD = sense(0x5, 0x24, 0x00);
export const SENSE_PARAMETER_LENGTH = sense(0x5, 0x1a, 0x00);
export const SENSE_INVALID_PARAMETER = sense(0x5, 0x26, 0x00);
export const SENSE_UNIT_ATTENTION_RESET = sense(0x6, 0x29, 0x00);
export const SENSE_SPACE_ALLOCATION = sense(0x7, 0x27, 0x07);
export const SENSE_IO_ERROR = sense(0xb, 0x00, 0x06);
export const SENSE_LUN_NO_RESPONSE = sense(0xb, 0x05, 0x00);
export const SENSE_LUN_COMMUNICATION = sense(0xb, 0x08, 0x00);
export const SENSE_NEXUS_LOSS = sense(0xb, 0x29, 0x07);
export const SENSE_COMMAND_TIMEOUT = sense(0xb, 0x2e, 0x02);
export const SENSE_COMMAND_ABORTED = sense(0xb, 0x2f, 0x02);

const KEY_NAMES: readonly string[] = [
  'no sense',
  'recovered error',
  'not ready',
  'medium error',
  'hardware error',
  'illegal request',
  'unit attention',
  'data protect',
  'blank check',
  'vendor specific',
  'copy aborted',
  'aborted command',
  'reserved',
  'volume overflow',
  'miscompare',
  'completed',
];

/** The additional codes that reservations meet; `asc << 8 | ascq`. */
const CODE_NAMES: Readonly<Record<number, string>> = {
  6: 'I/O process terminated',
  1025: 'becoming ready',
  1280: 'logical unit does not respond to selection',
  2048: 'logical unit communication failure',
  4352: 'unrecovered read error',
  6656: 'parameter list length error',
  8192: 'invalid command operation code',
  9216: 'invalid field in CDB',
  9472: 'logical unit not supported',
  9728: 'invalid field in parameter list',
  9730: 'parameter value invalid',
  9732: 'invalid release of persistent reservation',
  9991: 'space allocation failed, write protect',
  10496: 'power on, reset, or bus device reset occurred',
  10503: 'I_T nexus loss occurred',
  10755: 'reservations preempted',
  10756: 'reservations released',
  10757: 'registrations preempted',
  11778: 'command timeout during processing due to error recovery',
  12034: 'commands cleared by device server',
  14848: 'medium not present',
  17408: 'internal target failure',
  21762: 'insufficient reservation resources',
  21764: 'insufficient registration resources',
};

/** Writes fixed-format sense at `offset` and zeros behind it, {@link SENSE_BYTES} in all. */
export function writeSense(out: Uint8Array, offset: number, { key, asc, ascq }: Sense): void {
  out.fill(0, offset, offset + SENSE_BYTES);
  out[offset] = 0x70;
  out[offset + 2] = key;
  // How many bytes follow this one.
  out[offset + 7] = FIXED_BYTES - 8;
  out[offset + 12] = asc;
  out[offset + 13] = ascq;
}

/**
 * Reads either format. Where a device wrote no more than its key, the codes are 0.
 * @returns undefined when it is no sense data
 */
export function parseSense(bytes: Uint8Array): Sense | undefined {
  const code = (bytes[0] ?? 0) & 0x7f;
  if (bytes.length >= 3 && (code === 0x70 || code === 0x71)) {
    const lengthBytes = Math.min(bytes.length, 8 + (bytes[7] ?? 0));
    const codes = lengthBytes >= 14;
    return { key: bytes[2]! & 0xf, asc: codes ? bytes[12]! : 0, ascq: codes ? bytes[13]! : 0 };
  }
  if (bytes.length >= 4 && (code === 0x72 || code === 0x73)) {
    return { key: bytes[1]! & 0xf, asc: bytes[2]!, ascq: bytes[3]! };
  }
  return undefined;
}

/** `illegal request: invalid field in CDB (5/24/00)` */
export function describeSense({ key, asc, ascq }: Sense): string {
  const hex = (number: number): string => number.toString(16).padStart(2, '0');
  const name = CODE_NAMES[(asc << 8) | ascq];
  const text = name === undefined ? KEY_NAMES[key]! : `${KEY_NAMES[key]}: ${name}`;
  return `${text} (${key.toString(16)}/${hex(asc)}/${hex(ascq)})`;
}
