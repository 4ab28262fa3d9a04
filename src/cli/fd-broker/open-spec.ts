/**
 * Opening what a SPEC of `passel-fd-broker run` asks for. Descriptors block, as programs expect of those that they are started with; one of the
 * broker's stays as it is, since others share it. Socket files that were made are noted, so that they can be removed when the command
 * does not start.
 */
import { constants, linkSync, openSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { attachTap } from '../../bridge/attach.ts';
import { connectBroker } from '../../broker/client.ts';
import { connectTo, type EndpointScratch, listenAt, writeRecord } from '../../broker/places.ts';
import { checkStatus } from '../../sys/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { connectUnix, listenUnix } from '../../sys/unix-socket.ts';
import { requestTap } from '../bridge-helper/ask-broker.ts';
import { hasNetAdmin } from '../bridge-helper/bridge-helper-command.ts';
import { claimSocketPath } from '../socket-path.ts';
import type { FdSpec, FileMode, NamedFdSpec } from './fd-spec.ts';
import { defaultAskPath } from './socket-path.ts';

export interface Opener {
  readonly native: NativeAddon;
  readonly scratch: EndpointScratch;
  /** Socket files made so far. */
  readonly made: string[];
}

const BACKLOG = 128;
const EISCONN = -106;
const READ_WRITE_ALL = 0o666;

const FILE_FLAGS: Readonly<Record<FileMode, number>> = {
  ro: constants.O_RDONLY,
  rw: constants.O_RDWR,
  append: constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT,
  create: constants.O_RDWR | constants.O_CREAT,
};

/**
 * @returns an fd, the caller's
 * @throws PasselError naming the option, the SPEC and the reason
 */
export async function openNamed(opener: Opener, { name, text, spec }: NamedFdSpec): Promise<number> {
  const option = `--fd ${name}`;
  try {
    if (spec.kind === 'unix-listen') return await listenForCommand(opener, spec.path, option);
    const fd = await open(opener, spec);
    if (spec.kind !== 'broker' && spec.kind !== 'file') checkStatus(opener.native.setNonBlocking(fd, 0), 'fcntl');
    return fd;
  } catch (error) {
    if (error instanceof PasselError) throw error;
    const value = text.slice(name.length + 1);
    throw new PasselError('PASSEL_E_FILE', { option, value, reason: reasonOf(error) }, { cause: error });
  }
}

/**
 * A listening stream socket at `path`; '@' in front: an abstract name.
 * @returns an fd, the caller's
 * @throws PasselError naming `option`
 */
export async function listenForCommand(opener: Opener, path: string, option: string): Promise<number> {
  const { native, made } = opener;
  try {
    const fd = path.startsWith('@') ? listenUnix(native, nameOf(path), { backlog: BACKLOG }) : await listenAtPath();
    checkStatus(native.setNonBlocking(fd, 0), 'fcntl');
    return fd;
  } catch (error) {
    if (error instanceof PasselError) throw error;
    throw new PasselError('PASSEL_E_SOCKET_PATH', { option, value: path, reason: reasonOf(error) }, { cause: error });
  }

  /** Between bind(2) and listen(2) a socket refuses connections, so it gets its name when it listens. link(2) replaces nobody's. */
  async function listenAtPath(): Promise<number> {
    await claimSocketPath(path, option);
    const unnamed = join(dirname(path), `.${process.pid}`);
    const fd = listenUnix(native, unnamed, { backlog: BACKLOG });
    try {
      linkSync(unnamed, path);
    } finally {
      unlinkSync(unnamed);
    }
    made.push(path);
    return fd;
  }
}

function nameOf(path: string): string {
  return path.startsWith('@') ? `\0${path.slice(1)}` : path;
}

async function open(opener: Opener, spec: Exclude<FdSpec, { kind: 'unix-listen' }>): Promise<number> {
  const { native } = opener;
  switch (spec.kind) {
    case 'file':
      return openSync(spec.path, FILE_FLAGS[spec.mode] | constants.O_NOCTTY, READ_WRITE_ALL);
    case 'unix-connect':
      return connectUnix(native, nameOf(spec.path));
    case 'tcp-listen':
      return listenAt(opener, { place: { family: 'tcp', ...spec.place } }, undefined);
    case 'tcp-connect':
      return connectTcp(opener, spec.place.address, spec.place.port);
    case 'udp': {
      const fd = listenAt(opener, { place: { family: 'udp', ...spec.place } }, undefined);
      if (spec.peer !== undefined) connectNow(opener, fd, spec.peer.address, spec.peer.port);
      return fd;
    }
    case 'tap':
      return openTapAt(native, spec.bridge, spec.vnetHeader);
    case 'broker':
      return takeFromBroker(native, spec.name, spec.copy);
  }
}

/** Connected when it comes back: the command must not find out later that nobody is there. */
function connectTcp(opener: Opener, address: string, port: number): number {
  const fd = connectTo(opener, { family: 'tcp', address, port }, undefined);
  checkStatus(opener.native.setNonBlocking(fd, 0), 'fcntl');
  connectNow(opener, fd, address, port);
  return fd;
}

/** On a blocking TCP socket that is being connected, connect(2) waits for what becomes of it. The fd is closed when this throws. */
function connectNow({ native, scratch }: Opener, fd: number, address: string, port: number): void {
  const status = native.connect(fd, writeRecord(scratch, address, port));
  if (status >= 0 || status === EISCONN) return;
  native.close(fd);
  checkStatus(status, 'connect');
}

async function openTapAt(native: NativeAddon, bridge: string, vnetHeader: boolean): Promise<number> {
  if (hasNetAdmin()) return attachTap(native, { bridge, vnetHeader }).fds[0]!;
  return (await requestTap(native, { bridge, vnetHeader }))[0]!.take();
}

async function takeFromBroker(native: NativeAddon, name: string, copy: boolean): Promise<number> {
  const broker = connectBroker(native, defaultAskPath());
  try {
    const { fds } = await broker.ask(copy ? 'copy' : 'take', { name });
    const [first] = fds;
    if (first !== undefined && fds.length === 1) return first.take();
    for (const fd of fds) fd.close();
    throw new Error(`the broker keeps ${fds.length} descriptors under this name`);
  } finally {
    broker.close();
  }
}
