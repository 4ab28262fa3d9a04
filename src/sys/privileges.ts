/** Another user and a few capabilities, in all threads: what is needed for commands to devices of others, and nothing else. */
import { closeSync } from 'node:fs';
import { checkStatus } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';
import { CAP_SETGID, CAP_SETUID, capabilityMask, openThreadList } from './sandbox.ts';

/** Numbers of capabilities(7). */
export const CAP_SYS_RAWIO = 17;

export interface UserChange {
  /** undefined: as it is. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/**
 * Changes user and group, leaves all supplementary groups, and keeps of the capabilities held only `keep`: permitted and effective,
 * none inheritable or ambient. The bounding set is emptied where CAP_SETPCAP allows it.
 * @param change - undefined: ids and groups stay, for a process that may not change them
 * @throws Error with `errno`
 */
export function reducePrivileges(native: NativeAddon, change: UserChange | undefined, keep: readonly number[]): void {
  const threadList = openThreadList();
  try {
    // The bounding set goes first: a change of user leaves no capability effective, so none to empty it with.
    if (change !== undefined) {
      limit(native, threadList, [...keep, CAP_SETUID, CAP_SETGID]);
      checkStatus(native.changeUser(threadList, change.uid ?? -1, change.gid ?? -1), 'setresuid');
    }
    limit(native, threadList, keep);
  } finally {
    closeSync(threadList);
  }
}

function limit(native: NativeAddon, threadList: number, keep: readonly number[]): void {
  const mask = capabilityMask(keep);
  checkStatus(native.limitCapabilities(threadList, Number(mask & 0xffff_ffffn), Number(mask >> 32n), 0, 0), 'capset');
}
