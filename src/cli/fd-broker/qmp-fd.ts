/** Gets the descriptor that is to be given to QEMU. */
import { constants, openSync } from 'node:fs';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { OwnedFd } from '../../base/owned-fd.ts';
import { connectBroker } from '../../broker/client.ts';
import type { GivenFd } from '../../broker/hot-plug.ts';
import { BrokerError } from '../../broker/protocol.ts';
import { readFdFacts } from '../../sys/fd-facts.ts';
import type { NativeAddon } from '../../sys/native.ts';
import { connectUnix } from '../../sys/unix-socket.ts';
import type { FdSource } from '../options/fd-broker-qmp-options.ts';
import { NOTE_VARIABLE, parseInheritedState } from '../qrap/inherited-state.ts';
import { BROKER_VARIABLE } from './socket-path.ts';

/** What is wanted, and how it was asked for. */
export interface WantedFd {
  readonly source: FdSource | { readonly from: 'tap'; readonly bridge: string };
  /** The option as it was typed, and its text, for messages. */
  readonly option: string;
  readonly text: string;
}

/**
 * Opens, connects, inherits or fetches it, hands it to `use`, and closes it afterwards; an inherited one stays open.
 * @throws PasselError PASSEL_E_FILE, PASSEL_E_BROKER, PASSEL_E_QMP_FD, and what `use` throws
 */
export async function withFd<T>(
  native: NativeAddon,
  brokerPath: string,
  wanted: WantedFd,
  use: (given: GivenFd) => Promise<T>,
): Promise<T> {
  const { source } = wanted;
  if (source.from === 'inherited') {
    // Node has opened descriptors of its own since: QEMU must not get one of those.
    const { fds } = parseInheritedState(process.env[NOTE_VARIABLE], process.pid);
    if (fds?.includes(source.fd) === false) throw unfit(wanted, new Error('it was not open when this program started'));
    return use(describe(native, wanted, source.fd));
  }
  const owned = await obtain(native, brokerPath, wanted);
  try {
    return await use(describe(native, wanted, owned.fd));
  } finally {
    owned.close();
  }
}

function describe(native: NativeAddon, wanted: WantedFd, fd: number): GivenFd {
  try {
    return { fd, facts: readFdFacts(native, fd) };
  } catch (error) {
    throw unfit(wanted, error);
  }
}

/** @throws PasselError */
export function unfit({ option, text }: WantedFd, error: unknown): PasselError {
  // The broker's codes are for programs; its messages say the same in words.
  const reason = error instanceof BrokerError ? error.message : reasonOf(error);
  return new PasselError('PASSEL_E_QMP_FD', { option, value: text, reason }, { cause: error });
}

async function obtain(native: NativeAddon, brokerPath: string, wanted: WantedFd): Promise<OwnedFd> {
  const { source, option } = wanted;
  try {
    switch (source.from) {
      case 'file': {
        const access = source.access === 'ro' ? constants.O_RDONLY : constants.O_RDWR;
        return new OwnedFd(openSync(source.path, access | constants.O_NOCTTY));
      }
      case 'connect': {
        const { path } = source;
        return new OwnedFd(connectUnix(native, path.startsWith('@') ? `\0${path.slice(1)}` : path));
      }
      case 'broker':
        return await askBroker(native, brokerPath, (broker) => broker.ask('take', { name: source.name }));
      case 'tap':
        return await askBroker(native, brokerPath, (broker) =>
          broker.ask('tap', { bridge: source.bridge, vnetHeader: true }),
        );
      case 'inherited':
        return new OwnedFd(source.fd);
    }
  } catch (error) {
    if (error instanceof PasselError) throw error;
    if (error instanceof BrokerError) throw unfit(wanted, error);
    const value = source.from === 'file' || source.from === 'connect' ? source.path : wanted.text;
    throw new PasselError('PASSEL_E_FILE', { option, value, reason: reasonOf(error) }, { cause: error });
  }
}

type Broker = ReturnType<typeof connectBroker>;

async function askBroker(
  native: NativeAddon,
  path: string,
  ask: (broker: Broker) => ReturnType<Broker['ask']>,
): Promise<OwnedFd> {
  const broker = connect(native, path);
  try {
    const { fds } = await ask(broker);
    const [first, ...others] = fds;
    if (first !== undefined && others.length === 0) return first;
    for (const fd of fds) fd.close();
    throw new BrokerError('fd-count', `QEMU takes one descriptor at a time: these are ${fds.length}`);
  } finally {
    broker.close();
  }
}

function connect(native: NativeAddon, path: string): Broker {
  try {
    return connectBroker(native, path);
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_BROKER',
      { value: path, reason: reasonOf(error) },
      {
        hint: `"passel-fd-broker serve" is one; --broker-socket or ${BROKER_VARIABLE} names another socket`,
        cause: error,
      },
    );
  }
}
