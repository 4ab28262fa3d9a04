/**
 * The passel-qrap command: plan, find QEMU, find passt, become QEMU.
 *
 * In this order, so that nothing wrong with the command line or with QEMU uses up a connection of passt. Everything is synchronous:
 * in less than a tenth of a second this process is another program. Standard streams are used by their descriptors only, since
 * Node's streams would change open files that QEMU inherits.
 */
import { writeSync } from 'node:fs';
import { PasselError } from '../../base/errors.ts';
import { listNamedDescriptors } from '../../qemu/named-descriptors.ts';
import { listQemuNames, planQrap, type QrapPlan } from '../../qemu/qrap/plan.ts';
import { loadNative } from '../../sys/native.ts';
import { findProgram } from '../../sys/process.ts';
import { QRAP_OPTIONS } from '../options/qrap-options.ts';
import { writeStderr } from '../stderr.ts';
import { VERSION } from '../version.ts';
import { becomeQemu } from './become-qemu.ts';
import { fromBytes, readOwnWords, toBytes } from './bytes.ts';
import { findPasst } from './find-passt.ts';
import { NOTE_VARIABLE, parseInheritedState } from './inherited-state.ts';
import { formatPlan } from './print-plan.ts';

export const QRAP_PROGRAM = 'passel-qrap';

/** QEMU's names for processors, by Node's. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'x86_64',
  ia32: 'i386',
  arm64: 'aarch64',
  loong64: 'loongarch64',
};

/**
 * Runs the command; comes back only when it has not become QEMU.
 * @returns exit status
 * @throws PasselError for the caller to report
 */
export async function runQrapCommand(argv: readonly string[]): Promise<number> {
  switch (argv[0]) {
    case '--help': {
      const { formatHelp } = await import('../options/help.ts');
      const usage = `${QRAP_PROGRAM} [FDNUM QEMU_CMD] [QEMU_ARG]...\n       ${QRAP_PROGRAM} --print [WORD]...`;
      return print(await formatHelp(usage, QRAP_OPTIONS));
    }
    case '--version':
      return print(`${QRAP_PROGRAM} ${VERSION}\n`);
    case '--print':
      return printPlan(makePlan(readOwnWords(argv.slice(1))));
    default:
      return run(makePlan(readOwnWords(argv)));
  }
}

function print(text: string): number {
  writeSync(1, text);
  return 0;
}

const architecture = ARCHITECTURES[process.arch] ?? process.arch;

function makePlan(words: readonly string[]): QrapPlan {
  return planQrap(words, { isProgram: (name) => tryFindProgram(name) !== undefined, architecture });
}

function tryFindProgram(name: string): string | undefined {
  try {
    return findProgram(fromBytes(name));
  } catch {
    return undefined;
  }
}

interface FoundQemu {
  readonly name: string;
  readonly file: string;
}

/** The first of the plan's programs that can be executed; one that may not be is passed over. */
function findQemu(plan: QrapPlan): FoundQemu {
  const names = plan.command === undefined ? listQemuNames(architecture) : [plan.command];
  const reasons: string[] = [];
  for (const name of names) {
    try {
      return { name, file: findProgram(fromBytes(name)) };
    } catch (error) {
      const why = (error as NodeJS.ErrnoException).code === 'EACCES' ? 'may not be executed' : 'is not there';
      reasons.push(`${fromBytes(name)} ${why}`);
    }
  }
  const { PATH = '(unset)' } = process.env;
  throw new PasselError('PASSEL_E_QEMU_NOT_FOUND', { value: reasons.join(', ') }, { hint: `PATH is ${PATH}` });
}

function printPlan(plan: QrapPlan): number {
  let text: string;
  try {
    const { name, file } = findQemu(plan);
    text = formatPlan(plan, name, toBytes(file));
  } catch (error) {
    if (!(error instanceof PasselError)) throw error;
    text = formatPlan(plan, listQemuNames(architecture)[0]!, toBytes(error.message));
  }
  writeSync(1, Buffer.from(text, 'latin1'));
  return 0;
}

function run(plan: QrapPlan): number {
  const state = parseInheritedState(process.env[NOTE_VARIABLE], process.pid);
  const { name, file } = findQemu(plan);
  const native = loadNative();
  const limit = native.getFileLimit(1);
  if (plan.fd >= limit) {
    throw new PasselError('PASSEL_E_QRAP_FD', { value: plan.fd, reason: `the limit of open files is ${limit}` });
  }
  const passt = findPasst(native);
  writeStderr(`${QRAP_PROGRAM}: connected to ${passt.path}\n`);
  const namedFds = listNamedDescriptors(plan.args);
  return becomeQemu(
    native,
    { file: toBytes(file), name, args: plan.args, socket: passt.fd, fd: plan.fd, namedFds },
    state,
  );
}
