/**
 * The passel-pasta command: a network stack for a network namespace. It makes namespaces for a command (a shell if none is named) and ends
 * as that ends, or joins those of a process or path and goes to the background.
 *
 * Contract with callers (podman, rootlesskit): exit status 0 of the process they started means that the namespace is configured and
 * the PID file is written; anything else comes with a message on standard error and leaves nothing behind. With a command the exit
 * status is the command's, 128 and the signal's number if a signal ended it. SIGTERM ends all with status 0.
 */
import { resolve } from 'node:path';
import { isatty } from 'node:tty';
import { PasselError } from '../base/errors.ts';
import { mapIpv4 } from '../base/ip-text.ts';
import { systemSources } from '../sys/host-facts.ts';
import type { GuestNamespace, NamespaceEnd } from '../sys/namespace.ts';
import { loadNative } from '../sys/native.ts';
import { listIpv4Addresses, listIpv4Routes, listIpv6Addresses, listIpv6Routes } from '../sys/netns-template.ts';
import { randomWords } from '../sys/random.ts';
import type { RunningStack } from './compose.ts';
import { launchDaemon, prepareReadiness, takeDaemonMark } from './daemonise.ts';
import type { GuestPlan } from './guest-side.ts';
import { restartWithoutIoUring } from './io-uring.ts';
import type { ClosableLogger } from './logging.ts';
import type { NamespaceSpliceConfig } from './namespace-splice.ts';
import { buildLoggingConfig } from './network-config.ts';
import { type GivenOptions, narrowOptions } from './options/definition.ts';
import { PASTA_OPTIONS, type PastaOptionTable } from './options/pasta-options.ts';
import { scanOptions } from './options/scan.ts';
import type { MacAddress } from './options/values.ts';
import { buildPastaConfig, checkPastaOptions, chooseTarget, PASTA_GUEST, type PastaConfig } from './pasta-config.ts';
import { type FoundCommand, findCommand, openPastaNamespace } from './pasta-namespace.ts';
import { openPidFile, type PidFile, unlinkIfThere } from './pid-file.ts';
import { readEphemeralRange, readFacts } from './prepare-config.ts';
import { changeUser, resolveRunAs } from './run-as.ts';
import type { Sandbox } from './sandbox.ts';
import { describeNetwork, endOnFault, NO_SANDBOX_WARNING } from './serving.ts';
import { type EndWatch, watchEndingSignals } from './signals.ts';
import { writeStderr } from './stderr.ts';
import { VERSION } from './version.ts';

export const PASTA_PROGRAM = 'passel-pasta';

type Given = GivenOptions<PastaOptionTable>;

/** Shells say so of what a signal ended. */
const SIGNAL_STATUS = 128;

/**
 * Runs the command.
 * @returns exit status
 * @throws PasselError for the caller to report
 */
export async function runPastaCommand(argv: readonly string[]): Promise<number> {
  const isDaemon = takeDaemonMark();
  const given = scanOptions(PASTA_OPTIONS, argv, { stopAtOperand: true });
  if (given.has('help')) return printHelp();
  if (given.has('version')) return print(`${PASTA_PROGRAM} ${VERSION}\n`);
  checkPastaOptions(given);
  const target = chooseTarget(given);
  const found = target.kind === 'command' ? findCommand(target.command) : undefined;
  const confined = !given.has('no-sandbox');
  const inBackground = target.kind === 'join' && !given.has('foreground');
  if (!isDaemon && inBackground) return launchDaemon(undefined, confined);
  if (confined && !isDaemon) restartWithoutIoUring(undefined);
  return servePasta(given, found, isDaemon);
}

