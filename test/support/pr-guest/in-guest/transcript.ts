/**
 * Runs the steps of a scenario and prints one JSON line per step: what was expected, what came, and the bytes. The host
 * compares; nothing is judged here, so that one surprise does not hide what comes after it.
 */
import { type Command, describeData, describeStatus } from './commands.ts';
import type { Connection, Reply } from './connection.ts';

/** The program under test: QEMU's helper, or ours. */
export type ProgramName = 'c' | 'ours';

/** What a step shall give; where ours differs on purpose, what either may give, and the reason. */
export type Expected = string | { c: readonly string[]; ours: readonly string[]; reason: string };

/** One line of the transcript. */
export interface TranscriptLine {
  section: string;
  step: string;
  expected: Expected;
  /** What came, in words. */
  result: string;
  /** The answer's payload and sense in hexadecimal, where there was an answer. */
  data?: string;
  sense?: string;
}

export class Transcript {
  #section = '';

  startSection(name: string): void {
    this.#section = name;
  }

  /** Sends a command and notes the answer. */
  async send(step: string, expected: Expected, connection: Connection, fd: number, command: Command): Promise<void> {
    this.noteReply(step, expected, command, await connection.request(command, fd));
  }

  noteReply(step: string, expected: Expected, command: Command, reply: Reply): void {
    if (reply.kind === 'ended') {
      this.note(step, expected, `closed (${reply.how})`);
      return;
    }
    const bytes = { data: reply.data.toString('hex'), sense: reply.sense.toString('hex') };
    this.#print(step, expected, describeReply(command, reply), bytes);
  }

  /** Notes something that is not an answer. */
  note(step: string, expected: Expected, result: string): void {
    this.#print(step, expected, result, {});
  }

  #print(step: string, expected: Expected, result: string, bytes: { data?: string; sense?: string }): void {
    const line: TranscriptLine = { section: this.#section, step, expected, result, ...bytes };
    console.log(JSON.stringify(line));
  }
}

/** An answer in words: the status, and what a PERSISTENT RESERVE IN found. */
export function describeReply(command: Command, reply: Reply): string {
  if (reply.kind === 'ended') return `closed (${reply.how})`;
  const status = describeStatus(reply.status, reply.sense);
  if (command.cdb[0] === 0x5e && reply.status === 0) return `${status} ${describeData(command.cdb[1]!, reply.data)}`;
  return reply.size === 0 ? status : `${status} with ${reply.size} bytes`;
}
