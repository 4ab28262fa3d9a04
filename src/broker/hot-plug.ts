/**
 * Sequences of QMP commands that belong together: descriptors into netdevs and chardevs of a running QEMU, cards into its guest and out again. What QEMU has
 * already done is undone when a later command is refused.
 *
 * The form of the netdev follows from the descriptor. For a connected stream socket that is `socket`, whose framing (a length of 4 bytes) is
 * the one of `stream`: `netdev_add` of `stream` looks a named descriptor up in a thread that has no monitor, so that QEMU answers "done" and
 * there is no connection (observed with 7.2).
 */
import type { FdFacts } from '../sys/fd-facts.ts';
import { MonitorError, type QmpClient, QmpError, type QmpEvent } from './qmp-client.ts';

/** A descriptor of a kind that QEMU cannot use for what was asked. */
export class UnfitFdError extends Error {
  override readonly name = 'UnfitFdError';
}

/** The guest keeps what it was asked to let go. */
export class GuestError extends Error {
  override readonly name = 'GuestError';
}

/** Something to give to QEMU: the numbers stay the caller's. */
export interface GivenFd {
  /** One, or one for each queue of a tap. */
  readonly fds: readonly number[];
  /** Of the first. */
  readonly facts: FdFacts;
}

/** @throws UnfitFdError */
export function onlyFd({ fds }: GivenFd): number {
  if (fds.length === 1) return fds[0]!;
  throw new UnfitFdError(`QEMU takes one descriptor at a time here: these are ${fds.length}`);
}

let lastName = 0;

/** Gives QEMU descriptors under passing names, for one command that uses them up. */
async function withNamedFds(
  qmp: QmpClient,
  fds: readonly number[],
  use: (names: readonly string[]) => Promise<unknown>,
): Promise<unknown> {
  const names: string[] = [];
  try {
    for (const fd of fds) {
      const name = `passel-${process.pid}-${++lastName}`;
      await qmp.execute('getfd', { fdname: name }, { fd });
      names.push(name);
    }
    return await use(names);
  } catch (error) {
    // Refused before the names were looked up: QEMU would keep them for ever. If one was used up, this is refused too.
    if (error instanceof QmpError) {
      for (const name of names) await qmp.execute('closefd', { fdname: name }).catch(() => {});
    }
    throw error;
  }
}

/** @returns the members of `netdev_add` for such a descriptor; @throws UnfitFdError */
export function chooseNetdev(
  { kind, type, listening }: FdFacts,
  names: readonly string[],
): Readonly<Record<string, unknown>> {
  const [name, second] = names;
  if (kind === 'tap') return second === undefined ? { type: 'tap', fd: name } : { type: 'tap', fds: names.join(':') };
  if (second !== undefined) throw new UnfitFdError('a netdev takes one descriptor, or one for each queue of a tap');
  if (kind === 'socket' && type === 'stream' && listening === true) {
    throw new UnfitFdError('a netdev takes a connected socket: this one listens');
  }
  if (kind === 'socket' && type === 'stream') return { type: 'socket', fd: name };
  if (kind === 'socket' && type === 'dgram') return { type: 'dgram', local: { type: 'fd', str: name } };
  throw new UnfitFdError(`a netdev takes a stream or datagram socket or a tap: this is a ${describeKind(kind, type)}`);
}

function describeKind(kind: string, type: string | undefined): string {
  return kind === 'socket' ? `${type} socket` : kind;
}

/** @throws UnfitFdError before QEMU is asked; QmpError */
export async function addNetdev(qmp: QmpClient, id: string, { fds, facts }: GivenFd): Promise<void> {
  chooseNetdev(facts, fds.map(String));
  await withNamedFds(qmp, fds, (names) => qmp.execute('netdev_add', { id, ...chooseNetdev(facts, names) }));
}

/**
 * A socket chardev: a client for a connected socket, a server that does not wait for one that listens.
 * @throws UnfitFdError before QEMU is asked; QmpError
 */
export async function addChardev(qmp: QmpClient, id: string, given: GivenFd): Promise<unknown> {
  const { kind, type, listening = false } = given.facts;
  if (kind !== 'socket' || type !== 'stream') {
    throw new UnfitFdError(`a chardev takes a stream socket: this is a ${describeKind(kind, type)}`);
  }
  return withNamedFds(qmp, [onlyFd(given)], ([name]) => {
    const data = {
      addr: { type: 'fd', data: { str: name } },
      server: listening,
      ...(listening ? { wait: false } : {}),
    };
    return qmp.execute('chardev-add', { id, backend: { type: 'socket', data } });
  });
}

/** A card for the guest; netdev and device have the same id. */
export interface NicRequest {
  readonly id: string;
  /** QEMU's name of the card. */
  readonly driver: string;
  /** Further properties of the device, as QEMU names them. */
  readonly properties: Readonly<Record<string, string>>;
}

/**
 * Plugs in a card that is joined to the descriptor. The guest notices when it gets to it.
 * @throws UnfitFdError, QmpError: nothing of it is left in QEMU then
 */
export async function plugNic(qmp: QmpClient, { id, driver, properties }: NicRequest, given: GivenFd): Promise<void> {
  await addNetdev(qmp, id, given);
  try {
    await qmp.execute('device_add', { ...properties, driver, netdev: id, id });
  } catch (error) {
    if (error instanceof QmpError) await qmp.execute('netdev_del', { id }).catch(() => {});
    throw error;
  }
}

/**
 * Asks the guest to let go of a device, and removes the netdev when it has: its other end sees the connection end.
 * @param id - of the device
 * @param netdev - of what it is joined to
 * @param timeoutMs - for the guest, which may be busy, or refuse
 * @throws QmpError; GuestError when the guest refuses or has not let go in time: device and netdev are still there
 */
export async function unplugNic(qmp: QmpClient, id: string, netdev: string, timeoutMs: number): Promise<void> {
  const isEnd = ({ event, data }: QmpEvent): boolean =>
    data['device'] === id && (event === 'DEVICE_DELETED' || event === 'DEVICE_UNPLUG_GUEST_ERROR');
  const watching = qmp.watchEvent(isEnd, timeoutMs);
  try {
    await qmp.execute('device_del', { id });
    const { event } = await watching.event;
    if (event !== 'DEVICE_DELETED') throw new GuestError(`the guest refuses to let go of '${id}'`);
  } catch (error) {
    if (error instanceof MonitorError && error.code === 'timeout') {
      throw new GuestError(`the guest has not let go of '${id}' within ${timeoutMs / 1000} s`);
    }
    throw error;
  } finally {
    watching.stop();
  }
  await qmp.execute('netdev_del', { id: netdev });
}
