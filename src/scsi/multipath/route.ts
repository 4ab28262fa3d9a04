/**
 * Commands for devices with several paths, on their way to the paths: which devices these are, opening the paths, one command at a time for
 * each device, and the paths that come back.
 *
 * Questions (PERSISTENT RESERVE IN) go on to the device itself: every path gives the same answer, and device-mapper chooses one that
 * works. Changes are fanned out, or refused where that cannot be done; they are never sent to one path.
 *
 * The multipath tools (libmpathpersist, mpathpersist) do not take part: they open /dev/mapper/control with CAP_SYS_ADMIN and tell multipathd,
 * neither of which the sandbox allows, and answer with a class of errors (mpath_persistent_reserve_out(3)) where a guest
 * expects the device's own sense data.
 */
import { closeSync, constants, openSync } from 'node:fs';
import type { Logger } from '../../base/logger.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { describeFile, type OpenFile, SG_DXFER_FROM_DEVICE, SG_DXFER_TO_DEVICE, type SgQueue } from '../../sys/sg.ts';
import type { MultipathRoute, ReplyWith } from '../executor.ts';
import {
  isReserveOut,
  REQUEST_BYTES,
  RESPONSE_HEADER_BYTES,
  RESPONSE_SENSE,
  TRANSFER_MAX_BYTES,
} from '../helper-protocol.ts';
import { parseCommand } from '../persistent-reserve.ts';
import { SENSE_BYTES, SENSE_INVALID_OPERATION, SENSE_IO_ERROR, writeSense } from '../sense.ts';
import { judgeOutcome, STATUS_CHECK_CONDITION, STATUS_GOOD } from '../status.ts';
import {
  catchUp,
  createMultipathState,
  type MultipathState,
  type Path,
  type PathReply,
  reserveOut,
} from './fan-out.ts';
import { findMultipath, isNeverMultipath, type MultipathDevice, type PathDevice } from './topology.ts';

export type MultipathPolicy = 'fan-out' | 'refuse';

export interface MultipathRouteOptions {
  readonly native: NativeAddon;
  readonly log: Logger;
  readonly queue: SgQueue;
  readonly requestTimeoutMs: number;
  readonly policy: MultipathPolicy;
  /** How often paths are looked for that came back; default 5 s. */
  readonly catchUpMs?: number;
  /** For tests. */
  readonly sysfs?: string;
  /** For tests: opens a path, see `openPath` below. */
  readonly openPath?: (path: PathDevice) => number | undefined;
}

export interface ManagedMultipathRoute extends MultipathRoute {
  /** Looks no more for paths; waits for commands that are on their way. */
  close(): Promise<void>;
}

const CATCH_UP_MS = 5_000;
/** Devices that are remembered; each has a key that somebody with the right to register it has chosen. */
const DEVICES_MAX = 4096;

interface Device {
  readonly state: MultipathState;
  /** The number by which it was last asked for. */
  major: number;
  minor: number;
  /** Resolves when the last command is over. */
  last: Promise<unknown>;
}

