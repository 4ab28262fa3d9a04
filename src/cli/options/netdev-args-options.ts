/** The options of `passel netdev-args`. */
import { flag, value } from './definition.ts';
import { parseText, parseWord } from './values.ts';

const OPTIONS = 'Options:';

export const NETDEV_ARGS_OPTIONS = {
  device: value({
    group: OPTIONS,
    valueName: 'MODEL',
    help: "Print a network card too, as for QEMU's -device, properties included",
    parse: parseText,
  }),
  format: value({
    group: OPTIONS,
    valueName: 'FORMAT',
    defaultText: 'shell',
    help: "'shell' for one line that a shell can read, 'lines' for an argument in each, 'json' for an array",
    parse: parseWord(['shell', 'lines', 'json']),
  }),
  help: flag({ short: 'h', group: OPTIONS, help: 'Show this text and exit' }),
} as const;
