/**
 * `passel-fd-broker qmp`: gives descriptors to a running QEMU through its monitor, and plugs cards into its guest and out.
 *
 * The monitor is connected to first: what the broker hands out is not lost to a QEMU that is not there. What QEMU answers is printed as JSON when it says
 * anything. Exit status: 0 done, 1 refused (by QEMU, whose words are shown as they are, by the guest, or here), 2 no monitor answers.
 */
import { PasselError, reasonOf } from '../../base/errors.ts';
import { HmpClient, HmpError } from '../../broker/hmp-client.ts';
import {
  addChardev,
  addNetdev,
  type GivenFd,
  GuestError,
  onlyFd,
  plugNic,
  UnfitFdError,
  unplugNic,
} from '../../broker/hot-plug.ts';
import { MonitorError, QmpClient, QmpError } from '../../broker/qmp-client.ts';
import { loadNative, type NativeAddon } from '../../sys/native.ts';
import type { GivenOptions } from '../options/definition.ts';
import { FD_BROKER_QMP_OPTIONS, type FdBrokerQmpOptionTable } from '../options/fd-broker-qmp-options.ts';
import { scanOptions } from '../options/scan.ts';
import { writeStderr } from '../stderr.ts';
import { VERSION } from '../version.ts';
import type { AskedFd } from './fd-spec.ts';
import { unfit, withFds } from './qmp-fd.ts';
import { defaultAskPath } from './socket-path.ts';

type Given = GivenOptions<FdBrokerQmpOptionTable>;
type OptionName = keyof FdBrokerQmpOptionTable & string;

const USAGE = 'passel-fd-broker qmp SOCKET COMMAND [OPTION]...';
const COMMANDS_TEXT = `
Commands, SOCKET being QEMU's monitor (-qmp unix:SOCKET,server=on,wait=off):
  getfd NAME --fd SPEC         give a descriptor for a later command of the monitor
  closefd NAME                 close what getfd gave
  add-fd --fd SPEC             put a descriptor into a set: /dev/fdset/N
  remove-fd --set N            take a set, or a --member of it, away
  query-fdsets                 show the sets
  chardev-add ID --fd SPEC     a chardev on a stream socket, connected or listening
  netdev-add ID --fd SPEC      a netdev on a stream or datagram socket or a tap
  hotplug-nic ID SOURCE        a netdev and a card on it; SOURCE: --passt, --tap, --broker or --fd
  hot-unplug ID                take the card out, once the guest lets go, and its netdev away
`;
const DEFAULT_TIMEOUT_SECONDS = 30;
const SOURCES = ['fd', 'passt', 'tap', 'broker'] as const;

/** What a command is made of: whether it has an operand, which options it needs and may have. */
interface Command {
  readonly operand?: 'NAME' | 'ID';
  readonly source?: readonly (typeof SOURCES)[number][];
  readonly options?: readonly OptionName[];
  readonly needs?: OptionName;
  run(asked: Asked): Promise<unknown>;
}

interface Asked {
  readonly qmp: QmpClient;
  readonly given: Given;
  /** NAME or ID, if the command has one. */
  readonly name: string;
  readonly timeoutMs: number;
  /** Gets the descriptors of a command that has some. */
  withFds<T>(use: (given: GivenFd) => Promise<T>): Promise<T>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  getfd: {
    operand: 'NAME',
    source: ['fd'],
    options: ['hmp'],
    run: ({ qmp, name, withFds: use }) => use((given) => qmp.execute('getfd', { fdname: name }, { fd: onlyFd(given) })),
  },
  closefd: { operand: 'NAME', options: ['hmp'], run: ({ qmp, name }) => qmp.execute('closefd', { fdname: name }) },
  'add-fd': { source: ['fd'], options: ['set', 'opaque'], run: addFd },
  'remove-fd': {
    options: ['set', 'member'],
    needs: 'set',
    run: ({ qmp, given }) => {
      const fd = given.last('member');
      return qmp.execute('remove-fd', { 'fdset-id': given.last('set'), ...(fd === undefined ? {} : { fd }) });
    },
  },
  'query-fdsets': { run: ({ qmp }) => qmp.execute('query-fdsets') },
  'chardev-add': {
    operand: 'ID',
    source: ['fd'],
    run: ({ qmp, name, withFds: use }) => use((fd) => addChardev(qmp, name, fd)),
  },
  'netdev-add': {
    operand: 'ID',
    source: ['fd'],
    run: ({ qmp, name, withFds: use }) => use((fd) => addNetdev(qmp, name, fd)),
  },
  'hotplug-nic': {
    operand: 'ID',
    source: SOURCES,
    options: ['mac', 'driver', 'property'],
    run: ({ qmp, given, name, withFds: use }) => {
      const mac = given.last('mac');
      const properties = Object.fromEntries(given.all('property').map(({ parsed }) => parsed));
      const driver = given.last('driver') ?? 'virtio-net-pci';
      const nic = { id: name, driver, properties: mac === undefined ? properties : { ...properties, mac } };
      return use((fd) => plugNic(qmp, nic, fd));
    },
  },
  'hot-unplug': {
    operand: 'ID',
    options: ['netdev'],
    run: ({ qmp, given, name, timeoutMs }) => unplugNic(qmp, name, given.last('netdev') ?? name, timeoutMs),
  },
};

