/**
 * Reading a QEMU command line: its options in order, which machine it is for, and whether it has a network of its own.
 *
 * QEMU's options take one dash or two; all but a few take exactly one value, and the value may itself begin with a dash
 * (`-append "-x"`), so options must be walked in order and not searched for.
 */
import { basename } from 'node:path';
import { getProperty, IMPLIED_KEYS, type Property, readProperties } from './option-string.ts';

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
  for (const option of walkOptions(rest)) {
    const { name } = option;
    const properties = propertiesOf(option);
    if (name === 'netdev' || name === 'nic' || name === 'net') hasNetwork = true;
    else if (name === 'daemonize') daemonizes = true;
    else if (name === 'machine' || name === 'M') machine = getProperty(properties, 'type') ?? machine;
    else if (name === 'device') {
      const netdev = getProperty(properties, 'netdev');
      if (netdev !== undefined) wantedNetdevs.push(netdev);
    }
    const id = getProperty(properties, 'id');
    if (id !== undefined) ids.add(id);
  }
  return { architecture: architectureOf(program), machine, hasNetwork, wantedNetdevs, ids, daemonizes };
}

/** An option as it stands on a command line. */
export interface GivenOption {
  /** Without dashes. */
  readonly name: string;
  /** Empty for options without one, undefined where the command line ends before it. */
  readonly value: string | undefined;
  /** Place of the option among the arguments; its value, if it takes one, is the next. */
  readonly index: number;
}

/** The options among arguments (without the program), in order. */
export function walkOptions(args: readonly string[]): GivenOption[] {
  const options: GivenOption[] = [];
  for (let index = 0; index < args.length; index++) {
    const argument = args[index]!;
    // Anything else is the image of a disk.
    if (!argument.startsWith('-') || argument === '-') continue;
    const name = argument.replace(/^--?/, '');
    if (FLAG_OPTIONS.has(name)) options.push({ name, value: '', index });
    else options.push({ name, value: args[index + 1], index: index++ });
  }
  return options;
}

/** An option's properties; none if it has no value, or one that begins like JSON and is none. */
export function propertiesOf({ name, value = '' }: GivenOption): readonly Property[] {
  try {
    return readProperties(value, IMPLIED_KEYS[name]);
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}

function architectureOf(program: string): string | undefined {
  const name = basename(program);
  const match = /^qemu-system-([a-z0-9_]+)/.exec(name);
  if (match !== null) return match[1];
  // Distributions' names for the emulator of the machine they run on.
  return /^(qemu-)?kvm$/.test(name) ? 'native' : undefined;
}
