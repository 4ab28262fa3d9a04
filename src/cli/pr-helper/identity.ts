/** Who the helper becomes, and whether it may: -u, -g and the capabilities that it was started with. */
import { readFileSync } from 'node:fs';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { NativeAddon } from '../../sys/native-addon.ts';
import { CAP_SYS_RAWIO, reducePrivileges } from '../../sys/privileges.ts';
import { CAP_SETGID, CAP_SETUID, capabilityMask, readCapabilities } from '../../sys/sandbox.ts';
import { findGroup, findUser } from '../run-as.ts';

export interface Identity {
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/** The largest id that is one: -1 means "no change" to the system calls. */
const ID_MAX = 0xffff_fffe;

/** A name, or else a decimal number. @throws PasselError PASSEL_E_USER */
export function resolveUser(option: string, user: string | undefined): number | undefined {
  if (user === undefined) return undefined;
  const passwd = readText('/etc/passwd');
  return byName(findUser(passwd, user)?.uid) ?? numberOf(option, user, 'user');
}

/** @throws PasselError PASSEL_E_USER */
export function resolveGroup(option: string, group: string | undefined): number | undefined {
  if (group === undefined) return undefined;
  return byName(findGroup(readText('/etc/group'), group)) ?? numberOf(option, group, 'group');
}

function byName(id: number | undefined): number | undefined {
  return id !== undefined && Number.isInteger(id) ? id : undefined;
}

function numberOf(option: string, text: string, what: string): number {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (id <= ID_MAX) return id;
  throw new PasselError('PASSEL_E_USER', { option, value: text, reason: `there is no such ${what}` });
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/**
 * Becomes that user with CAP_SYS_RAWIO and nothing else, in all threads.
 * @throws PasselError PASSEL_E_PR_PRIVILEGES
 */
export function dropPrivileges(native: NativeAddon, identity: Identity): void {
  const held = readCapabilities();
  const has = (capability: number): boolean => (held & capabilityMask([capability])) !== 0n;
  const fail = (reason: string, cause?: unknown): never => {
    throw new PasselError(
      'PASSEL_E_PR_PRIVILEGES',
      { reason },
      { hint: 'start it as root, or by systemd with AmbientCapabilities=CAP_SYS_RAWIO', cause },
    );
  };
  if (!has(CAP_SYS_RAWIO)) {
    fail('CAP_SYS_RAWIO is needed to send reservations to devices, and this process does not have it');
  }
  const mayChange = has(CAP_SETUID) && has(CAP_SETGID);
  if (!mayChange && (identity.uid !== undefined || identity.gid !== undefined)) {
    fail('CAP_SETUID and CAP_SETGID are needed for --user and --group, and this process does not have them');
  }
  try {
    // Without the right to leave groups, an ordinary user keeps those that it was started with.
    reducePrivileges(native, mayChange ? identity : undefined, [CAP_SYS_RAWIO]);
  } catch (error) {
    fail(reasonOf(error), error);
  }
}
