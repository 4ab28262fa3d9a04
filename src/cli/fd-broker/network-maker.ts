/**
 * The broker's verb `netdev`: a passel-passt of its own for each one who asks, on one end of a socket pair, of which the client gets the other
 * end; or a connection to a stack that somebody else has started.
 *
 * passel-passt goes to the background before it is handed over, so that a network that cannot be had is a refusal and not a dead socket, and
 * so that it is nobody's child: it outlives the broker, and ends when its guest closes the socket. That is also what becomes of it
 * when the client is gone before it has the socket. Its options are the policy's: clients choose among names.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join as joinPath } from 'node:path';
import { PasselError, reasonOf } from '../../base/errors.ts';
import type { Network, Peer, Policy } from '../../broker/policy.ts';
import { BrokerError } from '../../broker/protocol.ts';
import type { NetworkMaker } from '../../broker/verbs.ts';
import type { NativeAddon, PollHandle } from '../../sys/native-addon.ts';
import { connectUnix, createSocketPair } from '../../sys/unix-socket.ts';
import { PASST_OPTIONS, type PasstOptionTable } from '../options/passt-options.ts';
import { scanOptions } from '../options/scan.ts';
import { checkPasstOptions } from '../passt-config.ts';

/** The guest's socket in passel-passt. */
const GUEST_FD = 3;
/** More of what it says is not passed on. */
const MESSAGE_CHARACTERS = 1000;
const START_TIMEOUT_MS = 30_000;
/** What the broker gives itself, or what leaves nothing that a guest could be joined to. */
const NOT_IN_A_POLICY: readonly (keyof PasstOptionTable & string)[] = [
  'fd',
  'socket',
  'one-off',
  'foreground',
  'pid',
  'help',
  'version',
  'print-capabilities',
];

export interface NetworkMakerOptions {
  readonly native: NativeAddon;
  /** passel-passt. */
  readonly program: string;
}

export interface Networks {
  readonly join: NetworkMaker;
  /** Ends what is being started. Stacks that somebody has stay. */
  close(): void;
}

/** Where the other executables are. */
export function siblingProgram(name: string): string {
  return joinPath(dirname(process.argv[1] ?? process.execPath), name);
}

/**
 * Whether the arguments that a policy has for passel-passt can be right on any host.
 * @throws Error that names the network
 */
export function checkNetworks({ networks = {} }: Policy): void {
  for (const [name, network] of Object.entries(networks)) {
    if (!('passt' in network)) continue;
    try {
      const given = scanOptions(PASST_OPTIONS, network.passt);
      for (const option of NOT_IN_A_POLICY) {
        if (given.gave(option)) throw new Error(`${given.typed(option)} is not possible in a policy`);
      }
      if (network.runAs !== undefined && given.gave('runas'))
        throw new Error(`${given.typed('runas')} and runAs exclude each other`);
      checkPasstOptions(given);
    } catch (error) {
      const reason = error instanceof PasselError ? error.message : reasonOf(error);
      throw new Error(`networks.${name}: ${reason}`, { cause: error });
    }
  }
}

export function createNetworks({ native, program }: NetworkMakerOptions): Networks {
  /** Stacks by user, those that are being started included. */
  const running = new Map<number, number>();
  const starting = new Set<ChildProcess>();
  let closed = false;
  const count = (uid: number, change: 1 | -1): void => {
    const now = (running.get(uid) ?? 0) + change;
    if (now === 0) running.delete(uid);
    else running.set(uid, now);
  };

  const join: NetworkMaker = async (name, network, peer, limit) => {
    if ('socket' in network) return { fd: connectToStack(name, network.socket), result: {} };
    if ((running.get(peer.uid) ?? 0) >= limit) {
      throw new BrokerError('quota', `user ${peer.uid} may have ${limit} networks at a time`);
    }
    const args = [...network.passt, ...runAsOptions(name, network, peer)];
    const [ours, theirs] = createSocketPair(native);
    count(peer.uid, 1);
    let started: number | undefined;
    try {
      started = await startStack(name, args, theirs);
      return { fd: ours, result: { pid: started } };
    } catch (error) {
      native.close(ours);
      throw error;
    } finally {
      native.close(theirs);
      if (started === undefined || !watchEnd(started, () => count(peer.uid, -1))) count(peer.uid, -1);
    }
  };

  function connectToStack(name: string, path: string): number {
    try {
      return connectUnix(native, path.startsWith('@') ? `\0${path.slice(1)}` : path);
    } catch (error) {
      throw new BrokerError('system', `network '${name}': ${reasonOf(error)}`, (error as NodeJS.ErrnoException).code);
    }
  }

  /** @returns the pid of the process in the background */
  async function startStack(name: string, args: readonly string[], guestEnd: number): Promise<number> {
    const folder = mkdtempSync(joinPath(tmpdir(), 'passel-network-'));
    try {
      const pidPath = joinPath(folder, 'pid');
      await runToReady(name, [...args, '--fd', String(GUEST_FD), '--pid', pidPath], guestEnd);
      return Number(readFileSync(pidPath, 'latin1'));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** Exit status 0 says that it serves, in the background. */
  function runToReady(name: string, args: readonly string[], guestEnd: number): Promise<void> {
    return new Promise((resolve, reject) => {
      // Nothing that says something about the broker: its sockets of a service manager, where it reports.
      const env = { PATH: process.env['PATH'] ?? '/usr/bin:/bin' };
      const child = spawn(program, args, {
        stdio: ['ignore', 'ignore', 'pipe', guestEnd],
        env,
        timeout: START_TIMEOUT_MS,
      });
      starting.add(child);
      let text = '';
      child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
        text = (text + chunk).slice(-MESSAGE_CHARACTERS);
      });
      const fail = (reason: string): void => {
        starting.delete(child);
        reject(new BrokerError('system', `network '${name}': ${reason}`));
      };
      child.once('error', (error) => fail(reasonOf(error)));
      child.once('exit', (status) => {
        if (status !== 0 || closed) return;
        starting.delete(child);
        child.stderr?.destroy();
        resolve();
      });
      // After all that it has said.
      child.once('close', (status, signal) => {
        if (status !== 0 || closed) fail(text.trim() || `passel-passt did not start (${signal ?? status})`);
      });
    });
  }

  /** @returns false: it has ended already */
  function watchEnd(pid: number, onEnd: () => void): boolean {
    const fd = native.pidfdOpen(pid);
    if (fd < 0) return false;
    const poll: PollHandle | number = native.startPoll(fd, () => {
      native.stopPoll(poll as PollHandle);
      native.close(fd);
      onEnd();
    });
    if (typeof poll === 'number') {
      native.close(fd);
      return false;
    }
    native.unrefPoll(poll);
    return true;
  }

  return {
    join,
    close() {
      closed = true;
      for (const child of starting) child.kill('SIGTERM');
    },
  };
}

/** Started by root it becomes `nobody`; or the one who asks, for whom that is possible. */
function runAsOptions(name: string, network: Network, { uid, gid }: Peer): string[] {
  if (!('passt' in network) || network.runAs === undefined || uid === process.getuid?.()) return [];
  if (process.getuid?.() === 0) return ['--runas', `${uid}:${gid}`];
  throw new BrokerError('denied', `network '${name}' runs as the user who asks, and this broker is not root's`);
}
