import { describe, expect, it } from 'vitest';
import {
  checkRequest,
  getTransferLength,
  parseResponseHead,
  RESPONSE_HEADER_BYTES,
  writeResponseHead,
} from '../../../src/scsi/helper-protocol.ts';
import {
  createParameterList,
  parseCapabilities,
  parseFullStatus,
  parseKeys,
  parseParameterList,
  parseReservation,
} from '../../../src/scsi/parameter-data.ts';
import {
  CDB_BYTES,
  createReserveIn,
  createReserveOut,
  hasType,
  nameAction,
  nameType,
  parseCommand,
  writeCommand,
} from '../../../src/scsi/persistent-reserve.ts';

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const hex = (array: Uint8Array): string => Buffer.from(array).toString('hex');

describe('the command descriptor block', () => {
  it('is read from golden bytes', () => {
    expect(parseCommand(bytes('5e 01 00 00 00 00 00 20 00 00'))).toEqual({
      isOut: false,
      serviceAction: 1,
      scope: 0,
      type: 0,
      lengthBytes: 8192,
    });
    expect(parseCommand(bytes('5f 04 15 00 00 00 01 00 18 00 00 00 00 00 00 00'))).toEqual({
      isOut: true,
      serviceAction: 4,
      scope: 1,
      type: 5,
      lengthBytes: 0x10018,
    });
    // The upper bits of the action's byte are reserved, and the fields of OUT mean nothing in IN.
    expect(parseCommand(bytes('5e ff 55 00 00 ff ff 00 08 00'))).toEqual({
      isOut: false,
      serviceAction: 0x1f,
      scope: 0,
      type: 0,
      lengthBytes: 8,
    });
  });
  it('is written over whatever was there', () => {
    const out = new Uint8Array(12).fill(0xa5);
    writeCommand(out, { isOut: true, serviceAction: 1, scope: 0, type: 8, lengthBytes: 24 });
    expect(hex(out)).toBe('5f010800000000001800a5a5');
    expect(hex(createReserveIn(3, 0x1234))).toBe('5e030000000000123400');
    expect(hex(createReserveOut(6, 0, 24))).toBe('5f060000000000001800');
  });
  it('is refused when it is another command or cut', () => {
    const whole = createReserveOut(1, 5, 24);
    for (let length = 0; length < CDB_BYTES; length++) expect(parseCommand(whole.subarray(0, length))).toBeUndefined();
    expect(parseCommand(bytes('12 00 00 00 24 00 00 00 00 00'))).toBeUndefined();
  });
  it('has names for what the standard names', () => {
    expect(nameAction(false, 3)).toBe('READ FULL STATUS');
    expect(nameAction(true, 5)).toBe('PREEMPT AND ABORT');
    expect(nameAction(false, 4)).toBe('service action 4');
    expect(nameType(5)).toBe('write exclusive, registrants only');
    expect(nameType(2)).toBe('type 2');
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8].filter(hasType)).toEqual([1, 2, 4, 5, 8]);
  });
});

describe('the parameter list', () => {
  const golden = bytes('0123456789abcdef fedcba9876543210 00000000 0d 000000');
  it('is read and written', () => {
    const list = {
      reservationKey: 0x0123456789abcdefn,
      actionKey: 0xfedcba9876543210n,
      persistThroughPowerLoss: true,
      allTargetPorts: true,
      specifyInitiators: true,
    };
    expect(parseParameterList(golden)).toEqual(list);
    expect(hex(createParameterList(list))).toBe(hex(golden));
    expect(hex(createParameterList({ actionKey: 1n }))).toBe(`${'00'.repeat(15)}01${'00'.repeat(8)}`);
  });
  it('is refused when it is cut', () => {
    for (let length = 0; length < 24; length++) expect(parseParameterList(golden.subarray(0, length))).toBeUndefined();
  });
});

