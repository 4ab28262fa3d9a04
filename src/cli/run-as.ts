/**
 * Changing to another user. Nothing in passel needs root once its sockets and files are open, so a process that was started
 * as root becomes nobody, as the C programs do. glibc's calls, which Node uses, change all threads.
 */
import { readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { PasselError, reasonOf } from '../base/errors.ts';
import type { RunAs } from './network-config.ts';

export interface UserIds {
  readonly uid: number;
  readonly gid: number;
}

const NOBODY = 65534;

/** Finds a user by name or number in passwd(5) text. */
export function findUser(passwd: string, user: string): UserIds | undefined {
  for (const line of passwd.split('\n')) {
    const [name, , uid, gid] = line.split(':');
    if (gid !== undefined && (name === user || uid === user)) return { uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}

/** The name of a user by number; undefined: of this process's. @returns undefined when it has none */
export function findUserName(uid: number | undefined): string | undefined {
  const wanted = String(uid ?? process.geteuid!());
  for (const line of readText('/etc/passwd').split('\n')) {
    const [name, , found] = line.split(':');
    if (found === wanted) return name;
  }
  try {
    // Users of this machine need not be in its files, and the system knows its own.
    return uid === undefined ? userInfo().username : undefined;
  } catch {
    return undefined;
  }
}

/** Finds a group by name in group(5) text. */
export function findGroup(group: string, name: string): number | undefined {
  for (const line of group.split('\n')) {
    const [groupName, , gid] = line.split(':');
    if (gid !== undefined && groupName === name) return Number(gid);
  }
  return undefined;
}

/**
 * The ids to change to: those asked for, or nobody's if we are root of the machine. Root of a user namespace is an ordinary
 * user outside and stays what it is.
 * @returns undefined when there is nothing to change
 * @throws PasselError PASSEL_E_USER
 */
export function resolveRunAs(wanted: RunAs | undefined): UserIds | undefined {
  if (wanted === undefined) {
    if (process.geteuid!() !== 0 || !isInitialUserNamespace()) return undefined;
    return findUser(readText('/etc/passwd'), 'nobody') ?? { uid: NOBODY, gid: NOBODY };
  }
  const shown = wanted.group === undefined ? wanted.user : `${wanted.user}:${wanted.group}`;
  const fail = (reason: string): never => {
    throw new PasselError('PASSEL_E_USER', { option: '--runas', value: shown, reason });
  };
  const isNumber = (text: string): boolean => /^\d{1,10}$/.test(text) && Number(text) < 0xffffffff;
  const found = findUser(readText('/etc/passwd'), wanted.user);
  const user = found ?? (isNumber(wanted.user) ? { uid: Number(wanted.user), gid: Number(wanted.user) } : undefined);
  if (user === undefined) return fail('there is no such user');
  if (wanted.group === undefined) return user;
  const gid = isNumber(wanted.group) ? Number(wanted.group) : findGroup(readText('/etc/group'), wanted.group);
  return gid === undefined ? fail('there is no such group') : { uid: user.uid, gid };
}

/**
 * Becomes another user for good.
 * @throws PasselError PASSEL_E_USER
 */
export function changeUser(ids: UserIds): void {
  if (process.geteuid!() === ids.uid && process.getegid!() === ids.gid) return;
  try {
    // Groups first: once the user is changed, the right to change groups is gone.
    process.setgroups!([]);
    process.setgid!(ids.gid);
    process.setuid!(ids.uid);
  } catch (error) {
    const value = `${ids.uid}:${ids.gid}`;
    throw new PasselError('PASSEL_E_USER', { option: '--runas', value, reason: reasonOf(error) }, { cause: error });
  }
}

function isInitialUserNamespace(): boolean {
  return /^\s*0\s+0\s+4294967295\s*$/.test(readText('/proc/self/uid_map'));
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
