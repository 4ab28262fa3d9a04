/**
 * Opening what a SPEC asks for. What is opened here blocks, as programs expect of what they are started with; what others share, of the broker or
 * inherited, stays as it is. Socket files that were made are noted, so that they can be removed when nobody gets the descriptor.
 *
 * What only some kinds need is loaded by them: each start of a virtual machine comes through here.
 */

import { constants, linkSync, openSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EISCONN } from '../../base/errno.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { OwnedFd } from '../../base/owned-fd.ts';
import { BrokerError } from '../../broker/broker-error.ts';
import type { FdBroker } from '../../broker/client.ts';
import type { EndpointScratch } from '../../broker/places.ts';
import type { FdExpectation } from '../../broker/protocol.ts';
import { checkStatus } from '../../sys/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { hasNetAdmin } from '../../sys/net-admin.ts';
import { connectUnix, listenUnix } from '../../sys/unix-socket.ts';
import type { AskedFd, FdSpec, FileMode } from './fd-spec.ts';
import { BROKER_VARIABLE } from './socket-path.ts';

export interface Opener {
  readonly native: NativeAddon;
  readonly scratch: EndpointScratch;
  /** Where the broker is asked. */
  readonly brokerPath: string;
  /** The command line says so: the broker makes taps also for those who could themselves. */
  readonly brokerChosen: boolean;
  /** What was open when this program was started; undefined: not known. Node has opened descriptors of its own since. */
  readonly inherited: readonly number[] | undefined;
  /** Socket files made so far. */
  readonly made: string[];
}

/** What a SPEC has come to, one descriptor or more, in order. */
export interface Opened {
  readonly fds: readonly number[];
  /** Closes them, but for inherited ones. */
  close(): void;
}

const BACKLOG = 128;
const READ_WRITE_ALL = 0o666;

const FILE_FLAGS: Readonly<Record<FileMode, number>> = {
  ro: constants.O_RDONLY,
  rw: constants.O_RDWR,
  append: constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT,
  create: constants.O_RDWR | constants.O_CREAT,
};

/**
 * @param expect - what the broker must find it to be, before it hands it out
 * @throws PasselError naming the option, the SPEC and the reason
 */
export async function openSpec(opener: Opener, asked: AskedFd, expect?: FdExpectation): Promise<Opened> {
  const { option, text, spec } = asked;
  const { native } = opener;
  try {
    if (spec.kind === 'inherited') return takeInherited(opener, spec.fd);
    const owned =
      spec.kind === 'unix-listen'
        ? [new OwnedFd(await listenForCommand(opener, spec.path, option))]
        : await open(opener, spec, expect);
    const shared = spec.kind === 'broker' || spec.kind === 'file';
    if (!shared) for (const { fd } of owned) checkStatus(native.setNonBlocking(fd, 0), 'fcntl');
    return {
      fds: owned.map(({ fd }) => fd),
      close: () => {
        for (const each of owned) each.close();
      },
    };
  } catch (error) {
    if (error instanceof PasselError) throw error;
    // The broker's codes are for programs; its messages say the same in words.
    const reason = error instanceof BrokerError ? error.message : reasonOf(error);
    throw new PasselError('PASSEL_E_FILE', { option, value: text, reason }, { cause: error });
  }
}

function takeInherited({ native, inherited }: Opener, fd: number): Opened {
  if (inherited?.includes(fd) === false) throw new Error('it was not open when this program started');
  checkStatus(native.statusFlags(fd), 'fcntl');
  return { fds: [fd], close: () => {} };
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
    const { claimSocketPath } = await import('../socket-path.ts');
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

const places = () => import('../../broker/places.ts');

type OpenableSpec = Exclude<FdSpec, { kind: 'unix-listen' | 'inherited' }>;

async function open(opener: Opener, spec: OpenableSpec, expect: FdExpectation | undefined): Promise<OwnedFd[]> {
  const { native } = opener;
  const one = (fd: number): OwnedFd[] => [new OwnedFd(fd)];
  switch (spec.kind) {
    case 'file':
      return one(openSync(spec.path, FILE_FLAGS[spec.mode] | constants.O_NOCTTY, READ_WRITE_ALL));
    case 'unix-connect':
      return one(connectUnix(native, nameOf(spec.path)));
    case 'tcp-listen':
      return one((await places()).listenAt(opener, { place: { family: 'tcp', ...spec.place } }, undefined));
    case 'tcp-connect':
      return one(await connectTcp(opener, spec.place.address, spec.place.port));
    case 'udp': {
      const fd = (await places()).listenAt(opener, { place: { family: 'udp', ...spec.place } }, undefined);
      if (spec.peer !== undefined) await connectNow(opener, fd, spec.peer.address, spec.peer.port);
      return one(fd);
    }
    case 'tap':
      return openTapAt(opener, spec);
    case 'netdev':
      return askBroker(opener, (broker) => broker.ask('netdev', { network: spec.network }));
    case 'broker': {
      const asked = { name: spec.name, ...(expect === undefined ? {} : { expect }) };
      return askBroker(opener, (broker) => broker.ask(spec.copy ? 'copy' : 'take', asked));
    }
  }
}

/** Connected when it comes back: the command must not find out later that nobody is there. */
async function connectTcp(opener: Opener, address: string, port: number): Promise<number> {
  const fd = (await places()).connectTo(opener, { family: 'tcp', address, port }, undefined);
  checkStatus(opener.native.setNonBlocking(fd, 0), 'fcntl');
  await connectNow(opener, fd, address, port);
  return fd;
}

/** On a blocking TCP socket that is being connected, connect(2) waits for what becomes of it. The fd is closed when this throws. */
async function connectNow({ native, scratch }: Opener, fd: number, address: string, port: number): Promise<void> {
  const { writeRecord } = await places();
  const status = native.connect(fd, writeRecord(scratch, address, port));
  if (status >= 0 || status === EISCONN) return;
  native.close(fd);
  checkStatus(status, 'connect');
}

async function openTapAt(opener: Opener, spec: FdSpec & { kind: 'tap' }): Promise<OwnedFd[]> {
  const { bridge, vnetHeader, queues } = spec;
  if (hasNetAdmin() && !opener.brokerChosen) {
    const { attachTap } = await import('../../bridge/attach.ts');
    return attachTap(opener.native, { bridge, vnetHeader, queues }).fds.map((fd) => new OwnedFd(fd));
  }
  const hint = 'making a tap takes CAP_NET_ADMIN or a broker that has it: root runs "passel-fd-broker serve"; ';
  return askBroker(opener, (broker) => broker.ask('tap', { bridge, vnetHeader, queues }), hint);
}

/** @param hint - in front of the usual one, when nobody answers */
async function askBroker(
  { native, brokerPath }: Opener,
  ask: (broker: FdBroker) => ReturnType<FdBroker['ask']>,
  hint = '"passel-fd-broker serve" is one; ',
): Promise<OwnedFd[]> {
  const { connectBroker } = await import('../../broker/client.ts');
  let broker: FdBroker;
  try {
    broker = connectBroker(native, brokerPath);
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_BROKER',
      { value: brokerPath, reason: reasonOf(error) },
      { hint: `${hint}--broker-socket or ${BROKER_VARIABLE} names another socket`, cause: error },
    );
  }
  try {
    return [...(await ask(broker)).fds];
  } finally {
    broker.close();
  }
}
