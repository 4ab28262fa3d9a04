/** Options about the process itself: messages, files, users. Shared by all executables that run a network stack. */
import { parseCaptureSize, parseSnaplen } from './capture-values.ts';
import { flag, value, values } from './definition.ts';
import { parseImpairRequest } from './impair-value.ts';
import { parseLogSize, parsePath, parseSeconds, parseUserGroup, parseWord } from './values.ts';

const MESSAGES = 'Messages:';
const PROCESS = 'Process:';

export const PROCESS_OPTIONS = {
  debug: flag({ short: 'd', group: MESSAGES, help: 'Say more' }),
  trace: flag({ group: MESSAGES, help: 'Say everything, packets included; implies --debug' }),
  quiet: flag({ short: 'q', group: MESSAGES, help: 'Warnings and errors only' }),
  stderr: flag({
    short: 'e',
    group: MESSAGES,
    help: 'Accepted, has no effect: messages go to standard error until in background',
  }),
  'log-file': value({
    short: 'l',
    group: MESSAGES,
    valueName: 'PATH',
    help: 'Write messages to this file only',
    parse: parsePath,
  }),
  'log-size': value({
    group: MESSAGES,
    valueName: 'BYTES',
    defaultText: '1M',
    help: 'Largest size of the log file; the oldest lines make room',
    parse: parseLogSize,
  }),
  'log-format': value({
    group: MESSAGES,
    valueName: 'FORMAT',
    defaultText: 'text',
    help: "'text' for people, 'json' for programs",
    parse: parseWord(['text', 'json']),
  }),
  foreground: flag({ short: 'f', group: PROCESS, help: 'Do not go to the background' }),
  pid: value({
    short: 'P',
    group: PROCESS,
    valueName: 'PATH',
    help: 'Write the PID of the serving process to this file once it is ready',
    parse: parsePath,
  }),
  runas: value({
    group: PROCESS,
    valueName: 'USER[:GROUP]',
    defaultText: 'nobody if started as root',
    help: "Change to this user, and to this group or the user's own",
    parse: parseUserGroup,
  }),
  'chroot-fallback': flag({ group: PROCESS, help: 'Accepted, has no effect: no pivot_root(2) is needed' }),
  'no-sandbox': flag({
    group: PROCESS,
    help: 'For debugging: keep privileges and system calls that are not needed any more',
  }),
  help: flag({ short: 'h', group: PROCESS, help: 'Show this text and exit' }),
  version: flag({ group: PROCESS, help: 'Show the version and exit' }),
  'conf-path': value({
    short: 'c',
    group: PROCESS,
    valueName: 'PATH',
    help: "Unix socket to ask and to change forwards at run time, by 'passel ctl' or HTTP",
    parse: parsePath,
  }),
  stats: value({
    group: MESSAGES,
    valueName: 'SECONDS',
    help: 'Print a line of event counts at most this often; needs --foreground',
    parse: parseSeconds,
  }),
} as const;

/** Options of the link, whatever it is. */
export const LINK_OPTIONS = {
  pcap: value({
    short: 'p',
    group: 'Link:',
    valueName: 'PATH',
    help: 'Record all frames to and from the guest in this file; if its name ends in .pcapng, in that format',
    parse: parsePath,
  }),
  'pcap-size': value({
    isExtension: true,
    group: 'Link:',
    valueName: 'BYTES',
    defaultText: 'no limit',
    help: 'End the recording when the file would get larger',
    parse: parseCaptureSize,
  }),
  'pcap-snaplen': value({
    isExtension: true,
    group: 'Link:',
    valueName: 'BYTES',
    defaultText: 'all',
    help: 'Record so much of each frame',
    parse: parseSnaplen,
  }),
  impair: values({
    isExtension: true,
    group: 'Link:',
    valueName: '[GUEST:]SPEC',
    help: 'Make the link worse, as tc netem does: delay=, jitter=, loss=, duplicate=, reorder=, rate=, limit=, seed=; for one direction with to-guest. or from-guest. in front',
    parse: parseImpairRequest,
  }),
} as const;
