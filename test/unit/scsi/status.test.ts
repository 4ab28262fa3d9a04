import { describe, expect, it } from 'vitest';
import { describeSense, parseSense, SENSE_BYTES, writeSense } from '../../../src/scsi/sense.ts';
import { judgeOutcome, nameStatus } from '../../../src/scsi/status.ts';

const fine = { errno: 0, status: 0, hostStatus: 0, driverStatus: 0 };
const judged = (outcome: Partial<typeof fine>): string => {
  const { status, sense } = judgeOutcome({ ...fine, ...outcome });
  return sense === undefined ? status.toString(16) : `${status} ${sense.key}/${sense.asc}/${sense.ascq}`;
};

describe('what SG_IO tells', () => {
  it('is GOOD only when all of it says so', () => {
    expect(judged({})).toBe('0');
    // Every status of the host and every error, known or not, that the kernel has or may come to have.
    for (let number = 1; number < 256; number++) {
      expect([number, judged({ hostStatus: number })]).not.toEqual([number, '0']);
      expect([number, judged({ errno: number })]).not.toEqual([number, '0']);
      expect([number, judged({ status: number })]).not.toEqual([number, '0']);
    }
  });
  it('becomes what QEMU makes of it', () => {
    expect(judged({ errno: 33 })).toBe('28');
    expect(judged({ errno: 52 })).toBe('18');
    expect(judged({ errno: 61 })).toBe('2 3/17/0');
    expect(judged({ errno: 121 })).toBe('2 4/68/0');
    expect(judged({ errno: 12 })).toBe('2 4/68/0');
    expect(judged({ errno: 123 })).toBe('2 2/58/0');
    expect(judged({ errno: 22 })).toBe('2 5/36/0');
    expect(judged({ errno: 28 })).toBe('2 7/39/7');
    for (const errno of [1, 9, 19, 25]) expect(judged({ errno })).toBe('2 11/0/6');
    expect(judged({ hostStatus: 1 })).toBe('2 11/5/0');
    expect(judged({ hostStatus: 2 })).toBe('8');
    expect(judged({ hostStatus: 3 })).toBe('2 11/46/2');
    expect(judged({ hostStatus: 4 })).toBe('2 11/8/0');
    expect(judged({ hostStatus: 5 })).toBe('2 11/47/2');
    expect(judged({ hostStatus: 8 })).toBe('2 6/41/0');
    expect(judged({ hostStatus: 0xe })).toBe('2 11/41/7');
    expect(judged({ hostStatus: 0x10 })).toBe('2 4/68/0');
    expect(judged({ hostStatus: 0x11 })).toBe('18');
    expect(judged({ hostStatus: 0x12 })).toBe('2 7/39/7');
    expect(judged({ hostStatus: 0x13 })).toBe('2 3/17/0');
  });
  it('differs from QEMU where that would say GOOD of what is not known', () => {
    for (const hostStatus of [6, 7, 9, 0xb, 0xc, 0xd, 0xf, 0x14]) expect(judged({ hostStatus })).toBe('2 11/0/6');
  });
  it('is looked at in the order error, host, driver, device', () => {
    expect(judged({ errno: 52, hostStatus: 3, driverStatus: 2, status: 2 })).toBe('18');
    expect(judged({ hostStatus: 3, driverStatus: 2, status: 2 })).toBe('2 11/46/2');
    expect(judged({ driverStatus: 2, status: 2 })).toBe('8');
    expect(judged({ driverStatus: 8, status: 2 })).toBe('2');
    expect(judged({ status: 0x18 })).toBe('18');
  });
  it('has names', () => {
    expect(nameStatus(0x18)).toBe('RESERVATION CONFLICT');
    expect(nameStatus(0x99)).toBe('status 0x99');
  });
});

describe('sense', () => {
  it('is made in fixed format, with zeros behind it', () => {
    const out = new Uint8Array(100).fill(0xa5);
    writeSense(out, 2, { key: 5, asc: 0x24, ascq: 1 });
    expect(Buffer.from(out.subarray(2, 20)).toString('hex')).toBe('700005000000000a00000000240100000000');
    expect(out.subarray(20, 2 + SENSE_BYTES).every((byte) => byte === 0)).toBe(true);
    expect([...out.subarray(0, 2), ...out.subarray(98)]).toEqual([0xa5, 0xa5, 0xa5, 0xa5]);
    expect(parseSense(out.subarray(2))).toEqual({ key: 5, asc: 0x24, ascq: 1 });
  });
  it('is read in descriptor format, and of deferred errors', () => {
    expect(parseSense(Uint8Array.of(0x72, 6, 0x2a, 5))).toEqual({ key: 6, asc: 0x2a, ascq: 5 });
    expect(parseSense(Uint8Array.of(0xf1, 0, 0x46, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 7, 0, 0, 0, 0))).toEqual({
      key: 6,
      asc: 0x29,
      ascq: 7,
    });
  });
  it('has no codes where the device wrote none, and is nothing where there is none', () => {
    expect(parseSense(Uint8Array.of(0x70, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x24, 0))).toEqual({
      key: 5,
      asc: 0,
      ascq: 0,
    });
    const whole = new Uint8Array(SENSE_BYTES);
    expect(parseSense(whole)).toBeUndefined();
    writeSense(whole, 0, { key: 5, asc: 0x24, ascq: 0 });
    for (let length = 0; length < 3; length++) expect(parseSense(whole.subarray(0, length))).toBeUndefined();
    for (let length = 3; length < 14; length++) expect(parseSense(whole.subarray(0, length))!.asc).toBe(0);
  });
  it('is told in words', () => {
    expect(describeSense({ key: 6, asc: 0x2a, ascq: 3 })).toBe('unit attention: reservations preempted (6/2a/03)');
    expect(describeSense({ key: 0xb, asc: 1, ascq: 2 })).toBe('aborted command (b/01/02)');
  });
});