export function createMultipathRoute(options: MultipathRouteOptions): ManagedMultipathRoute {
  const { native, log, queue, policy, requestTimeoutMs, sysfs } = options;
  const open = options.openPath ?? ((path: PathDevice) => openPath(native, path));
  const devices = new Map<string, Device>();
  let timer: NodeJS.Timeout | undefined;

  const send = (fd: number, cdb: Uint8Array, parameters: Uint8Array): Promise<PathReply> =>
    new Promise((resolve, reject) => {
      const isOut = isReserveOut(cdb);
      const bytes = new Uint8Array(cdb.length + parameters.length);
      bytes.set(cdb);
      bytes.set(parameters, cdb.length);
      const transferBytes = isOut ? parameters.length : TRANSFER_MAX_BYTES;
      const direction = isOut ? SG_DXFER_TO_DEVICE : SG_DXFER_FROM_DEVICE;
      const request = { fd, bytes, cdbBytes: cdb.length, transferBytes, direction, timeoutMs: requestTimeoutMs };
      try {
        queue.submit(request, (result) => {
          const verdict = judgeOutcome(result);
          const sense = queue.buffer.slice(RESPONSE_SENSE, RESPONSE_SENSE + SENSE_BYTES);
          if (verdict.sense !== undefined) writeSense(sense, 0, verdict.sense);
          const isRead = !isOut && verdict.status === STATUS_GOOD;
          const end = RESPONSE_HEADER_BYTES + (isRead ? result.transferredBytes : 0);
          resolve({
            status: verdict.status,
            sense,
            data: queue.buffer.slice(RESPONSE_HEADER_BYTES, end),
            isDead: isUnreached(result.errno, result.hostStatus),
          });
        });
      } catch (error) {
        reject(error);
      }
    });

  /** Runs `work` with the paths open. A path whose device has gone is one that does not answer. */
  const withPaths = async <T>(
    paths: readonly PathDevice[],
    work: (paths: readonly Path[]) => Promise<T>,
  ): Promise<T> => {
    const opened: number[] = [];
    try {
      const usable = paths.map((path): Path => {
        const fd = open(path);
        if (fd === undefined) return { name: path.name, send: async () => DEAD };
        opened.push(fd);
        return { name: path.name, send: (cdb, parameters) => send(fd, cdb, parameters) };
      });
      return await work(usable);
    } finally {
      for (const fd of opened) closeSync(fd);
    }
  };

  const deviceOf = (topology: MultipathDevice, { major, minor }: OpenFile): Device => {
    let device = devices.get(topology.uuid);
    if (device === undefined) {
      if (devices.size >= DEVICES_MAX) devices.delete(devices.keys().next().value!);
      device = { state: createMultipathState(), major, minor, last: Promise.resolve() };
      devices.set(topology.uuid, device);
    }
    device.major = major;
    device.minor = minor;
    return device;
  };

  const change = async (uuid: string, device: Device, request: Uint8Array, reply: ReplyWith): Promise<void> => {
    const startMs = performance.now();
    const since = (): number => Math.round((performance.now() - startMs) * 1000);
    try {
      const topology = findMultipath(device.major, device.minor, sysfs);
      if (topology === undefined || topology === 'several' || topology.uuid !== uuid) throw new Error('it has changed');
      const parameters = request.subarray(REQUEST_BYTES);
      const outcome = await withPaths(topology.paths, (paths) =>
        reserveOut(paths, device.state, parseCommand(request)!, parameters),
      );
      reply({ ...outcome, durationUs: since() });
    } catch (error) {
      const reason = (error as Error).message;
      log.error(`multipath device ${uuid}: its paths cannot be reached: ${reason}`);
      reply({
        status: STATUS_CHECK_CONDITION,
        sense: SENSE_INVALID_OPERATION,
        durationUs: since(),
        note: 'multipath: refused, the paths cannot be opened',
      });
    }
    schedule();
  };

  const lookForPaths = async (): Promise<void> => {
    for (const [uuid, device] of devices) {
      if (device.state.key === undefined) continue;
      device.last = device.last.then(() => catchUpDevice(uuid, device));
      await device.last;
    }
  };

  const catchUpDevice = async (uuid: string, device: Device): Promise<void> => {
    const topology = findMultipath(device.major, device.minor, sysfs);
    if (topology === undefined || topology === 'several' || topology.uuid !== uuid) return;
    if (topology.paths.every(({ name }) => device.state.registered.has(name))) return;
    try {
      const { added, lost } = await withPaths(topology.paths, (paths) => catchUp(paths, device.state));
      if (lost) log.warn(`multipath device ${uuid}: our registration was removed by others; paths stay unregistered`);
      if (added.length > 0) log.warn(`multipath device ${uuid}: registered on ${added.join(', ')}, which came back`);
    } catch (error) {
      log.debug(`multipath device ${uuid}: ${(error as Error).message}`);
    }
  };

  function schedule(): void {
    const isNeeded = [...devices.values()].some(({ state }) => state.key !== undefined);
    if (!isNeeded || timer !== undefined || closed) return;
    timer = setTimeout(() => {
      void lookForPaths().finally(() => {
        timer = undefined;
        schedule();
      });
    }, options.catchUpMs ?? CATCH_UP_MS);
    timer.unref();
  }
  let closed = false;

  return {
    neverTakes: isNeverMultipath,
    take(_fd, file, request, reply) {
      if (file.kind !== 'block' || !isReserveOut(request)) return false;
      const topology = findMultipath(file.major, file.minor, sysfs);
      if (topology === undefined) return false;
      if (policy === 'refuse' || topology === 'several') {
        const note = topology === 'several' ? 'multipath: refused, several devices lie below' : 'multipath: refused';
        log.warn(`device ${file.major}:${file.minor} has several paths: ${note}`);
        reply({ status: STATUS_CHECK_CONDITION, sense: SENSE_INVALID_OPERATION, durationUs: 0, note });
        return true;
      }
      const device = deviceOf(topology, file);
      device.last = device.last.then(() => change(topology.uuid, device, request, reply));
      return true;
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await Promise.all([...devices.values()].map(({ last }) => last));
    },
  };
}

/** Errors that a target makes of a command; others say that it was not reached. */
const TARGET_ERRNOS: ReadonlySet<number> = new Set([12, 22, 28, 33, 52, 61, 121]);
/** DID_RESET, DID_TARGET_FAILURE to DID_MEDIUM_ERROR. */
const TARGET_HOST_STATUSES: ReadonlySet<number> = new Set([8, 16, 17, 18, 19]);

function isUnreached(errno: number, hostStatus: number): boolean {
  if (errno !== 0) return !TARGET_ERRNOS.has(errno);
  return hostStatus !== 0 && !TARGET_HOST_STATUSES.has(hostStatus);
}

function makeDead(): PathReply {
  const sense = new Uint8Array(SENSE_BYTES);
  writeSense(sense, 0, SENSE_IO_ERROR);
  return { status: STATUS_CHECK_CONDITION, sense, data: new Uint8Array(0), isDead: true };
}
const DEAD = makeDead();

/** What opening a device says when it, or what it is connected to, has gone. */
const GONE: ReadonlySet<string | undefined> = new Set(['ENXIO', 'ENODEV', 'ENOENT']);

/**
 * @returns a descriptor, the caller's; undefined when the device has gone
 * @throws Error when it may not be opened
 */
function openPath(native: NativeAddon, { name, major, minor }: PathDevice): number | undefined {
  let fd: number;
  try {
    fd = openSync(`/dev/${name.replaceAll('!', '/')}`, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    if (GONE.has((error as NodeJS.ErrnoException).code)) return undefined;
    throw error;
  }
  const file = describeFile(native, fd);
  if (file.kind === 'block' && file.major === major && file.minor === minor) return fd;
  // The name has come to mean another device since it was read.
  closeSync(fd);
  return undefined;
}
