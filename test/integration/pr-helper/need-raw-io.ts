/** The capability without which neither helper starts. */
import { readFileSync } from 'node:fs';
import type { Requirement } from '../../support/netns/capabilities.ts';

export const RAWIO = 1n << 17n;

export const needRawIo: Requirement = {
  name: 'rawio',
  probe() {
    const held = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))![1];
    return (BigInt(`0x${held}`) & RAWIO) === 0n ? 'needs CAP_SYS_RAWIO' : '';
  },
};
