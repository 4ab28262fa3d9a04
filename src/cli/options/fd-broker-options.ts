/** The options of `passel-fd-broker serve`. */
import { flag, type Reject, value } from './definition.ts';
import { PROCESS_OPTIONS } from './process-options.ts';
import { parsePath } from './values.ts';

const SERVING = 'Serving:';
const POLICY = 'Who may do what:';

function parseMode(text: string, reject: Reject): number {
  return /^0?[0-7]{3}$/.test(text) ? Number.parseInt(text, 8) : reject('permissions of a file in octal, such as 0660');
}

const {
  debug,
  quiet,
  'log-file': logFile,
  'log-size': logSize,
  'log-format': logFormat,
  pid,
  help,
  version,
} = PROCESS_OPTIONS;

export const FD_BROKER_SERVE_OPTIONS = {
  socket: value({
    short: 's',
    group: SERVING,
    valueName: 'PATH',
    help: "Unix socket to serve on; '@' in front makes an abstract name",
    defaultText: '/run/passel/fd-broker.sock for root, else passel/fd-broker.sock in XDG_RUNTIME_DIR',
    parse: parsePath,
  }),
  'socket-mode': value({
    group: SERVING,
    valueName: 'MODE',
    help: 'Permissions of the socket: who may connect, before the policy says what they may do',
    defaultText: '0666 for root, else 0600',
    parse: parseMode,
  }),
  policy: value({
    group: POLICY,
    valueName: 'FILE',
    help: 'Policy, in JSON; without it root and the user of the broker may do everything, others may ask for taps',
    parse: parsePath,
  }),
  acl: value({
    group: POLICY,
    valueName: 'FILE',
    help: 'Access list of bridges, as for passel-bridge-helper',
    defaultText: '/etc/qemu/bridge.conf',
    parse: parsePath,
  }),
  'trust-writable-acl': flag({
    group: POLICY,
    help: 'Take policy and access list also when others than root could have written them',
  }),
  debug,
  quiet,
  'log-file': logFile,
  'log-size': logSize,
  'log-format': logFormat,
  pid,
  help,
  version,
} as const;

export type FdBrokerServeOptionTable = typeof FD_BROKER_SERVE_OPTIONS;
