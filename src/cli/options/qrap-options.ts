/**
 * The options of passel-qrap itself. Each counts only as the very first word: everything else on the command line is QEMU's,
 * which has its own --help and --version.
 */
import { flag } from './definition.ts';

export const QRAP_OPTIONS = {
  print: flag({
    group: 'Before anything else:',
    help: 'Show what the rest of the command line becomes and why; connect to nothing, run nothing',
  }),
  help: flag({ group: 'Before anything else:', help: 'Show this help and exit' }),
  version: flag({ group: 'Before anything else:', help: 'Show the version and exit' }),
} as const;
