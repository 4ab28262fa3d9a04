/**
 * Messages of the executables: pino with a synchronous destination, so that the last line before an exit is never lost.
 *
 * Lines for people carry the message and, in a log file, the time; `--log-format json` gives pino's own lines with the error
 * code and other fields. A log file has a fixed first line that says which program wrote it, and a size limit: when it is
 * reached, the older half of the lines goes.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import pino from 'pino';
import { PasselError, printable, reasonOf } from '../base/errors.ts';
import { LOG_LEVELS, type LogFields, type Logger, type LogLevel } from '../base/logger.ts';
import type { LoggingConfig } from './network-config.ts';
import { VERSION } from './version.ts';

/** Where finished lines go. */
interface LineSink {
  write(line: string): void;
}

export interface ClosableLogger extends Logger {
  close(): void;
}

/**
 * Opens the logger of an executable.
 * @param programName - for the first line of a log file
 * @param writeStderr - takes finished lines when no file is configured
 * @throws PasselError PASSEL_E_FILE
 */
export function openLogger(
  programName: string,
  config: LoggingConfig,
  writeStderr: (line: string) => void,
): ClosableLogger {
  const file =
    config.filePath === undefined ? undefined : openLogFile(programName, config.filePath, config.fileMaxBytes);
  const sink: LineSink = file ?? { write: writeStderr };
  const destination = config.format === 'json' ? sink : textDestination(sink, file !== undefined);
  const logger = pino(
    {
      level: config.level,
      base: { name: programName, pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    destination,
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
    close: () => file?.close(),
  };
}

/** Turns pino's JSON into the lines people read. Parsing costs little here: a guest cannot cause more than a few lines a second. */
function textDestination(sink: LineSink, withTime: boolean): LineSink {
  const startMs = performance.now();
  return {
    write(json) {
      const { level, msg } = JSON.parse(json) as { level: LogLevel; msg: string };
      const label = level === 'info' ? '' : `${level}: `;
      const time = withTime ? `${((performance.now() - startMs) / 1000).toFixed(4)}: ` : '';
      for (const line of msg.split('\n')) sink.write(`${time}${label}${printable(line)}\n`);
    },
  };
}

interface LogFile extends LineSink {
  close(): void;
}

function openLogFile(programName: string, path: string, maxBytes: number): LogFile {
  let fd: number;
  try {
    fd = openSync(path, 'a+', 0o600);
    ftruncateSync(fd, 0);
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_FILE',
      { option: '--log-file', value: path, reason: reasonOf(error) },
      { cause: error },
    );
  }
  const header = Buffer.from(`${programName} ${VERSION}: ${process.argv[1] ?? process.execPath} (${process.pid})\n`);
  writeSync(fd, header);
  let size = header.length;
  return {
    write(line) {
      const bytes = Buffer.from(line);
      if (size + bytes.length > maxBytes) size = dropOlderHalf(fd, header, size, maxBytes);
      if (size + bytes.length > maxBytes) return;
      writeSync(fd, bytes);
      size += bytes.length;
    },
    close: () => closeSync(fd),
  };
}

/** Keeps the header and the newest lines that fit half of the limit. @returns the file's new size */
function dropOlderHalf(fd: number, header: Buffer, size: number, maxBytes: number): number {
  const keepBytes = Math.max(0, Math.floor(maxBytes / 2) - header.length);
  const tail = Buffer.alloc(Math.min(keepBytes, Math.max(0, size - header.length)));
  const got = readSync(fd, tail, 0, tail.length, size - tail.length);
  const lineStart = tail.subarray(0, got).indexOf(0x0a) + 1;
  const kept = lineStart === 0 ? Buffer.alloc(0) : tail.subarray(lineStart, got);
  ftruncateSync(fd, 0);
  writeSync(fd, header);
  writeSync(fd, kept);
  return header.length + kept.length;
}
