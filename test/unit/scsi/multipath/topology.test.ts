import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findMultipath, isNeverMultipath } from '../../../../src/scsi/multipath/topology.ts';

let sysfs: string;

beforeEach(() => {
  sysfs = mkdtempSync(join(tmpdir(), 'passel-sysfs-'));
  mkdirSync(join(sysfs, 'dev/block'), { recursive: true });
});
afterEach(() => rmSync(sysfs, { recursive: true }));

/** As the kernel lays it out: a folder for each device, numbers and slaves as links to it. */
function addDevice(name: string, number: string, uuid?: string, slaves: readonly string[] = []): void {
  const folder = join(sysfs, 'block', name);
  mkdirSync(join(folder, 'slaves'), { recursive: true });
  writeFileSync(join(folder, 'dev'), `${number}\n`);
  if (uuid !== undefined) {
    mkdirSync(join(folder, 'dm'));
    writeFileSync(join(folder, 'dm/uuid'), `${uuid}\n`);
  }
  for (const slave of slaves) symlinkSync(join(sysfs, 'block', slave), join(folder, 'slaves', slave));
  symlinkSync(folder, join(sysfs, 'dev/block', number));
}

describe('a device', () => {
  it('has one path when it is not of device-mapper, or not multipath', () => {
    addDevice('sda', '8:0');
    addDevice('dm-0', '253:0', 'LVM-abc', ['sda']);
    expect(findMultipath(8, 0, sysfs)).toBeUndefined();
    expect(findMultipath(253, 0, sysfs)).toBeUndefined();
    expect(findMultipath(253, 9, sysfs)).toBeUndefined();
  });
  it('has the paths of the multipath device that it is, or lies on', () => {
    addDevice('sdb', '8:16');
    addDevice('sda', '8:0');
    addDevice('dm-0', '253:0', 'mpath-3600a', ['sdb', 'sda']);
    addDevice('dm-1', '253:1', 'part1-mpath-3600a', ['dm-0']);
    addDevice('dm-2', '253:2', 'LVM-xyz', ['dm-1']);
    const expected = {
      uuid: 'mpath-3600a',
      paths: [
        { name: 'sda', major: 8, minor: 0 },
        { name: 'sdb', major: 8, minor: 16 },
      ],
    };
    for (const minor of [0, 1, 2]) expect(findMultipath(253, minor, sysfs)).toEqual(expected);
  });
  it('that lies on several is told apart', () => {
    addDevice('sda', '8:0');
    addDevice('sdb', '8:16');
    addDevice('dm-0', '253:0', 'mpath-1', ['sda']);
    addDevice('dm-1', '253:1', 'mpath-2', ['sdb']);
    addDevice('dm-2', '253:2', 'LVM-xyz', ['dm-0', 'dm-1']);
    expect(findMultipath(253, 2, sysfs)).toBe('several');
  });
  it('without paths has none left, and is multipath still', () => {
    addDevice('dm-0', '253:0', 'mpath-1');
    expect(findMultipath(253, 0, sysfs)).toEqual({ uuid: 'mpath-1', paths: [] });
  });
});

describe('a number', () => {
  const file = (kind: 'block' | 'character' | 'other', major: number) => ({ kind, major, minor: 0, isWritable: true });
  it.each([8, 65, 71, 128, 135])('that is a SCSI disk for ever: block device %i', (major) => {
    expect(isNeverMultipath(file('block', major))).toBe(true);
  });
  it.each([7, 9, 64, 72, 127, 136, 252, 253, 254, 259])('that may be of device-mapper: block device %i', (major) => {
    expect(isNeverMultipath(file('block', major))).toBe(false);
  });
  it('of a character device is none of device-mapper', () => {
    expect(isNeverMultipath(file('character', 253))).toBe(true);
    expect(isNeverMultipath(file('other', 8))).toBe(false);
  });
});
