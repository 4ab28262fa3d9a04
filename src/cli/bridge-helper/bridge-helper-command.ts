/**
 * The passel-bridge-helper command: decide by the access list, make a tap on the bridge, send its descriptor, end.
 *
 * Contract with callers (QEMU's `-netdev bridge` and `-netdev tap,helper=`, libvirt): options in any order; one zero byte with the
 * descriptor over the socket `--fd`, and exit status 0; or a message on standard error and exit status 1, and then there is no tap.
 */
import { PasselError, reasonOf } from '../../base/errors.ts';
import { type Acl, AclError, type AclVerdict, DEFAULT_ACL_PATH, decideAcl, readAcl } from '../../bridge/acl.ts';
import { AttachError, type AttachRequest, attachTap } from '../../bridge/attach.ts';
import { loadNative, type NativeAddon } from '../../sys/native.ts';
import { hasNetAdmin } from '../../sys/net-admin.ts';
import { sendWithFds } from '../../sys/scm.ts';
import { BRIDGE_HELPER_OPTIONS, type BridgeHelperOptionTable } from '../options/bridge-helper-options.ts';
import type { GivenOptions } from '../options/definition.ts';
import { scanOptions } from '../options/scan.ts';
import { VERSION } from '../version.ts';
import { describeCheck } from './describe-check.ts';

export const BRIDGE_HELPER_PROGRAM = 'passel-bridge-helper';

type Given = GivenOptions<BridgeHelperOptionTable>;

const USAGE = `${BRIDGE_HELPER_PROGRAM} [--use-vnet] --br=BRIDGE --fd=N [OPTION]...`;

// socket(7), and AF_UNIX.
const SOL_SOCKET = 1;
const SO_DOMAIN = 39;
const AF_UNIX = 1;

/** @returns exit status; @throws PasselError for the caller to report */
export async function runBridgeHelperCommand(argv: readonly string[]): Promise<number> {
  const given = scanOptions(BRIDGE_HELPER_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    process.stdout.write(await formatHelp(USAGE, BRIDGE_HELPER_OPTIONS));
    return 0;
  }
  if (given.has('version')) {
    process.stdout.write(`${BRIDGE_HELPER_PROGRAM} ${VERSION}\n`);
    return 0;
  }
  const [operand] = given.operands;
  if (operand !== undefined) throw new PasselError('PASSEL_E_OPERAND', { value: operand, expected: 'options only' });
  const request = readRequest(given);
  const native = loadNative();
  if (given.has('check')) return check(native, given, request);
  const fd = checkSocket(native, given);
  if (!hasNetAdmin()) return askBroker(native, fd, request);
  const acl = openAcl(given);
  const verdict = decideAcl(acl, request.bridge);
  if (!verdict.granted) throw denied(acl, request.bridge, verdict);
  return send(native, fd, request);
}

/** The broker decides, as this user would be allowed, and makes the tap. Options about the access list are its own business. */
async function askBroker(native: NativeAddon, socket: number, request: AttachRequest): Promise<number> {
  const { requestTap } = await import('./ask-broker.ts');
  const fds = await requestTap(native, request);
  try {
    sendDescriptors(
      native,
      socket,
      fds.map(({ fd }) => fd),
    );
    return 0;
  } catch (error) {
    if (!(error instanceof AttachError)) throw error;
    throw new PasselError('PASSEL_E_BRIDGE', { reason: error.message }, { cause: error });
  } finally {
    for (const fd of fds) fd.close();
  }
}

function readRequest(given: Given): AttachRequest {
  const bridge = given.last('br');
  if (bridge === undefined) {
    throw new PasselError(
      'PASSEL_E_OPTION_MISSING',
      { option: '--br', expected: 'a bridge' },
      { hint: `Usage: ${USAGE}` },
    );
  }
  const tapName = given.last('tap-name');
  return {
    bridge,
    vnetHeader: given.has('use-vnet'),
    isolated: given.has('isolated'),
    queues: given.last('queues') ?? 1,
    ...(tapName === undefined ? {} : { tapName }),
  };
}

/** The socket is looked at before anything is made. @returns its fd */
function checkSocket(native: NativeAddon, given: Given): number {
  const fd = given.last('fd');
  if (fd === undefined) {
    const expected = 'the descriptor of a unix socket';
    throw new PasselError('PASSEL_E_OPTION_MISSING', { option: '--fd', expected }, { hint: `Usage: ${USAGE}` });
  }
  const domain = native.getOption(fd, SOL_SOCKET, SO_DOMAIN);
  if (domain === AF_UNIX) return fd;
  const reason = domain === -EBADF ? 'it is not open' : domain < 0 ? 'it is not a socket' : 'it is not a unix socket';
  throw new PasselError('PASSEL_E_FD', { value: fd, reason });
}

const EBADF = 9;

function openAcl(given: Given): Acl {
  try {
    return readAcl(given.last('acl') ?? DEFAULT_ACL_PATH, { trustWritable: given.has('trust-writable-acl') });
  } catch (error) {
    if (!(error instanceof AclError)) throw error;
    throw new PasselError('PASSEL_E_ACL', { place: error.place, reason: error.message }, { cause: error });
  }
}

function denied(acl: Acl, bridge: string, { rule }: AclVerdict): PasselError {
  const reason =
    rule === undefined
      ? `nothing in '${acl.path}' allows it`
      : `${rule.file}:${rule.line}: ${rule.kind} ${rule.argument}`;
  const hint = rule !== undefined ? undefined : `to allow it, root adds the line "allow ${bridge}" to ${acl.path}`;
  return new PasselError('PASSEL_E_ACL_DENIED', { bridge, reason }, hint === undefined ? {} : { hint });
}

function send(native: NativeAddon, socket: number, request: AttachRequest): number {
  let fds: readonly number[] = [];
  try {
    const tap = attachTap(native, request);
    fds = tap.fds;
    sendDescriptors(native, socket, fds);
    return 0;
  } catch (error) {
    if (!(error instanceof AttachError)) throw error;
    throw new PasselError('PASSEL_E_BRIDGE', { reason: error.message }, { cause: error });
  } finally {
    for (const fd of fds) native.close(fd);
  }
}

/** QEMU reads one byte with one descriptor; its value means nothing. */
function sendDescriptors(native: NativeAddon, socket: number, fds: readonly number[]): void {
  try {
    // A full socket makes nobody wait here: it has just been made for this one byte.
    if (sendWithFds(native, socket, Uint8Array.of(0), fds)) return;
  } catch (error) {
    throw new AttachError(`failed to write fd to unix socket: ${reasonOf(error)}`, { cause: error });
  }
  throw new AttachError('failed to write fd to unix socket: it is full');
}

function check(native: NativeAddon, given: Given, request: AttachRequest): number {
  const acl = openAcl(given);
  const verdict = decideAcl(acl, request.bridge);
  process.stdout.write(describeCheck(native, { acl, verdict, request, netAdmin: hasNetAdmin() }));
  return verdict.granted ? 0 : 1;
}
