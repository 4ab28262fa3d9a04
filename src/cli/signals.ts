/** Signals that end a serving process in an orderly way. */

/** A watch on the ending signals; it starts at once and ends with `dispose`. */
export interface EndWatch {
  /** Fulfilled with the name of the first ending signal. */
  readonly signal: Promise<NodeJS.Signals>;
  dispose(): void;
}

/** What callers send to stop a helper: SIGTERM (libvirt, QEMU), SIGQUIT (the C programs treat it alike), SIGINT (a terminal). */
const ENDING_SIGNALS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGQUIT', 'SIGINT'];

export function watchEndingSignals(): EndWatch {
  let end: (signal: NodeJS.Signals) => void;
  const signal = new Promise<NodeJS.Signals>((resolve) => {
    end = resolve;
  });
  const onSignal = (name: NodeJS.Signals): void => end(name);
  for (const name of ENDING_SIGNALS) process.on(name, onSignal);
  return {
    signal,
    dispose() {
      for (const name of ENDING_SIGNALS) process.removeListener(name, onSignal);
    },
  };
}
