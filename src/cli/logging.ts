/**
 * Messages of the executables: pino with a synchronous destination, so that the last line before an exit is never lost.
 *
 * They go to the log file if there is one, else to standard error and, from a program in the background, to the system's logger.
 * Lines for people carry the message and, in a log file, the time; `--log-format json` gives pino's own lines with the error
 * code and other fields.
 */
import pino from 'pino';
import { printable } from '../base/errors.ts';
import { LOG_LEVELS, type LogFields, type Logger, type LogLevel } from '../base/logger.ts';
import { openLogFile } from './logging-file.ts';
import { openSyslog } from './logging-syslog.ts';
import type { LoggingConfig } from './network-config.ts';
import { servingPid } from './serving-pid.ts';

export interface ClosableLogger extends Logger {
  close(): void;
}

/** Where lines go. */
interface LineSink {
  /** @param text - one line of the message without its end */
  write(level: LogLevel, text: string): void;
  close(): void;
}

/**
 * Opens the logger of an executable.
 * @param programName - for the first line of a log file, and for the system's logger
 * @param writeStderr - takes finished lines when no file is configured
 * @param inBackground - whether the program serves in the background
 * @throws PasselError PASSEL_E_FILE
 */
export function openLogger(
  programName: string,
  config: LoggingConfig,
  writeStderr: (line: string) => void,
  inBackground = false,
): ClosableLogger {
  const sinks = openSinks(programName, config, writeStderr, inBackground);
  const logger = pino(
    {
      level: config.level,
      base: { name: programName, pid: servingPid() },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    {
      // Parsing costs little here: a guest cannot cause more than a few lines a second.
      write(json: string): void {
        const { level, msg } = JSON.parse(json) as { level: LogLevel; msg: string };
        const lines = config.format === 'json' ? [json.trimEnd()] : msg.split('\n').map(printable);
        for (const sink of sinks) for (const line of lines) sink.write(level, line);
      },
    },
  );
  const threshold = LOG_LEVELS.indexOf(config.level);
  const method = (level: LogLevel) => (message: string, fields?: LogFields) => {
    if (fields === undefined) logger[level](message);
    else logger[level](fields, message);
  };
  return {
    error: method('error'),
    warn: method('warn'),
    info: method('info'),
    debug: method('debug'),
    trace: method('trace'),
    isEnabled: (level) => LOG_LEVELS.indexOf(level) <= threshold,
    close: () => {
      for (const sink of sinks.splice(0)) sink.close();
    },
  };
}

function openSinks(
  programName: string,
  config: LoggingConfig,
  writeStderr: (line: string) => void,
  inBackground: boolean,
): LineSink[] {
  const label = (level: LogLevel): string => (level === 'info' || config.format === 'json' ? '' : `${level}: `);
  if (config.filePath !== undefined) {
    const file = openLogFile(programName, config.filePath, config.fileMaxBytes);
    const startMs = performance.now();
    const time = (): string =>
      config.format === 'json' ? '' : `${((performance.now() - startMs) / 1000).toFixed(4)}: `;
    return [{ write: (level, text) => file.write(`${time()}${label(level)}${text}\n`), close: file.close }];
  }
  const sinks: LineSink[] = [{ write: (level, text) => writeStderr(`${label(level)}${text}\n`), close: () => {} }];
  // What only developers want is kept from the system's log, as passt(1) does.
  const isForDevelopers = config.level === 'debug' || config.level === 'trace';
  const syslog = inBackground && !isForDevelopers ? openSyslog(programName) : undefined;
  if (syslog !== undefined) sinks.push({ write: syslog.send, close: syslog.close });
  return sinks;
}
