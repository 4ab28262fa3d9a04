/**
 * Which process connected to a socket. A number alone does not say: numbers are used again. A pidfd (SO_PEERPIDFD of unix(7), Linux 6.5) stays with its
 * process, and while /proc/self/fdinfo shows the number beside it, what /proc/NUMBER says is about that process.
 */
import { readFileSync } from 'node:fs';
import type { NativeAddon } from './native-addon.ts';

export interface PeerProcess {
  /** The caller's. Readable when the process has ended. */
  readonly pidfd: number;
  /** Name of the program (comm of proc(5), at most 15 bytes); undefined: the process had ended. */
  readonly name: string | undefined;
  /** Start of the process in clock ticks since the machine's: with the number it names the process for good. */
  readonly startTicks: number | undefined;
}

/** @returns undefined on kernels without SO_PEERPIDFD, and for a process that had ended */
export function openPeerProcess(native: NativeAddon, socket: number, pid: number): PeerProcess | undefined {
  const pidfd = native.peerPidfd(socket);
  if (pidfd < 0) return undefined;
  return { pidfd, ...readStat(pidfd, pid) };
}

function readStat(pidfd: number, pid: number): Pick<PeerProcess, 'name' | 'startTicks'> {
  const unknown = { name: undefined, startTicks: undefined };
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // Only now: as long as the process is there, even as a zombie, nobody else has had its number.
    if (!new RegExp(`^Pid:\\s*${pid}$`, 'm').test(readFileSync(`/proc/self/fdinfo/${pidfd}`, 'latin1'))) return unknown;
    // The name may hold anything, parentheses and blanks too.
    const [, name, rest] = /^\d+ \((.*)\) (.*)$/s.exec(stat) ?? [];
    // proc(5): field 22, counted from 1; the third is the first of `rest`.
    const startTicks = Number(rest?.split(' ')[22 - 3]);
    return { name, startTicks: Number.isSafeInteger(startTicks) ? startTicks : undefined };
  } catch {
    return unknown;
  }
}
