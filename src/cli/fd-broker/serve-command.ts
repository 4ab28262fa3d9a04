/**
 * `passel-fd-broker serve`: keeps and makes descriptors for those whom the policy lets, until it is told to stop.
 *
 * It stays in the foreground, as service managers want it, and takes a socket that one has opened (sd_listen_fds(3)). Once it listens, the PID
 * file is written. SIGTERM, SIGINT and SIGQUIT end it with status 0; what it keeps is closed then.
 */
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createArena } from '../../base/arena.ts';
import { PasselError, printable, reasonOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { DEFAULT_ACL_PATH } from '../../bridge/acl.ts';
import { BROKER_ARENA_BYTES, createBroker } from '../../broker/broker.ts';
import { defaultPolicy, type Policy, parsePolicy } from '../../broker/policy.ts';
import type { AuditRecord } from '../../broker/server.ts';
import { type FdFacts, readFdFacts } from '../../sys/fd-facts.ts';
import { whyNotTrusted } from '../../sys/file-trust.ts';
import { loadNative, type NativeAddon } from '../../sys/native.ts';
import { FIRST_ACTIVATED_FD, takeActivatedCount } from '../../sys/systemd-activation.ts';
import { listenUnix, UNIX_SEQPACKET } from '../../sys/unix-socket.ts';
import { openLogger } from '../logging.ts';
import type { GivenOptions } from '../options/definition.ts';
import { FD_BROKER_SERVE_OPTIONS, type FdBrokerServeOptionTable } from '../options/fd-broker-options.ts';
import { scanOptions } from '../options/scan.ts';
import { openPidFile, type PidFile, unlinkIfThere } from '../pid-file.ts';
import { watchEndingSignals } from '../signals.ts';
import { claimSocketPath } from '../socket-path.ts';
import { writeStderr } from '../stderr.ts';
import { VERSION } from '../version.ts';
import { checkNetworks, createNetworks, siblingProgram } from './network-maker.ts';
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
  let pidFile: PidFile | undefined;
  let path: string | undefined;
  let ready = false;
  const native = loadNative();
  const policy = readPolicy(given);
  const arena = createArena(64 * 1024);
  native.bindArena(arena.buffer);
  const networks = createNetworks({ native, program: siblingProgram('passel-passt') });
  const broker = createBroker({
    native,
    arena: { view: arena.view, offset: arena.allocate(BROKER_ARENA_BYTES) },
    policy,
    makeTap: createTapMaker({
      native,
      aclPath: given.last('acl') ?? DEFAULT_ACL_PATH,
      trustWritable: given.has('trust-writable-acl'),
    }),
    joinNetwork: networks.join,
    audit: (record) => {
      // Refusals are warnings; making up the others' lines for nobody costs more than some requests do.
      if (record.error !== undefined || !given.has('quiet')) logRequest(log, record);
    },
    onName: (entry, ended) => {
      if (ended === undefined || ended === 'taken' || ended === 'dropped') return;
      log.info(`'${entry.name}' of user ${entry.owner} ended: ${ended}`, {
        name: entry.name,
        owner: entry.owner,
        ended,
      });
    },
    onTrouble: (message) => log.warn(message),
  });
  try {
    const pidPath = given.last('pid');
    if (pidPath !== undefined) pidFile = openPidFile(pidPath);
    const activated = takeActivatedSocket(native, given);
    if (activated === undefined) path = given.last('socket') ?? defaultServePath();
    broker.server.serve(activated ?? (await listen(native, path!, given.last('socket-mode'))));
    pidFile?.write(process.pid);
    ready = true;
    log.info(path === undefined ? 'serving on the socket of the service manager' : `serving on ${path}`);
    log.info(`${await signals.signal}: stopping`);
    return 0;
  } finally {
    if (!ready) pidFile?.abandon();
    networks.close();
    broker.close();
    if (ready && path !== undefined && !path.startsWith('@')) unlinkIfThere(path);
    log.close();
    signals.dispose();
  }
}

/** The listening socket that a service manager opened for us; undefined: there is none. Its path is the manager's to remove. */
function takeActivatedSocket(native: NativeAddon, given: Given): number | undefined {
  const count = takeActivatedCount(process.env, process.pid);
  if (count === 0) return undefined;
  if (given.last('socket') !== undefined) {
    throw new PasselError('PASSEL_E_OPTION_CONFLICT', { option: given.typed('socket'), other: 'LISTEN_FDS' });
  }
  if (count > 1) throw new PasselError('PASSEL_E_FD', { value: FIRST_ACTIVATED_FD + 1, reason: 'LISTEN_FDS > 1' });
  const facts = describeActivated(native);
  if (facts?.family !== 'unix' || facts.type !== 'seqpacket' || facts.listening !== true) {
    const reason = 'it is not a listening SOCK_SEQPACKET unix socket (ListenSequentialPacket=)';
    throw new PasselError('PASSEL_E_FD', { value: FIRST_ACTIVATED_FD, reason });
  }
  native.setNonBlocking(FIRST_ACTIVATED_FD, 1);
  return FIRST_ACTIVATED_FD;
}

function describeActivated(native: NativeAddon): FdFacts | undefined {
  try {
    return readFdFacts(native, FIRST_ACTIVATED_FD);
  } catch {
    return undefined;
  }
}

function readPolicy(given: Given): Policy {
  const path = given.last('policy');
  if (path === undefined) return defaultPolicy(process.getuid?.() ?? 0);
  const text = readPolicyFile(path, given.has('trust-writable-acl'));
  try {
    const policy = parsePolicy(text);
    checkNetworks(policy);
    return policy;
  } catch (error) {
    throw new PasselError('PASSEL_E_POLICY', { value: path, reason: reasonOf(error) }, { cause: error });
  }
}

function readPolicyFile(path: string, trustWritable: boolean): string {
  try {
    const fd = openSync(path, 'r');
    try {
      const doubt = trustWritable ? undefined : whyNotTrusted(fstatSync(fd));
      if (doubt !== undefined) throw new Error(doubt);
      return readFileSync(fd, 'utf8');
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new PasselError(
      'PASSEL_E_FILE',
      { option: '--policy', value: path, reason: reasonOf(error) },
      { cause: error },
    );
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

/** One line a request: who, what, and what became of it. */
function logRequest(log: Logger, { peer, verb, subject, received, sent, error }: AuditRecord): void {
  const about = subject === undefined ? '' : ` '${printable(subject)}'`;
  const who = `user ${peer.uid}, process ${peer.pid}: ${verb}${about}`;
  const fields = {
    uid: peer.uid,
    gid: peer.gid,
    pid: peer.pid,
    verb,
    subject,
    received,
    sent,
    code: error?.code ?? 'ok',
  };
  if (error === undefined) log.info(`${who}: ${received} in, ${sent} out`, fields);
  else log.warn(`${who}: ${error.code}: ${error.message}`, fields);
}
