/**
 * `passel-fd-broker serve`: keeps and makes descriptors for those whom the policy lets, until it is told to stop.
 *
 * It stays in the foreground, as service managers want it, and takes a socket that one has opened (sd_listen_fds(3)). Once it listens, the PID
 * file is written and the manager is told. SIGTERM, SIGINT and SIGQUIT end it with status 0: what it keeps is closed then, unless the manager has it too (FDSTORE) and
 * gives it to the next one. SIGHUP reads the policy again.
 */
import { lstatSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { createArena } from '../../base/arena.ts';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { DEFAULT_ACL_PATH } from '../../bridge/acl.ts';
import { BROKER_ARENA_BYTES, type Broker, createBroker } from '../../broker/broker.ts';
import { isStored } from '../../broker/fd-store.ts';
import { type FdFacts, readFdFacts } from '../../sys/fd-facts.ts';
import { loadNative, type NativeAddon } from '../../sys/native.ts';
import { NOTIFY_ARENA_BYTES } from '../../sys/notify-socket.ts';
import { type ActivatedFd, takeActivated } from '../../sys/systemd-activation.ts';
import { listenUnix, UNIX_SEQPACKET } from '../../sys/unix-socket.ts';
import { openLogger } from '../logging.ts';
import type { GivenOptions } from '../options/definition.ts';
import { FD_BROKER_SERVE_OPTIONS, type FdBrokerServeOptionTable } from '../options/fd-broker-options.ts';
import { scanOptions } from '../options/scan.ts';
import { openPidFile, type PidFile, unlinkIfThere } from '../pid-file.ts';
import { type ServiceManager, takeServiceManager } from '../service-manager.ts';
import { watchEndingSignals } from '../signals.ts';
import { claimSocketPath } from '../socket-path.ts';
import { writeStderr } from '../stderr.ts';
import { VERSION } from '../version.ts';
import { logEnd, logRequest, logRestored } from './audit-log.ts';
import { createNetworks, siblingProgram } from './network-maker.ts';
import { readPolicy } from './policy-file.ts';
import { defaultServePath } from './socket-path.ts';
import { createTapMaker } from './tap-maker.ts';

type Given = GivenOptions<FdBrokerServeOptionTable>;

const USAGE = 'passel-fd-broker serve [OPTION]...';
const DEFAULT_LOG_BYTES = 1024 * 1024;
const BACKLOG = 128;
const EVERYBODY = 0o666;
const OWNER_ONLY = 0o600;

/** @returns exit status; @throws PasselError for the caller to report */
export async function runServeCommand(programName: string, argv: readonly string[]): Promise<number> {
  const given = scanOptions(FD_BROKER_SERVE_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    process.stdout.write(await formatHelp(USAGE, FD_BROKER_SERVE_OPTIONS));
    return 0;
  }
  if (given.has('version')) {
    process.stdout.write(`${programName} ${VERSION}\n`);
    return 0;
  }
  const [operand] = given.operands;
  if (operand !== undefined) throw new PasselError('PASSEL_E_OPERAND', { value: operand, expected: 'options only' });
  return serve(programName, given);
}

async function serve(programName: string, given: Given): Promise<number> {
  const signals = watchEndingSignals();
  const log = openLogger(
    programName,
    {
      level: given.has('debug') ? 'debug' : given.has('quiet') ? 'warn' : 'info',
      format: given.last('log-format') ?? 'text',
      filePath: given.last('log-file'),
      fileMaxBytes: given.last('log-size') ?? DEFAULT_LOG_BYTES,
    },
    writeStderr,
  );
  const native = loadNative();
  const arena = createArena(64 * 1024);
  native.bindArena(arena.buffer);
  const brokerArena = { view: arena.view, offset: arena.allocate(BROKER_ARENA_BYTES) };
  let pidFile: PidFile | undefined;
  let path: string | undefined;
  let socketId: string | undefined;
  let broker: Broker | undefined;
  let manager: ServiceManager | undefined;
  const networks = createNetworks({ native, program: siblingProgram('passel-passt') });
  const trustWritable = given.has('trust-writable-acl');
  const policyPath = given.last('policy');
  let status: NodeJS.Timeout | undefined;
  const tellStatus = (): void => {
    status ??= setTimeout(() => {
      status = undefined;
      manager?.tell(`STATUS=${broker!.registry.nameCount} names, ${broker!.registry.fdCount} descriptors kept`);
    }, STATUS_DELAY_MS).unref();
  };
  const reload = (): void => {
    manager?.tell('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
    try {
      broker!.server.setPolicy(readPolicy(policyPath, trustWritable));
      log.info(`SIGHUP: the policy is that of ${policyPath} as it is now`);
    } catch (error) {
      log.error(`SIGHUP: the old policy stays: ${reasonOf(error)}`);
    }
    manager?.tell('READY=1');
  };
  try {
    const policy = readPolicy(policyPath, trustWritable);
    const activated = takeActivated(process.env, process.pid);
    const stored = activated.filter(isStored);
    const listener = takeListener(
      native,
      given,
      activated.filter((each) => !isStored(each)),
    );
    for (const { fd } of activated) native.setCloseOnExec(fd, 1);
    manager = findManager(native, arena.allocate(NOTIFY_ARENA_BYTES), log);
    const pidPath = given.last('pid');
    if (pidPath !== undefined) pidFile = openPidFile(pidPath);
    // Before anything that was kept is touched: a second broker must not get that far.
    if (listener === undefined) path = given.last('socket') ?? defaultServePath();
    const listening = listener ?? (await listen(native, path!, given.last('socket-mode')));
    if (path !== undefined) socketId = identify(path);
    broker = createBroker({
      native,
      arena: brokerArena,
      policy,
      stored,
      ...(manager === undefined || manager.fdStoreSize === 0
        ? {}
        : { store: { manager: manager.store, capacity: manager.fdStoreSize } }),
      makeTap: createTapMaker({ native, aclPath: given.last('acl') ?? DEFAULT_ACL_PATH, trustWritable }),
      joinNetwork: networks.join,
      audit: (record) => {
        // Refusals are warnings; making up the others' lines for nobody costs more than some requests do.
        if (record.error !== undefined || !given.has('quiet')) logRequest(log, record);
      },
      onName: (entry, ended) => {
        logEnd(log, entry, ended);
        tellStatus();
      },
      onTrouble: (message) => log.warn(message),
    });
    logRestored(log, broker.restored);
    // Without a policy there is nothing to read again, and the signal means that the terminal has gone.
    if (policyPath !== undefined) process.on('SIGHUP', reload);
    broker.server.serve(listening);
    pidFile?.write(process.pid);
    pidFile = undefined;
    log.info(path === undefined ? 'serving on the socket of the service manager' : `serving on ${path}`);
    manager?.tell('READY=1', `STATUS=${broker.registry.nameCount} names, ${broker.registry.fdCount} descriptors kept`);
    manager?.startWatchdog();
    log.info(`${await signals.signal}: stopping`);
    manager?.tell('STOPPING=1');
    return 0;
  } finally {
    process.removeListener('SIGHUP', reload);
    clearTimeout(status);
    pidFile?.abandon();
    networks.close();
    // First its name, as long as nobody else can take it for one that is left over.
    if (path !== undefined && socketId !== undefined && identify(path) === socketId) unlinkIfThere(path);
    broker?.close();
    manager?.close();
    log.close();
    signals.dispose();
  }
}

const STATUS_DELAY_MS = 500;

function findManager(native: NativeAddon, eventOffset: number, log: Logger): ServiceManager | undefined {
  try {
    return takeServiceManager(native, process.env, eventOffset);
  } catch (error) {
    log.warn(`the service manager cannot be told anything, and keeps nothing: ${reasonOf(error)}`);
    return undefined;
  }
}

/** Which file it is; undefined: there is none (an abstract name has none). */
function identify(path: string): string | undefined {
  if (path.startsWith('@')) return undefined;
  const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? undefined : `${stat.dev} ${stat.ino}`;
}

/** The listening socket that a service manager opened for us; undefined: there is none. Its path is the manager's to remove. */
function takeListener(native: NativeAddon, given: Given, activated: readonly ActivatedFd[]): number | undefined {
  const [first, second] = activated;
  if (first === undefined) return undefined;
  if (given.last('socket') !== undefined) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed('socket'), other: 'LISTEN_FDS' });
  }
  if (second !== undefined) throw new PasselError('PASSEL_E_FD', { value: second.fd, reason: 'LISTEN_FDS > 1' });
  const facts = describeActivated(native, first.fd);
  if (facts?.family !== 'unix' || facts.type !== 'seqpacket' || facts.listening !== true) {
    const reason = 'it is not a listening SOCK_SEQPACKET unix socket (ListenSequentialPacket=)';
    throw new PasselError('PASSEL_E_FD', { value: first.fd, reason });
  }
  native.setNonBlocking(first.fd, 1);
  return first.fd;
}

function describeActivated(native: NativeAddon, fd: number): FdFacts | undefined {
  try {
    return readFdFacts(native, fd);
  } catch {
    return undefined;
  }
}

async function listen(native: NativeAddon, path: string, mode: number | undefined): Promise<number> {
  const isRoot = process.getuid?.() === 0;
  try {
    if (path.startsWith('@'))
      return listenUnix(native, `\0${path.slice(1)}`, { type: UNIX_SEQPACKET, backlog: BACKLOG });
    if (path === defaultServePath()) mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    await claimSocketPath(path);
    // Everybody may connect to root's: what they may do is the policy's business. The umask must not decide it.
    const umask = process.umask(0);
    try {
      const wanted = mode ?? (isRoot ? EVERYBODY : OWNER_ONLY);
      return listenUnix(native, path, { type: UNIX_SEQPACKET, backlog: BACKLOG, mode: wanted });
    } finally {
      process.umask(umask);
    }
  } catch (error) {
    if (error instanceof PasselError) throw error;
    throw new PasselError(
      'PASSEL_E_SOCKET_PATH',
      { option: '--socket', value: path, reason: reasonOf(error) },
      { cause: error },
    );
  }
}
