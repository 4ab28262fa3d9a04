/** What a descriptor is: statx(2), F_GETFL of fcntl(2), socket options, TUNGETIFF. Looking changes nothing about it. */
import { constants } from 'node:fs';
import { checkStatus } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';
import { isTap } from './tap.ts';

export const FD_KINDS = [
  'file',
  'directory',
  'fifo',
  'socket',
  'tap',
  'character-device',
  'block-device',
  'anonymous',
] as const;
/** `anonymous`: eventfd, timerfd, pidfd and their like. */
export type FdKind = (typeof FD_KINDS)[number];

export const SOCKET_FAMILIES = ['unix', 'inet', 'inet6', 'other'] as const;
export type SocketFamily = (typeof SOCKET_FAMILIES)[number];

export const SOCKET_TYPES = ['stream', 'dgram', 'seqpacket', 'other'] as const;
export type SocketType = (typeof SOCKET_TYPES)[number];

export const ACCESS_MODES = ['read', 'write', 'read-write'] as const;
export type AccessMode = (typeof ACCESS_MODES)[number];

export interface FdFacts {
  readonly kind: FdKind;
  readonly access: AccessMode;
  /** O_PATH: names a file without giving any right to it. */
  readonly pathOnly: boolean;
  /** Of sockets. */
  readonly family?: SocketFamily;
  readonly type?: SocketType;
  readonly listening?: boolean;
}

// open(2), as on every architecture that Node runs on but for O_PATH, which is the same on x86 and arm.
const ACCESS_MASK = 3;
const O_PATH = 0o10000000;

// socket(7)
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;

const FAMILY_NAMES: Readonly<Record<number, SocketFamily>> = { 1: 'unix', 2: 'inet', 10: 'inet6' };
const TYPE_NAMES: Readonly<Record<number, SocketType>> = { 1: 'stream', 2: 'dgram', 5: 'seqpacket' };

/** @throws EBADF when `fd` is not open */
export function readFdFacts(native: NativeAddon, fd: number): FdFacts {
  const flags = checkStatus(native.statusFlags(fd), 'fcntl');
  const pathOnly = (flags & O_PATH) !== 0;
  const access = ACCESS_MODES[flags & ACCESS_MASK] ?? 'read-write';
  const kind = kindOf(native, fd);
  if (kind !== 'socket' || pathOnly) return { kind, access, pathOnly };
  return {
    kind,
    access,
    pathOnly,
    family: FAMILY_NAMES[native.getOption(fd, SOL_SOCKET, SO_DOMAIN)] ?? 'other',
    type: TYPE_NAMES[native.getOption(fd, SOL_SOCKET, SO_TYPE)] ?? 'other',
    listening: native.getOption(fd, SOL_SOCKET, SO_ACCEPTCONN) === 1,
  };
}

const KIND_OF_TYPE: Readonly<Record<number, FdKind>> = {
  [constants.S_IFREG]: 'file',
  [constants.S_IFDIR]: 'directory',
  [constants.S_IFSOCK]: 'socket',
  [constants.S_IFIFO]: 'fifo',
  [constants.S_IFBLK]: 'block-device',
  [constants.S_IFCHR]: 'character-device',
};

function kindOf(native: NativeAddon, fd: number): FdKind {
  const facts = new Int32Array(5);
  checkStatus(native.fileFacts(fd, facts), 'statx');
  const kind = KIND_OF_TYPE[facts[0]! & constants.S_IFMT] ?? 'anonymous';
  return kind === 'character-device' && isTap(native, fd) ? 'tap' : kind;
}
