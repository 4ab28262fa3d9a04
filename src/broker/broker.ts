/** A broker: registry, server, and the two clocks that end names by themselves, joined. */
import type { NativeAddon } from '../sys/native-addon.ts';
import { watchHangups } from './hangup.ts';
import type { Policy } from './policy.ts';
import type { EndReason, KeptName } from './registry.ts';
import { Registry } from './registry.ts';
import { type AuditRecord, BrokerServer } from './server.ts';
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
  readonly audit?: (record: AuditRecord) => void;
  /** A name came (`ended` undefined) or went. */
  readonly onName?: (entry: KeptName, ended: EndReason | undefined) => void;
  readonly onTrouble?: (message: string) => void;
}

/** An endpoint record, and 64 events. */
export const BROKER_ARENA_BYTES = 1024;
const EVENTS_AT = 64;

/** Descriptors that stay free for connections, and for what the process itself needs. */
export const FD_RESERVE = 512;
/** With a low limit at least half of it is kept free. */
function defaultMaxFds(native: NativeAddon): number {
  const limit = native.getFileLimit(0);
  return Math.max(limit - FD_RESERVE, limit >> 1);
}

export interface Broker {
  readonly registry: Registry;
  readonly server: BrokerServer;
  /** Ends connections, listeners and names. */
  close(): void;
}

export function createBroker(options: BrokerOptions): Broker {
  const { native, arena, policy, makeTap, joinNetwork, onName } = options;
  const byFd = new Map<number, KeptName>();
  let timer: NodeJS.Timeout | undefined;

  const hangups = watchHangups(native, { view: arena.view, offset: arena.offset + EVENTS_AT }, (fd) => {
    const entry = byFd.get(fd);
    // Somebody is getting it right now: what they get has hung up, which they will see.
    if (entry !== undefined && !entry.inTransit) registry.end(entry, 'hung-up');
  });
  const registry = new Registry({
    close: (fd) => {
      if (byFd.delete(fd)) hangups.remove(fd);
      native.close(fd);
    },
    nowMs: () => performance.now(),
    maxFds: options.maxFds ?? defaultMaxFds(native),
    onChange: (entry, ended) => {
      onName?.(entry, ended);
      if (ended !== undefined) return;
      if (entry.dropOnHangup) for (const fd of entry.fds) if (hangups.add(fd)) byFd.set(fd, entry);
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
    ...(options.maxConnections === undefined ? {} : { maxConnections: options.maxConnections }),
    ...(options.stallMs === undefined ? {} : { stallMs: options.stallMs }),
    ...(options.audit === undefined ? {} : { audit: options.audit }),
    ...(options.onTrouble === undefined ? {} : { onTrouble: options.onTrouble }),
  });
  return {
    registry,
    server,
    close() {
      clearTimeout(timer);
      server.close();
      registry.close();
      hangups.close();
    },
  };
}
