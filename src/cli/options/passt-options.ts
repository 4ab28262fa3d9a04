/** The complete option table of passel-passt. */
import { formatIp } from '../../base/ip-text.ts';
import { type GuestForward, parseGuestForward } from '../../qemu/user-net/guest-forward.ts';
import { readUserNet } from '../../qemu/user-net/user-net.ts';
import { flag, type Reject, refused, value, values } from './definition.ts';
import { GUESTS_OPTIONS } from './guests-options.ts';
import { parseNetdevValue } from './netdev-value.ts';
import { GUEST, NAMES_OFF_OPTIONS, NETWORK_OPTIONS, OUTBOUND } from './network-options.ts';
import { LINK_OPTIONS, PROCESS_OPTIONS } from './process-options.ts';
import { parseFd, parsePath, parseUnicast } from './values.ts';

const LINK = 'Link:';
const VHOST_USER = 'the guest is reached by a stream socket, vhost-user comes later';
const MIGRATION = 'it belongs to migration over vhost-user, which comes later';
const PASTA = 'it is for network namespaces (pasta), not for virtual machines';

/** Options of the namespace program, known by name so that a mix-up is explained rather than called unknown. */
const PASTA_OPTIONS = {
  'ns-ifname': refused({ short: 'I', takesValue: true, reason: PASTA }),
  'tcp-ns': refused({ short: 'T', takesValue: true, reason: PASTA }),
  'udp-ns': refused({ short: 'U', takesValue: true, reason: PASTA }),
  userns: refused({ takesValue: true, reason: PASTA }),
  netns: refused({ takesValue: true, reason: PASTA }),
  'netns-only': refused({ takesValue: false, reason: PASTA }),
  'no-netns-quit': refused({ takesValue: false, reason: PASTA }),
  'config-net': refused({ takesValue: false, reason: PASTA }),
  'no-copy-routes': refused({ takesValue: false, reason: PASTA }),
  'no-copy-addrs': refused({ takesValue: false, reason: PASTA }),
  'ns-mac-addr': refused({ takesValue: true, reason: PASTA }),
  'no-splice': refused({ takesValue: false, reason: PASTA }),
  'splice-only': refused({ takesValue: false, reason: PASTA }),
  'host-lo-to-ns-lo': refused({ takesValue: false, reason: PASTA }),
  'dhcp-dns': refused({ takesValue: false, reason: PASTA }),
  'dhcp-search': refused({ takesValue: false, reason: PASTA }),
} as const;

export const PASST_OPTIONS = {
  socket: value({
    short: 's',
    aliases: ['socket-path'],
    group: LINK,
    valueName: 'PATH',
    defaultText: 'the first free of /tmp/passt_1.socket to /tmp/passt_64.socket',
    help: 'Unix socket to listen on for the guest',
    parse: parsePath,
  }),
  fd: value({
    short: 'F',
    group: LINK,
    valueName: 'FD',
    help: 'Use this connected stream socket instead; implies --one-off',
    parse: parseFd,
  }),
  netdev: values({
    group: LINK,
    isExtension: true,
    valueName: 'LINK',
    help: "The link to the guest, written as for QEMU's -netdev: our end of it. Repeatable: each is a guest, called by its id",
    parse: parseNetdevValue,
  }),
  'one-off': flag({ short: '1', group: LINK, help: 'Exit once the first guest has left' }),
  ...LINK_OPTIONS,
  'print-capabilities': flag({
    group: LINK,
    help: 'Print the capabilities for vhost-user front ends as JSON and exit',
  }),
  'user-net': value({
    isExtension: true,
    group: GUEST,
    valueName: 'OPTIONS',
    help: "The network of QEMU's -netdev user, by its options: net=, host=, dhcpstart=, dns=, hostname=, domainname=, dnssearch=, restrict=, hostfwd=, guestfwd=, tftp=, bootfile=, tftp-server-name=, smb=, smbserver=, ipv4=, ipv6=, ipv6-net=, ipv6-host=, ipv6-dns=",
    parse: readUserNet,
  }),
  ...GUESTS_OPTIONS,
  ...NETWORK_OPTIONS,
  'tcp-ports': values({
    ...NETWORK_OPTIONS['tcp-ports'],
    help: `${NETWORK_OPTIONS['tcp-ports'].help}. Or unix:PATH:[ADDRESS/]PORT: a unix socket of the host`,
  }),
  'guest-forward': values({
    isExtension: true,
    group: OUTBOUND,
    valueName: 'RULE',
    help: "Where the guest's connections to an address lead: [tcp]:ADDRESS:PORT-unix:PATH, -tcp:HOST:PORT or -cmd:COMMAND; repeatable",
    parse: parseGuestForwardValue,
  }),
  ...NAMES_OFF_OPTIONS,
  ...PROCESS_OPTIONS,
  'vhost-user': refused({ takesValue: false, reason: VHOST_USER }),
  'repair-path': refused({ takesValue: true, reason: MIGRATION }),
  'migrate-exit': refused({ takesValue: false, reason: MIGRATION }),
  'migrate-no-linger': refused({ takesValue: false, reason: MIGRATION }),
  ...PASTA_OPTIONS,
} as const;

export type PasstOptionTable = typeof PASST_OPTIONS;

function parseGuestForwardValue(text: string, reject: Reject): GuestForward {
  const forward = parseGuestForward(text, reject);
  parseUnicast(formatIp(forward.address), reject);
  return forward;
}
