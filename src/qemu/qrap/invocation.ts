/** The two ways to call qrap: `FDNUM QEMU_CMD [QEMU_ARG]…`, and QEMU's arguments alone. */

const INT_MAX = 0x7fff_ffff;
/** Standard input, output and error are not for sockets. */
const DESCRIPTOR_MIN = 3;

export interface GivenCommand {
  /** The number that the socket is to have. */
  readonly fd: number;
  readonly command: string;
  /** Its arguments, which stay as they are. */
  readonly args: readonly string[];
}

/**
 * Tells the ways apart: a first word that begins with a number for a socket, and a second that is a program.
 * @returns undefined: the words are QEMU's arguments
 */
export function readGivenCommand(
  words: readonly string[],
  isProgram: (name: string) => boolean,
): GivenCommand | undefined {
  const [number, command, ...args] = words;
  if (number === undefined || command === undefined) return undefined;
  const fd = readDescriptor(number);
  return fd !== undefined && isProgram(command) ? { fd, command, args } : undefined;
}

/** A number as strtol(3) with base 0 reads it: space before it, a sign, `0x` and `0`, and whatever may follow. */
export function readDescriptor(text: string): number | undefined {
  const match = /^[ \t-\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))/.exec(text);
  if (match === null || match[1] === '-') return undefined;
  const [, , hex, octal, decimal] = match;
  let value = Number.parseInt(decimal ?? '0', 10);
  if (hex !== undefined) value = Number.parseInt(hex, 16);
  else if (octal) value = Number.parseInt(octal, 8);
  return value >= DESCRIPTOR_MIN && value < INT_MAX ? value : undefined;
}
