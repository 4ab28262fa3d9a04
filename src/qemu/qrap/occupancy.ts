/**
 * Whether QEMU would accept the place that {@link searchSlots} chose. C's qrap does not ask: it names ports that the command line
 * does not define, and slots that devices without an address have been given by then, and QEMU ends with an error.
 *
 * What is free is worked out as QEMU does it. First the machine's own devices; then those of the command line in their order, but all
 * that are written as lists before all that are written in JSON. Each has the address it names or is given the first free one. So a
 * card in a list comes before every device in JSON: their ports are not there yet. Where this cannot be known (a device that is
 * not recognised), the answer is "taken": the card then gets no address, and QEMU finds one.
 */
import { type GivenOption, propertiesOf } from '../command-line.ts';
import { looksLikeJson } from '../json.ts';
import { getProperty, type Property } from '../option-string.ts';
import type { PlaceTable } from './slot-search.ts';

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

interface Device {
  readonly properties: readonly Property[];
  readonly json: boolean;
}

/**
 * @returns a function that tells whether a number of `table` can be had on a command line with these options, by a card that is
 * written in JSON or not, behind all others
 */
export function findFreePlaces(
  table: PlaceTable,
  options: readonly GivenOption[],
): (number: number, json: boolean) => boolean {
  const devices = options
    .filter(({ name }) => name === 'device')
    .map((option) => ({ properties: propertiesOf(option), json: looksLikeJson(option.value ?? '') }));
  if (table.kind === 'port') return (number, json) => isPortFree(`pci.${number}`, json, devices, options);
  const inOrder = [...devices.filter(({ json }) => !json), ...devices.filter(({ json }) => json)];
  const listTaken = table.kind === 'slot' ? listTakenSlots : listTakenDevnos;
  const forJson = listTaken(inOrder, true, options);
  const forList = listTaken(inOrder, false, options);
  return (number, json) => !(json ? forJson : forList).has(number);
}

function isPortFree(bus: string, json: boolean, devices: readonly Device[], options: readonly GivenOption[]): boolean {
  // A port has one slot.
  if (devices.some(({ properties }) => getProperty(properties, 'bus') === bus)) return false;
  const port = devices.find(({ properties }) => getProperty(properties, 'id') === bus);
  if (port !== undefined) return json || !port.json;
  // The port may be defined in that file.
  return options.some(({ name }) => name === 'readconfig');
}

function listTakenSlots(devices: readonly Device[], json: boolean, options: readonly GivenOption[]): Set<number> {
  const taken = new Set<number>(CHIPSET_SLOTS);
  if (hasDisplay(devices, options)) takeFirst(taken, 2, SLOT_COUNT);
  for (const { name, value } of options) if (name === 'nic' && value !== 'none') takeFirst(taken, 2, SLOT_COUNT);
  for (const device of devices) {
    if (!['pci.0', 'pci', undefined].includes(getProperty(device.properties, 'bus'))) continue;
    const address = getProperty(device.properties, 'addr');
    if (address !== undefined) taken.add(Number.parseInt(address, 16));
    else if (comesFirst(device, json) && !NOT_PCI.test(driverOf(device))) takeFirst(taken, 2, SLOT_COUNT);
  }
  return taken;
}

/** A device without an address that comes later than the card finds another place by itself. */
function comesFirst(device: Device, json: boolean): boolean {
  return json || !device.json;
}

function driverOf({ properties }: Device): string {
  return getProperty(properties, 'driver') ?? '';
}

function hasDisplay(devices: readonly Device[], options: readonly GivenOption[]): boolean {
  const chosen = options.findLast(({ name }) => name === 'vga')?.value;
  if (chosen !== undefined) return chosen !== 'none';
  if (options.some(({ name }) => name === 'nodefaults')) return false;
  return !devices.some((device) => DISPLAYS.has(driverOf(device)));
}

function listTakenDevnos(devices: readonly Device[], json: boolean): Set<number> {
  const taken = new Set<number>();
  for (const device of devices) {
    const devno = getProperty(device.properties, 'devno');
    if (devno !== undefined) taken.add(Number.parseInt(/^fe\.0\.(.*)$/.exec(devno)?.[1] ?? '', 16));
    else if (comesFirst(device, json) && driverOf(device).endsWith('-ccw')) takeFirst(taken, 0, DEVNO_COUNT);
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
