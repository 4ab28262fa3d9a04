/** The passel-fd-broker command: its first word says what to do. */
import { PasselError } from '../../base/errors.ts';
import { VERSION } from '../version.ts';

export const FD_BROKER_PROGRAM = 'passel-fd-broker';

interface Command {
  readonly summary: string;
  readonly load: () => Promise<(programName: string, argv: readonly string[]) => Promise<number>>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  serve: {
    summary: 'keep and make descriptors for those whom a policy lets',
    load: async () => (await import('./serve-command.ts')).runServeCommand,
  },
  run: {
    summary: 'open descriptors, put their numbers into a command line, and become the command',
    load: async () => (await import('./run-command.ts')).runRunCommand,
  },
  qmp: {
    summary: 'give descriptors to a running QEMU, plug cards in and out',
    load: async () => (await import('./qmp-command.ts')).runQmpCommand,
  },
};

/** @returns exit status; @throws PasselError for the caller to report */
export async function runFdBrokerCommand(argv: readonly string[]): Promise<number> {
  const [name = '', ...rest] = argv;
  if (name === '--help' || name === '-h') {
    process.stdout.write(formatSummary());
    return 0;
  }
  if (name === '--version') {
    process.stdout.write(`${FD_BROKER_PROGRAM} ${VERSION}\n`);
    return 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const expected = `one of ${Object.keys(COMMANDS).join(', ')}`;
    throw new PasselError(
      'PASSEL_E_COMMAND_UNKNOWN',
      { value: name, expected },
      { hint: `${FD_BROKER_PROGRAM} --help` },
    );
  }
  const run = await command.load();
  return run(FD_BROKER_PROGRAM, rest);
}

function formatSummary(): string {
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(8)}${summary}`);
  return [
    `Usage: ${FD_BROKER_PROGRAM} COMMAND [OPTION]...`,
    '',
    ...lines,
    '',
    `${FD_BROKER_PROGRAM} COMMAND --help says more.`,
    '',
  ].join('\n');
}
