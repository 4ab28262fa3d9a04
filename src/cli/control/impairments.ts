/** What links are made worse by, as the control socket tells and changes it. */
import type { ImpairedWay } from '../../link/impair-way.ts';
import { NO_IMPAIRMENT } from '../../link/impairment.ts';
import type { GuestSide } from '../guest-side.ts';
import { rejectFor } from '../options/definition.ts';
import { formatWayImpairment, parseImpairment } from '../options/impair-value.ts';
import { refuse } from './requests.ts';

/** One direction. */
export interface WayView {
  /** In the words of `--impair`. */
  readonly spec: string;
  /** Frames since it was set. */
  readonly passed: number;
  readonly lost: number;
  readonly dropped: number;
  readonly duplicated: number;
  readonly reordered: number;
  /** Frames that are under way, and their bytes. */
  readonly queuedFrames: number;
  readonly queuedBytes: number;
}

export interface ImpairmentView {
  /** Null: as good as it is. */
  readonly toGuest: WayView | null;
  readonly fromGuest: WayView | null;
}

export interface NamedImpairmentView {
  readonly name: string;
  readonly impairment: ImpairmentView | null;
}

/** @returns null where nothing is made worse */
export function viewImpairment({ impair }: GuestSide): ImpairmentView | null {
  const toGuest = viewWay(impair?.toGuest);
  const fromGuest = viewWay(impair?.fromGuest);
  return toGuest === null && fromGuest === null ? null : { toGuest, fromGuest };
}

function viewWay(way: ImpairedWay | undefined): WayView | null {
  if (way?.impairment === undefined) return null;
  const { passed, lost, dropped, duplicated, reordered } = way.counters;
  const counters = { passed, lost, dropped, duplicated, reordered };
  return { spec: formatWayImpairment(way.impairment), ...counters, queuedFrames: way.count, queuedBytes: way.bytes };
}

/**
 * Makes links worse, or as good as they are.
 * @param name - of a guest; null: all of them
 * @param spec - as for `--impair`, without a guest; `off`: nothing
 * @throws PasselError; nothing has changed then
 */
export function setImpairment(guests: readonly GuestSide[], name: unknown, spec: string): NamedImpairmentView[] {
  const chosen = chooseGuests(guests, name);
  const impairment = spec === 'off' ? NO_IMPAIRMENT : parseImpairment(spec, rejectFor('spec', spec));
  for (const guest of chosen) guest.setImpairment(impairment);
  return chosen.map((guest) => ({ name: guest.plan.name, impairment: viewImpairment(guest) }));
}

/** @throws PasselError */
export function chooseGuests(guests: readonly GuestSide[], name: unknown): readonly GuestSide[] {
  if (name === null || name === undefined) return guests;
  const found = guests.filter(({ plan }) => plan.name === name);
  const names = guests.map(({ plan }) => plan.name).join(', ');
  return found.length > 0 ? found : refuse(`'guest' must be one of ${names}, or null for all`);
}
