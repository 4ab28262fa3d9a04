/**
 * The passel-passt command: parse, go to the background, open everything, serve until told to stop.
 *
 * Contract with callers (libvirt, QEMU, libkrun): exit status 0 of the process they started means that the socket listens and
 * the PID file is written; anything else comes with a message on standard error and leaves nothing behind. SIGTERM ends the
 * serving process with status 0. With --one-off it ends by itself when its guest has left.
 */
import { fstatSync } from 'node:fs';
import { PasselError, reasonOf } from '../base/errors.ts';
import { formatIpv4 } from '../base/ip-text.ts';
import type { Logger } from '../base/logger.ts';
import type { Netdev } from '../qemu/netdev.ts';
import { inheritedFd } from '../qemu/netdev-facts.ts';
import { mirrorNetdev } from '../qemu/netdev-mirror.ts';
import type { RunningStack } from './compose.ts';
import { launchDaemon, prepareReadiness, takeDaemonMark } from './daemonise.ts';
import { restartWithoutIoUring } from './io-uring.ts';
import type { ClosableLogger } from './logging.ts';
import { buildLoggingConfig } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import { PASST_OPTIONS, type PasstOptionTable } from './options/passt-options.ts';
import { scanOptions } from './options/scan.ts';
import { checkPasstOptions, type PasstConfig } from './passt-config.ts';
import { openPidFile, type PidFile, unlinkIfThere } from './pid-file.ts';
import { prepareConfig } from './prepare-config.ts';
import { changeUser, resolveRunAs } from './run-as.ts';
import type { Sandbox } from './sandbox.ts';
import { describeNetwork, endOnFault, NO_SANDBOX_WARNING } from './serving.ts';
import { servingPid } from './serving-pid.ts';
import { watchEndingSignals } from './signals.ts';
import { writeStderr } from './stderr.ts';
import { VERSION } from './version.ts';

export const PASST_PROGRAM = 'passel-passt';

type Given = GivenOptions<PasstOptionTable>;

/**
 * Runs the command.
 * @returns exit status
 * @throws PasselError for the caller to report
 */
export async function runPasstCommand(argv: readonly string[]): Promise<number> {
  const isDaemon = takeDaemonMark();
  const given = scanOptions(PASST_OPTIONS, argv);
  if (given.has('help')) return printHelp();
  if (given.has('version')) return print(`${PASST_PROGRAM} ${VERSION}\n`);
  if (given.has('print-capabilities')) return print('{\n  "type": "net"\n}\n');
  checkPasstOptions(given);
  const netdev = given.all('netdev')[0]?.parsed;
  const fd = given.last('fd') ?? (netdev === undefined ? undefined : inheritedFd(netdev));
  if (fd !== undefined) checkFd(fd);
  const confined = !given.has('no-sandbox');
  if (!isDaemon && !given.has('foreground')) return launchDaemon(fd, confined);
  if (confined && !isDaemon) restartWithoutIoUring(fd);
  return servePasst(given, isDaemon);
}

