/**
 * Command lines as bytes. Node decodes arguments and environment as UTF-8 and so loses what is not; a file's name may be anything.
 * Within qrap a word is a string with a byte in each character (`latin1` of Buffer): QEMU's syntax is ASCII, so it reads the same.
 */
import { readFileSync } from 'node:fs';
import { listEnvironment } from '../../sys/process.ts';

/** Text → a byte in each character. */
export function toBytes(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

/** A byte in each character → text for people and for file names of Node's. */
export function fromBytes(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

function readZeroSeparated(path: string): string[] | undefined {
  try {
    return readFileSync(path, 'latin1').split('\0').slice(0, -1);
  } catch {
    return undefined;
  }
}

/** The last words of this process's command line, of which `argv` is what Node made. */
export function readOwnWords(argv: readonly string[]): string[] {
  const all = readZeroSeparated('/proc/self/cmdline');
  if (all === undefined || all.length < argv.length) return argv.map(toBytes);
  return all.slice(all.length - argv.length);
}

/** The environment that this process was started with, in its order, without the variable `hidden`. */
export function readOwnEnvironment(hidden: string): string[] {
  const all = readZeroSeparated('/proc/self/environ') ?? listEnvironment(process.env).map(toBytes);
  return all.filter((entry) => !entry.startsWith(`${hidden}=`));
}
