/** Becoming QEMU as if its caller had started it: the same pid, signals, limit of open files and inherited descriptors. */
import { ENOEXEC } from '../../base/errno.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { becomeProgram } from '../../sys/process.ts';
import { readOwnEnvironment } from './bytes.ts';
import { type InheritedState, NOTE_VARIABLE } from './inherited-state.ts';

export interface Program {
  /** Path of the file. */
  readonly file: string;
  /** The name that it is called by, `argv[0]`. */
  readonly name: string;
  readonly args: readonly string[];
  /** The connected socket here, and its number there. */
  readonly socket: number;
  readonly fd: number;
  /** Other numbers on its command line. */
  readonly namedFds: readonly number[];
}

const STDIO = [0, 1, 2];

/**
 * Does not return. All words are a byte in each character.
 * @throws PasselError PASSEL_E_QEMU_EXECUTE
 */
export function becomeQemu(native: NativeAddon, program: Program, state: InheritedState): never {
  native.setNonBlocking(program.socket, 0);
  try {
    becomeInheriting(native, { ...program, fds: [[program.fd, program.socket]] }, state);
  } catch (error) {
    throw new PasselError('PASSEL_E_QEMU_EXECUTE', { value: program.file, reason: reasonOf(error) }, { cause: error });
  }
}

/** A program and the descriptors that it gets besides those that this process was given. */
export interface InheritingProgram extends Pick<Program, 'file' | 'name' | 'args' | 'namedFds'> {
  /** Pairs (number there, descriptor here). */
  readonly fds: readonly (readonly [there: number, here: number])[];
}

/**
 * Becomes the program. All words are a byte in each character.
 * @throws ExecError when that fails
 */
export function becomeInheriting(native: NativeAddon, program: InheritingProgram, state: InheritedState): never {
  // Without a note, what the command line names is the best guess at what was inherited.
  const inherited = state.fds ?? [...STDIO, ...program.namedFds];
  for (const fd of inherited) if (!program.fds.some(([there]) => there === fd)) native.setCloseOnExec(fd, 0);
  // Node has opened /dev/null where these were closed.
  if (state.fds !== undefined) for (const fd of STDIO) if (!state.fds.includes(fd)) native.close(fd);
  const request = {
    bytes: true,
    env: readOwnEnvironment(NOTE_VARIABLE),
    fds: Int32Array.from(program.fds.flat()),
    ignoredSignals: Int32Array.from(state.ignoredSignals),
    blockedSignals: Int32Array.from(state.blockedSignals),
    fileLimit: state.fileLimit,
  };
  try {
    becomeProgram(native, { ...request, file: program.file, args: [program.name, ...program.args] });
  } catch (error) {
    // A script without #!: the shell's, as execvp(3) has it.
    // By number: Node has no name for it.
    if ((error as NodeJS.ErrnoException).errno !== ENOEXEC) throw error;
    becomeProgram(native, { ...request, file: '/bin/sh', args: ['/bin/sh', program.file, ...program.args] });
  }
}
