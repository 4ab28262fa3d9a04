/** Starting either helper, and asking whether it serves. */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { waitUntil } from '../netns/process.ts';
import { type HelperProcess, PROGRAMS, type ProgramName, watchHelper } from './programs.ts';
import { reserveIn, Wire } from './wire.ts';

/** Starts it on `socket` and waits until it has answered a client. @param command - what to start it with */
export async function startHelper(
  name: ProgramName,
  socket: string,
  args: readonly string[] = [],
  command: readonly string[] = [],
): Promise<HelperProcess> {
  const [program, ...words] = [...command, PROGRAMS[name], '-k', socket, ...args];
  const helper = watchHelper(spawn(program!, words, { stdio: ['ignore', 'ignore', 'pipe'] }), socket);
  await waitUntil(`${name} to answer`, () => helper.child.exitCode !== null || answers(socket), 30_000);
  if (helper.child.exitCode !== null) throw new Error(`${name} ended: ${helper.stderr()}`);
  return helper;
}

/** A request about a device that takes none was answered. */
export async function answers(socket: string): Promise<boolean> {
  let wire: Wire;
  try {
    wire = await Wire.open(socket);
  } catch {
    return false;
  }
  const device = openSync('/dev/null', 'r+');
  try {
    wire.send({ bytes: reserveIn(), fds: 1 }, device);
    return (await wire.answer()) === '2 b/0/6 0';
  } finally {
    closeSync(device);
    wire.close();
  }
}
