/** The complete option table of passel-pasta. */
import { flag, refused, value, values } from './definition.ts';
import { NAMES_ON_OPTIONS, NETWORK_OPTIONS } from './network-options.ts';
import { LINK_OPTIONS, PROCESS_OPTIONS } from './process-options.ts';
import { parseInterfaceName, parseMac, parsePath, parseText } from './values.ts';

const NAMESPACE = 'Namespaces:';
const INBOUND = 'From host to guest:';
const OUTBOUND = 'From guest to host:';
const MACHINE = 'it is for virtual machines (passt), not for network namespaces';
const DEFAULT = 'it is what passel-pasta does unless told otherwise';

/** Options of the program for virtual machines, known by name so that a mix-up is explained rather than called unknown. */
const PASST_OPTIONS = {
  socket: refused({ short: 's', aliases: ['socket-path'], takesValue: true, reason: MACHINE }),
  fd: refused({ short: 'F', takesValue: true, reason: MACHINE }),
  'one-off': refused({ short: '1', takesValue: false, reason: MACHINE }),
  'vhost-user': refused({ takesValue: false, reason: MACHINE }),
  'print-capabilities': refused({ takesValue: false, reason: MACHINE }),
  'repair-path': refused({ takesValue: true, reason: MACHINE }),
  'migrate-exit': refused({ takesValue: false, reason: MACHINE }),
  'migrate-no-linger': refused({ takesValue: false, reason: MACHINE }),
  'no-dhcp-dns': refused({ takesValue: false, reason: DEFAULT }),
  'no-dhcp-search': refused({ takesValue: false, reason: DEFAULT }),
} as const;

export const PASTA_OPTIONS = {
  netns: value({
    group: NAMESPACE,
    valueName: 'PATH|NAME',
    defaultText: 'a new one, or that of PID',
    help: 'Network namespace to join: a path, or a name under /run/netns',
    parse: parsePath,
  }),
  userns: value({
    group: NAMESPACE,
    valueName: 'PATH',
    defaultText: 'a new one, or that of PID; with --netns, none',
    help: 'User namespace to join first',
    parse: parsePath,
  }),
  'netns-only': flag({ group: NAMESPACE, help: 'Join the network namespace only, with the rights that there are' }),
  'no-netns-quit': flag({ group: NAMESPACE, help: 'Go on when the joined namespace is gone' }),
  'config-net': flag({
    group: NAMESPACE,
    help: 'Configure addresses, routes and MTU in the namespace and bring the interface up',
  }),
  'no-copy-routes': flag({
    group: NAMESPACE,
    help: "With --config-net: a default route, and none of the host's others",
  }),
  'no-copy-addrs': flag({ group: NAMESPACE, help: "With --config-net: one address, and none of the host's others" }),
  'ns-ifname': value({
    short: 'I',
    group: NAMESPACE,
    valueName: 'NAME',
    defaultText: "that of the host's template interface, or tap0",
    help: 'Name of the interface in the namespace',
    parse: parseInterfaceName,
  }),
  'ns-mac-addr': value({
    group: NAMESPACE,
    valueName: 'MAC',
    defaultText: 'a random one',
    help: 'MAC address of the interface in the namespace',
    parse: parseMac,
  }),
  ...LINK_OPTIONS,
  ...NETWORK_OPTIONS,
  ...NAMES_ON_OPTIONS,
  'tcp-ports': values({
    short: 't',
    group: INBOUND,
    valueName: 'SPEC',
    defaultText: 'auto',
    help: "TCP ports of the host that lead to the namespace: 'none', 'all', 'auto' (those that are listened on there) or [ADDRESS[%IF]/]PORT[-PORT][:[ADDRESS/]PORT[-PORT]],~PORT[-PORT],...; repeatable",
    parse: parseText,
  }),
  'udp-ports': values({
    short: 'u',
    group: INBOUND,
    valueName: 'SPEC',
    defaultText: 'auto',
    help: 'UDP ports, in the same way; repeatable',
    parse: parseText,
  }),
  'tcp-ns': values({
    short: 'T',
    group: OUTBOUND,
    valueName: 'SPEC',
    defaultText: 'auto',
    help: "TCP ports of the namespace's loopback that lead to the host's loopback: as --tcp-ports; repeatable",
    parse: parseText,
  }),
  'udp-ns': values({
    short: 'U',
    group: OUTBOUND,
    valueName: 'SPEC',
    defaultText: 'auto',
    help: 'UDP ports, in the same way; repeatable',
    parse: parseText,
  }),
  'host-lo-to-ns-lo': flag({
    group: INBOUND,
    help: "What comes from the host's loopback goes to the namespace's loopback, not to its address",
  }),
  'no-splice': flag({ group: INBOUND, help: 'Loopback traffic takes the interface like all other' }),
  'splice-only': flag({ group: INBOUND, help: 'Loopback traffic only: make no interface' }),
  ...PROCESS_OPTIONS,
  ...PASST_OPTIONS,
} as const;

export type PastaOptionTable = typeof PASTA_OPTIONS;
