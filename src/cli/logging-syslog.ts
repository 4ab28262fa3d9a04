/**
 * Messages to the system's logger, for programs in the background: datagrams in the form of RFC 3164, without a host name as is
 * usual within one machine, on the socket at /dev/log, by the `unix-dgram` package.
 *
 * The socket is connected while files can still be reached. Nothing waits for a logger that does not read: a message that it cannot
 * take is counted, and the count is told before the next one that it takes. When the logger was started anew the path is looked up
 * again, which an empty root directory does not allow: then messages are lost from there on.
 */
import { existsSync } from 'node:fs';
import type { LogLevel } from '../base/logger.ts';
import { openDatagramSocket } from './datagram-socket.ts';
import { servingPid } from './serving-pid.ts';

export interface Syslog {
  /** Sends one line without its end. */
  send(level: LogLevel, text: string): void;
  close(): void;
}

/** RFC 3164, 4.1.1: facility "system daemons", times eight, and severities. */
const FACILITY_DAEMON = 3 << 3;
const SEVERITIES: Record<LogLevel, number> = { error: 3, warn: 4, info: 6, debug: 7, trace: 7 };
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** @returns undefined when nobody listens there, or the package cannot be loaded */
export function openSyslog(programName: string, path = '/dev/log'): Syslog | undefined {
  if (!existsSync(path)) return undefined;
  const socket = openDatagramSocket();
  if (socket === undefined) return undefined;
  let connected = false;
  const connect = (): boolean => {
    connected = false;
    socket.once('connect', () => {
      connected = true;
    });
    socket.connect(path);
    return connected;
  };
  if (!connect()) {
    socket.close();
    return undefined;
  }
  let lost = 0;
  const trySend = (message: Buffer): NodeJS.ErrnoException | undefined => {
    let failure: NodeJS.ErrnoException | undefined;
    socket.send(message, (error) => {
      failure = error;
    });
    return failure;
  };
  const deliver = (level: LogLevel, text: string): boolean => {
    const message = formatSyslogMessage(programName, level, text, new Date());
    const failure = trySend(message);
    if (failure === undefined) return true;
    // Congestion, which is not an error number, passes; everything else means that this logger is gone.
    if (failure.message === 'congestion') return false;
    return connect() && trySend(message) === undefined;
  };
  // The time zone is read from a file when it is first needed.
  new Date().getHours();
  return {
    send(level, text) {
      if (lost > 0) {
        if (!deliver('warn', `messages lost before this one, which the system's logger did not take: ${lost}`)) {
          lost++;
          return;
        }
        lost = 0;
      }
      if (!deliver(level, text)) lost++;
    },
    close: () => socket.close(),
  };
}

/** @param time - shown in local time, as RFC 3164, 4.1.2 wants it */
export function formatSyslogMessage(programName: string, level: LogLevel, text: string, time: Date): Buffer {
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = String(time.getDate()).padStart(2, ' ');
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  const header = `<${FACILITY_DAEMON | SEVERITIES[level]}>${MONTHS[time.getMonth()]} ${day} ${clock}`;
  return Buffer.from(`${header} ${programName}[${servingPid()}]: ${text}`);
}
