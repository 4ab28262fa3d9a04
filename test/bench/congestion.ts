/**
 * TCP's congestion control at the ends of a rig. Rows are measured with Linux's own default, whatever this machine's is, or with Reno, which
 * is the same without losses: BBR sends by timers, and their work, which is the guest's and the peers', is charged to whoever
 * has the processor when they fire.
 */
import { readFileSync } from 'node:fs';
import type { Namespace } from '../support/netns/namespace.ts';
import type { BenchRig } from './measure.ts';

/** What a namespace may choose is what the machine allows to everybody. */
export function defaultCongestion(): string {
  const allowed = readFileSync('/proc/sys/net/ipv4/tcp_allowed_congestion_control', 'utf8').trim().split(' ');
  return allowed.includes('cubic') ? 'cubic' : 'reno';
}

/** Sets it for sockets that are opened from now on. @throws Error when the kernel has no such algorithm, or does not permit it */
export async function setCongestionControl(rig: BenchRig, algorithm: string): Promise<void> {
  const { host, guest } = rig as BenchRig & { readonly guest?: Namespace };
  for (const namespace of guest === undefined ? [host] : [host, guest]) {
    await namespace.run('sh', ['-c', 'echo "$1" > /proc/sys/net/ipv4/tcp_congestion_control', 'sh', algorithm]);
  }
}
