/** Which guests `--impair` is for. */
import { PasselError } from '../base/errors.ts';
import type { Impairment } from '../link/impairment.ts';
import type { GivenOptions } from './options/definition.ts';
import type { LINK_OPTIONS } from './options/process-options.ts';

type Given = GivenOptions<typeof LINK_OPTIONS>;

/** @throws PasselError when one is for a guest that there is not */
export function checkImpairedGuests(given: Given, names: readonly string[]): void {
  for (const { typed, text, parsed } of given.all('impair')) {
    if (parsed.guest === undefined || names.includes(parsed.guest)) continue;
    const expected = `${names.join(' or ')} in front of ':'`;
    throw new PasselError('PASSEL_E_OPTION_VALUE', { option: typed, value: text, expected });
  }
}

/** What counts for a guest: the last that names it, else the last that names none; undefined: nothing. */
export function findImpairment(given: Given, name: string): Impairment | undefined {
  const all = given.all('impair').map(({ parsed }) => parsed);
  const found = all.findLast(({ guest }) => guest === name) ?? all.findLast(({ guest }) => guest === undefined);
  return found?.impairment;
}
