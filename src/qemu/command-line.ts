/**
 * Reading a QEMU command line as far as `passel run` must: which machine it is for, and whether it has a network of its own.
 *
 * QEMU's options take one dash or two; all but a few take exactly one value, and the value may itself begin with a dash
 * (`-append "-x"`), so options must be walked in order and not searched for.
 */
import { basename } from 'node:path';

/** Options without a value (qemu(1), "Options"); what is not here takes one. */
const FLAG_OPTIONS: ReadonlySet<string> = new Set(
  (
    'h help version snapshot nographic S s daemonize enable-kvm no-kvm no-reboot no-shutdown no-acpi no-hpet no-fd-bootchk ' +
    'win2k-hack nodefaults no-user-config full-screen alt-grab ctrl-grab no-quit sdl curses portrait show-cursor usb old-param ' +
    'semihosting singlestep one-insn-per-tb mem-prealloc only-migratable preconfig enable-fips xen-attach xen-domid-restrict no-frame'
  ).split(' '),
);

/** What a command line says about its network. */
export interface QemuCommand {
  /** `x86_64` of `qemu-system-x86_64`; undefined for a program that is not recognised as QEMU. */
  readonly architecture: string | undefined;
  /** Machine type of `-machine`/`-M` without its properties; empty: QEMU's default. */
  readonly machine: string;
  /** It has `-netdev`, `-nic` or `-net`, `none` included: nothing is to be added. */
  readonly hasNetwork: boolean;
  /** Ids that `-device …,netdev=ID` refers to. */
  readonly wantedNetdevs: readonly string[];
  /** Ids given to devices and the like, so that new ones do not clash. */
  readonly ids: ReadonlySet<string>;
  /** `-daemonize`: it ends for its parent while it goes on running. */
  readonly daemonizes: boolean;
}

/**
 * Reads a command line.
 * @param argv - program and arguments
 */
export function parseQemuCommand(argv: readonly string[]): QemuCommand {
  const [program = '', ...rest] = argv;
  let machine = '';
  let hasNetwork = false;
  let daemonizes = false;
  const wantedNetdevs: string[] = [];
  const ids = new Set<string>();
  for (const { name, value } of walkOptions(rest)) {
    if (name === 'netdev' || name === 'nic' || name === 'net') hasNetwork = true;
    else if (name === 'daemonize') daemonizes = true;
    else if (name === 'machine' || name === 'M') machine = machineType(value) ?? machine;
    else if (name === 'device') {
      const netdev = findProperty(value, 'netdev');
      if (netdev !== undefined) wantedNetdevs.push(netdev);
    }
    const id = findProperty(value, 'id');
    if (id !== undefined) ids.add(id);
  }
  return { architecture: architectureOf(program), machine, hasNetwork, wantedNetdevs, ids, daemonizes };
}

interface GivenOption {
  /** Without dashes. */
  readonly name: string;
  /** Empty for options without one. */
  readonly value: string;
}

function walkOptions(args: readonly string[]): GivenOption[] {
  const options: GivenOption[] = [];
  for (let i = 0; i < args.length; i++) {
    const argument = args[i]!;
    // Anything else is the image of a disk.
    if (!argument.startsWith('-') || argument === '-') continue;
    const name = argument.replace(/^--?/, '');
    if (FLAG_OPTIONS.has(name)) options.push({ name, value: '' });
    else options.push({ name, value: args[++i] ?? '' });
  }
  return options;
}

function architectureOf(program: string): string | undefined {
  const name = basename(program);
  const match = /^qemu-system-([a-z0-9_]+)/.exec(name);
  if (match !== null) return match[1];
  // Distributions' names for the emulator of the machine they run on.
  return /^(qemu-)?kvm$/.test(name) ? 'native' : undefined;
}

/** `pc-q35-7.2,accel=kvm` and `type=pc,accel=kvm` name a type; `accel=kvm` alone does not. */
function machineType(value: string): string | undefined {
  const [first = ''] = splitProperties(value);
  if (first !== '' && !first.includes('=')) return first;
  return findProperty(value, 'type');
}

/**
 * The value of `key=` in a QEMU option string; the last one counts. JSON (`-device '{"driver": …}'`) is understood as well.
 * @returns undefined if there is none
 */
export function findProperty(value: string, key: string): string | undefined {
  if (value.startsWith('{')) {
    try {
      const property: unknown = (JSON.parse(value) as Record<string, unknown>)[key];
      return typeof property === 'string' ? property : undefined;
    } catch {
      return undefined;
    }
  }
  const prefix = `${key}=`;
  return splitProperties(value)
    .findLast((property) => property.startsWith(prefix))
    ?.slice(prefix.length);
}

/** Splits at single commas; a double comma stands for one in a value. */
export function splitProperties(value: string): string[] {
  const properties: string[] = [];
  let current = '';
  for (let i = 0; i < value.length; i++) {
    const isComma = value[i] === ',';
    if (isComma && value[i + 1] !== ',') {
      properties.push(current);
      current = '';
      continue;
    }
    current += value[i];
    if (isComma) i++;
  }
  properties.push(current);
  return properties;
}

/** The opposite of {@link splitProperties} for one value. */
export function escapeProperty(value: string): string {
  return value.replaceAll(',', ',,');
}
