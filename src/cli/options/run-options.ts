/** The options of `passel run`: those of passel-passt, but for what running a command settles. */
import { flag, refused, value } from './definition.ts';
import { PASST_OPTIONS } from './passt-options.ts';
import { parseText } from './values.ts';

const OWN_SOCKET = 'passel run connects the machine itself';
const OWN_PROCESS = 'passel run stays in the foreground until its command ends';

export const RUN_OPTIONS = {
  nic: value({
    group: 'Link:',
    valueName: 'MODEL',
    defaultText: 'virtio-net-pci, or what the machine has instead',
    help: "The guest's network card as for QEMU's -device, properties included",
    parse: parseText,
  }),
  'replace-user-net': flag({
    group: 'Link:',
    help: "Take the command's -netdev user, -nic user or default network over, with its options",
  }),
  ...PASST_OPTIONS,
  socket: refused({ short: 's', aliases: ['socket-path'], takesValue: true, reason: OWN_SOCKET }),
  fd: refused({ short: 'F', takesValue: true, reason: OWN_SOCKET }),
  netdev: refused({ takesValue: true, reason: OWN_SOCKET }),
  lease: refused({
    takesValue: true,
    reason: 'there is one machine; its address is that of --address, or of dhcpstart= in --user-net',
  }),
  'one-off': refused({ short: '1', takesValue: false, reason: OWN_SOCKET }),
  pid: refused({ short: 'P', takesValue: true, reason: OWN_PROCESS }),
  foreground: refused({ short: 'f', takesValue: false, reason: OWN_PROCESS }),
  stats: refused({ takesValue: true, reason: "the terminal is the machine's; ask its --conf-path with passel ctl" }),
  runas: refused({ takesValue: true, reason: 'start passel run as that user instead' }),
  'no-sandbox': refused({
    takesValue: false,
    reason: 'there is none: what starts a command cannot give up starting it',
  }),
  'print-capabilities': refused({ takesValue: false, reason: 'it is for programs that start passel-passt' }),
} as const;
