/**
 * Writing to standard error by its descriptor. `process.stderr` is never touched: it would make a pipe that others share
 * non-blocking, and going to the background replaces what descriptor 2 is.
 */
import { writeSync } from 'node:fs';
import { PasselError } from '../base/errors.ts';

const STDERR_FD = 2;

/** Writes text; a reader that has gone away is no error, since there is nobody left to tell. */
export function writeStderr(text: string): void {
  try {
    writeSync(STDERR_FD, text);
  } catch {
    // EPIPE, or EAGAIN on a full pipe that somebody made non-blocking: a lost message must not end the program.
  }
}

/** Prints an error as `program: message`, its hint below. @returns the exit status that goes with it */
export function reportError(programName: string, error: unknown): number {
  if (error instanceof PasselError) {
    writeStderr(`${programName}: ${error.message}\n`);
    if (error.hint !== undefined) writeStderr(`  ${error.hint}\n`);
    return error.exitStatus;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  writeStderr(`${programName}: internal error: ${text}\n`);
  return 1;
}
