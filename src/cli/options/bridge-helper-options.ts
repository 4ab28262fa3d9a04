/** The options of passel-bridge-helper: the three that QEMU and libvirt give, and ours. */
import { whyNoInterfaceName } from '../../bridge/acl-text.ts';
import { MAX_QUEUES } from '../../bridge/attach.ts';
import { flag, type Reject, value } from './definition.ts';

const CALLERS = 'Given by QEMU and libvirt:';
const OURS = 'Others:';

/** The name as the kernel sees it: one byte a character. */
function parseInterfaceName(text: string, reject: Reject): string {
  const name = Buffer.from(text).toString('latin1');
  const problem = whyNoInterfaceName(name);
  if (problem !== undefined) reject(`the name of an interface, but ${problem}`);
  return name;
}

function parseNumber(text: string, reject: Reject, least: number, most: number, what: string): number {
  const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(number >= least && number <= most)) reject(`${what}, ${least} to ${most}`);
  return number;
}

export const BRIDGE_HELPER_OPTIONS = {
  br: value({
    group: CALLERS,
    valueName: 'BRIDGE',
    help: 'Bridge that the tap becomes a port of',
    parse: parseInterfaceName,
  }),
  fd: value({
    group: CALLERS,
    valueName: 'N',
    help: 'Unix socket, inherited, over which the descriptor of the tap is sent',
    parse: (text, reject) => parseNumber(text, reject, 0, 0x7fffffff, 'a file descriptor'),
  }),
  'use-vnet': flag({ group: CALLERS, help: 'Put a virtio-net header in front of frames, if the kernel can' }),
  check: flag({
    group: OURS,
    help: 'Say which rule decides and what would be done; change nothing, need no descriptor',
  }),
  acl: value({
    group: OURS,
    valueName: 'FILE',
    help: 'Access list',
    defaultText: '/etc/qemu/bridge.conf',
    parse: (text, reject) => (text === '' ? reject('a path') : text),
  }),
  'trust-writable-acl': flag({
    group: OURS,
    help: 'Take an access list also when others than root could have written it',
  }),
  'tap-name': value({
    group: OURS,
    valueName: 'NAME',
    help: 'Name of the tap; %d in it becomes a number',
    defaultText: 'tap%d',
    parse: parseInterfaceName,
  }),
  isolated: flag({ group: OURS, help: 'Let the tap exchange frames only with ports that are not isolated' }),
  queues: value({
    group: OURS,
    valueName: 'N',
    help: 'Descriptors of the tap, one a queue, all sent with one message',
    defaultText: '1',
    parse: (text, reject) => parseNumber(text, reject, 1, Math.min(MAX_QUEUES, 253), 'a number of queues'),
  }),
  help: flag({ short: 'h', group: OURS, help: 'Show this text and exit' }),
  version: flag({ group: OURS, help: 'Show the version and exit' }),
} as const;

export type BridgeHelperOptionTable = typeof BRIDGE_HELPER_OPTIONS;
