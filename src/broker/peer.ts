/** Who is at the other end of a connection to the broker. */
import { checkStatus } from '../sys/errors.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { openPeerProcess } from '../sys/peer-process.ts';
import { getPeerCredentials } from '../sys/unix-socket.ts';
import type { Peer } from './policy.ts';

const MAX_GROUPS = 65_536;

/** @returns the peer, and a pidfd of the process that connected, the caller's, where the kernel has them */
export function readPeer(native: NativeAddon, fd: number): { readonly peer: Peer; readonly pidfd: number | undefined } {
  const { pid, uid, gid } = getPeerCredentials(native, fd);
  const groups = new Int32Array(MAX_GROUPS);
  const count = checkStatus(native.peerGroups(fd, groups), 'getsockopt');
  const process = openPeerProcess(native, fd, pid);
  return {
    pidfd: process?.pidfd,
    peer: {
      pid,
      uid,
      gid,
      groups: Array.from(groups.subarray(0, count), (group) => group >>> 0),
      program: process?.name,
      startTicks: process?.startTicks,
    },
  };
}
