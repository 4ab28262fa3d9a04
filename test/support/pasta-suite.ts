/** What the suites over a pasta share. */
import { describe, it } from 'vitest';
import { DIFFERENCES, type Difference } from '../integration/pasta/differences.ts';
import { requireOrSkip } from './netns/capabilities.ts';
import { PASTA_REQUIREMENTS } from './pasta-host.ts';
import { FAMILIES } from './rig-suite.ts';
import { isDebianStack } from './stack-under-test.ts';

/** `describe` where a pasta can be started as an ordinary user; says why not elsewhere. */
export const pastaSuite = await requireOrSkip(...PASTA_REQUIREMENTS);

/** A test of something that Debian's pasta, of 2023, does not do, for the reason in the table of differences. */
export function itIsOursOnly(
  difference: Difference,
  name: string,
  body: () => Promise<void> | void,
  timeoutMs?: number,
): void {
  if (isDebianStack()) it.runIf(false)(`${name} (not Debian's: ${DIFFERENCES[difference].debian})`, body, timeoutMs);
  else it(name, body, timeoutMs);
}

/** The same for a whole suite. */
export function pastaSuiteOursOnly(difference: Difference, name: string, body: () => void): void {
  if (isDebianStack()) describe.runIf(false)(`${name} (not Debian's: ${DIFFERENCES[difference].debian})`, body);
  else pastaSuite(name, body);
}

/** What the pasta under test is known to do where the two differ. */
export function eitherWay<T>(_difference: Difference, expected: { ours: T; debian: T }): T {
  return isDebianStack() ? expected.debian : expected.ours;
}

/** The two families, as FAMILIES of rig-suite.ts, for a namespace whose interface has the name of the host's. */
export const PASTA_FAMILIES = FAMILIES.map((family) => ({
  ...family,
  gateway: family.gateway.replace('%tap0', '%eth0'),
}));

/** Options with which the host's loopback leads to that of the namespace, as it always does with Debian's. */
export const TO_LOOPBACK = eitherWay('loopbackTarget', { ours: ['--host-lo-to-ns-lo'], debian: [] });
