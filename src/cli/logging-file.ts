/**
 * The log file: a first line that says which program wrote it, then messages, never more than a limit. When the limit is reached
 * the older half of the lines goes.
 */
import { closeSync, constants, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { PasselError, reasonOf } from '../base/errors.ts';
import { servingPid } from './serving-pid.ts';
import { VERSION } from './version.ts';

export interface LogFile {
  /** Appends one line. A disk that is full, or gone, costs the line and nothing else. */
  write(line: string): void;
  close(): void;
}

/**
 * Creates or empties the file, mode 0600, and writes its first line.
 * @throws PasselError PASSEL_E_FILE
 */
export function openLogFile(programName: string, path: string, maxBytes: number): LogFile {
  const header = Buffer.from(`${programName} ${VERSION}: ${process.argv[1] ?? process.execPath} (${servingPid()})\n`);
  let fd = -1;
  try {
    // Not for appending: the kernel would then append what is written over the beginning, too.
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o600);
    writeSync(fd, header, 0, header.length, 0);
  } catch (error) {
    if (fd >= 0) closeSync(fd);
    throw new PasselError(
      'PASSEL_E_FILE',
      { option: '--log-file', value: path, reason: reasonOf(error) },
      { cause: error },
    );
  }
  let size = header.length;

  /** Moves the newest lines that fit half of the limit to the beginning. At no time has the file fewer lines than afterwards. */
  const dropOlderHalf = (): void => {
    const keepBytes = Math.max(0, Math.floor(maxBytes / 2) - header.length);
    const tail = Buffer.alloc(Math.min(keepBytes, size - header.length));
    const got = readSync(fd, tail, 0, tail.length, size - tail.length);
    const lineStart = tail.subarray(0, got).indexOf(0x0a) + 1;
    const kept = lineStart === 0 ? tail.subarray(0, 0) : tail.subarray(lineStart, got);
    writeSync(fd, kept, 0, kept.length, header.length);
    size = header.length + kept.length;
    ftruncateSync(fd, size);
  };
  return {
    write(line) {
      const bytes = Buffer.from(line);
      try {
        if (size + bytes.length > maxBytes) dropOlderHalf();
        if (size + bytes.length > maxBytes) return;
        size += writeSync(fd, bytes, 0, bytes.length, size);
      } catch {
        // Where should it be told? A program that carries somebody's network must not end for a message.
      }
    },
    close: () => closeSync(fd),
  };
}