/** @returns exit status; @throws PasselError for the caller to report */
export async function runQmpCommand(programName: string, argv: readonly string[]): Promise<number> {
  const given = scanOptions(FD_BROKER_QMP_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    process.stdout.write((await formatHelp(USAGE, FD_BROKER_QMP_OPTIONS)) + COMMANDS_TEXT);
    return 0;
  }
  if (given.has('version')) {
    process.stdout.write(`${programName} ${VERSION}\n`);
    return 0;
  }
  const [path, word, ...operands] = given.operands;
  if (path === undefined) throw new PasselError('PASSEL_E_OPTION_MISSING', { option: 'SOCKET', expected: USAGE });
  const command = Object.hasOwn(COMMANDS, word ?? '') ? COMMANDS[word as string] : undefined;
  if (command === undefined) {
    const expected = `one of ${Object.keys(COMMANDS).join(', ')}`;
    throw new PasselError('PASSEL_E_COMMAND_UNKNOWN', { value: word ?? '', expected });
  }
  const name = takeOperand(word as string, command, operands);
  checkOptions(word as string, command, given);
  const wanted = command.source === undefined ? undefined : chooseSource(command.source, given);
  const native = loadNative();
  const timeoutMs = (given.last('timeout') ?? DEFAULT_TIMEOUT_SECONDS) * 1000;
  const broker = { path: given.last('broker-socket') ?? defaultAskPath(), chosen: given.gave('broker-socket') };
  const use = <T>(run: (fd: GivenFd) => Promise<T>): Promise<T> => withFds(native, broker, wanted as AskedFd, run);
  try {
    const answer = given.has('hmp')
      ? await runOnHmp(native, path, word as string, name, timeoutMs, use)
      : await runOnQmp(native, path, timeoutMs, (qmp) => command.run({ qmp, given, name, timeoutMs, withFds: use }));
    if (saysSomething(answer)) process.stdout.write(`${JSON.stringify(answer)}\n`);
    return 0;
  } catch (error) {
    throw explain(error, path, wanted);
  }
}

async function runOnQmp<T>(
  native: NativeAddon,
  path: string,
  timeoutMs: number,
  run: (qmp: QmpClient) => Promise<T>,
): Promise<T> {
  const qmp = await connecting(path, () => QmpClient.connect(native, path, { timeoutMs }));
  try {
    return await run(qmp);
  } finally {
    qmp.close();
  }
}

async function runOnHmp(
  native: NativeAddon,
  path: string,
  word: string,
  name: string,
  timeoutMs: number,
  use: (run: (fd: GivenFd) => Promise<void>) => Promise<void>,
): Promise<void> {
  if (!/^[\w.:+-]+$/.test(name)) {
    throw new PasselError('PASSEL_E_OPERAND', { value: name, expected: 'a name of letters, digits and . : + - _' });
  }
  const hmp = await connecting(path, () => HmpClient.connect(native, path, timeoutMs));
  try {
    if (word === 'getfd') await use((given) => hmp.getFd(name, onlyFd(given)));
    else await hmp.closeFd(name);
  } finally {
    hmp.close();
  }
}

