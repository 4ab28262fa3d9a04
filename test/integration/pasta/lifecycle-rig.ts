/** Starting passel-pasta on an isolated host, and looking at the processes that belong to it. */
import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { waitUntil } from '../../support/netns/namespace.ts';

export const PASTA = [process.execPath, join(PROJECT_ROOT, 'dist/helpers/passel-pasta.cjs')] as const;

/** A line of /proc/PID/status. */
export function statusOf(pid: number, field: string): string {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(text)?.[1] ?? '';
}

/** Children, and theirs, nearest first. */
export function listDescendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 4).split(' ')[0]));
    } catch {
      // It has ended meanwhile.
    }
  }
  const found = [pid];
  for (const parent of found) for (const [child, of] of parents) if (of === parent) found.push(child);
  return found.slice(1);
}

/** Whether a process is there and has not ended. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Agent, first process of the namespaces, and command of a pasta in the foreground, once they are there. */
export async function findParts(child: ChildProcess): Promise<{ agent: number; init: number; command: number }> {
  const { pid = -1 } = child;
  // By its number in the namespace; it is started only when all else is done.
  const find = (number: number): number =>
    listDescendants(pid).find((each) => isAlive(each) && statusOf(each, 'NSpid').split(/\s+/)[1] === String(number)) ??
    -1;
  await waitUntil('the command to run', () => find(2) > 0, 15_000);
  return { agent: listDescendants(pid)[0]!, init: find(1), command: find(2) };
}
