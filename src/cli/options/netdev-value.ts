/** The value of `--netdev`: QEMU's own text, read by QEMU's rules. */
import { type Netdev, parseNetdev } from '../../qemu/netdev.ts';
import type { Reject } from './definition.ts';

export function parseNetdevValue(text: string, reject: Reject): Netdev {
  return parseNetdev(text, (key, value, expected) => {
    if (key === '') return reject(expected);
    return reject(value === undefined ? `${key}: ${expected}` : `${key} to be ${expected}, not '${value}'`);
  });
}
