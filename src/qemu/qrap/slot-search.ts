/**
 * Where the added card goes: the first place of its machine's table at which C's qrap would have seen no other device.
 *
 * The tables come from what libvirt writes. A device counts if its text has the table's words, in either form; the first
 * occurrence is looked at, and the number behind it is read as strtol(3) does. Callers depend on the choice: libvirt's own
 * addresses leave room for it.
 */
import { formatOptionList, type Property } from '../option-string.ts';

/** What the numbers of a table are. */
export type PlaceKind =
  /** A PCI Express port `pci.N` that the command line defines. */
  | 'port'
  /** A slot of the bus `pci.0`, which the machine has. */
  | 'slot'
  /** A number of a channel device. */
  | 'devno';

export interface PlaceTable {
  readonly kind: PlaceKind;
  readonly driver: string;
  /** Text before a device's number, in a list and in JSON. */
  readonly listText: string;
  readonly jsonText: string;
  readonly radix: 10 | 16;
  readonly first: number;
  readonly last: number;
  readonly place: (number: string) => readonly Property[];
}

const PORTS: PlaceTable = {
  kind: 'port',
  driver: 'virtio-net-pci',
  listText: 'bus=pci.',
  jsonText: '"bus":"pci.',
  radix: 10,
  first: 3,
  last: 30,
  place: (number) => [
    { key: 'bus', value: `pci.${number}` },
    { key: 'addr', value: '0x0' },
  ],
};

const SLOTS: PlaceTable = {
  kind: 'slot',
  driver: 'virtio-net-pci',
  listText: 'bus=pci.0,addr=0x',
  jsonText: '"bus":"pci.0","addr":"0x',
  radix: 16,
  first: 2,
  last: 30,
  place: (number) => [
    { key: 'bus', value: 'pci.0' },
    { key: 'addr', value: `0x${number}` },
  ],
};

const CHANNELS: PlaceTable = {
  kind: 'devno',
  driver: 'virtio-net-ccw',
  listText: 'devno=fe.0.',
  jsonText: '"devno":"fe.0.',
  radix: 16,
  first: 1,
  last: 15,
  place: (number) => [{ key: 'devno', value: `fe.0.${number}` }],
};

/** The first that the value of -machine begins with; any other machine, and none, is taken for one with ports. */
const MACHINES: readonly [prefix: string, table: PlaceTable][] = [
  ['pc-q35', PORTS],
  ['pc-', SLOTS],
  ['s390-ccw', CHANNELS],
];

export function pickTable(machine: string | undefined): PlaceTable {
  return MACHINES.find(([prefix]) => machine?.startsWith(prefix))?.[1] ?? PORTS;
}

export interface SlotSearch {
  /** Free numbers in order; the first is C's choice. */
  readonly candidates: readonly number[];
  /** A device was recognised by its JSON, so what is added is JSON too. */
  readonly json: boolean;
}

/** C keeps a bit per number in 32 bits, and larger numbers wrap around. */
const BIT_MASK = 31n;

export function searchSlots(table: PlaceTable, devices: readonly string[]): SlotSearch {
  const used = new Set<number>();
  let json = false;
  for (const device of devices) {
    let at = device.indexOf(table.listText);
    let length = table.listText.length;
    if (at < 0) {
      at = device.indexOf(table.jsonText);
      length = table.jsonText.length;
      if (at >= 0) json = true;
    }
    if (at >= 0) used.add(Number(BigInt.asUintN(64, readLong(device.slice(at + length), table.radix)) & BIT_MASK));
  }
  const candidates: number[] = [];
  for (let number = table.first; number <= table.last; number++) if (!used.has(number)) candidates.push(number);
  return { candidates, json };
}

const LONG_MAX = 0x7fff_ffff_ffff_ffffn;

/** strtol(3); 0 where there is no number. */
function readLong(text: string, radix: 10 | 16): bigint {
  const pattern =
    radix === 10 ? /^[ \t-\r]*([+-]?)([0-9]+)/ : /^[ \t-\r]*([+-]?)(?:0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]+)/;
  const match = pattern.exec(text);
  if (match === null) return 0n;
  const value = BigInt(radix === 10 ? match[2]! : `0x${match[2]}`);
  const magnitude = value > LONG_MAX ? LONG_MAX : value;
  return match[1] === '-' ? -magnitude : magnitude;
}

/** The card as a value of -device, at a place or, without one, wherever QEMU puts it. */
export function formatCard(driver: string, place: readonly Property[], netdev: string, json: boolean): string {
  // The numbers are C's: small bursts keep the socket's queue short.
  const properties = [{ key: 'driver', value: driver }, ...place, { key: 'netdev', value: netdev }];
  if (!json) return formatOptionList([...properties, { key: 'x-txburst', value: '4096' }], 'driver');
  return JSON.stringify({ ...Object.fromEntries(properties.map(({ key, value }) => [key, value])), 'x-txburst': 4096 });
}

/** The socket as a value of -netdev. */
export function formatNetdev(fd: number, netdev: string, json: boolean): string {
  if (json) return JSON.stringify({ type: 'socket', fd: String(fd), id: netdev });
  const properties = [
    { key: 'type', value: 'socket' },
    { key: 'fd', value: String(fd) },
    { key: 'id', value: netdev },
  ];
  return formatOptionList(properties, 'type');
}