async function printHelp(): Promise<number> {
  const { formatHelp } = await import('./options/help.ts');
  return print(await formatHelp(`${PASTA_PROGRAM} [OPTION]... [COMMAND [ARG]... | PID]`, PASTA_OPTIONS));
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

/** Opens everything, tells the launcher, serves. Whatever was opened is closed again when a later step fails. */
async function servePasta(given: Given, found: FoundCommand | undefined, isDaemon: boolean): Promise<number> {
  const signals = found !== undefined && isatty(0) ? watchTermination() : watchEndingSignals();
  let logger: ClosableLogger | undefined;
  let pidFile: PidFile | undefined;
  let namespace: GuestNamespace | undefined;
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
    // What is said at the start would run into the command's output: only that something is wrong, unless asked for more.
    const chosen = buildLoggingConfig(narrowOptions(given));
    const isQuiet = found !== undefined && chosen.level === 'info' && chosen.filePath === undefined;
    const writeUntilReady = (line: string): void => {
      if (!(isDaemon && ready)) writeStderr(line);
    };
    logger = openLogger(PASTA_PROGRAM, isQuiet ? { ...chosen, level: 'warn' } : chosen, writeUntilReady, isDaemon);
    process.on('uncaughtException', (error) => endOnFault(error, logger));
    const config = preparePastaConfig(given);
    const { network } = config;
    if (network.pidPath !== undefined) pidFile = openPidFile(network.pidPath);
    const runAs = resolveRunAs(network.runAs);
    const native = loadNative();
    const { startStack } = await import('./compose.ts');
    const { createNoTransport, createTapTransport } = await import('./transport.ts');
    const { prepareSandbox } = await import('./sandbox.ts');
    const opened = await openPastaNamespace(native, config, found, runAs);
    namespace = opened;
    const tapFd = opened.tap?.fd;
    const guest: GuestPlan = {
      name: PASTA_GUEST,
      stack: network.stack,
      addressMap: network.addressMap,
      createTransport: (parts) => (tapFd === undefined ? createNoTransport() : createTapTransport(tapFd, parts)),
      pcapPath: network.pcapPath,
      impairment: config.impairment,
    };
    running = await startStack(network, [guest], logger, describeSplice(config, opened));
    const readiness = isDaemon ? prepareReadiness() : undefined;
    if (given.has('no-sandbox')) logger.warn(NO_SANDBOX_WARNING);
    else {
      const removable = [running.controlPath, pidFile?.path].filter((path) => path !== undefined);
      sandbox = await prepareSandbox({
        removable,
        changesUser: runAs !== undefined,
        mayListen: true,
        maySplice: config.splice || config.namespaceForwards.length > 0,
        log: logger,
      });
    }
    if (runAs !== undefined) {
      if (network.runAs === undefined)
        logger.info(`started as root: changing to user ${runAs.uid}, group ${runAs.gid}`);
      changeUser(runAs);
    }
    describeNetwork(network, logger);
    pidFile?.write(process.pid);
    sandbox?.enter();
    if (readiness?.report() === false) throw new PasselError('PASSEL_E_DAEMON', { reason: 'its launcher was ended' });
    ready = true;
    opened.start();
    const outcome = await Promise.race([running.ended, opened.ended, signals.signal]);
    if (typeof outcome === 'object') return statusOf(outcome, logger);
    if (typeof outcome === 'string') logger.info(`${outcome}: stopping`);
    return typeof outcome === 'string' ? 0 : outcome;
  } catch (error) {
    if (!ready) pidFile?.abandon(remove);
    throw error;
  } finally {
    await running?.stop();
    namespace?.close();
    if (running?.controlPath !== undefined) remove(running.controlPath);
    if (ready && pidFile !== undefined) remove(pidFile.path);
    logger?.close();
    signals.dispose();
  }
}

/** @throws PasselError PASSEL_E_NAMESPACE_AGENT */
function statusOf(end: NamespaceEnd, logger: ClosableLogger): number {
  if (end.kind === 'command') return end.end.exitStatus ?? SIGNAL_STATUS + (end.end.signalNumber ?? 0);
  if (end.kind === 'agent') throw new PasselError('PASSEL_E_NAMESPACE_AGENT', { value: 'somebody else' });
  logger.info('the namespace is gone: stopping');
  return 0;
}

/** How the loopbacks of both sides are joined. */
function describeSplice(config: PastaConfig, namespace: GuestNamespace): NamespaceSpliceConfig {
  const { ipv4, ipv6 } = config.network.stack;
  const address4 = config.loopbackToLoopback || ipv4 === undefined ? undefined : mapIpv4(ipv4.guestAddress);
  const address6 = config.loopbackToLoopback ? undefined : ipv6?.guestAddress;
  return {
    namespace,
    namespaceForwards: config.namespaceForwards,
    splice: config.splice,
    guestAddress: (family) => (family === 4 ? address4 : address6),
    ipv4: ipv4 !== undefined,
    ipv6: ipv6 !== undefined,
  };
}

/** On a terminal, its signals are the command's, which is in the same group of processes; we end when it does. */
function watchTermination(): EndWatch {
  const ignore = (): void => {};
  for (const name of ['SIGINT', 'SIGQUIT'] as const) process.on(name, ignore);
  let end: (signal: NodeJS.Signals) => void;
  const signal = new Promise<NodeJS.Signals>((fulfil) => {
    end = fulfil;
  });
  const onSignal = (name: NodeJS.Signals): void => end(name);
  process.on('SIGTERM', onSignal);
  return {
    signal,
    dispose() {
      process.removeListener('SIGTERM', onSignal);
      for (const name of ['SIGINT', 'SIGQUIT'] as const) process.removeListener(name, ignore);
    },
  };
}

/** Options merged with the facts of this host. @throws PasselError */
function preparePastaConfig(given: Given): PastaConfig {
  const facts = readFacts(narrowOptions(given));
  const name4 = facts.ipv4?.interfaceName ?? '';
  const name6 = facts.ipv6?.interfaceName ?? '';
  const extras = {
    addresses4: listIpv4Addresses(name4, systemSources),
    addresses6: listIpv6Addresses(name6, systemSources),
    routes4: listIpv4Routes(name4, systemSources),
    routes6: listIpv6Routes(name6, systemSources),
  };
  const config = buildPastaConfig(given, facts, extras, readEphemeralRange(), makeMac());
  const { controlPath } = config.network;
  // Absolute, because the working directory is left before the socket is removed.
  const network = { ...config.network, controlPath: controlPath === undefined ? undefined : resolve(controlPath) };
  return { ...config, network };
}

/** A random address of the kind that anybody may use: locally administered, unicast. */
function makeMac(): MacAddress {
  const words = randomWords(loadNative(), 2);
  return { hi: (words[0]! & 0xfcff) | 0x0200, lo: words[1]! };
}
