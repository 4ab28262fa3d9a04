/**
 * The SMB server of `smb=`: Samba's smbd, one process for each connection of the guest, with a configuration of its own that shares one
 * folder under the name `qemu` with whoever asks, in the name of the user who this program runs as (smb.conf(5)).
 *
 * All that smbd keeps lies in a folder made for it, which the services agent removes when it ends. Names of the guest's are never looked up
 * in this machine's accounts, and links out of the shared folder lead nowhere.
 */
import { accessSync, chownSync, constants, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { findUserName, type UserIds } from '../run-as.ts';

const OPTION = '--user-net smb';
/** Where distributions have it, which is not in the PATH of ordinary users. */
const SERVER_FOLDERS = ['/usr/sbin', '/usr/local/sbin', '/usr/local/samba/sbin'];
const SHARE = 'qemu';

export interface SmbServer {
  /** The command for a connection. */
  readonly words: readonly string[];
  /** What it works with; to be removed by whoever ends last. */
  readonly folder: string;
  /** Removes the folder, when nobody else is going to. */
  abandon(): void;
}

/**
 * Prepares the server.
 * @param shared - the folder
 * @param user - whom this process is going to become; undefined: nobody else
 * @throws PasselError PASSEL_E_SMB
 */
export function prepareSmb(shared: string, user: UserIds | undefined): SmbServer {
  const fail = (reason: string, cause?: unknown): never => {
    throw new PasselError('PASSEL_E_SMB', { option: OPTION, value: shared, reason }, { cause });
  };
  const path = resolve(shared);
  // smb.conf has no way to write these so that they mean themselves.
  if (/[\p{Cc}%]|\\$|\s$/u.test(path))
    fail("its path has a '%' or a control character, or a space or backslash at its end");
  try {
    if (!statSync(path).isDirectory()) fail('it is not a folder');
  } catch (error) {
    if (error instanceof PasselError) throw error;
    fail(reasonOf(error), error);
  }
  const server = findServer() ?? fail("there is no smbd: Debian's package samba has it");
  const name = findUserName(user?.uid) ?? fail(`user ${user?.uid ?? process.geteuid!()} has no name, which smbd needs`);
  let folder = '';
  const abandon = (): void => {
    if (folder !== '') rmSync(folder, { recursive: true, force: true });
  };
  try {
    folder = mkdtempSync(join(tmpdir(), 'passel-smb-'));
    const configuration = join(folder, 'smb.conf');
    writeFileSync(configuration, formatConfiguration(path, folder, name), { mode: 0o644 });
    if (user !== undefined) chownSync(folder, user.uid, user.gid);
    return { words: [server, '-s', configuration, '-l', folder], folder, abandon };
  } catch (error) {
    abandon();
    return fail(reasonOf(error), error);
  }
}

function findServer(): string | undefined {
  const folders = [
    ...(process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== ''),
    ...SERVER_FOLDERS,
  ];
  return folders
    .map((folder) => resolve(folder, 'smbd'))
    .find((candidate) => {
      try {
        accessSync(candidate, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

function formatConfiguration(shared: string, folder: string, user: string): string {
  const own = ['private dir', 'pid directory', 'lock directory', 'state directory', 'cache directory'];
  const global = {
    ...Object.fromEntries(own.map((key) => [key, folder])),
    'ncalrpc dir': join(folder, 'ncalrpc'),
    'smb passwd file': join(folder, 'smbpasswd'),
    'log file': join(folder, 'log.smbd'),
    interfaces: '127.0.0.1',
    'bind interfaces only': 'yes',
    'server role': 'standalone server',
    'map to guest': 'Bad User',
    'load printers': 'no',
    printing: 'bsd',
    'disable spoolss': 'yes',
    'usershare max shares': '0',
    'wide links': 'no',
    // smbd starts a process for these each time, and refuses whoever asks for the folder before that process is ready.
    'change notify': 'no',
    // They would go on for a minute after everybody is gone, and are for lists of shares only.
    'rpc start on demand helpers': 'no',
    'kernel change notify': 'no',
  };
  const share = { path: shared, 'read only': 'no', 'guest ok': 'yes', 'force user': user };
  const section = (title: string, values: Readonly<Record<string, string>>): string =>
    `[${title}]\n${Object.entries(values)
      .map(([key, value]) => `${key} = ${value}\n`)
      .join('')}`;
  return section('global', global) + section(SHARE, share);
}