async function printHelp(): Promise<number> {
  const { formatHelp } = await import('./options/help.ts');
  return print(await formatHelp(`${PASST_PROGRAM} [OPTION]...`, PASST_OPTIONS));
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

function checkFd(fd: number): void {
  let reason: string | undefined;
  try {
    if (!fstatSync(fd).isSocket()) reason = 'it is not a socket';
  } catch (error) {
    reason = reasonOf(error);
  }
  if (reason !== undefined) throw new PasselError('PASSEL_E_FD', { value: fd, reason });
}

/** Opens everything, tells the launcher, serves. Whatever was opened is closed again when a later step fails. */
async function servePasst(given: Given, isDaemon: boolean): Promise<number> {
  const signals = watchEndingSignals();
  let logger: ClosableLogger | undefined;
  let pidFile: PidFile | undefined;
  let running: RunningStack | undefined;
  let sandbox: Sandbox | undefined;
  let ready = false;
  const remove = (path: string): void => {
    if (sandbox === undefined) unlinkIfThere(path);
    else sandbox.remove(path);
  };
  try {
    // Loaded here, because launchers do without.
    const { openLogger } = await import('./logging.ts');
    // Once in the background there is no standard error left; a log file or the system's logger is then the place for messages.
    const writeUntilReady = (line: string): void => {
      if (!(isDaemon && ready)) writeStderr(line);
    };
    logger = openLogger(PASST_PROGRAM, buildLoggingConfig(narrowOptions(given)), writeUntilReady, isDaemon);
    process.on('uncaughtException', (error) => endOnFault(error, logger));
    const config = prepareConfig(given);
    if (config.pidPath !== undefined) pidFile = openPidFile(config.pidPath);
    const runAs = resolveRunAs(config.runAs);
    const { startPasst } = await import('./compose.ts');
    const { isDetached, prepareSandbox } = await import('./sandbox.ts');
    running = await startPasst(config, logger, {
      user: runAs,
      leavesFiles: isDetached(),
      isDaemon,
      removeFile: remove,
    });
    const readiness = isDaemon ? prepareReadiness() : undefined;
    if (given.has('no-sandbox')) {
      logger.warn(NO_SANDBOX_WARNING);
    } else {
      const { socketPaths, forwardPaths, controlPath } = running;
      const removable = [...socketPaths, ...forwardPaths, controlPath, pidFile?.path].filter(
        (path) => path !== undefined,
      );
      const mayListen = controlPath !== undefined;
      sandbox = await prepareSandbox({
        removable,
        changesUser: runAs !== undefined,
        mayListen,
        mayPair: config.names !== undefined,
        log: logger,
      });
    }
    if (runAs !== undefined) {
      if (config.runAs === undefined) logger.info(`started as root: changing to user ${runAs.uid}, group ${runAs.gid}`);
      changeUser(runAs);
    }
    describeStart(config, running.socketPaths, logger);
    pidFile?.write(servingPid());
    sandbox?.enter();
    if (readiness?.report() === false) throw new PasselError('PASSEL_E_DAEMON', { reason: 'its launcher was ended' });
    ready = true;
    const outcome = await Promise.race([running.ended, signals.signal]);
    if (typeof outcome === 'string') logger.info(`${outcome}: stopping`);
    return typeof outcome === 'string' ? 0 : outcome;
  } catch (error) {
    if (!ready) pidFile?.abandon(remove);
    else logger?.error(reasonOf(error));
    throw error;
  } finally {
    await running?.stop();
    for (const path of running?.socketPaths ?? []) remove(path);
    if (running?.controlPath !== undefined) remove(running.controlPath);
    logger?.close();
    signals.dispose();
  }
}

/** What is worth a warning to those who do not know what they do. */
function warnOfReach(netdev: Netdev, log: Logger): void {
  const open =
    netdev.form === 'stream' && netdev.server && netdev.address.type === 'inet' ? netdev.address.host : undefined;
  if (open !== undefined && !/^(127\.|::1$|localhost$)/.test(open)) {
    log.warn(`--netdev: whoever reaches ${open === '' ? 'this host' : open} can be the guest`);
  }
}

function describeStart(config: PasstConfig, socketPaths: readonly string[], logger: Logger): void {
  describeNetwork(config, logger);
  const isSeveral = config.guests.length > 1;
  for (const { name, transport, stack } of config.guests) {
    if (transport.kind !== 'netdev') continue;
    const { netdev } = transport;
    warnOfReach(netdev, logger);
    const id = isSeveral ? name : 'net0';
    const mirror = mirrorNetdev(netdev, id);
    if (mirror === undefined) continue;
    const address = stack.ipv4 === undefined ? '' : ` as ${formatIpv4(stack.ipv4.guestAddress)}`;
    logger.info(isSeveral ? `${name}: QEMU 7.2 or later joins${address} with:` : 'QEMU 7.2 or later joins with:');
    logger.info(`  -netdev ${mirror} -device virtio-net-pci,netdev=${id}`);
  }
  if (config.guests.some(({ transport }) => transport.kind === 'netdev')) return;
  for (const socketPath of socketPaths) {
    logger.info(`listening on ${socketPath}; QEMU 7.2 or later joins with:`);
    logger.info(
      `  -netdev stream,id=net0,server=off,addr.type=unix,addr.path=${socketPath} -device virtio-net-pci,netdev=net0`,
    );
  }
}
