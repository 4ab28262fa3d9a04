/**
 * Which devices are several paths to one: device-mapper's multipath, as sysfs shows it.
 *
 * A device on top of another of device-mapper's (a partition that kpartx made, a linear volume) passes commands down to it, so what counts
 * is what lies below.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OpenFile } from '../../sys/sg.ts';

/** A path: a block device of its own. */
export interface PathDevice {
  /** `sda` */
  readonly name: string;
  readonly major: number;
  readonly minor: number;
}

export interface MultipathDevice {
  /** device-mapper's, which begins with `mpath-`. */
  readonly uuid: string;
  /** In the order of their numbers. */
  readonly paths: readonly PathDevice[];
}

/** `several`: it lies on more than one multipath device, which no command can be meant for. */
export type Topology = MultipathDevice | 'several' | undefined;

const UUID_PREFIX = 'mpath-';
/** Deeper stacks do not exist; a loop in what we read must not hold us. */
const DEPTH_MAX = 8;

/** SCSI disks: include/uapi/linux/major.h of the kernel. device-mapper has a number that is given at run time. */
const DISK_MAJORS: ReadonlySet<number> = new Set([
  8,
  ...Array.from({ length: 7 }, (_, i) => 65 + i),
  ...Array.from({ length: 8 }, (_, i) => 128 + i),
]);

/** Whether a number alone says that a device is none of device-mapper's, now and later. */
export function isNeverMultipath({ kind, major }: OpenFile): boolean {
  return kind === 'character' || (kind === 'block' && DISK_MAJORS.has(major));
}

/** @returns undefined for a device with one path */
export function findMultipath(major: number, minor: number, sysfs = '/sys'): Topology {
  return look(join(sysfs, `dev/block/${major}:${minor}`), 0);
}

function look(folder: string, depth: number): Topology {
  const uuid = read(join(folder, 'dm/uuid'));
  // Not one of device-mapper's.
  if (uuid === undefined || depth > DEPTH_MAX) return undefined;
  const slaves = listSlaves(folder);
  if (uuid.startsWith(UUID_PREFIX)) return { uuid, paths: slaves.flatMap((name) => readPath(folder, name) ?? []) };
  const below = slaves
    .map((name) => look(join(folder, 'slaves', name), depth + 1))
    .filter((each) => each !== undefined);
  return below.length > 1 ? 'several' : below[0];
}

function readPath(folder: string, name: string): PathDevice | undefined {
  const match = /^(\d+):(\d+)$/.exec(read(join(folder, 'slaves', name, 'dev')) ?? '');
  return match === null ? undefined : { name, major: Number(match[1]), minor: Number(match[2]) };
}

function listSlaves(folder: string): string[] {
  try {
    return readdirSync(join(folder, 'slaves')).sort();
  } catch {
    return [];
  }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}
