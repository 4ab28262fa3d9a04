/**
 * What the broker keeps: names, each of one user, with the descriptors behind them.
 *
 * A name belongs to the user who made it; two users may use the same one. It ends by `take` or `drop`, after its time or its uses, when the
 * other end of its descriptors hangs up (if asked), or with the broker. Whatever ends it closes its descriptors, unless they were taken.
 *
 * Limits: names and descriptors per user, and descriptors in all, below what the process may open.
 */
import type { FdFacts } from '../sys/fd-facts.ts';
import { BrokerError } from './protocol.ts';

/** What one user may keep. */
export interface Quota {
  readonly names: number;
  readonly fds: number;
}

/** Who else may have a name. */
export type Share = 'all' | readonly number[];

export interface KeptName {
  readonly owner: number;
  readonly name: string;
  /** Open, the registry's. */
  readonly fds: readonly number[];
  readonly facts: readonly FdFacts[];
  readonly share: Share;
  /** Milliseconds of the registry's clock; Infinity: for ever. */
  readonly expiresAtMs: number;
  /** Uses left; Infinity: any number. */
  usesLeft: number;
  readonly dropOnHangup: boolean;
  /** On its way to somebody: nobody else finds it, and it comes back if it does not arrive. */
  inTransit: boolean;
}

export type NewName = Omit<KeptName, 'expiresAtMs' | 'usesLeft' | 'dropOnHangup' | 'inTransit'> & {
  readonly ttlMs?: number | undefined;
  readonly uses?: number | undefined;
  readonly dropOnHangup?: boolean | undefined;
};

/** Why a name ended, for the log. */
export type EndReason = 'taken' | 'dropped' | 'expired' | 'used-up' | 'hung-up' | 'replaced' | 'closing';

export interface RegistryOptions {
  /** Closes a descriptor. */
  readonly close: (fd: number) => void;
  /** Monotonic, milliseconds. */
  readonly nowMs: () => number;
  /** Descriptors that all users together may keep. */
  readonly maxFds: number;
  /** A name came or went. */
  readonly onChange?: (entry: KeptName, ended: EndReason | undefined) => void;
}

interface Usage {
  names: number;
  fds: number;
}

export class Registry {
  private readonly options: RegistryOptions;
  private readonly names = new Map<string, KeptName>();
  private readonly usage = new Map<number, Usage>();
  private total = 0;

  constructor(options: RegistryOptions) {
    this.options = options;
  }

  /** Descriptors kept. */
  get fdCount(): number {
    return this.total;
  }

  /**
   * Keeps descriptors; they are the registry's from here on, but only if this does not throw.
   * @param replace - an entry of this name is dropped
   * @throws BrokerError `name-taken` or `quota`
   */
  add(entry: NewName, quota: Quota, replace = false): KeptName {
    const { owner, name, fds } = entry;
    const key = keyOf(owner, name);
    const old = this.names.get(key);
    if (old !== undefined && !replace) throw new BrokerError('name-taken', `user ${owner} has a '${name}' already`);
    const used = this.usage.get(owner) ?? { names: 0, fds: 0 };
    const names = used.names + (old === undefined ? 1 : 0);
    const count = used.fds + fds.length - (old?.fds.length ?? 0);
    if (names > quota.names) throw new BrokerError('quota', `user ${owner} may keep ${quota.names} names`);
    if (count > quota.fds) throw new BrokerError('quota', `user ${owner} may keep ${quota.fds} descriptors`);
    if (this.total + fds.length - (old?.fds.length ?? 0) > this.options.maxFds) {
      throw new BrokerError('quota', `the broker keeps ${this.options.maxFds} descriptors at most`);
    }
    if (old !== undefined) this.end(old, 'replaced');
    const { facts, share, ttlMs, uses = Number.POSITIVE_INFINITY, dropOnHangup = false } = entry;
    const expiresAtMs = ttlMs === undefined ? Number.POSITIVE_INFINITY : this.options.nowMs() + ttlMs;
    // Named one by one: a spread takes longer than the rest of this.
    const kept: KeptName = {
      owner,
      name,
      fds,
      facts,
      share,
      expiresAtMs,
      usesLeft: uses,
      dropOnHangup,
      inTransit: false,
    };
    this.names.set(key, kept);
    this.count(owner, 1, fds.length);
    this.options.onChange?.(kept, undefined);
    return kept;
  }

  /** @returns the entry, or undefined: there is none (any more) */
  find(owner: number, name: string): KeptName | undefined {
    const entry = this.names.get(keyOf(owner, name));
    if (entry === undefined || entry.inTransit) return undefined;
    if (entry.expiresAtMs > this.options.nowMs()) return entry;
    this.end(entry, 'expired');
    return undefined;
  }

  /** All entries that `visible` accepts, by owner and name. */
  list(visible: (entry: KeptName) => boolean): KeptName[] {
    this.expire();
    return [...this.names.values()]
      .filter((entry) => !entry.inTransit && visible(entry))
      .sort((a, b) => a.owner - b.owner || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  }

  /** One use is over: the last one ends the name. */
  use(entry: KeptName): void {
    entry.usesLeft--;
    if (entry.usesLeft <= 0) this.end(entry, 'used-up');
  }

  /** Closes the descriptors and forgets the name. */
  end(entry: KeptName, reason: EndReason): void {
    if (!this.forget(entry)) return;
    for (const fd of entry.fds) this.options.close(fd);
    this.options.onChange?.(entry, reason);
  }

  /** Ends what is over. @returns milliseconds until the next name ends; Infinity: none will */
  expire(): number {
    const now = this.options.nowMs();
    let next = Number.POSITIVE_INFINITY;
    for (const entry of this.names.values()) {
      if (entry.inTransit) continue;
      if (entry.expiresAtMs <= now) this.end(entry, 'expired');
      else next = Math.min(next, entry.expiresAtMs);
    }
    return next - now;
  }

  /** Ends everything. */
  close(): void {
    for (const entry of [...this.names.values()]) this.end(entry, 'closing');
  }

  private forget(entry: KeptName): boolean {
    const key = keyOf(entry.owner, entry.name);
    if (this.names.get(key) !== entry) return false;
    this.names.delete(key);
    this.count(entry.owner, -1, -entry.fds.length);
    return true;
  }

  private count(owner: number, names: number, fds: number): void {
    const used = this.usage.get(owner) ?? { names: 0, fds: 0 };
    used.names += names;
    used.fds += fds;
    this.total += fds;
    if (used.names === 0) this.usage.delete(owner);
    else this.usage.set(owner, used);
  }
}

function keyOf(owner: number, name: string): string {
  return `${owner} ${name}`;
}
