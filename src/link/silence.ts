/**
 * Notices a guest that is gone from a link on which nobody says so: who has been silent for half of a time is asked for a sign of life, now and then
 * until the end of it, and with no answer it is taken to be gone.
 *
 * That is no certainty: a machine that was stopped is silent too. So nothing may be ended for it that could not go on when it is back.
 */

/** Between two looks: a part of the time. */
const LOOKS = 8;
/** Looks without a frame, after which the guest is asked. */
const ASK_AFTER = LOOKS / 2;

export interface SilenceOptions {
  /** How long a guest may be silent. */
  readonly limitMs: number;
  /** Whether there is a guest. */
  readonly isConnected: () => boolean;
  /** A number that every frame of the guest changes. */
  readonly countFrames: () => number;
  /** Asks the guest for a frame. */
  readonly ask: () => void;
  /** It is gone, as far as one can tell. */
  readonly onGone: () => void;
}

/** Starts to look. @returns what ends it */
export function watchForSilence(options: SilenceOptions): () => void {
  const { limitMs, isConnected, countFrames, ask, onGone } = options;
  let frames = countFrames();
  let looks = 0;
  const timer = setInterval(() => {
    const now = countFrames();
    if (now !== frames || !isConnected()) {
      frames = now;
      looks = 0;
      return;
    }
    looks++;
    if (looks >= LOOKS) {
      looks = 0;
      onGone();
    } else if (looks >= ASK_AFTER) {
      ask();
    }
  }, limitMs / LOOKS);
  timer.unref();
  return () => clearInterval(timer);
}
