/**
 * What a process gives up once all that it needs is open: its root directory, capabilities, and most system calls. Each step is for all
 * of its threads and for good; which ones, and in which order, is the caller's to decide.
 *
 * What Node itself still needs afterwards must be there before the filter: see {@link startThreadPool}. Modules that are files cannot
 * be loaded any more.
 */

import { closeSync, constants, fstat, mkdtempSync, openSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { EINVAL, ENOSYS } from '../base/errno.ts';
import { checkStatus, createSystemError } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';
import { type AddressRange, buildFilter, type DeviceWork, type RemovableFile } from './seccomp-filter.ts';
import { findArchitecture } from './syscalls.ts';

/** Numbers of capabilities(7). */
export const CAP_SETGID = 6;
export const CAP_SETUID = 7;
export const CAP_SETPCAP = 8;
export const CAP_NET_BIND_SERVICE = 10;
export const CAP_SYS_CHROOT = 18;
export const CAP_SYS_ADMIN = 21;

/** open(2): a place in the file system, to start from and not to read. */
const O_PATH = 0o10000000;

/** A set of capabilities as /proc shows it. */
export function capabilityMask(capabilities: readonly number[]): bigint {
  return capabilities.reduce((mask, capability) => mask | (1n << BigInt(capability)), 0n);
}

/** The permitted capabilities of this process's first thread. */
export function readCapabilities(): bigint {
  const match = /^CapPrm:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  return match === null ? 0n : BigInt(`0x${match[1]}`);
}

/** The list of this process's threads, for {@link limitCapabilities}: it stays readable when the root directory is another. The caller's fd. */
export function openThreadList(): number {
  return openSync('/proc/self/task', O_PATH | constants.O_DIRECTORY);
}

/**
 * Gives up all capabilities but `keep`, in all threads; of the bounding set only CAP_NET_BIND_SERVICE stays, where that may be changed.
 * @param threadList - see {@link openThreadList}
 * @throws Error with `errno`
 */
export function limitCapabilities(native: NativeAddon, threadList: number, keep: readonly number[]): void {
  const mask = capabilityMask(keep);
  const bound = capabilityMask([CAP_NET_BIND_SERVICE]);
  const half = (value: bigint, index: bigint): number => Number((value >> (32n * index)) & 0xffff_ffffn);
  const status = native.limitCapabilities(threadList, half(mask, 0n), half(mask, 1n), half(bound, 0n), half(bound, 1n));
  checkStatus(status, 'capset');
}

/** Of these at least one is there. */
const PIVOT_FOLDERS = ['/tmp', '/run', '/proc', '/dev'];

/** Where an empty directory may be made for a moment. */
const SCRATCH_FOLDERS = ['/tmp', '/run', '/dev/shm'];

/**
 * Makes an empty file system the only one in this process's mount namespace, which must be its own. Takes CAP_SYS_ADMIN.
 * @returns false when the kernel refused
 */
export function leaveFileSystems(native: NativeAddon): boolean {
  return PIVOT_FOLDERS.some((folder) => native.pivotRoot(folder) === 0);
}

/**
 * Makes an empty directory that has no name any more the root of this process. Takes CAP_SYS_CHROOT.
 * @returns false when no directory could be made, or the kernel refused
 */
export function enterEmptyRoot(native: NativeAddon): boolean {
  for (const folder of SCRATCH_FOLDERS) {
    let path: string;
    try {
      path = mkdtempSync(join(folder, 'passel-root-'));
    } catch {
      continue;
    }
    const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      rmdirSync(path);
      return native.changeRoot(fd) === 0;
    } finally {
      closeSync(fd);
    }
  }
  return false;
}

/** A file that can still be removed from inside the sandbox. */
export interface SealedFile extends RemovableFile {
  readonly path: string;
  /** @returns 0 or -errno */
  remove(): number;
}

/**
 * Notes the file at `path` for removal. Holds its directory open until the process ends.
 * @param slot - another number for each file, 0 to 65
 * @returns undefined where that cannot be had; the file then stays
 */
