/**
 * `passel run [OPTION]... -- COMMAND [ARG]...`: a virtual machine with our network, in one line.
 *
 * The stack runs in this process on one end of a socket pair, the command inherits the other end as descriptor 3: no path, so
 * nothing can be left behind. A QEMU command that has no network gets a netdev on it and a NIC; other programs find the
 * number in PASSEL_FD. With --replace-user-net it is the command that says which network it wants, as for QEMU's own. Standard input, output and error are the command's; so are signals. We end when it ends, as it ended.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { isatty } from 'node:tty';
import { PasselError, reasonOf } from '../base/errors.ts';
import { networkArguments } from '../qemu/add-network.ts';
import { parseQemuCommand } from '../qemu/command-line.ts';
import { replaceUserNet } from '../qemu/user-net/replace.ts';
import { loadNative } from '../sys/native.ts';
import { createSocketPair } from '../sys/unix-socket.ts';
import type { GuestConfig } from './guests-config.ts';
import { openLogger } from './logging.ts';
import { buildLoggingConfig } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import type { PasstOptionTable } from './options/passt-options.ts';
import { RUN_OPTIONS } from './options/run-options.ts';
import { scanOptions } from './options/scan.ts';
import { checkPasstOptions } from './passt-config.ts';
import { unlinkIfThere } from './pid-file.ts';
import { prepareConfig } from './prepare-config.ts';
import { writeStderr } from './stderr.ts';

/** The guest's end of the socket pair in the command. */
const COMMAND_FD = 3;

/** @returns the command's exit status, 128 and the signal's number if a signal ended it */
export async function runRunCommand(argv: readonly string[]): Promise<number> {
  let given = scanOptions(RUN_OPTIONS, argv, { stopAtOperand: true });
  if (given.has('help')) {
    const { formatHelp } = await import('./options/help.ts');
    process.stdout.write(await formatHelp('passel run [OPTION]... -- COMMAND [ARG]...', RUN_OPTIONS));
    return 0;
  }
  let command = given.operands;
  if (command.length === 0) throw new PasselError('PASSEL_E_RUN_NO_COMMAND', {});
  const qemu = parseQemuCommand(command);
  if (qemu.daemonizes) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: '-daemonize', other: 'passel run' });
  }
  const replaces = given.has('replace-user-net');
  if (replaces) {
    const replaced = replaceUserNet(command, COMMAND_FD);
    command = replaced.command;
    checkConflict(given);
    given = scanOptions(RUN_OPTIONS, ['--user-net', replaced.options, ...argv], { stopAtOperand: true });
  }
  // The rows that differ are all refused, so nothing that reads the options as passel-passt's can meet one of them.
  const passtOptions: unknown = { ...given, operands: [] };
  const added =
    replaces || qemu.architecture === undefined ? [] : networkArguments(qemu, COMMAND_FD, given.last('nic'));
  return runWithStack(passtOptions as GivenOptions<PasstOptionTable>, [...command, ...added]);
}

/** What the command says about its network cannot be said here too. */
function checkConflict(given: GivenOptions<typeof RUN_OPTIONS>): void {
  for (const name of ['user-net', 'nic'] as const) {
    if (!given.gave(name)) continue;
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed(name), other: '--replace-user-net' });
  }
}

async function runWithStack(given: GivenOptions<PasstOptionTable>, command: readonly string[]): Promise<number> {
  checkPasstOptions(given);
  // Start-up messages would run into the guest's console: only those that something is wrong, unless asked for more.
  const chosen = buildLoggingConfig(narrowOptions(given));
  const quiet = chosen.level === 'info' && chosen.filePath === undefined;
  const logger = openLogger('passel', quiet ? { ...chosen, level: 'warn' } : chosen, writeStderr);
  const [ourEnd, guestEnd] = createSocketPair(loadNative());
  let guestEndOpen = true;
  const closeGuestEnd = (): void => {
    if (guestEndOpen) closeSync(guestEnd);
    guestEndOpen = false;
  };
  try {
    const prepared = prepareConfig(given);
    const [guest] = prepared.guests as [GuestConfig];
    const config = { ...prepared, guests: [{ ...guest, transport: { kind: 'fd', fd: ourEnd } as const }] };
    const { startPasst } = await import('./compose.ts');
    const running = await startPasst(config, logger);
    try {
      const ended = runToItsEnd(command, guestEnd);
      closeGuestEnd();
      return await ended;
    } finally {
      await running.stop();
      if (running.controlPath !== undefined) unlinkIfThere(running.controlPath);
    }
  } finally {
    closeGuestEnd();
    logger.close();
  }
}

function spawnCommand(command: readonly string[], guestEnd: number): ChildProcess {
  const [program, ...args] = command;
  return spawn(program!, args, {
    stdio: ['inherit', 'inherit', 'inherit', guestEnd],
    env: { ...process.env, PASSEL_FD: String(COMMAND_FD) },
  });
}

/** Starts the command, passes signals on and waits. */
function runToItsEnd(command: readonly string[], guestEnd: number): Promise<number> {
  // A terminal sends these to the whole foreground group: the command has them already, and decides for both of us.
  const fromTerminal = isatty(0);
  const forward = (signal: NodeJS.Signals): void => {
    if (!(fromTerminal && (signal === 'SIGINT' || signal === 'SIGQUIT'))) child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP', 'SIGUSR2', 'SIGCONT'] as const;
  // Before the command exists: a signal that arrives while it starts would end us and leave it behind.
  for (const signal of signals) process.on(signal, forward);
  const child = spawnCommand(command, guestEnd);
  return new Promise<number>((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      const values = { value: command[0]!, reason: reasonOf(error) };
      const code = error.code === 'ENOENT' ? 'PASSEL_E_RUN_NOT_FOUND' : 'PASSEL_E_RUN_NOT_EXECUTABLE';
      reject(new PasselError(code, values, { cause: error }));
    });
    child.once('exit', (code, signal) => resolve(signal === null ? (code ?? 1) : 128 + constants.signals[signal]));
  }).finally(() => {
    for (const signal of signals) process.removeListener(signal, forward);
  });
}
