/** Whether a file that decides about rights can be believed: who else than root could have written it. */
import type { Stats } from 'node:fs';

/**
 * @param stats - of the open file, so that nothing can take its place between check and use
 * @param owner - who may own it besides root; default: the user of this process
 * @returns why not, or undefined: only root, its group and `owner` could have written it
 */
export function whyNotTrusted(stats: Stats, owner: number = process.geteuid?.() ?? 0): string | undefined {
  if (stats.uid !== 0 && stats.uid !== owner)
    return `it belongs to user ${stats.uid}, who could write anything into it`;
  if ((stats.mode & 0o002) !== 0) return 'everybody can write it';
  if ((stats.mode & 0o020) !== 0 && stats.gid !== 0) return `group ${stats.gid} can write it`;
  return undefined;
}
