/** A directory of names under which callers look for the C programs, each a link to the executable of ours that stands in for it. */
import { lstatSync, mkdirSync, readlinkSync, renameSync, statSync, symlinkSync, unlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { PasselError, reasonOf } from '../../base/errors.ts';

/** Name that callers use → ours, the first of which that exists. */
const DROP_INS: Readonly<Record<string, readonly string[]>> = {
  passt: ['passel-passt', 'passel-passt.cjs'],
  pasta: ['passel-pasta', 'passel-pasta.cjs'],
  qrap: ['passel-qrap', 'passel-qrap.cjs'],
  'qemu-pr-helper': ['passel-pr-helper', 'passel-pr-helper.cjs'],
  'qemu-bridge-helper': ['passel-bridge-helper', 'passel-bridge-helper.cjs'],
};

export interface DropIn {
  readonly name: string;
  /** The executable, an absolute path. */
  readonly target: string;
}

/** The names for which there is an executable in `folder`. */
export function listDropIns(folder: string): DropIn[] {
  const found: DropIn[] = [];
  for (const [name, candidates] of Object.entries(DROP_INS)) {
    const target = candidates.map((each) => join(folder, each)).find(isFile);
    if (target !== undefined) found.push({ name, target });
  }
  return found;
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/**
 * Makes the links. All names are looked at before the first is touched.
 * @param force - replace what is not ours; directories never are
 * @throws PasselError PASSEL_E_LINK
 */
export function makeLinks(directory: string, dropIns: readonly DropIn[], force: boolean): void {
  const attempt = (path: string, step: () => void): void => {
    try {
      step();
    } catch (error) {
      throw new PasselError('PASSEL_E_LINK', { value: path, reason: reasonOf(error) }, { cause: error });
    }
  };
  attempt(directory, () => mkdirSync(directory, { recursive: true }));
  for (const { name } of dropIns) checkReplaceable(join(directory, name), force);
  for (const { name, target } of dropIns) {
    const path = join(directory, name);
    const temporary = `${path}.passel-${process.pid}`;
    attempt(path, () => {
      symlinkSync(target, temporary);
      try {
        // In one step: a caller finds the old one or the new one.
        renameSync(temporary, path);
      } catch (error) {
        unlinkSync(temporary);
        throw error;
      }
    });
  }
}

function checkReplaceable(path: string, force: boolean): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined || isOurs(path)) return;
  if (stat.isDirectory()) throw new PasselError('PASSEL_E_LINK', { value: path, reason: 'there is a directory' });
  if (force) return;
  throw new PasselError(
    'PASSEL_E_LINK',
    { value: path, reason: 'there is something that is not ours' },
    { hint: '--force replaces it' },
  );
}

/** Whether `path` is a link to an executable of ours, of whatever installation. */
export function isOurs(path: string): boolean {
  try {
    return basename(readlinkSync(path)).startsWith('passel-');
  } catch {
    return false;
  }
}
