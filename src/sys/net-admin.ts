/** Whether this process may make and change network interfaces. */
import { readFileSync } from 'node:fs';

/** Bit of capabilities(7). */
const CAP_NET_ADMIN = 12;

/** Whether CAP_NET_ADMIN is in effect. */
export function hasNetAdmin(): boolean {
  const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
  return match !== null && (BigInt(`0x${match[1]}`) & (1n << BigInt(CAP_NET_ADMIN))) !== 0n;
}
