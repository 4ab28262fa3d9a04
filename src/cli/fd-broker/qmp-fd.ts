/** Gets the descriptors that are to be given to QEMU. */
import { createArena } from '../../base/arena.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { GivenFd } from '../../broker/hot-plug.ts';
import { readFdFacts } from '../../sys/fd-facts.ts';
import type { NativeAddon } from '../../sys/native.ts';
import { unlinkIfThere } from '../pid-file.ts';
import { NOTE_VARIABLE, parseInheritedState } from '../qrap/inherited-state.ts';
import type { AskedFd } from './fd-spec.ts';
import { openSpec } from './open-spec.ts';

const ARENA_BYTES = 4096;
/** One endpoint record. */
const SCRATCH_BYTES = 24;

/** Where the broker is, and whether the command line says so. */
export interface BrokerChoice {
  readonly path: string;
  readonly chosen: boolean;
}

/**
 * Opens them, hands them to `use`, and closes them afterwards; inherited ones stay open. Socket files that were made go when QEMU does not
 * get the socket.
 * @throws PasselError, and what `use` throws
 */
export async function withFds<T>(
  native: NativeAddon,
  broker: BrokerChoice,
  asked: AskedFd,
  use: (given: GivenFd) => Promise<T>,
): Promise<T> {
  const arena = createArena(ARENA_BYTES);
  native.bindArena(arena.buffer);
  const made: string[] = [];
  const opened = await openSpec(
    {
      native,
      scratch: { view: arena.view, offset: arena.allocate(SCRATCH_BYTES) },
      brokerPath: broker.path,
      brokerChosen: broker.chosen,
      inherited: parseInheritedState(process.env[NOTE_VARIABLE], process.pid).fds,
      made,
    },
    asked,
  );
  try {
    const { fds } = opened;
    return await use({ fds, facts: readFdFacts(native, fds[0]!) });
  } catch (error) {
    for (const path of made) unlinkIfThere(path);
    throw error;
  } finally {
    opened.close();
  }
}

/** What QEMU could not use. */
export function unfit({ option, text }: AskedFd, error: unknown): PasselError {
  return new PasselError('PASSEL_E_QMP_FD', { option, value: text, reason: reasonOf(error) }, { cause: error });
}
