/**
 * Making descriptors for a client within what the policy allows. Paths are opened by openat2(2) from the allowed folder, so that no link
 * leads out of it whatever others change meanwhile; a socket's path is reached through the folder that was opened, by /proc/self/fd.
 */

import { constants, openSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { basename, dirname } from 'node:path';
import { EINPROGRESS } from '../base/errno.ts';
import { reasonOf } from '../base/errors.ts';
import { isMappedIpv4, parseIp } from '../base/ip-text.ts';
import { createSystemError, nameErrno } from '../sys/errors.ts';
import type { AccessMode } from '../sys/fd-facts.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { BrokerError } from './broker-error.ts';
import type { SocketPlace } from './protocol.ts';

/** Room for one endpoint record (24 bytes, see stack/ports.ts) in the arena that the addon is bound to on this thread. */
export interface EndpointScratch {
  readonly view: DataView;
  readonly offset: number;
}

/** What these functions work with. */
export interface Host {
  readonly native: NativeAddon;
  readonly scratch: EndpointScratch;
}

/** A folder and a path below it. */
export interface Confined {
  readonly root: string;
  readonly rest: string;
}

const O_PATH = 0o10000000;
const ACCESS_FLAGS: Readonly<Record<AccessMode, number>> = {
  read: constants.O_RDONLY,
  write: constants.O_WRONLY,
  'read-write': constants.O_RDWR,
};

const FAMILY_UNIX = 1;
const TYPES = { stream: 1, dgram: 2, seqpacket: 5 } as const;
const BACKLOG = 128;

export interface OpenRequest {
  readonly access: AccessMode;
  readonly create?: boolean | undefined;
  readonly mode?: number | undefined;
  readonly append?: boolean | undefined;
}

/** @returns an fd, the caller's; @throws BrokerError `system` */
export function openConfined(native: NativeAddon, { root, rest }: Confined, request: OpenRequest): number {
  const flags =
    ACCESS_FLAGS[request.access] |
    (request.create === true ? constants.O_CREAT : 0) |
    (request.append === true ? constants.O_APPEND : 0) |
    // A fifo without a peer must not hold everybody up.
    constants.O_NONBLOCK |
    constants.O_NOCTTY;
  return withRoot(native, root, (dir) =>
    check(native.openBeneath(dir, rest, flags, request.mode ?? 0o600), 'open', rest),
  );
}

export interface ListenRequest {
  readonly place: SocketPlace;
  readonly backlog?: number | undefined;
  readonly mode?: number | undefined;
}

/**
 * A listening stream or seqpacket socket, or a bound datagram one.
 * @param confined - of a unix path that is not abstract
 * @returns an fd, the caller's; @throws BrokerError `system`
 */
export function listenAt(host: Host, request: ListenRequest, confined: Confined | undefined): number {
  const { native } = host;
  const { place, backlog = BACKLOG, mode = -1 } = request;
  const fd = openSocket(native, place);
  try {
    if (place.family === 'unix') bindUnix(native, fd, place.path, mode, confined);
    else bindInet(host, fd, place.address, place.port, place.family === 'tcp');
    if (listens(place)) check(native.listen(fd, backlog), 'listen', describePlace(place));
    return fd;
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

/**
 * A connected socket. TCP goes on connecting: the fd becomes writable when it is done.
 * @returns an fd, the caller's; @throws BrokerError `system`
 */
export function connectTo(host: Host, place: SocketPlace, confined: Confined | undefined): number {
  const { native } = host;
  const fd = openSocket(native, place);
  try {
    if (place.family === 'unix') connectUnixPlace(native, fd, place.path, confined);
    else {
      const status = native.connect(fd, writeRecord(host.scratch, place.address, place.port));
      if (status !== EINPROGRESS) check(status, 'connect', describePlace(place));
    }
    return fd;
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

export function describePlace(place: SocketPlace): string {
  return place.family === 'unix' ? place.path : `${place.family} ${place.address} ${place.port}`;
}

function listens(place: SocketPlace): boolean {
  return place.family === 'unix' ? place.type !== 'dgram' : place.family === 'tcp';
}

function openSocket(native: NativeAddon, place: SocketPlace): number {
  const family = place.family === 'unix' ? FAMILY_UNIX : isIPv6(place.address) ? 6 : 4;
  const type =
    place.family === 'unix' ? TYPES[place.type ?? 'stream'] : place.family === 'tcp' ? TYPES.stream : TYPES.dgram;
  return check(native.open(family, type, 0), 'socket', describePlace(place));
}

function bindUnix(native: NativeAddon, fd: number, path: string, mode: number, confined: Confined | undefined): void {
  if (confined === undefined) {
    check(native.unixBind(fd, `\0${path.slice(1)}`, mode), 'bind', path);
    return;
  }
  withFolderOf(native, confined, (folder) =>
    check(native.unixBind(fd, `${folder}/${basename(confined.rest)}`, mode), 'bind', path),
  );
}

/** bind(2) does not follow a link at the end of a path, but connect(2) does: the socket itself is opened for that. */
function connectUnixPlace(native: NativeAddon, fd: number, path: string, confined: Confined | undefined): void {
  if (confined === undefined) {
    check(native.unixConnect(fd, `\0${path.slice(1)}`), 'connect', path);
    return;
  }
  withRoot(native, confined.root, (dir) => {
    const socket = check(native.openBeneath(dir, confined.rest, O_PATH, 0), 'open', path);
    try {
      check(native.unixConnect(fd, `/proc/self/fd/${socket}`), 'connect', path);
    } finally {
      native.close(socket);
    }
  });
}

// socket(7), ipv6(7)
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

function bindInet({ native, scratch }: Host, fd: number, address: string, port: number, reuse: boolean): void {
  if (reuse) native.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (isIPv6(address)) native.setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  check(native.bind(fd, writeRecord(scratch, address, port)), 'bind', `${address} port ${port}`);
}

/** @returns the record's offset */
export function writeRecord({ view, offset }: EndpointScratch, address: string, port: number): number {
  const words = parseIp(address);
  if (words === undefined) throw new BrokerError('bad-request', `place.address: '${address}' is not a numeric address`);
  const v4 = isMappedIpv4(words);
  view.setUint16(offset, (v4 ? 4 : 6) << 8);
  view.setUint16(offset + 2, port);
  view.setUint32(offset + 4, 0);
  for (let i = 0; i < 4; i++) view.setUint32(offset + 8 + 4 * i, v4 ? (i === 0 ? words[3]! : 0) : words[i]!);
  return offset;
}

function withRoot<T>(native: NativeAddon, root: string, use: (dir: number) => T): T {
  const dir = openRoot(root);
  try {
    return use(dir);
  } finally {
    native.close(dir);
  }
}

/** The policy's word: links in it are its author's. */
function openRoot(root: string): number {
  try {
    return openSync(root, O_PATH | constants.O_DIRECTORY);
  } catch (error) {
    throw new BrokerError('system', reasonOf(error), (error as NodeJS.ErrnoException).code);
  }
}

function withFolderOf(native: NativeAddon, { root, rest }: Confined, use: (path: string) => void): void {
  withRoot(native, root, (dir) => {
    const folder = dirname(rest);
    const fd =
      folder === '.' ? dir : check(native.openBeneath(dir, folder, O_PATH | constants.O_DIRECTORY, 0), 'open', folder);
    try {
      use(`/proc/self/fd/${fd}`);
    } finally {
      if (fd !== dir) native.close(fd);
    }
  });
}

function check(status: number, call: string, subject: string): number {
  if (status >= 0) return status;
  throw new BrokerError('system', createSystemError(call, status, subject).message, nameErrno(status));
}