/** Errors of the system before there is a connection mean that nobody answers. */
async function connecting<T>(path: string, connect: () => Promise<T>): Promise<T> {
  try {
    return await connect();
  } catch (error) {
    if (error instanceof MonitorError || error instanceof QmpError) throw error;
    throw new PasselError('PASSEL_E_QMP_CONNECT', { value: path, reason: reasonOf(error) }, { cause: error });
  }
}

function takeOperand(word: string, { operand }: Command, operands: readonly string[]): string {
  const [name, extra] = operand === undefined ? [undefined, operands[0]] : operands;
  if (extra !== undefined) throw new PasselError('PASSEL_E_OPERAND', { value: extra, expected: 'options only' });
  if (operand === undefined) return '';
  if (name === undefined || name === '') {
    throw new PasselError('PASSEL_E_OPTION_MISSING', { option: operand, expected: `${word} ${operand}` });
  }
  return name;
}

/** Options that the command would not look at are errors. */
function checkOptions(word: string, { source = [], options = [], needs }: Command, given: Given): void {
  const always: readonly OptionName[] = ['timeout', 'broker-socket', 'help', 'version'];
  const allowed = new Set<OptionName>([...source, ...options, ...always]);
  for (const name of Object.keys(FD_BROKER_QMP_OPTIONS) as OptionName[]) {
    if (!given.gave(name) || allowed.has(name)) continue;
    const users = Object.keys(COMMANDS).filter((each) => {
      const command = COMMANDS[each] as Command;
      return command.options?.includes(name) || command.source?.some((one) => one === name);
    });
    throw new PasselError('PASSEL_E_OPTION_REQUIRES', { option: given.typed(name), other: users.join(' or ') });
  }
  if (needs !== undefined && !given.gave(needs)) {
    throw new PasselError('PASSEL_E_OPTION_MISSING', { option: `--${needs}`, expected: `${word} --${needs} N` });
  }
}

function chooseSource(sources: readonly (typeof SOURCES)[number][], given: Given): AskedFd {
  const [first, second] = sources.filter((name) => given.gave(name));
  if (first === undefined) {
    const expected = sources.map((name) => `--${name}`).join(', ');
    throw new PasselError('PASSEL_E_OPTION_MISSING', { option: 'the descriptor', expected });
  }
  if (second !== undefined) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed(first), other: given.typed(second) });
  }
  const { typed, text } = given.all(first).at(-1) as { typed: string; text: string };
  const how = { option: typed, text };
  switch (first) {
    case 'passt':
      return { ...how, spec: { kind: 'unix-connect', path: text } };
    case 'tap':
      return { ...how, spec: { kind: 'tap', bridge: text, vnetHeader: true, queues: 1 } };
    case 'broker':
      return { ...how, spec: { kind: 'broker', name: text, copy: false } };
    case 'fd':
      return { ...how, spec: given.last('fd')! };
  }
}

async function addFd({ qmp, given, withFds: use }: Asked): Promise<unknown> {
  const set = given.last('set');
  const opaque = given.last('opaque');
  const members = { ...(set === undefined ? {} : { 'fdset-id': set }), ...(opaque === undefined ? {} : { opaque }) };
  const added = await use((fd) => qmp.execute('add-fd', members, { fd: onlyFd(fd) }));
  const { running } = (await qmp.execute('query-status')) as { running: boolean };
  if (running && qmp.version.major < 9) {
    writeStderr(
      'warning: the guest runs: this QEMU closes what is in sets and not in use when its last monitor client leaves\n',
    );
  }
  return added;
}

function saysSomething(answer: unknown): boolean {
  return typeof answer === 'object' && answer !== null && (Array.isArray(answer) || Object.keys(answer).length > 0);
}

function explain(error: unknown, path: string, wanted: AskedFd | undefined): unknown {
  const extras = { cause: error };
  if (error instanceof QmpError || error instanceof HmpError) {
    return new PasselError('PASSEL_E_QMP_REFUSED', { reason: error.message }, extras);
  }
  if (error instanceof UnfitFdError) return unfit(wanted as AskedFd, error);
  if (error instanceof GuestError) return new PasselError('PASSEL_E_QMP_GUEST', { reason: error.message }, extras);
  if (error instanceof MonitorError) {
    return new PasselError('PASSEL_E_QMP_MONITOR', { value: path, reason: error.message }, extras);
  }
  return error;
}
