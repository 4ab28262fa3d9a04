/** Whether those who start the C programs by their names would find ours: the search paths that count, and what they lead to. */
import { accessSync, constants, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** A search path and who uses it. */
export interface SearchPath {
  readonly user: string;
  readonly folders: readonly string[];
}

/** What systemd gives services that do not say otherwise (systemd.exec(5)). */
const SERVICE_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin';
/** Programs that start passt or qrap. A kernel's name for a process has 15 characters. */
const CALLERS = new Set(['libvirtd', 'virtqemud', 'podman', 'rootlesskit', 'rootlesskit-doc']);

const split = (path: string): string[] => path.split(':').filter((folder) => folder !== '');

/** This shell's, the usual one of services, and those of callers that run and let us look. */
export function listSearchPaths(): SearchPath[] {
  const paths: SearchPath[] = [
    { user: 'programs started from here', folders: split(process.env['PATH'] ?? '') },
    { user: 'system services (libvirtd and virtqemud by default)', folders: split(SERVICE_PATH) },
  ];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
      if (!CALLERS.has(name)) continue;
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      const path = environment.find((entry) => entry.startsWith('PATH='))?.slice('PATH='.length);
      paths.push({ user: `${name}, process ${pid}`, folders: split(path ?? SERVICE_PATH) });
    } catch {
      // It has ended meanwhile, or is somebody else's.
    }
  }
  return paths;
}

/** What a search path leads to. */
export type Finding =
  | { readonly kind: 'ours' }
  | { readonly kind: 'other'; readonly path: string; readonly oursLater: boolean }
  | { readonly kind: 'none' };

/** Looks for `name` as execvp(3) does. @param directory - where our links are */
export function findInPath(name: string, folders: readonly string[], directory: string): Finding {
  const ours = realOf(directory);
  for (const [i, folder] of folders.entries()) {
    if (realOf(folder) === ours) return { kind: 'ours' };
    const path = join(folder, name);
    if (!isExecutable(path)) continue;
    const oursLater = folders.slice(i + 1).some((later) => realOf(later) === ours);
    return { kind: 'other', path, oursLater };
  }
  return { kind: 'none' };
}

function realOf(folder: string): string {
  try {
    return realpathSync(folder);
  } catch {
    return folder;
  }
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
