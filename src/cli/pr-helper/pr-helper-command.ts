/**
 * The passel-pr-helper command. The order is C's: parse, listen, go to the background, PID file, drop privileges, serve. The process that
 * was started is the one that serves (unless --daemon), keeps what it inherited open, and has its socket before anything slow.
 */
import { resolve } from 'node:path';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { LogLevel } from '../../base/logger.ts';
import { type AccessEntry, formatAccess } from '../../scsi/describe.ts';
import { createAnswerQueue } from '../../scsi/executor.ts';
import { createMultipathRoute } from '../../scsi/multipath/route.ts';
import { createPrHelperServer, type PrHelperServer, REQUEST_TIMEOUT_DEFAULT_MS } from '../../scsi/server.ts';
import { loadNative, type NativeAddon } from '../../sys/native.ts';
import { FIRST_ACTIVATED_FD, takeActivatedCount } from '../../sys/systemd-activation.ts';
import type { ControlServer } from '../control/server.ts';
import { launchDaemon, prepareReadiness, takeDaemonMark } from '../daemonise.ts';
import { restartWithoutIoUring } from '../io-uring.ts';
import { type ClosableLogger, openLogger } from '../logging.ts';
import type { GivenOptions } from '../options/definition.ts';
import { PR_HELPER_OPTIONS, type PrHelperOptionTable } from '../options/pr-helper-options.ts';
import { scanOptions } from '../options/scan.ts';
import { unlinkIfThere } from '../pid-file.ts';
import { NOTE_VARIABLE, parseInheritedState } from '../qrap/inherited-state.ts';
import { writeStderr } from '../stderr.ts';
import { VERSION } from '../version.ts';
import { openAccessLog } from './access-log.ts';
import { prepareConfinement } from './confine.ts';
import type { PrViewSource } from './control-view.ts';
import { createPathFinder } from './device-paths.ts';
import { dropPrivileges, type Identity, resolveGroup, resolveUser } from './identity.ts';
import { writeLockedPidFile } from './pid-file.ts';
import { openControlSocket, openSocket, useActivatedSocket } from './socket.ts';
import { prepareSocketRemoval } from './socket-removal.ts';

export const PR_HELPER_PROGRAM = 'passel-pr-helper';

const SOCKET_DEFAULT = '/var/run/qemu-pr-helper.sock';
const PID_FILE_DEFAULT = '/var/run/qemu-pr-helper.pid';
/** From a launcher to its daemon, whose pid LISTEN_PID cannot name. */
const ACTIVATED_MARK = 'PASSEL_ACTIVATED';
const ENDING_SIGNALS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP'];

type Given = GivenOptions<PrHelperOptionTable>;

/** @returns exit status; @throws PasselError for the caller to report */
export async function runPrHelperCommand(argv: readonly string[]): Promise<number> {
  const isDaemon = takeDaemonMark();
  const given = scan(argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    return print(await formatHelp(`${PR_HELPER_PROGRAM} [OPTION]...`, PR_HELPER_OPTIONS));
  }
  if (given.has('version')) return print(`${PR_HELPER_PROGRAM} ${VERSION}\n`);
  const trace = given.last('trace');
  if (trace === 'help' || trace === '?') return print('');
  const identity: Identity = {
    uid: resolveUser(given.typed('user'), given.last('user')),
    gid: resolveGroup(given.typed('group'), given.last('group')),
  };
  const activated = isDaemon ? takeMark() : takeActivatedCount(process.env, process.pid);
  if (activated > 0 && given.gave('socket')) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed('socket'), other: 'socket activation' });
  }
  if (given.has('daemon') && !isDaemon) {
    if (activated > 0) process.env[ACTIVATED_MARK] = String(activated);
    return launchDaemon(activated > 0 ? FIRST_ACTIVATED_FD : undefined, !given.has('no-sandbox'));
  }
  if (!given.has('no-sandbox') && !isDaemon) restartKeepingDescriptors();
  return serve(given, identity, activated, isDaemon);
}

/**
 * A newer Node may have to start again to be confined. What was inherited stays open: libvirt's lock on its PID file is one of those, and
 * an activated socket another.
 */
function restartKeepingDescriptors(): void {
  const inherited = parseInheritedState(process.env[NOTE_VARIABLE], process.pid).fds ?? [];
  const native = loadNative();
  for (const fd of inherited) native.setCloseOnExec(fd, 0);
  restartWithoutIoUring(undefined);
}

