/**
 * What qrap makes of its arguments: a pure function from words to the command line that it will become, with the reason of each
 * change. Nothing is opened or run here.
 *
 * Where the command line of C's qrap starts QEMU, this one is the same, word for word. It differs where C's would not: a card is
 * added although there is no other -device; a place that QEMU would refuse is not named; the value of -append is not searched for
 * options; ids and descriptor numbers that are taken are not used twice.
 */
import { PasselError } from '../../base/errors.ts';
import { pickNicModel } from '../add-network.ts';
import { type GivenOption, parseQemuCommand, propertiesOf, walkOptions } from '../command-line.ts';
import { looksLikeJson } from '../json.ts';
import { listNamedDescriptors } from '../named-descriptors.ts';
import { getProperty, readProperties } from '../option-string.ts';
import { readGivenCommand } from './invocation.ts';
import { findFreePlaces } from './occupancy.ts';
import { removeConflicts } from './removal.ts';
import { formatCard, formatNetdev, type PlaceTable, pickTable, type SlotSearch, searchSlots } from './slot-search.ts';

/** A group of words that went or came, or something that a reader might miss. */
export interface QrapChange {
  readonly kind: 'removed' | 'added' | 'note';
  readonly words: readonly string[];
  readonly reason: string;
}

export interface QrapPlan {
  /** The program that the caller named; undefined: whichever QEMU there is ({@link listQemuNames}). */
  readonly command: string | undefined;
  /** Arguments for it. */
  readonly args: readonly string[];
  /** The number that the connected socket has in QEMU. */
  readonly fd: number;
  readonly changes: readonly QrapChange[];
}

/** What the plan must know about the machine it is made on. */
export interface QrapSurroundings {
  /** Whether a name stands for a program that can be executed. */
  readonly isProgram: (name: string) => boolean;
  /** QEMU's name for this machine's processor: `x86_64`. */
  readonly architecture: string;
}

const PATCHED_FD = 5;
const NETDEV_ID = 'hostnet0';

/** The programs that are tried in turn when the caller names none. */
export function listQemuNames(architecture: string): string[] {
  return ['kvm', 'qemu-kvm', `qemu-system-${architecture}`, '/usr/libexec/qemu-kvm'];
}

/**
 * @param words - the arguments of qrap
 * @throws PasselError PASSEL_E_QEMU_JSON
 */
export function planQrap(words: readonly string[], surroundings: QrapSurroundings): QrapPlan {
  const given = readGivenCommand(words, surroundings.isProgram);
  if (given === undefined) return planPatched(words, surroundings.architecture);
  const reason = `the socket becomes descriptor ${given.fd} of ${given.command}, whose arguments stay as they are`;
  return { ...given, changes: [{ kind: 'note', words: [], reason }] };
}

function planPatched(words: readonly string[], architecture: string): QrapPlan {
  const kept = removeConflicts(words);
  checkJson(kept.args);
  const changes: QrapChange[] = kept.removed.map((removal) => ({ kind: 'removed', ...removal }));
  // What is left once more, for the devices that are left.
  const { args, devices, machine } = removeConflicts(dropLoners(dropTakenId(kept.args, changes), changes));
  const fd = pickDescriptor(args, changes);
  const { json, card } = planCard(args, devices, machine, architecture);
  const netdev = ['-netdev', formatNetdev(fd, NETDEV_ID, json)];
  const added = [...(card.kind === 'added' ? card.words : []), ...netdev];
  changes.push(card, { kind: 'added', words: netdev, reason: `the passt socket, which QEMU inherits as ${fd}` });
  return { command: undefined, args: insertAtEnd(args, added), fd, changes };
}

/** Refuses devices in JSON that QEMU will refuse, before a connection of passt is used up. */
function checkJson(args: readonly string[]): void {
  for (const { name, value } of walkOptions(args)) {
    if (name !== 'device' || value === undefined || !looksLikeJson(value)) continue;
    try {
      readProperties(value);
    } catch (error) {
      const reason = (error as Error).message;
      throw new PasselError('PASSEL_E_QEMU_JSON', { option: '-device', value, reason }, { cause: error });
    }
  }
}

/** Removes what has our netdev's id: C keeps it (`--netdev`, -nic), and QEMU ends over the second one. */
function dropTakenId(args: readonly string[], changes: QrapChange[]): readonly string[] {
  const isTaken = (option: GivenOption): boolean =>
    BACKENDS.includes(option.name) && getProperty(propertiesOf(option), 'id') === NETDEV_ID;
  return dropOptions(args, isTaken, 'its id is that of the one that is added', changes);
}

