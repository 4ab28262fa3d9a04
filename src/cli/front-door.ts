/** The `passel` command: one word names what to do, the rest belongs to that command. Each is loaded only when it is used. */
import { PasselError } from '../base/errors.ts';
import { VERSION } from './version.ts';

interface Command {
  /** Undefined for commands that passel itself starts. */
  readonly summary: string | undefined;
  readonly load: () => Promise<(argv: readonly string[]) => Promise<number>>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  run: {
    summary: 'run a virtual machine with a user-mode network: passel run [OPTION]... -- qemu-system-... [ARG]...',
    load: async () => (await import('./run-command.ts')).runRunCommand,
  },
  demo: {
    summary: 'show what works, on the most real guest this machine allows',
    load: async () => (await import('./demo/demo-command.ts')).runDemoCommand,
  },
  ctl: {
    summary:
      'look into a running stack or reservation helper, change forwards: passel ctl -s SOCKET status|flows|forward ...',
    load: async () => (await import('./ctl/ctl-command.ts')).runCtlCommand,
  },
  doctor: {
    summary: 'say what this machine allows, and what to do about the rest',
    load: async () => (await import('./doctor/doctor-command.ts')).runDoctorCommand,
  },
  'install-links': {
    summary: 'make a directory of drop-in names (passt, qrap) for PATH: passel install-links DIR',
    load: async () => (await import('./links/links-command.ts')).runLinksCommand,
  },
  'netdev-args': {
    summary: 'print what QEMU is to be given for a link of passel-passt: passel netdev-args [OPTION]... LINK',
    load: async () => (await import('./netdev-args/netdev-args-command.ts')).runNetdevArgsCommand,
  },
  'demo-namespace-agent': {
    summary: undefined,
    load: async () => (await import('./demo/namespace-agent.ts')).runNamespaceAgent,
  },
  passt: {
    summary: 'serve one guest, as passel-passt does',
    load: async () => (await import('./passt-command.ts')).runPasstCommand,
  },
  'pr-helper': {
    summary: 'execute SCSI persistent reservations for QEMU, as passel-pr-helper does',
    load: async () => (await import('./pr-helper/pr-helper-command.ts')).runPrHelperCommand,
  },
  qrap: {
    summary: 'add a passt socket to a QEMU command line and become QEMU, as passel-qrap does',
    load: async () => (await import('./qrap/qrap-command.ts')).runQrapCommand,
  },
};

/** Runs `passel`. @returns exit status */
export async function runFrontDoor(argv: readonly string[]): Promise<number> {
  const [name = '--help', ...rest] = argv;
  if (name === '--help' || name === '-h' || name === 'help') return print(await formatUsage());
  if (name === '--version') return print(`passel ${VERSION}\n`);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    throw new PasselError('PASSEL_E_COMMAND_UNKNOWN', { value: name, expected: listPublic().join(', ') });
  }
  return (await command.load())(rest);
}

function listPublic(): string[] {
  return Object.keys(COMMANDS).filter((name) => COMMANDS[name]!.summary !== undefined);
}

async function formatUsage(): Promise<string> {
  const { default: yargs } = await import('yargs');
  const parser = yargs([]).scriptName('passel').usage('Usage: passel COMMAND ...').help(false).version(false).wrap(100);
  for (const name of listPublic()) parser.command(name, COMMANDS[name]!.summary!);
  return `${await parser.getHelp()}\n\n'passel COMMAND --help' says more.\n`;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}
