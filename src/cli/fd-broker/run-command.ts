/**
 * `passel-fd-broker run`: opens what the options ask for, puts the numbers into the arguments of a command, and becomes the command.
 *
 * In this order, so that little is done in vain: the command is looked for, references are checked, for QEMU forms that it would refuse
 * are refused, then everything is opened, then this process is the command: the same pid, signals, limit of open files and inherited
 * descriptors as its caller gave. Standard streams are used by their descriptors only, as for qrap.
 */
import { writeSync } from 'node:fs';
import { createArena } from '../../base/arena.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { parseQemuCommand } from '../../qemu/command-line.ts';
import { findRefusedForm } from '../../qemu/descriptor-forms.ts';
import { type DescriptorUse, listDescriptorUses } from '../../qemu/descriptor-uses.ts';
import { listNamedDescriptors } from '../../qemu/named-descriptors.ts';
import { readFdFacts } from '../../sys/fd-facts.ts';
import { loadNative } from '../../sys/native.ts';
import { findProgram } from '../../sys/process.ts';
import type { GivenOptions } from '../options/definition.ts';
import { FD_BROKER_RUN_OPTIONS, type FdBrokerRunOptionTable } from '../options/fd-broker-run-options.ts';
import { scanOptions } from '../options/scan.ts';
import { unlinkIfThere } from '../pid-file.ts';
import { becomeInheriting } from '../qrap/become-qemu.ts';
import { fromBytes, readOwnWords, toBytes } from '../qrap/bytes.ts';
import { type InheritedState, NOTE_VARIABLE, parseInheritedState } from '../qrap/inherited-state.ts';
import { writeStderr } from '../stderr.ts';
import { VERSION } from '../version.ts';
import type { AskedFd } from './fd-spec.ts';
import { checkFitness, expectationOf } from './fitness.ts';
import { listenForCommand, type Opener, openSpec } from './open-spec.ts';
import { listReferences, replaceReferences } from './references.ts';
import { defaultAskPath } from './socket-path.ts';

type Given = GivenOptions<FdBrokerRunOptionTable>;

const USAGE = 'passel-fd-broker run [--fd NAME=SPEC]... [--monitor PATH] -- COMMAND [ARG]...';
/** One endpoint record. */
const SCRATCH_BYTES = 24;
const ARENA_BYTES = 4096;
const MONITOR_ID = 'passel-monitor';

/** A descriptor that arguments refer to. */
interface Wanted extends AskedFd {
  readonly name: string;
  /** Options of QEMU that get it. */
  readonly uses: readonly DescriptorUse[];
}

/** What is to become of this process. Words are a byte in each character. */
interface Command {
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
}

/**
 * Comes back only when it has not become the command.
 * @returns exit status; @throws PasselError for the caller to report
 */
export async function runRunCommand(programName: string, argv: readonly string[]): Promise<number> {
  const given = scanOptions(FD_BROKER_RUN_OPTIONS, argv, { stopAtOperand: true });
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    writeSync(1, await formatHelp(USAGE, FD_BROKER_RUN_OPTIONS));
    return 0;
  }
  if (given.has('version')) {
    writeSync(1, `${programName} ${VERSION}\n`);
    return 0;
  }
  const command = findCommand(given.operands);
  const wanted = chooseSpecs(programName, given, command);
  const monitor = given.last('monitor');
  refuseForms(command);
  for (const each of wanted) checkFitness(each, each.uses);
  const native = loadNative();
  const arena = createArena(ARENA_BYTES);
  native.bindArena(arena.buffer);
  const made: string[] = [];
  const state = parseInheritedState(process.env[NOTE_VARIABLE], process.pid);
  const opener: Opener = {
    native,
    scratch: { view: arena.view, offset: arena.allocate(SCRATCH_BYTES) },
    brokerPath: given.last('broker-socket') ?? defaultAskPath(),
    brokerChosen: given.gave('broker-socket'),
    inherited: state.fds,
    made,
  };
  const inherited = wanted.flatMap(({ spec }) => (spec.kind === 'inherited' ? [spec.fd] : []));
  const namedFds = [...new Set([...listNamedDescriptors(command.args), ...inherited])];
  const takeNumber = numberChooser(state, namedFds, native.getFileLimit(1));
  try {
    // As many as are known to be needed: nothing is opened in vain.
    const reserved = Array.from({ length: countNumbers(wanted) + (monitor === undefined ? 0 : 1) }, takeNumber);
    const nextNumber = (): number => reserved.shift() ?? takeNumber();
    const fds: [number, number][] = [];
    const byName = new Map<string, readonly number[]>();
    for (const each of wanted) {
      const opened = await openSpec(opener, each, expectationOf(each.uses));
      if (each.uses.length > 0) {
        checkFitness(
          each,
          each.uses,
          opened.fds.map((fd) => readFdFacts(native, fd)),
        );
      }
      if (each.spec.kind === 'inherited') {
        byName.set(each.name, opened.fds);
        continue;
      }
      const numbers = opened.fds.map((fd) => {
        const number = nextNumber();
        fds.push([number, fd]);
        return number;
      });
      byName.set(each.name, numbers);
    }
    const args = replaceReferences(command.args, byName);
    if (monitor !== undefined) {
      const number = nextNumber();
      fds.push([number, await listenForCommand(opener, monitor, '--monitor')]);
      args.push(...formatMonitor(number, parseQemuCommand([command.name, ...args]).ids));
    }
    return becomeInheriting(native, { file: command.file, name: command.name, args, fds, namedFds }, state);
  } catch (error) {
    for (const path of made) unlinkIfThere(path);
    if (error instanceof PasselError) throw error;
    throw cannotRun(fromBytes(command.name), error);
  }
}