/** Removes cards whose netdev has gone: C leaves those that it does not know (`virtio-net-pci-non-transitional`), and QEMU ends. */
function dropLoners(args: readonly string[], changes: QrapChange[]): readonly string[] {
  const options = walkOptions(args);
  const netdevs = new Set<string | undefined>([undefined, NETDEV_ID]);
  for (const option of options) {
    if (BACKENDS.includes(option.name)) netdevs.add(getProperty(propertiesOf(option), 'id'));
  }
  // A file may define more.
  if (options.some(({ name }) => name === 'readconfig')) return args;
  const isLoner = (option: GivenOption): boolean =>
    option.name === 'device' && !netdevs.has(getProperty(propertiesOf(option), 'netdev'));
  return dropOptions(args, isLoner, 'a network card whose netdev is gone', changes);
}

const BACKENDS = ['netdev', 'nic', 'net'];

function dropOptions(
  args: readonly string[],
  isUnwanted: (option: GivenOption) => boolean,
  reason: string,
  changes: QrapChange[],
): readonly string[] {
  const unwanted = walkOptions(args).filter(isUnwanted);
  if (unwanted.length === 0) return args;
  const dropped = new Set(unwanted.flatMap(({ index }) => [index, index + 1]));
  for (const { index } of unwanted) changes.push({ kind: 'removed', words: args.slice(index, index + 2), reason });
  return args.filter((_word, index) => !dropped.has(index));
}

/** 5, unless the command line means another open file by it. */
function pickDescriptor(args: readonly string[], changes: QrapChange[]): number {
  const named = new Set(listNamedDescriptors(args));
  let fd = PATCHED_FD;
  while (named.has(fd)) fd++;
  if (fd !== PATCHED_FD) {
    changes.push({ kind: 'note', words: [], reason: `descriptor ${PATCHED_FD} is in use on the command line` });
  }
  return fd;
}

interface Card {
  /** Both arguments are in JSON. */
  readonly json: boolean;
  /** A card that is added, or a note why none is. */
  readonly card: QrapChange;
}

function planCard(
  args: readonly string[],
  devices: readonly string[],
  machine: string | undefined,
  architecture: string,
): Card {
  const options = walkOptions(args);
  const table = pickTable(machine);
  const search = searchSlots(table, devices);
  const command = { ...parseQemuCommand(['', ...args]), architecture };
  const absence = findReasonForNone(command.machine, options);
  if (absence !== undefined) return { json: search.json, card: { kind: 'note', words: [], reason: absence } };

  const add = (json: boolean, value: string, reason: string): Card => ({
    json,
    card: { kind: 'added', words: ['-device', value], reason },
  });
  // QEMU makes devices in JSON last: a card in JSON finds all others in place, if one of them is in JSON.
  const lateJson = search.json || options.some(({ name, value = '' }) => name === 'device' && looksLikeJson(value));
  const place = devices.length === 0 ? undefined : findPlace(table, search, lateJson, options);
  if (place !== undefined) {
    const { number, json } = place;
    const why = number === search.candidates[0] ? '' : ` (pci.${search.candidates[0]} is not there or not free)`;
    const value = formatCard(table.driver, table.place(number.toString(table.radix)), NETDEV_ID, json);
    return add(json, value, `the guest's network card, at the first free ${NAMES_OF_PLACES[table.kind]}${why}`);
  }
  const driver = command.machine.startsWith('s390') ? 'virtio-net-ccw' : pickNicModel(command);
  const value = formatCard(driver, [], NETDEV_ID, lateJson);
  return add(lateJson, value, "the guest's network card, at a place of QEMU's choice");
}

/** C's place and form if QEMU takes them, else another port that it takes. */
function findPlace(
  table: PlaceTable,
  { candidates, json: asC }: SlotSearch,
  lateJson: boolean,
  options: readonly GivenOption[],
): { readonly number: number; readonly json: boolean } | undefined {
  const isFree = findFreePlaces(table, options);
  // A slot that QEMU gave to another device is a sign that it knows better; ports are all on the command line.
  const numbers = table.kind === 'port' ? candidates : candidates.slice(0, 1);
  for (const json of new Set([asC, lateJson])) {
    const number = numbers.find((candidate) => isFree(candidate, json));
    if (number !== undefined) return { number, json };
  }
  return undefined;
}

const NAMES_OF_PLACES = { port: 'port', slot: 'slot', devno: 'device number' } as const;

/** Why no card is to be added, if so. */
function findReasonForNone(machine: string, options: readonly GivenOption[]): string | undefined {
  if (machine === 'none') return 'no network card: the machine has no bus for one';
  const user = options.find(
    (option) => option.name === 'device' && getProperty(propertiesOf(option), 'netdev') === NETDEV_ID,
  );
  return user === undefined ? undefined : `no network card: there is one that waits for ${NETDEV_ID}`;
}

/** Appends words, but in front of a -device that has no value: it would swallow the first, and QEMU's complaint would mislead. */
function insertAtEnd(args: readonly string[], added: readonly string[]): string[] {
  const lone = args.at(-1) === '-device' && walkOptions(args).at(-1)?.value === undefined;
  return lone ? [...args.slice(0, -1), ...added, '-device'] : [...args, ...added];
}
