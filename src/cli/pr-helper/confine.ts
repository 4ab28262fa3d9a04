/**
 * The sandbox of the helper. It keeps the right to send commands to devices, so what it must not be able to do is everything else: make
 * sockets, execute programs, start processes, create files. Reading files stays possible, since devices come and go and are looked up
 * under /sys; what may be read is decided by the user that the helper runs as, without any capability that would override it.
 */
import { readFileSync } from 'node:fs';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { filterSystemCalls, findCodeRange, type SealedFile, startThreadPool } from '../../sys/sandbox.ts';
import type { DeviceWork } from '../../sys/seccomp-filter.ts';
import { holdsIoUring } from '../io-uring.ts';

export interface Confinement {
  /** After privileges were dropped. @throws PasselError PASSEL_E_SANDBOX */
  enter(work: DeviceWork): void;
}

/** Opens what is needed. @param removable - files that can still be removed inside */
export async function prepareConfinement(
  native: NativeAddon,
  removable: readonly SealedFile[],
  log: Logger,
): Promise<Confinement> {
  // Node would start its debugger on this signal, for whoever may send it.
  process.on('SIGUSR1', () => {});
  await startThreadPool();
  const codeRange = findCodeRange(readFileSync('/proc/self/maps', 'latin1'));
  const ring = holdsIoUring();
  return {
    enter(devices) {
      try {
        native.setDumpable(0);
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
  };
}
