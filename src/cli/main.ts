/** What every executable does around its command: report errors, exit with the status. */
import { reportError } from './stderr.ts';

/** Runs a command and ends the process with its status. */
export function runMain(programName: string, command: (argv: readonly string[]) => Promise<number>): void {
  command(process.argv.slice(2)).then(
    (status) => process.exit(status),
    (error: unknown) => process.exit(reportError(programName, error)),
  );
}
