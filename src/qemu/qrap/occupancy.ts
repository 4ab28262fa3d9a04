/**
 * Whether QEMU would accept the place that {@link searchSlots} chose. C's qrap does not ask: it names ports that the command line
 * does not define, and slots that devices without an address have been given by then, and QEMU ends with an error.
 *
 * What is free is worked out as QEMU does it: devices with addresses have those; the others are given the first free one in the order
 * of the command line, behind the machine's own. Where this cannot be known (a device that is not recognised), the answer is
 * "taken": the card then gets no address, and QEMU finds one.
 */
import { type GivenOption, propertiesOf } from '../command-line.ts';
import { getProperty, type Property } from '../option-string.ts';
import type { PlaceTable } from './slot-search.ts';

/** Bridges to conventional PCI: slot 0 behind them is their hot-plug controller's. */
const CONVENTIONAL_BRIDGES: ReadonlySet<string> = new Set(['pci-bridge', 'pcie-pci-bridge', 'i82801b11-bridge']);

/** Displays that make QEMU leave out the one a machine has by default. */
const DISPLAYS: ReadonlySet<string> = new Set(
  'VGA isa-vga cirrus-vga isa-cirrus-vga vmware-svga qxl-vga virtio-vga virtio-vga-gl ati-vga vhost-user-vga'.split(
    ' ',
  ),
);

/** Devices that sit on no PCI bus, by how their names begin or end. */
const NOT_PCI =
  /^(isa-|ide-(hd|cd|cf|drive)$|scsi-(hd|cd|disk|block|generic)$|virtserialport$|virtconsole$|usb-(?!ehci)|hda-|ccid-|smartcard|u2f-|tpm-|i2c-|smbus-|ipmi-|pc-dimm$|nvdimm$|pvpanic$|vmgenid$|vmcoreinfo$|loader$|guest-loader$|generic-loader$|floppy$|nvme-(ns|subsys)$|intel-iommu$|kvm-pit|sd-card$|applesmc|hv-|debugexit)|-device$|-cpu$|-ccw$/;

/** What belongs to the i440FX and its south bridge. */
const CHIPSET_SLOTS = [0, 1];
const SLOT_COUNT = 32;
const DEVNO_COUNT = 0x10000;

type Device = readonly Property[];

/** @returns a function that tells whether a number of `table` can be had on a command line with these options */
export function findFreePlaces(table: PlaceTable, options: readonly GivenOption[]): (number: number) => boolean {
  const devices = options.filter(({ name }) => name === 'device').map(propertiesOf);
  if (table.kind === 'port') return (number) => isPortFree(`pci.${number}`, devices, options);
  const taken = table.kind === 'slot' ? listTakenSlots(devices, options) : listTakenDevnos(devices);
  return (number) => !taken.has(number);
}

function isPortFree(bus: string, devices: readonly Device[], options: readonly GivenOption[]): boolean {
  // A port has one slot.
  if (devices.some((device) => getProperty(device, 'bus') === bus)) return false;
  const port = devices.find((device) => getProperty(device, 'id') === bus);
  if (port !== undefined) return !CONVENTIONAL_BRIDGES.has(getProperty(port, 'driver') ?? '');
  // The port may be defined in that file.
  return options.some(({ name }) => name === 'readconfig');
}

function listTakenSlots(devices: readonly Device[], options: readonly GivenOption[]): Set<number> {
  const onRoot = devices.filter((device) => ['pci.0', 'pci', undefined].includes(getProperty(device, 'bus')));
  const taken = new Set<number>(CHIPSET_SLOTS);
  if (hasDisplay(devices, options)) takeFirst(taken, 2, SLOT_COUNT);
  for (const { name, value } of options) if (name === 'nic' && value !== 'none') takeFirst(taken, 2, SLOT_COUNT);
  for (const device of onRoot) {
    const address = getProperty(device, 'addr');
    const isPci = address !== undefined || !NOT_PCI.test(getProperty(device, 'driver') ?? '');
    if (address !== undefined) taken.add(Number.parseInt(address, 16));
    else if (isPci) takeFirst(taken, 2, SLOT_COUNT);
  }
  return taken;
}

function hasDisplay(devices: readonly Device[], options: readonly GivenOption[]): boolean {
  const chosen = options.findLast(({ name }) => name === 'vga')?.value;
  if (chosen !== undefined) return chosen !== 'none';
  if (options.some(({ name }) => name === 'nodefaults')) return false;
  return !devices.some((device) => DISPLAYS.has(getProperty(device, 'driver') ?? ''));
}

function listTakenDevnos(devices: readonly Device[]): Set<number> {
  const taken = new Set<number>();
  for (const device of devices) {
    const devno = getProperty(device, 'devno');
    if (devno !== undefined) taken.add(Number.parseInt(/^fe\.0\.(.*)$/.exec(devno)?.[1] ?? '', 16));
    else if (getProperty(device, 'driver')?.endsWith('-ccw')) takeFirst(taken, 0, DEVNO_COUNT);
  }
  return taken;
}

function takeFirst(taken: Set<number>, from: number, count: number): void {
  for (let number = from; number < count; number++) {
    if (taken.has(number)) continue;
    taken.add(number);
    return;
  }
}
