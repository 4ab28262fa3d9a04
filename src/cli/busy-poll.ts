/**
 * When to look for events a while before sleeping (`--busy-poll`).
 *
 * A request that has passed is mostly answered within some ten microseconds, less than it takes the thread to fall asleep and to be
 * woken. So after a turn that moved a few short frames, and only then, it pays to look first. A transfer goes the other way: the longer the
 * thread sleeps, the more one turn moves and the less a byte costs; the acknowledgements in between are short frames too, hence the look at
 * the last turns together. Whether looking was worth it is seen in the event loop
 * (native/event-loop.c), which leaves it where it was not.
 */
import type { Counters } from '../stack/counters.ts';

/** What of a turn still counts as short messages. */
const FEW_FRAMES = 4;
const FEW_BYTES = 4096;
/** What of the earlier turns' bytes counts with each further one: a turn of 1 MiB is forgotten after twenty. */
const MEMORY = 0.75;

/** Whose frames are counted. */
interface Counted {
  /** With other guests; undefined: there are none. */
  readonly exchange: { readonly forwarded: number; readonly forwardedBytes: number } | undefined;
  readonly stack: { readonly counters: Pick<Counters, 'guestFrames' | 'hostFrames' | 'guestBytes' | 'hostBytes'> };
}

/**
 * @param guests - may still grow
 * @returns to be asked after each turn: `longestUs` (microseconds) when it moved short messages, else 0
 */
export function createBusyPoll(guests: readonly Counted[], longestUs: number): () => number {
  // Frames and bytes until the last turn, and bytes of the last turns. Typed, so that numbers beyond 2^31 are no objects.
  const before = new Float64Array(3);
  return () => {
    let frames = 0;
    let bytes = 0;
    for (let i = 0; i < guests.length; i++) {
      const { stack, exchange } = guests[i]!;
      const { guestFrames, hostFrames, guestBytes, hostBytes } = stack.counters;
      frames += guestFrames + hostFrames;
      bytes += guestBytes + hostBytes;
      if (exchange !== undefined) {
        frames += exchange.forwarded;
        bytes += exchange.forwardedBytes;
      }
    }
    const moved = frames - before[0]!;
    const recentBytes = before[2]! * MEMORY + bytes - before[1]!;
    before[0] = frames;
    before[1] = bytes;
    before[2] = recentBytes;
    const isShort = moved > 0 && moved <= FEW_FRAMES && recentBytes <= FEW_BYTES;
    return isShort ? longestUs : 0;
  };
}
