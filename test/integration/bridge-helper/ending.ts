/** How a helper ended, from what its caller saw. */
import { expect } from 'vitest';
import type { BridgeOutcome } from '../../support/bridge/caller.ts';
import type { Ending } from './cases.ts';

export function endingOf({ status, byte, taps }: BridgeOutcome): Ending {
  if (status < 0) return 'crash';
  if (status === 0 && byte === '00' && taps.length === 1) return 'tap';
  if (status === 0 && byte === null) return 'help';
  expect({ status, byte, taps }, 'a refusal sends nothing').toEqual({ status: 1, byte: null, taps: [] });
  return 'no';
}
