/**
 * The logger that every part accepts, and the gate that keeps a guest from filling a log with it. The implementation
 * (pino, files, formats) lives in `cli/logging.ts`; below `cli` only this interface is known.
 */

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace';

/** From least to most talkative: a level includes those before it. */
export const LOG_LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug', 'trace'];

/** Named values that go into JSON lines as fields and are left out of lines for people. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  trace(message: string, fields?: LogFields): void;
  /** Whether a line of this level would be written: callers skip building costly messages. */
  isEnabled(level: LogLevel): boolean;
}

function discard(): void {}

/** Writes nothing: for tests and embedding programs. */
export const silentLogger: Logger = {
  error: discard,
  warn: discard,
  info: discard,
  debug: discard,
  trace: discard,
  isEnabled: () => false,
};

/** A logger that says whom its lines are about: `name` in front for people, the field `guest` for programs. */
export function prefixLogger(logger: Logger, name: string): Logger {
  const write =
    (level: LogLevel) =>
    (message: string, fields?: LogFields): void =>
      logger[level](`${name}: ${message}`, { ...fields, guest: name });
  return {
    error: write('error'),
    warn: write('warn'),
    info: write('info'),
    debug: write('debug'),
    trace: write('trace'),
    isEnabled: (level) => logger.isEnabled(level),
  };
}

/** State of one rate-limited message. Plain numbers, so that a closed gate costs the data path a comparison. */
export interface LogGate {
  /** Least time between two lines in milliseconds; `Infinity` for a message that is written once. */
  readonly intervalMs: number;
  /** Monotonic time from which the next line may be written. */
  nextMs: number;
  /** Occurrences since the last line that were not written. */
  suppressed: number;
}

/** @param intervalMs - least time between two lines; `Infinity` means once */
export function createLogGate(intervalMs: number): LogGate {
  return { intervalMs, nextMs: Number.NEGATIVE_INFINITY, suppressed: 0 };
}

/**
 * Whether a line may be written now. If not, the occurrence is counted and told by {@link takeSuppressed} later.
 * @param nowMs - monotonic milliseconds
 */
export function passLogGate(gate: LogGate, nowMs: number): boolean {
  if (nowMs < gate.nextMs) {
    gate.suppressed++;
    return false;
  }
  gate.nextMs = nowMs + gate.intervalMs;
  return true;
}

/** Number of occurrences kept back since the last line; resets it. */
export function takeSuppressed(gate: LogGate): number {
  const { suppressed } = gate;
  gate.suppressed = 0;
  return suppressed;
}

/** Writes at most one line per interval, with the number of those kept back. For the control path: builds a string. */
export function warnGated(logger: Logger, gate: LogGate, nowMs: number, message: string): void {
  if (!passLogGate(gate, nowMs)) return;
  const suppressed = takeSuppressed(gate);
  logger.warn(suppressed === 0 ? message : `${message} (${suppressed} more like this since the last line)`);
}
