/** The options of passel-pr-helper: those of qemu-pr-helper(8), and our own, which are marked as extensions. */
import { parseDeviceRule } from '../../scsi/device-rules.ts';
import { flag, type Reject, value, values } from './definition.ts';
import { parsePath, parseSeconds, parseText, parseWord } from './values.ts';

const PROCESS = 'Process:';
const SOCKET = 'Socket:';
const REQUESTS = 'Requests:';
const MESSAGES = 'Messages:';

/** sockaddr_un holds 108 bytes with the terminating zero (unix(7)). */
const SOCKET_PATH_MAX_BYTES = 107;
/** What the kernel takes as milliseconds in 32 bits is more; nobody waits longer than a day. */
const TIMEOUT_MAX_S = 86_400;

function parseSocketPath(text: string, reject: Reject): string {
  if (!text.startsWith('/')) return reject('an absolute path');
  if (Buffer.byteLength(text) > SOCKET_PATH_MAX_BYTES)
    return reject(`a path of at most ${SOCKET_PATH_MAX_BYTES} bytes`);
  return parsePath(text, reject);
}

function parseMode(text: string, reject: Reject): number {
  return /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : reject('an octal mode such as 0660');
}

function parseDevice(text: string, reject: Reject): NonNullable<ReturnType<typeof parseDeviceRule>> {
  const expected = 'MAJOR:MINOR, MAJOR:* or the absolute path of a device that exists';
  try {
    return parseDeviceRule(text) ?? reject(expected);
  } catch (error) {
    // An error without a code is a rejection.
    return (error as NodeJS.ErrnoException).syscall === undefined ? rethrow(error) : reject(expected);
  }
}

function rethrow(error: unknown): never {
  throw error;
}

function parseTimeout(text: string, reject: Reject): number {
  const seconds = parseSeconds(text, reject);
  return seconds <= TIMEOUT_MAX_S ? seconds : reject(`at most ${TIMEOUT_MAX_S} seconds`);
}

export const PR_HELPER_OPTIONS = {
  daemon: flag({ short: 'd', group: PROCESS, help: 'Run in the background' }),
  pidfile: value({
    short: 'f',
    group: PROCESS,
    valueName: 'PATH',
    defaultText: '/var/run/qemu-pr-helper.pid with --daemon, else none',
    help: 'Write the PID to this file and keep it locked',
    parse: parsePath,
  }),
  socket: value({
    short: 'k',
    group: SOCKET,
    valueName: 'PATH',
    defaultText: '/var/run/qemu-pr-helper.sock',
    help: 'Listen on this unix socket',
    parse: parseSocketPath,
  }),
  'socket-mode': value({
    isExtension: true,
    group: SOCKET,
    valueName: 'MODE',
    defaultText: '0777 less the umask',
    help: 'Permissions of the socket: who may connect',
    parse: parseMode,
  }),
  'socket-group': value({
    isExtension: true,
    group: SOCKET,
    valueName: 'GROUP',
    help: 'Group of the socket, name or number',
    parse: parseText,
  }),
  'conf-path': value({
    isExtension: true,
    group: SOCKET,
    valueName: 'PATH',
    help: "Unix socket to ask what the helper does, by 'passel ctl' or HTTP",
    parse: parsePath,
  }),
  user: value({
    short: 'u',
    group: PROCESS,
    valueName: 'USER',
    help: 'Change to this user, name or number',
    parse: parseText,
  }),
  group: value({
    short: 'g',
    group: PROCESS,
    valueName: 'GROUP',
    help: 'Change to this group, name or number',
    parse: parseText,
  }),
  'no-sandbox': flag({
    isExtension: true,
    group: PROCESS,
    help: 'For debugging: keep system calls that are not needed any more',
  }),
  'request-timeout': value({
    isExtension: true,
    group: REQUESTS,
    valueName: 'SECONDS',
    defaultText: '30',
    help: 'How long a device may take for a command before the kernel gives it up',
    parse: parseTimeout,
  }),
  'allow-device': values({
    isExtension: true,
    group: REQUESTS,
    valueName: 'DEVICE',
    defaultText: 'all',
    help: 'Serve this device (MAJOR:MINOR, MAJOR:* or a path) and no others but those allowed too',
    parse: parseDevice,
  }),
  'deny-device': values({
    isExtension: true,
    group: REQUESTS,
    valueName: 'DEVICE',
    help: 'Never serve this device',
    parse: parseDevice,
  }),
  multipath: value({
    isExtension: true,
    group: REQUESTS,
    valueName: 'POLICY',
    defaultText: 'fan-out',
    help: "Changes to a device with several paths: 'fan-out' registers all of them, 'refuse' none",
    parse: parseWord(['fan-out', 'refuse']),
  }),
  'access-log': value({
    isExtension: true,
    group: MESSAGES,
    valueName: 'PATH',
    help: 'Append a line of JSON for each request to this file; - is standard error',
    parse: parsePath,
  }),
  'log-format': value({
    isExtension: true,
    group: MESSAGES,
    valueName: 'FORMAT',
    defaultText: 'text',
    help: "'text' for people, 'json' for programs",
    parse: parseWord(['text', 'json']),
  }),
  verbose: flag({ short: 'v', group: MESSAGES, help: 'Say more: each request, each client' }),
  quiet: flag({ short: 'q', group: MESSAGES, help: 'Errors only' }),
  trace: value({
    short: 'T',
    group: MESSAGES,
    valueName: 'SPEC',
    help: "Accepted for QEMU's sake, has no effect; 'help' lists the events, of which there are none",
    parse: (text: string) => text,
  }),
  help: flag({ short: 'h', group: PROCESS, help: 'Show this text and exit' }),
  version: flag({ short: 'V', group: PROCESS, help: 'Show the version and exit' }),
} as const;

export type PrHelperOptionTable = typeof PR_HELPER_OPTIONS;
