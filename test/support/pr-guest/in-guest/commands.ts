/**
 * PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16) as bytes, and what a test wants to see of the answers. Written from the
 * standard and apart from src/scsi on purpose: a mistake there must not be able to hide here.
 */

export const READ_KEYS = 0;
export const READ_RESERVATION = 1;
export const REPORT_CAPABILITIES = 2;
export const READ_FULL_STATUS = 3;

export const REGISTER = 0;
export const RESERVE = 1;
export const RELEASE = 2;
export const CLEAR = 3;
export const PREEMPT = 4;
export const PREEMPT_AND_ABORT = 5;
export const REGISTER_AND_IGNORE = 6;
export const REGISTER_AND_MOVE = 7;

/** Flag bits of byte 20 of the parameter list. */
export const APTPL = 1;
export const ALL_TG_PT = 4;
export const SPEC_I_PT = 8;

/** A command with the bytes that follow it. */
export interface Command {
  cdb: Buffer;
  data: Buffer;
}

/** PERSISTENT RESERVE IN, padded to the 16 bytes of the protocol. */
export function reserveIn(action: number, allocationLength = 8192): Command {
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x5e;
  cdb[1] = action;
  cdb.writeUInt16BE(allocationLength, 7);
  return { cdb, data: Buffer.alloc(0) };
}

/** Fields of PERSISTENT RESERVE OUT. */
export interface ReserveOutFields {
  /** Reservation key: the one that the sender registered. */
  key?: number;
  /** Service action reservation key: the new one, or the victim's. */
  actionKey?: number;
  /** Scope in the high half, type in the low half. */
  type?: number;
  flags?: number;
  /** Bytes after the 24 of the basic list, their length field included. */
  tail?: Buffer;
  /** Cuts or extends the list, and the length in the CDB with it. */
  listLength?: number;
}

/** PERSISTENT RESERVE OUT with its basic parameter list (SPC-4 6.16.3). */
export function reserveOut(action: number, fields: ReserveOutFields = {}): Command {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(BigInt(fields.key ?? 0), 0);
  list.writeBigUInt64BE(BigInt(fields.actionKey ?? 0), 8);
  list[20] = fields.flags ?? 0;
  let data = Buffer.concat([list, fields.tail ?? Buffer.alloc(0)]);
  const { listLength = data.length } = fields;
  if (listLength !== data.length) data = Buffer.concat([data, Buffer.alloc(listLength)]).subarray(0, listLength);
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x5f;
  cdb[1] = action;
  cdb[2] = fields.type ?? 0;
  cdb.writeUInt32BE(data.length, 5);
  return { cdb, data };
}

/** REGISTER AND MOVE, whose list has a form of its own (SPC-4 6.16.4). */
export function registerAndMove(fields: {
  key: number;
  actionKey: number;
  /** Relative port of the target through which the new holder comes. */
  targetPort: number;
  transportId: Buffer;
  unregister?: boolean;
}): Command {
  const list = Buffer.alloc(24);
  list.writeBigUInt64BE(BigInt(fields.key), 0);
  list.writeBigUInt64BE(BigInt(fields.actionKey), 8);
  list[17] = fields.unregister === true ? 2 : 0;
  list.writeUInt16BE(fields.targetPort, 18);
  list.writeUInt32BE(fields.transportId.length, 20);
  const cdb = Buffer.alloc(16);
  cdb[0] = 0x5f;
  cdb[1] = REGISTER_AND_MOVE;
  cdb.writeUInt32BE(list.length + fields.transportId.length, 5);
  return { cdb, data: Buffer.concat([list, fields.transportId]) };
}

/** TransportID of a SAS initiator (SPC-4 7.6.4.7), by the 16 digits of its address. */
export function sasTransportId(address: string): Buffer {
  const id = Buffer.alloc(24);
  id[0] = 6;
  id.write(address, 4, 'hex');
  return id;
}

/** The list of TransportIDs of SPEC_I_PT with its length. */
export function transportIdList(...ids: Buffer[]): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(ids.reduce((sum, id) => sum + id.length, 0));
  return Buffer.concat([length, ...ids]);
}

/** SCSI status with the sense triple in words, such as `GOOD`, `CONFLICT`, `CHECK 5/24/00`. */
export function describeStatus(status: number, sense: Buffer): string {
  if (status === 0) return 'GOOD';
  if (status === 0x18) return 'CONFLICT';
  if (status !== 2) return `STATUS ${status}`;
  const descriptorFormat = (sense[0]! & 0x7f) >= 0x72;
  const [key, asc, ascq] = descriptorFormat
    ? [sense[1]! & 15, sense[2]!, sense[3]!]
    : [sense[2]! & 15, sense[12]!, sense[13]!];
  return `CHECK ${key.toString(16)}/${hex(asc)}/${hex(ascq)}`;
}

/** The answer to PERSISTENT RESERVE IN in words; the generation comes first. */
export function describeData(action: number, data: Buffer): string {
  if (action === REPORT_CAPABILITIES) return data.toString('hex');
  if (data.length < 8) return `${data.length} bytes`;
  const generation = `gen ${data.readUInt32BE(0)}`;
  const listed = data.readUInt32BE(4);
  const body = data.subarray(8, Math.min(data.length, 8 + listed));
  const cut = body.length < listed ? ` (${body.length} of ${listed} bytes)` : '';
  if (action === READ_KEYS) {
    const keys: string[] = [];
    for (let at = 0; at + 8 <= body.length; at += 8) keys.push(body.readBigUInt64BE(at).toString(16));
    return `${generation} keys ${keys.join(',') || 'none'}${cut}`;
  }
  if (action === READ_RESERVATION) {
    if (body.length < 16) return `${generation} not reserved${cut}`;
    return `${generation} key ${body.readBigUInt64BE(0).toString(16)} type ${body[13]!.toString(16)}${cut}`;
  }
  if (action === READ_FULL_STATUS) {
    const nexuses: string[] = [];
    for (let at = 0; at + 24 <= body.length; at += 24 + body.readUInt32BE(at + 20)) {
      const holder = (body[at + 12]! & 1) !== 0 ? ` holds ${body[at + 13]!.toString(16)}` : '';
      const allPorts = (body[at + 12]! & 2) !== 0 ? ' all ports' : '';
      const initiator = body.subarray(at + 28, at + 36).toString('hex');
      nexuses.push(
        `${body.readBigUInt64BE(at).toString(16)}@${initiator}/${body.readUInt16BE(at + 18)}${holder}${allPorts}`,
      );
    }
    return `${generation} ${nexuses.join(', ') || 'nobody'}${cut}`;
  }
  return `${data.length} bytes`;
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}
