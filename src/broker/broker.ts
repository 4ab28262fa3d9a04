/** A broker: registry, server, what ends names by itself, and what keeps them over a restart, joined. */
import { readFdFacts } from '../sys/fd-facts.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { MAX_MESSAGE_FDS } from '../sys/scm.ts';
import type { AuditRecord } from './audit.ts';
import { Closer } from './closer.ts';
import {
  FdStore,
  type Restored,
  type RestoredName,
  restoreNames,
  STORE_OVERHEAD_FDS,
  type StoredFd,
  type StoreManager,
} from './fd-store.ts';
import { watchHangups } from './hangup.ts';
import type { Policy } from './policy.ts';
import { AT_REST, type EndReason, type KeptName, Registry } from './registry.ts';
import { BrokerServer } from './server.ts';
import type { NetworkMaker, TapMaker } from './verbs.ts';

export interface BrokerOptions {
  readonly native: NativeAddon;
  /** Room in the arena that the addon is bound to on this thread: {@link BROKER_ARENA_BYTES} from `offset`, aligned to 8. */
  readonly arena: { readonly view: DataView; readonly offset: number };
  readonly policy: Policy;
  /** Makes taps; left out: nobody gets one. */
  readonly makeTap?: TapMaker | undefined;
  /** Joins clients to networks; left out: nobody is. */
  readonly joinNetwork?: NetworkMaker | undefined;
  /** Descriptors that all users together may keep; default: what the process may open, less {@link FD_RESERVE}. */
  readonly maxFds?: number;
  readonly maxConnections?: number;
  /** See {@link BrokerServer}. */
  readonly stallMs?: number;
  /** What an earlier process gave to its manager; the broker's from here on. */
  readonly stored?: readonly StoredFd[];
  /** Keeps descriptors for the time after this process; left out: they end with it. */
  readonly store?: {
    readonly manager: StoreManager;
    /** Descriptors that it holds at most. */
    readonly capacity: number;
  };
  readonly audit?: (record: AuditRecord) => void;
  /** A name came (`ended` undefined) or went. */
  readonly onName?: (entry: KeptName, ended: EndReason | undefined) => void;
  readonly onTrouble?: (message: string) => void;
}

/** An endpoint record, and 64 events. */
export const BROKER_ARENA_BYTES = 1024;
const EVENTS_AT = 64;

/** A connection is its socket, an epoll set, and a pidfd. */
const CONNECTION_FDS = 3;
const MAX_CONNECTIONS = 256;
/** One message, and what the process itself needs. */
const OWN_FDS = MAX_MESSAGE_FDS + 128;

/** Descriptors that are never kept, so that there is always room for connections. */
export const FD_RESERVE = MAX_CONNECTIONS * CONNECTION_FDS + OWN_FDS;

/** With a low limit half of it is kept free, and there are fewer connections. */
function defaultLimits(native: NativeAddon): { readonly maxFds: number; readonly maxConnections: number } {
  const limit = native.getFileLimit(0);
  const maxFds = Math.max(limit - FD_RESERVE, limit >> 1);
  const connections = Math.floor((limit - maxFds - OWN_FDS) / CONNECTION_FDS);
  return { maxFds, maxConnections: Math.min(MAX_CONNECTIONS, Math.max(connections, 4)) };
}

export interface Broker {
  readonly registry: Registry;
  readonly server: BrokerServer;
  /** What came back from {@link BrokerOptions.stored}. */
  readonly restored: Pick<Restored, 'names' | 'lost'>;
  /** Ends connections, listeners and names. */
  close(): void;
}

/** @throws Error when {@link BrokerOptions.store} does not take the journal */
export function createBroker(options: BrokerOptions): Broker {
  const { native, arena, policy, makeTap, joinNetwork, onName, onTrouble, store } = options;
  const limits = defaultLimits(native);
  const closer = new Closer(native);
  const restored = restoreNames(native, options.stored ?? []);
  const fdStore =
    store === undefined
      ? undefined
      : new FdStore({ native, manager: store.manager, restored, onTrouble: (message) => onTrouble?.(message) });
  const byFd = new Map<number, KeptName>();
  let timer: NodeJS.Timeout | undefined;

  const hangups = watchHangups(native, { view: arena.view, offset: arena.offset + EVENTS_AT }, (fd) => {
    const entry = byFd.get(fd);
    // Somebody who is getting it right now will see for themselves that it has hung up.
    if (entry !== undefined) registry.end(entry, fd === entry.giver ? 'giver-ended' : 'hung-up');
  });
  const watch = (entry: KeptName): void => {
    const { fds, dropOnHangup, giver } = entry;
    if (dropOnHangup) for (const fd of fds) if (hangups.add(fd)) byFd.set(fd, entry);
    if (giver === undefined) return;
    hangups.addProcess(giver);
    byFd.set(giver, entry);
  };
  const registry = new Registry({
    close: (fd, owner, done) => {
      if (byFd.delete(fd)) hangups.remove(fd);
      closer.close(fd, owner, done);
    },
    nowMs: readMonotonicMs,
    store: fdStore,
    maxFds: Math.min(
      options.maxFds ?? limits.maxFds,
      (store?.capacity ?? Number.POSITIVE_INFINITY) - STORE_OVERHEAD_FDS,
    ),
    onChange: (entry, ended) => {
      onName?.(entry, ended);
      if (ended !== undefined) return;
      try {
        watch(entry);
      } catch (error) {
        // It is kept all the same (epoll(7): fs.epoll.max_user_watches).
        onTrouble?.(`'${entry.name}' of user ${entry.owner} is not watched: ${(error as Error).message}`);
      }
      if (Number.isFinite(entry.expiresAtMs)) arm();
    },
  });
  /** Longest time that a timer of Node's takes. */
  const longestMs = 0x7fffffff;
  const arm = (): void => {
    clearTimeout(timer);
    const nextMs = registry.expire();
    if (Number.isFinite(nextMs)) timer = setTimeout(arm, Math.min(Math.max(nextMs, 1), longestMs)).unref();
  };
  const server = new BrokerServer({
    native,
    scratch: arena,
    registry,
    makeTap,
    joinNetwork,
    policy,
    closer,
    maxConnections: options.maxConnections ?? limits.maxConnections,
    ...(options.stallMs === undefined ? {} : { stallMs: options.stallMs }),
    ...(options.audit === undefined ? {} : { audit: options.audit }),
    ...(options.onTrouble === undefined ? {} : { onTrouble: options.onTrouble }),
  });
  const close = (): void => {
    clearTimeout(timer);
    server.close();
    registry.close();
    fdStore?.close();
    hangups.close();
    closer.dispose();
  };
  try {
    for (const name of restored.names) {
      const kept = keptOf(native, name);
      fdStore?.adopt(kept);
      registry.restore(kept);
    }
    fdStore?.start();
  } catch (error) {
    close();
    throw error;
  }
  return { registry, server, restored, close };
}

function keptOf(native: NativeAddon, { expiresAtMs, uses, way: _way, ...rest }: RestoredName): KeptName {
  return {
    ...rest,
    facts: rest.fds.map((fd) => readFdFacts(native, fd)),
    expiresAtMs: expiresAtMs ?? Number.POSITIVE_INFINITY,
    usesLeft: uses ?? Number.POSITIVE_INFINITY,
    ...AT_REST,
  };
}

/** CLOCK_MONOTONIC: the same for every process until the machine restarts. */
function readMonotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}