function findCommand(operands: readonly string[]): Command {
  const [name, ...args] = readOwnWords(operands);
  if (name === undefined) {
    const expected = '-- and a command to become';
    throw new PasselError('PASSEL_E_OPTION_MISSING', { option: 'COMMAND', expected }, { hint: `Usage: ${USAGE}` });
  }
  try {
    return { name, file: toBytes(findProgram(fromBytes(name))), args };
  } catch (error) {
    throw cannotRun(fromBytes(name), error);
  }
}

/** 127: not there; 126: there, but not to be executed. As shells have it. */
function cannotRun(value: string, error: unknown): PasselError {
  const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
  const code = missing ? 'PASSEL_E_RUN_NOT_FOUND' : 'PASSEL_E_RUN_NOT_EXECUTABLE';
  return new PasselError(code, { value, reason: reasonOf(error) }, { cause: error });
}

/** The options that arguments refer to; the others are not opened, for nobody could use them. */
function chooseSpecs(programName: string, given: Given, { name: program, args }: Command): Wanted[] {
  const wanted = listReferences(args);
  const uses = isQemu(program) ? listDescriptorUses(args) : [];
  const specs: Wanted[] = [];
  const known = new Set<string>();
  for (const { typed, text, parsed } of given.all('fd')) {
    if (known.has(parsed.name)) {
      const expected = `a name that no other ${typed} has`;
      throw new PasselError('PASSEL_E_OPTION_VALUE', { option: typed, value: text, expected });
    }
    known.add(parsed.name);
    const { name } = parsed;
    if (wanted.has(name)) {
      const own = uses.filter((use) => listReferences([use.text]).has(name));
      specs.push({ ...parsed, option: `${typed} ${name}`, uses: own });
    } else writeStderr(`${programName}: no argument has @${parsed.name}@: ${typed} ${parsed.name} is not opened\n`);
  }
  for (const name of wanted) {
    if (known.has(name)) continue;
    const expected = known.size === 0 ? `--fd ${name}=…` : `one of ${[...known].join(', ')}, as --fd names them`;
    throw new PasselError('PASSEL_E_OPERAND', { value: `@${name}@`, expected });
  }
  // What is taken from a broker is gone from there: last, when everything else has been had.
  return [
    ...specs.filter((each) => each.spec.kind !== 'broker'),
    ...specs.filter((each) => each.spec.kind === 'broker'),
  ];
}

function isQemu(program: string): boolean {
  return parseQemuCommand([fromBytes(program)]).architecture !== undefined;
}

function refuseForms({ name, args }: Command): void {
  if (!isQemu(name)) return;
  const refused = findRefusedForm(args);
  if (refused === undefined) return;
  const { option, value, reason } = refused;
  throw new PasselError('PASSEL_E_RUN_REFUSED', { option: `-${option}`, value: fromBytes(value), reason });
}

/** The lowest numbers, in turn, that the caller has not given to anything, and that the command line does not speak of. */
function numberChooser(state: InheritedState, named: readonly number[], limit: number): () => number {
  const taken = new Set([...(state.fds ?? []), ...named]);
  // The caller's limit is in force again when the descriptors are the command's.
  const most = state.fileLimit === 0 ? limit : state.fileLimit;
  let last = 2;
  return () => {
    do last++;
    while (taken.has(last));
    if (last < most) return last;
    throw new PasselError('PASSEL_E_QRAP_FD', { value: last, reason: `the limit of open files is ${most}` });
  };
}

/** How many descriptors there will be, at least. */
function countNumbers(wanted: readonly Wanted[]): number {
  return wanted.reduce(
    (sum, { spec }) => sum + (spec.kind === 'inherited' ? 0 : spec.kind === 'tap' ? spec.queues : 1),
    0,
  );
}

/** QMP on a listening socket. It waits for nobody: QEMU starts, and whoever connects is served when it gets there. */
function formatMonitor(fd: number, ids: ReadonlySet<string>): string[] {
  let id = MONITOR_ID;
  for (let number = 1; ids.has(id); number++) id = `${MONITOR_ID}-${number}`;
  return ['-chardev', `socket,id=${id},fd=${fd},server=on,wait=off`, '-mon', `chardev=${id},mode=control`];
}