/** @throws PasselError with what C's helper adds to it */
function scan(argv: readonly string[]): Given {
  try {
    return scanOptions(PR_HELPER_OPTIONS, argv);
  } catch (error) {
    if (!(error instanceof PasselError)) throw error;
    throw new PasselError(error.code, error.values, {
      hint: `Try '${PR_HELPER_PROGRAM} --help' for more information.`,
    });
  }
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

function takeMark(): number {
  const count = Number(process.env[ACTIVATED_MARK] ?? 0);
  delete process.env[ACTIVATED_MARK];
  return count;
}

async function serve(given: Given, identity: Identity, activated: number, isDaemon: boolean): Promise<number> {
  const native = loadNative();
  const end = watchSignals();
  let ready = false;
  const logger = openLogger(
    PR_HELPER_PROGRAM,
    { filePath: undefined, fileMaxBytes: 0, level: levelOf(given), format: given.last('log-format') ?? 'text' },
    (line) => {
      if (!(isDaemon && ready))
        writeStderr(given.last('log-format') === 'json' ? line : `${PR_HELPER_PROGRAM}: ${line}`);
    },
  );
  process.on('uncaughtException', (error) => {
    logger.error(`internal error: ${reasonOf(error)}`);
    process.exit(1);
  });
  const path = activated > 0 ? undefined : (given.last('socket') ?? SOCKET_DEFAULT);
  const givenPath = given.last('conf-path');
  // The working directory may become another.
  const controlPath = givenPath === undefined ? undefined : resolve(givenPath);
  const startMs = performance.now();
  const fd = path === undefined ? useActivatedSocket(native, activated) : await listenAt(native, path, given);
  const socketPaths = path === undefined ? [] : [path];
  let server: PrHelperServer;
  let control: ControlServer | undefined;
  let remove = (): void => {
    for (const each of socketPaths) unlinkIfThere(each);
  };
  try {
    const controlFd = controlPath === undefined ? undefined : await openControlSocket(native, controlPath);
    if (controlPath !== undefined) socketPaths.push(controlPath);
    const readiness = isDaemon ? prepareReadiness() : undefined;
    const pidPath = given.last('pidfile') ?? (given.has('daemon') ? PID_FILE_DEFAULT : undefined);
    if (pidPath !== undefined) writeLockedPidFile(native, pidPath, given.typed('pidfile'));
    const onAccess = chooseAccessLog(given, logger);
    const removal = prepareSocketRemoval(native, socketPaths, identity, logger);
    remove = removal.removeAll;
    const confinement = await prepareConfinement(native, removal.sealed, logger);
    dropPrivileges(native, identity);
    const requestTimeoutMs = (given.last('request-timeout') ?? REQUEST_TIMEOUT_DEFAULT_MS / 1000) * 1000;
    const policy = given.last('multipath') ?? 'fan-out';
    const queue = createAnswerQueue(native);
    const findPath = createPathFinder();
    server = createPrHelperServer({
      native,
      log: logger,
      requestTimeoutMs,
      queue,
      multipath: createMultipathRoute({ native, log: logger, queue, requestTimeoutMs, policy }),
      rules: {
        allow: given.all('allow-device').map(({ parsed }) => parsed),
        deny: given.all('deny-device').map(({ parsed }) => parsed),
      },
      findPath,
      ...(onAccess === undefined ? {} : { onAccess }),
    });
    server.listen(fd);
    if (controlFd !== undefined) {
      const serving = server;
      const source = {
        get activity() {
          return serving.activity;
        },
        socketPath: path,
        requestTimeoutMs,
        findPath,
        startMs,
      };
      control = await openControl(controlFd, source, logger);
    }
    if (given.has('no-sandbox')) {
      logger.warn('--no-sandbox: whoever takes over this process can do all that its user can; for debugging only');
    } else confinement.enter({ mayOpenForWriting: policy === 'fan-out' });
    if (readiness?.report() === false) throw new PasselError('PASSEL_E_DAEMON', { reason: 'its launcher was ended' });
    ready = true;
  } catch (error) {
    remove();
    throw error;
  }
  logger.info(`${await end}: ending when the requests in flight are answered`);
  // First the names: while they are there and we listen, nobody else takes them, and nobody waits for our last device to start anew.
  remove();
  await server.stop();
  control?.close();
  return 0;
}

/** Loaded only where it is wanted: HTTP takes its time to load. */
async function openControl(fd: number, source: PrViewSource, log: ClosableLogger): Promise<ControlServer> {
  const { openControlServer } = await import('../control/server.ts');
  const { createPrAnswerer } = await import('./control-routes.ts');
  return openControlServer(fd, createPrAnswerer(source), log);
}

function listenAt(native: NativeAddon, path: string, given: Given): Promise<number> {
  const gid = resolveGroup('--socket-group', given.last('socket-group'));
  return openSocket(native, { path, mode: given.last('socket-mode'), gid });
}

function levelOf(given: Given): LogLevel {
  if (given.has('quiet')) return 'error';
  return given.has('verbose') ? 'debug' : 'warn';
}

function chooseAccessLog(given: Given, logger: ClosableLogger): ((entry: AccessEntry) => void) | undefined {
  const path = given.last('access-log');
  const write = path === undefined ? undefined : openAccessLog(path);
  if (!logger.isEnabled('debug')) return write;
  return (entry) => {
    write?.(entry);
    logger.debug(formatAccess(entry));
  };
}

/** C's helper ends on these alike. Every one of them counts as one: to end faster there is SIGKILL. */
function watchSignals(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const name of ENDING_SIGNALS) process.on(name, () => resolve(name));
  });
}
