/** The options of `passel install-links`. */
import { flag } from './definition.ts';

const OPTIONS = 'Options:';

export const LINKS_OPTIONS = {
  force: flag({ group: OPTIONS, help: 'Replace files and links that are not ours' }),
  help: flag({ short: 'h', group: OPTIONS, help: 'Show this text and exit' }),
} as const;
