/** The options of `passel doctor`. */
import { flag } from './definition.ts';

const OPTIONS = 'Options:';

export const DOCTOR_OPTIONS = {
  json: flag({ short: 'j', group: OPTIONS, help: 'Print the findings as JSON' }),
  help: flag({ short: 'h', group: OPTIONS, help: 'Show this text and exit' }),
} as const;
