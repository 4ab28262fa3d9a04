/** Opening the namespace of a run of passel-pasta, and what to say when that fails. */

import { userInfo } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import { EACCES, ENOENT, ENOSPC, EPERM } from '../base/errno.ts';
import { PasselError, reasonOf } from '../base/errors.ts';
import {
  type GuestNamespace,
  type NamespaceError,
  type NamespaceStep,
  type NamespaceTarget,
  openNamespace,
} from '../sys/namespace.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { findProgram } from '../sys/process.ts';
import type { PastaConfig, PastaTarget } from './pasta-config.ts';
import type { UserIds } from './run-as.ts';

const DEFAULT_SHELL = '/bin/sh';

/** A program and its arguments, found before anything is made for it. */
export interface FoundCommand {
  readonly file: string;
  /** The zeroth included. */
  readonly args: readonly string[];
  readonly isShell: boolean;
}

/**
 * Finds the command of new namespaces; none is the user's shell, as at login.
 * @throws PasselError PASSEL_E_RUN_NOT_FOUND, PASSEL_E_RUN_NOT_EXECUTABLE
 */
export function findCommand(command: readonly string[]): FoundCommand {
  const shell = process.env['SHELL'] || userShell() || DEFAULT_SHELL;
  const [name = shell] = command;
  try {
    const file = findProgram(name, process.env['PATH'] ?? '');
    const isShell = command.length === 0;
    return { file, args: isShell ? [`-${shell}`] : command, isShell };
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).errno === ENOENT;
    const code = missing ? 'PASSEL_E_RUN_NOT_FOUND' : 'PASSEL_E_RUN_NOT_EXECUTABLE';
    throw new PasselError(code, { value: name, reason: reasonOf(error) }, { cause: error });
  }
}

function userShell(): string | null {
  try {
    return userInfo().shell;
  } catch {
    // A user without an entry.
    return null;
  }
}

/** @throws PasselError */
export async function openPastaNamespace(
  native: NativeAddon,
  config: PastaConfig,
  found: FoundCommand | undefined,
  user: UserIds | undefined,
): Promise<GuestNamespace> {
  try {
    return await openNamespace(native, { target: targetOf(config.target, found), user, tap: config.tap });
  } catch (error) {
    if (!isNamespaceError(error)) throw error;
    throw explain(error, config);
  }
}

function targetOf(target: PastaTarget, found: FoundCommand | undefined): NamespaceTarget {
  if (target.kind === 'join') return target;
  if (found === undefined) throw new TypeError('new namespaces are made for a command');
  return { kind: 'new', ...found };
}

function isNamespaceError(error: unknown): error is NamespaceError {
  return error instanceof Error && 'subject' in error && 'step' in error;
}

function explain(error: NamespaceError, { target }: PastaConfig): PasselError {
  const { step, subject, errno = 0 } = error;
  const [name, text] = getSystemErrorMap().get(errno) ?? [`errno ${-errno}`, ''];
  const reason = `${subject === '' ? '' : `${subject}: `}${name}${text === '' ? '' : `: ${text}`}`;
  const isProcess = target.kind === 'join' && target.pid !== undefined;
  const isGone = isProcess && (step === 'find the process' || (errno === ENOENT && step.startsWith('open the ')));
  if (isGone) {
    return new PasselError('PASSEL_E_NAMESPACE', {
      step: `find process ${target.pid}`,
      reason: 'there is none, or it has just ended',
    });
  }
  const hint = hintFor(step, errno);
  return new PasselError('PASSEL_E_NAMESPACE', { step, reason }, hint === undefined ? {} : { hint });
}

function hintFor(step: NamespaceStep, errno: number): string | undefined {
  const refused = errno === EPERM || errno === EACCES || errno === ENOSPC;
  if (!refused) return undefined;
  switch (step) {
    case 'make a user namespace':
    case 'map user and group ids':
      return "this system lets the user make none (user.max_user_namespaces, kernel.unprivileged_userns_clone): see 'passel doctor'";
    case 'make the namespaces':
      return 'a limit of /proc/sys/user is reached, or the system forbids them';
    case 'open the tap driver':
      return "the user must be allowed to open /dev/net/tun, usually with mode 0666: see 'passel doctor'";
    case 'join the network namespace':
    case 'join the user namespace':
      return 'one must own the user namespace that it belongs to: name that with --userns, or be root';
    default:
      return undefined;
  }
}
