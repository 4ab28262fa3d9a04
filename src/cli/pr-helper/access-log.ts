/** The access log: what was asked for which device by whom, and what came of it, a line of JSON for each request. */
import { openSync, writeSync } from 'node:fs';
import pino from 'pino';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { AccessEntry } from '../../scsi/describe.ts';

const STDERR_FD = 2;

/**
 * @param path - appended to, so that it may be rotated by copying and truncating; `-` is standard error
 * @throws PasselError PASSEL_E_FILE
 */
export function openAccessLog(path: string): (entry: AccessEntry) => void {
  let fd = STDERR_FD;
  if (path !== '-') {
    try {
      fd = openSync(path, 'a', 0o600);
    } catch (error) {
      const reason = reasonOf(error);
      throw new PasselError('PASSEL_E_FILE', { option: '--access-log', value: path, reason }, { cause: error });
    }
  }
  const destination = {
    write(line: string): void {
      try {
        writeSync(fd, line);
      } catch {
        // A full disk, or a pipe that nobody reads: the guests' disks matter more than the record of them.
      }
    },
  };
  const logger = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  return (entry) => logger.info(entry, 'request');
}
