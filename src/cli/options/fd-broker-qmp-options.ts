/** The options of `passel-fd-broker qmp`. */
import { parseFdSpec, SPEC_FORMS } from '../fd-broker/fd-spec.ts';
import { brokerSocketOption } from './broker-socket-option.ts';
import { flag, type Reject, value, values } from './definition.ts';
import { PROCESS_OPTIONS } from './process-options.ts';
import { parseInterfaceName, parseMac, parsePath, parseSeconds, parseText } from './values.ts';

const WHAT = 'What QEMU gets:';
const HOW = 'How it is used:';
const OPTIONS = 'Options:';

function parseSet(text: string, reject: Reject): number {
  return /^\d{1,9}$/.test(text) ? Number(text) : reject('the number of a set of descriptors, 0 and above');
}

function parseProperty(text: string, reject: Reject): readonly [string, string] {
  const match = /^([A-Za-z][\w-]*)=(.*)$/s.exec(text);
  if (match === null) return reject('NAME=VALUE');
  const name = match[1] as string;
  return ['id', 'driver', 'netdev', 'mac'].includes(name)
    ? reject('a property other than id, driver, netdev and mac')
    : [name, match[2] as string];
}

function checkMac(text: string, reject: Reject): string {
  parseMac(text, reject);
  return text.replaceAll('-', ':');
}

export const FD_BROKER_QMP_OPTIONS = {
  fd: value({
    group: WHAT,
    valueName: 'SPEC',
    help: `${SPEC_FORMS} (an open descriptor of this process)`,
    parse: parseFdSpec,
  }),
  passt: value({
    group: WHAT,
    valueName: 'PATH',
    help: 'hotplug-nic: the socket of passel-passt, which is connected to',
    parse: parsePath,
  }),
  tap: value({
    group: WHAT,
    valueName: 'BRIDGE',
    help: 'hotplug-nic: a tap on this bridge, made by the broker for those who may not',
    parse: parseInterfaceName,
  }),
  broker: value({
    group: WHAT,
    valueName: 'NAME',
    help: 'hotplug-nic: what the broker keeps under this name, which ends',
    parse: parseText,
  }),
  'broker-socket': brokerSocketOption(WHAT),
  set: value({
    group: HOW,
    valueName: 'N',
    help: 'add-fd, remove-fd: number of the set of descriptors',
    defaultText: 'for add-fd the first that is free',
    parse: parseSet,
  }),
  opaque: value({
    group: HOW,
    valueName: 'TEXT',
    help: 'add-fd: a remark that query-fdsets shows',
    parse: parseText,
  }),
  member: value({
    group: HOW,
    valueName: 'N',
    help: "remove-fd: QEMU's number of the one descriptor to remove",
    defaultText: 'the whole set',
    parse: parseSet,
  }),
  mac: value({ group: HOW, valueName: 'MAC', help: "hotplug-nic: the card's address", parse: checkMac }),
  driver: value({
    group: HOW,
    valueName: 'NAME',
    help: "hotplug-nic: the card, by QEMU's name",
    defaultText: 'virtio-net-pci',
    parse: parseText,
  }),
  property: values({
    group: HOW,
    valueName: 'NAME=VALUE',
    help: 'hotplug-nic: a further property of the device, such as bus=port1 on machines of type q35; may be repeated',
    parse: parseProperty,
  }),
  netdev: value({
    group: HOW,
    valueName: 'ID',
    help: 'hot-unplug: the netdev that the device is joined to',
    defaultText: 'the one that has the same ID',
    parse: parseText,
  }),
  hmp: flag({ group: OPTIONS, help: 'getfd, closefd: SOCKET is the monitor for people, not QMP' }),
  timeout: value({
    group: OPTIONS,
    valueName: 'SECONDS',
    help: 'How long QEMU, or for hot-unplug the guest, may take',
    defaultText: '30',
    parse: parseSeconds,
  }),
  help: PROCESS_OPTIONS.help,
  version: PROCESS_OPTIONS.version,
} as const;

export type FdBrokerQmpOptionTable = typeof FD_BROKER_QMP_OPTIONS;
