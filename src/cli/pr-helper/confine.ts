/**
 * The sandbox of the helper. It keeps the right to send commands to devices, so what it must not be able to do is everything else: make
 * sockets, execute programs, start processes, create files. Reading files stays possible, since devices come and go and are looked up
 * under /sys; what may be read is decided by the user that the helper runs as, without any capability that would override it.
 */
import { readFileSync } from 'node:fs';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { createSystemError } from '../../sys/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { filterSystemCalls, findCodeRange, type SealedFile, sealFile, startThreadPool } from '../../sys/sandbox.ts';
import type { DeviceWork } from '../../sys/seccomp-filter.ts';
import { holdsIoUring } from '../io-uring.ts';
import { unlinkIfThere } from '../pid-file.ts';

export interface Confinement {
  /** After privileges were dropped. @throws PasselError PASSEL_E_SANDBOX */
  enter(work: DeviceWork): void;
  /** Removes the sockets, inside as outside; says so when it cannot. */
  removeSockets(): void;
}

const ENOENT = -2;

/** Opens what is needed for both. @param socketPaths - those that are ours to remove */
export async function prepareConfinement(
  native: NativeAddon,
  socketPaths: readonly string[],
  log: Logger,
): Promise<Confinement> {
  // Node would start its debugger on this signal, for whoever may send it.
  process.on('SIGUSR1', () => {});
  await startThreadPool();
  const sealed = new Map<string, SealedFile>();
  for (const [slot, path] of socketPaths.entries()) {
    const file = sealFile(native, slot, path);
    if (file !== undefined) sealed.set(path, file);
  }
  const codeRange = findCodeRange(readFileSync('/proc/self/maps', 'latin1'));
  const ring = holdsIoUring();
  return {
    enter(devices) {
      try {
        native.setDumpable(0);
        const removable = [...sealed.values()];
        const filtered = !ring && filterSystemCalls(native, { removable, codeRange, mayListen: false, devices });
        if (ring) log.warn('Node holds an io_uring, which no filter confines: running without');
        else if (!filtered) log.warn('no filter of system calls for this kernel or processor: running without');
      } catch (error) {
        throw new PasselError(
          'PASSEL_E_SANDBOX',
          { reason: reasonOf(error) },
          { hint: '--no-sandbox starts without it, at your own risk', cause: error },
        );
      }
    },
    removeSockets() {
      for (const path of socketPaths) {
        const file = sealed.get(path);
        if (file === undefined) {
          unlinkIfThere(path);
          continue;
        }
        const status = file.remove();
        if (status < 0 && status !== ENOENT) {
          log.warn(`the socket stays behind: ${createSystemError('unlink', status, path).message}`);
        }
      }
    },
  };
}
