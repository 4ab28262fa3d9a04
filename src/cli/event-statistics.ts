/**
 * `--stats`: how many events of each kind the data path has handled, one line for every interval in which there were any.
 *
 * Lines are aligned under a heading that is repeated, so that they can be read as a table and cut apart by programs.
 */
import {
  KIND_LINK,
  KIND_LINK_LISTENER,
  KIND_PING,
  KIND_TCP,
  KIND_TCP_LISTENER,
  KIND_UDP,
  KIND_UDP_LISTENER,
} from '../stack/ports.ts';
import type { EventHandler } from '../sys/poller.ts';
import { KINDS_PER_GUEST } from './guest-side.ts';

const COLUMNS = [
  ['link', KIND_LINK],
  ['guest', KIND_LINK_LISTENER],
  ['tcp', KIND_TCP],
  ['tcp-listen', KIND_TCP_LISTENER],
  ['udp', KIND_UDP],
  ['udp-listen', KIND_UDP_LISTENER],
  ['ping', KIND_PING],
] as const;
const WIDTH = 11;
const LINES_PER_HEADING = 20;

/** What is counted and printed: see the functions. */
export interface EventStatistics {
  /** The table's handlers with counting in front. To be called once all handlers are in place. */
  count(handlers: (EventHandler | undefined)[]): void;
  /** The next line, with the heading if it is due; undefined when nothing has happened since the last. */
  takeLine(): string | undefined;
}

export function createEventStatistics(): EventStatistics {
  const counts = new Float64Array(KINDS_PER_GUEST);
  let lines = 0;
  return {
    count(handlers) {
      for (const [number, handler] of handlers.entries()) {
        if (handler === undefined) continue;
        // Guests are counted together.
        const kind = number % KINDS_PER_GUEST;
        handlers[number] = (index, events) => {
          counts[kind] = counts[kind]! + 1;
          handler(index, events);
        };
      }
    },
    takeLine() {
      if (counts.every((value) => value === 0)) return undefined;
      const line = COLUMNS.map(([, kind]) => String(counts[kind]).padStart(WIDTH)).join('');
      counts.fill(0);
      const heading = COLUMNS.map(([name]) => name.padStart(WIDTH)).join('');
      return lines++ % LINES_PER_HEADING === 0 ? `${heading}\n${line}\n` : `${line}\n`;
    },
  };
}
