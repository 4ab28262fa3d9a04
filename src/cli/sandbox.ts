/**
 * The sandbox of an executable that serves a guest, in two steps. `prepareSandbox` runs while files can still be opened and the process
 * still has its privileges; the caller then changes the user, and `enter` closes the door before anybody is told that the process is
 * ready.
 */
import { closeSync, readFileSync, readlinkSync } from 'node:fs';
import { PasselError, reasonOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { loadNative } from '../sys/native.ts';
import {
  CAP_NET_BIND_SERVICE,
  CAP_SETGID,
  CAP_SETPCAP,
  CAP_SETUID,
  CAP_SYS_ADMIN,
  CAP_SYS_CHROOT,
  capabilityMask,
  enterEmptyRoot,
  filterSystemCalls,
  findCodeRange,
  leaveFileSystems,
  limitCapabilities,
  openThreadList,
  readCapabilities,
  type SealedFile,
  sealFile,
  startThreadPool,
} from '../sys/sandbox.ts';
import { holdsIoUring } from './io-uring.ts';

/** Set in the environment by the front. */
const DETACHED_MARK = 'PASSEL_DETACHED';

export interface SandboxOptions {
  /** Files, by absolute path, that are removed when the process ends. */
  readonly removable: readonly string[];
  /** The user is changed between the two steps. */
  readonly changesUser: boolean;
  /** Sockets may be made to listen later. */
  readonly mayListen: boolean;
  /** Bytes pass between sockets through pipes. */
  readonly maySplice?: boolean;
  /** Pairs of connected sockets are made. */
  readonly mayPair?: boolean;
  readonly log: Logger;
}

export interface Sandbox {
  /** @throws PasselError PASSEL_E_SANDBOX */
  enter(): void;
  /** Removes a file that was named in the options, inside as outside. */
  remove(path: string): void;
}

/** @throws PasselError PASSEL_E_SANDBOX */
export async function prepareSandbox(options: SandboxOptions): Promise<Sandbox> {
  const { log } = options;
  const native = loadNative();
  // Node would start its debugger on this signal, for whoever may send it.
  process.on('SIGUSR1', () => {});
  await startThreadPool();
  const sealed = options.removable.flatMap((path, slot) => sealFile(native, slot, path) ?? []);
  const codeRange = findCodeRange(readFileSync('/proc/self/maps', 'latin1'));
  const ring = holdsIoUring();
  const held = readCapabilities();
  const kept = held & capabilityMask([CAP_NET_BIND_SERVICE]);
  // Signals to threads are not needed in the usual case of an ordinary user, who has nothing to give up.
  const threadList = held === kept ? undefined : openThreadList();
  const may = (capability: number): boolean => (held & capabilityMask([capability])) !== 0n;
  const detached = isDetached();
  delete process.env[DETACHED_MARK];
  const emptyRoot =
    (detached && may(CAP_SYS_ADMIN) && leaveFileSystems(native)) || (may(CAP_SYS_CHROOT) && enterEmptyRoot(native));
  const limitTo = (capabilities: readonly number[]): void => {
    if (threadList !== undefined) limitCapabilities(native, threadList, capabilities);
  };
  attempt(() => limitTo([CAP_NET_BIND_SERVICE, ...(options.changesUser ? [CAP_SETUID, CAP_SETGID, CAP_SETPCAP] : [])]));
  return {
    enter() {
      attempt(() => {
        if (options.changesUser) limitTo([CAP_NET_BIND_SERVICE]);
        if (threadList !== undefined) closeSync(threadList);
        native.setDumpable(0);
        const filtered =
          !ring &&
          filterSystemCalls(native, {
            removable: sealed,
            codeRange,
            mayListen: options.mayListen,
            maySplice: options.maySplice === true,
            mayPair: options.mayPair === true,
          });
        if (ring) log.warn('Node holds an io_uring, which no filter confines: running without');
        else if (!filtered) log.warn('no filter of system calls for this kernel or processor: running without');
        else if (codeRange === undefined)
          log.warn('sandbox: V8 was not seen to have machine code: memory may become executable');
        else {
          const namespaces = detached ? 'namespaces are its own' : 'namespaces are those of its caller';
          log.debug(
            `sandbox: system calls are filtered, ${namespaces}${emptyRoot ? ', the root directory is empty' : ''}`,
          );
        }
      });
    },
    remove(path) {
      sealed.find((file: SealedFile) => file.path === path)?.remove();
    },
  };
}

/**
 * Whether this process was started in a mount namespace of its own: its front says which (detach.c). A mark that comes from elsewhere
 * names another one.
 */
export function isDetached(): boolean {
  const mark = process.env[DETACHED_MARK];
  if (mark === undefined) return false;
  try {
    return readlinkSync('/proc/self/ns/mnt') === mark;
  } catch {
    return false;
  }
}

function attempt(step: () => void): void {
  try {
    step();
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_SANDBOX',
      { reason: reasonOf(error) },
      { hint: '--no-sandbox starts without it, at your own risk', cause: error },
    );
  }
}
