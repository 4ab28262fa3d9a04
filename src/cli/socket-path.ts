/**
 * Where the guest's socket goes. A path on which nobody listens any more is left over from a process that was killed and is
 * taken over; one that answers belongs to somebody and is refused. Of several who take over the same path, one gets it: what is removed is looked at
 * once more when nobody else can find it, and put back if it is not what did not answer.
 */
import { type BigIntStats, linkSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { PasselError, reasonOf } from '../base/errors.ts';

/** sockaddr_un holds 108 bytes with the terminating zero (unix(7)). */
const SOCKET_PATH_MAX_BYTES = 107;
const DEFAULT_COUNT = 64;

/** passt's default paths, which other programs know. */
function defaultPath(number: number): string {
  return `/tmp/passt_${number}.socket`;
}

/**
 * Makes `path`, or the first free default path, ready to be listened on.
 * @param option - named in messages
 * @returns the path
 * @throws PasselError PASSEL_E_SOCKET_IN_USE, PASSEL_E_SOCKET_PATH, PASSEL_E_SOCKET_NONE_FREE
 */
export async function claimSocketPath(path: string | undefined, option = '--socket'): Promise<string> {
  if (path !== undefined) {
    if (await freePath(path, option)) return path;
    throw new PasselError('PASSEL_E_SOCKET_IN_USE', { option, value: path });
  }
  for (let number = 1; number <= DEFAULT_COUNT; number++) {
    const candidate = defaultPath(number);
    const free = await freePath(candidate, option).catch(() => false);
    if (free) return candidate;
  }
  throw new PasselError('PASSEL_E_SOCKET_NONE_FREE', { value: `${defaultPath(1)} to ${defaultPath(DEFAULT_COUNT)}` });
}

/** Whether `path` can be listened on now; removes a stale socket. */
async function freePath(path: string, option: string): Promise<boolean> {
  const fail = (reason: string, cause?: unknown): never => {
    throw new PasselError('PASSEL_E_SOCKET_PATH', { option, value: path, reason }, { cause });
  };
  const lengthBytes = Buffer.byteLength(path);
  if (lengthBytes > SOCKET_PATH_MAX_BYTES) {
    fail(`the path has ${lengthBytes} bytes, unix sockets allow ${SOCKET_PATH_MAX_BYTES}`);
  }
  const stat = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  if (stat === undefined) return true;
  // Anything but a socket was put there by somebody for another purpose: never delete it.
  if (!stat.isSocket()) fail('there is something else than a socket');
  if (await answers(path)) return false;
  try {
    return removeStale(path, stat);
  } catch (error) {
    return fail(reasonOf(error), error);
  }
}

/** @returns false when it was another one's by then */
function removeStale(path: string, stale: BigIntStats): boolean {
  // Not bound by the length that paths of sockets have: nobody connects to it.
  const aside = `${path}.${process.pid}~`;
  try {
    renameSync(path, aside);
  } catch (error) {
    // Another one is taking it over. Who listens first gets it.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
    throw error;
  }
  const { ino, dev, mtimeNs } = lstatSync(aside, { bigint: true });
  // The number of a file that was removed goes to the next one, but not its time.
  const isStale = ino === stale.ino && dev === stale.dev && mtimeNs === stale.mtimeNs;
  if (!isStale) linkSync(aside, path);
  unlinkSync(aside);
  return isStale;
}

/** Node's network modules take longer to load than all else that a start does; few starts find a socket there. */
function answers(path: string): Promise<boolean> {
  const { connect } = process.getBuiltinModule('node:net');
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}
