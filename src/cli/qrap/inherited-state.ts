/**
 * What this process was given by its caller and Node has changed since: see src/native/front/front.c, which writes it down.
 */

/** Holds the note; it must not be in the environment of the program that we become. */
export const NOTE_VARIABLE = 'PASSEL_INHERITED';

export interface InheritedState {
  readonly ignoredSignals: readonly number[];
  readonly blockedSignals: readonly number[];
  /** Soft RLIMIT_NOFILE; 0: not known, or none. */
  readonly fileLimit: number;
  /** Open descriptors, standard input, output and error included; undefined: not known. */
  readonly fds: readonly number[] | undefined;
}

/** Without the front (`node …/passel-qrap.cjs`) nothing is known. */
const UNKNOWN: InheritedState = { ignoredSignals: [], blockedSignals: [], fileLimit: 0, fds: undefined };

const NOTE = /^(\d+) ([0-9a-f]+) ([0-9a-f]+) (\d+|-) ([-\d,]+)$/;

/**
 * Reads a note.
 * @param pid - the process that it must be about: one that was left in a child's environment is worth nothing
 */
export function parseInheritedState(note: string | undefined, pid: number): InheritedState {
  const match = NOTE.exec(note ?? '');
  if (match === null || Number(match[1]) !== pid) return UNKNOWN;
  return {
    ignoredSignals: listSignals(match[2]!),
    blockedSignals: listSignals(match[3]!),
    fileLimit: match[4] === '-' ? 0 : Number(match[4]),
    fds: match[5] === '-' ? undefined : listRanges(match[5]!),
  };
}

/** Bit 0 is signal 1. */
function listSignals(mask: string): number[] {
  const bits = BigInt(`0x${mask}`);
  const signals: number[] = [];
  for (let number = 1; number <= 64; number++) if ((bits >> BigInt(number - 1)) & 1n) signals.push(number);
  return signals;
}

function listRanges(text: string): number[] {
  return text.split(',').flatMap((range) => {
    if (range === '') return [];
    const [first, last = first] = range.split('-').map(Number) as [number, number?];
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}
