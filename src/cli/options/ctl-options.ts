/** The options of `passel ctl`. */
import { parseCaptureSize, parseSnaplen } from './capture-values.ts';
import { flag, value } from './definition.ts';
import { parsePath, parseWord } from './values.ts';

const OPTIONS = 'Options:';

export const CTL_OPTIONS = {
  socket: value({
    short: 's',
    group: OPTIONS,
    valueName: 'PATH',
    defaultText: 'PASSEL_CTL_SOCKET of the environment',
    help: "Control socket: what --conf-path of the stack's or helper's command line names",
    parse: parsePath,
  }),
  json: flag({ short: 'j', group: OPTIONS, help: 'Print what it answers, as JSON' }),
  proto: value({
    short: 'p',
    group: OPTIONS,
    valueName: 'PROTO',
    help: 'flows: only those of tcp, udp or ping',
    parse: parseWord(['tcp', 'udp', 'ping']),
  }),
  limit: value({
    short: 'n',
    group: OPTIONS,
    valueName: 'COUNT',
    defaultText: 'all',
    help: 'flows: at most so many',
    parse: (text, reject) => (/^[1-9]\d{0,8}$/.test(text) ? Number(text) : reject('a number of flows, at least 1')),
  }),
  size: value({
    group: OPTIONS,
    valueName: 'BYTES',
    defaultText: 'no limit',
    help: 'pcap start: end the recording when the file would get larger',
    parse: parseCaptureSize,
  }),
  snaplen: value({
    group: OPTIONS,
    valueName: 'BYTES',
    defaultText: 'all',
    help: 'pcap start: record so much of each frame',
    parse: parseSnaplen,
  }),
  help: flag({ short: 'h', group: OPTIONS, help: 'Show this text and exit' }),
} as const;

export type CtlOptionTable = typeof CTL_OPTIONS;
