/** Names of device nodes for logs, as the kernel gives them. */
import { readFileSync } from 'node:fs';
import type { OpenFile } from '../../sys/sg.ts';

/** Reading sysfs takes longer than the rest of a short request, and a number rarely changes its meaning. */
const KEEP_MS = 2_000;
const ENTRIES_MAX = 1024;

/** @returns a function that gives `/dev/sda` for 8:0, or undefined where that is not known */
export function createPathFinder(now: () => number = () => performance.now()): (file: OpenFile) => string | undefined {
  const known = new Map<string, { readonly path: string | undefined; readonly untilMs: number }>();
  return ({ kind, major, minor }) => {
    if (kind === 'other') return undefined;
    const name = `${kind === 'block' ? 'block' : 'char'}/${major}:${minor}`;
    const entry = known.get(name);
    if (entry !== undefined && now() < entry.untilMs) return entry.path;
    const path = readDeviceName(`/sys/dev/${name}/uevent`);
    if (known.size >= ENTRIES_MAX) known.clear();
    known.set(name, { path, untilMs: now() + KEEP_MS });
    return path;
  };
}

function readDeviceName(file: string): string | undefined {
  try {
    const name = /^DEVNAME=(.+)$/m.exec(readFileSync(file, 'utf8'))?.[1];
    return name === undefined ? undefined : `/dev/${name}`;
  } catch {
    return undefined;
  }
}