describe('parameter data', () => {
  const keys = bytes('00000007 00000010 000000000000abcd ffffffffffffffff');
  it('gives keys, those that came and how many there are', () => {
    expect(parseKeys(keys)).toEqual({ generation: 7, keys: [0xabcdn, 0xffffffffffffffffn], total: 2 });
    expect(parseKeys(keys.subarray(0, 23))).toEqual({ generation: 7, keys: [0xabcdn], total: 2 });
    // What lies behind the list is not part of it.
    expect(parseKeys(bytes('00000001 00000000 000000000000abcd'))!.keys).toEqual([]);
    for (let length = 0; length < 8; length++) expect(parseKeys(keys.subarray(0, length))).toBeUndefined();
  });
  it('gives the reservation, if there is one and it came whole', () => {
    const held = bytes('00000003 00000010 000000000000abcd 00000000 00 05 0000');
    expect(parseReservation(held)).toEqual({ generation: 3, held: { key: 0xabcdn, scope: 0, type: 5 } });
    for (let length = 8; length < 24; length++) {
      expect(parseReservation(held.subarray(0, length))).toEqual({ generation: 3, held: undefined });
    }
    expect(parseReservation(bytes('00000003 00000000'))).toEqual({ generation: 3, held: undefined });
    expect(parseReservation(held.subarray(0, 7))).toBeUndefined();
  });
  it('gives registrants with their transport ids', () => {
    const first = '000000000000abcd 00000000 01 05 00000000 0002 00000004 a1a2a3a4';
    const second = '00000000000000ef 00000000 02 00 00000000 0000 00000000';
    const status = bytes(`00000009 00000034 ${first} ${second}`);
    expect(parseFullStatus(status)).toEqual([
      {
        key: 0xabcdn,
        isHolder: true,
        allTargetPorts: false,
        scope: 0,
        type: 5,
        targetPort: 2,
        transportId: bytes('a1a2a3a4'),
      },
      {
        key: 0xefn,
        isHolder: false,
        allTargetPorts: true,
        scope: 0,
        type: 0,
        targetPort: 0,
        transportId: bytes(''),
      },
    ]);
    for (let length = 8; length < status.length; length++) {
      expect(parseFullStatus(status.subarray(0, length))!.length).toBe(length < 36 ? 0 : 1);
    }
    // A length that points beyond everything does not move the reader on.
    expect(parseFullStatus(bytes(`00000009 0000ffff ${'00'.repeat(20)} ffffffff`))).toEqual([]);
  });
  it('gives capabilities', () => {
    expect(parseCapabilities(bytes('0008 0d 81 ea01 0000'))).toEqual({
      persistCapable: true,
      persistActive: true,
      specifyInitiatorsCapable: true,
      allTargetPortsCapable: true,
      types: [1, 3, 5, 6, 7, 8],
    });
    expect(parseCapabilities(bytes('0008 00 00 ea01 0000'))!.types).toBeUndefined();
    expect(parseCapabilities(bytes('0008 00 80 0200 0000'))!.types).toEqual([1]);
    expect(parseCapabilities(bytes('0008 00 80 0200 00'))).toBeUndefined();
  });
});

describe('the helper protocol', () => {
  const request = (cdb: string): Uint8Array => {
    const padded = new Uint8Array(16);
    padded.set(bytes(cdb));
    return padded;
  };
  it('takes two commands and at most 8192 bytes', () => {
    expect(checkRequest(request('5e0000000000002000'))).toBeUndefined();
    expect(checkRequest(request('5f0000000000002000'))).toBeUndefined();
    expect(checkRequest(request('5e0000000000002001'))).toBe('length');
    expect(checkRequest(request('5f0000000000ffff00'))).toBe('length');
    for (const opcode of ['00', '12', '5d', '60', 'ff']) expect(checkRequest(request(opcode))).toBe('opcode');
    // The upper half of an OUT length is the device's to refuse.
    expect(checkRequest(request('5f0000000001000018'))).toBeUndefined();
    expect(getTransferLength(request('5f000000000100001800'))).toBe(0x18);
  });
  it('has an answer whose head is 104 bytes, big-endian', () => {
    const out = new Uint8Array(RESPONSE_HEADER_BYTES).fill(0xa5);
    writeResponseHead(out, 0x18, 0x1234);
    expect(hex(out.subarray(0, 10))).toBe('0000001800001234a5a5');
    expect(RESPONSE_HEADER_BYTES).toBe(104);
    expect(parseResponseHead(out)).toEqual({ status: 0x18, sizeBytes: 0x1234 });
    expect(parseResponseHead(out.subarray(0, 103))).toBeUndefined();
  });
});