export function sealFile(native: NativeAddon, slot: number, path: string): SealedFile | undefined {
  let dirFd: number;
  try {
    dirFd = openSync(dirname(path), O_PATH | constants.O_DIRECTORY);
  } catch {
    return undefined;
  }
  const address = native.sealName(slot, dirFd, basename(path));
  if (address < 0) {
    closeSync(dirFd);
    return undefined;
  }
  return { path, dirFd, nameAddress: BigInt(address), remove: () => native.unlinkSealed(slot) };
}

/** One line of /proc/PID/maps. */
const MAP_LINE = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)$/gm;
/** V8 takes memory for code in units of this size. Each begins with a header, which is not executable. */
const CODE_UNIT_BYTES = 256n * 1024n;
/** What else is writable beside the reservation, a heap of the C library or a stack, is larger than a header. */
const HEADER_MAX_BYTES = 64n * 1024n;
/** The filter compares offsets of 32 bits; V8 reserves an eighth of this. */
const CODE_RANGE_MAX_BYTES = 1n << 32n;

/**
 * Finds where V8 keeps machine code: one reservation, of which what is in use is writable and executable, the rest inaccessible; a part
 * may be a copy of Node's own code. Inaccessible maps that happen to lie against it, before or behind, cannot be told apart and are
 * taken in: a range that were too small would end the process the next time V8 needs a page.
 * @param maps - the text of /proc/self/maps
 * @returns undefined when nothing is writable and executable, as with --jitless, or the range is too large for the filter
 */
export function findCodeRange(maps: string): AddressRange | undefined {
  let start: bigint | undefined;
  let end = 0n;
  // Where the last inaccessible map begins, as long as nothing but a header has followed it.
  let unusedFrom: bigint | undefined;
  for (const [, from, to, access, inode] of maps.matchAll(MAP_LINE)) {
    const first = BigInt(`0x${from}`);
    const behind = BigInt(`0x${to}`);
    const isHeader = access === 'rw-p' && first % CODE_UNIT_BYTES === 0n && behind - first <= HEADER_MAX_BYTES;
    if (start !== undefined) {
      if (first !== end || (access === 'rw-p' && !isHeader)) break;
    } else if (access === 'rwxp' && inode === '0') {
      const unit = first - (first % CODE_UNIT_BYTES);
      start = first === end && unusedFrom !== undefined ? smaller(unit, unusedFrom) : unit;
    } else if (access === '---p') {
      if (first !== end || unusedFrom === undefined) unusedFrom = first;
    } else if (!isHeader || first !== end) {
      unusedFrom = undefined;
    }
    end = behind;
  }
  return start === undefined || end - start >= CODE_RANGE_MAX_BYTES ? undefined : { start, end };
}

function smaller(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

/**
 * Starts the threads that Node's asynchronous file calls run on: a first such call after the filter, which allows no new threads, would
 * end the process.
 */
export function startThreadPool(): Promise<void> {
  return new Promise((resolve) => {
    fstat(0, () => resolve());
  });
}

export interface FilterRequest {
  readonly removable: readonly RemovableFile[];
  readonly codeRange: AddressRange | undefined;
  /** Allow listen(2). */
  readonly mayListen: boolean;
  /** Allow pipe2(2) and splice(2). */
  readonly maySplice?: boolean;
  /** Pairs of connected sockets are made. */
  readonly mayPair?: boolean;
  readonly devices?: DeviceWork;
}

/**
 * Loads the filter of system calls.
 * @returns false when there is no filter for this machine, or a kernel without filters
 * @throws Error with `errno`
 */
export function filterSystemCalls(native: NativeAddon, request: FilterRequest): boolean {
  const architecture = findArchitecture(process.arch);
  if (architecture === undefined) return false;
  const status = native.loadFilter(buildFilter({ architecture, pid: process.pid, ...request }));
  if (status === EINVAL || status === ENOSYS) return false;
  if (status > 0) throw createSystemError('seccomp', -16, `thread ${status}`);
  checkStatus(status, 'seccomp');
  return true;
}
