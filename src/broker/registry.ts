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
  /** Uses left, those that are under way not counted; Infinity: any number. */
  usesLeft: number;
  readonly dropOnHangup: boolean;
  /** A pidfd, the registry's: the name ends with this process. */
  readonly giver: number | undefined;
  /** Messages with its descriptors that have not left: so long they stay open, even when the name has ended. */
  underWay: number;
  /** Who is being sent it, the last of them. */
  way: Recipient | undefined;
  /** It is being taken: nobody else finds it, and it comes back if it does not arrive. */
  taking: boolean;
}

/** Who gets something. */
export interface Recipient {
  readonly pid: number;
  readonly uid: number;
}

export type NewName = Omit<
  KeptName,
  'expiresAtMs' | 'usesLeft' | 'dropOnHangup' | 'giver' | 'underWay' | 'way' | 'taking'
> & {
  readonly ttlMs?: number | undefined;
  readonly uses?: number | undefined;
  readonly dropOnHangup?: boolean | undefined;
  readonly giver?: number | undefined;
};

/** Remembers what is kept for the time after this process. */
export interface NameStore {
  /** Before a name is there. @throws BrokerError `system`: it cannot be remembered, and is not kept */
  add(entry: KeptName): void;
  /** Its uses, or its way, have changed. */
  update(entry: KeptName): void;
  /** Before its descriptors are closed. */
  end(entry: KeptName, reason: EndReason): void;
}

/** Why a name ended, for the log. */
export type EndReason =
  | 'taken'
  | 'dropped'
  | 'expired'
  | 'used-up'
  | 'hung-up'
  | 'giver-ended'
  | 'replaced'
  | 'closing';

export interface RegistryOptions {
  /** Closes a descriptor, now or in a while; `done` says when. */
  readonly close: (fd: number, owner: number, done: () => void) => void;
  /** CLOCK_MONOTONIC, milliseconds. */
  readonly nowMs: () => number;
  readonly store?: NameStore | undefined;
  /** Descriptors that all users together may keep. */
  readonly maxFds: number;
  /** A name came or went. */
  readonly onChange?: (entry: KeptName, ended: EndReason | undefined) => void;
}

/** Nobody is being sent it. */
export const AT_REST: Pick<KeptName, 'underWay' | 'way' | 'taking'> = { underWay: 0, way: undefined, taking: false };

interface Usage {
  names: number;
  fds: number;
}

export class Registry {
  readonly nowMs: () => number;
  private readonly options: RegistryOptions;
  private readonly names = new Map<string, KeptName>();
  private readonly usage = new Map<number, Usage>();
  private total = 0;

  constructor(options: RegistryOptions) {
    this.options = options;
    this.nowMs = options.nowMs;
  }

  /** Descriptors kept, and those that are being closed. */
  get fdCount(): number {
    return this.total;
  }

  get nameCount(): number {
    return this.names.size;
  }

  /**
   * Keeps descriptors; they are the registry's from here on, but only if this does not throw.
   * @param replace - an entry of this name is dropped
   * @throws BrokerError `name-taken`, `quota`, or `system` of the store
   */
  add(entry: NewName, quota: Quota, replace = false): KeptName {
    const { owner, name } = entry;
    const key = keyOf(owner, name);
    const old = this.names.get(key);
    if (old !== undefined && !replace) throw new BrokerError('name-taken', `user ${owner} has a '${name}' already`);
    const used = this.usage.get(owner) ?? { names: 0, fds: 0 };
    const names = used.names + (old === undefined ? 1 : 0);
    const more = countFds(entry) - (old === undefined ? 0 : countFds(old));
    if (names > quota.names) throw new BrokerError('quota', `user ${owner} may keep ${quota.names} names`);
    if (used.fds + more > quota.fds) throw new BrokerError('quota', `user ${owner} may keep ${quota.fds} descriptors`);
    // A store holds the old ones until it has the new.
    const meanwhile = this.options.store === undefined ? more : countFds(entry);
    if (this.total + meanwhile > this.options.maxFds) {
      throw new BrokerError('quota', `the broker keeps ${this.options.maxFds} descriptors at most`);
    }
    const { fds, facts, share, ttlMs, uses = Number.POSITIVE_INFINITY, dropOnHangup = false, giver } = entry;
    const expiresAtMs = ttlMs === undefined ? Number.POSITIVE_INFINITY : this.nowMs() + ttlMs;
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
      giver,
      underWay: 0,
      way: undefined,
      taking: false,
    };
    this.options.store?.add(kept);
    if (old !== undefined) this.end(old, 'replaced');
    this.insert(kept);
    return kept;
  }

  /** Takes over what an earlier process kept, whatever the quotas are now. */
  restore(kept: KeptName): void {
    this.insert(kept);
  }

  private insert(kept: KeptName): void {
    this.names.set(keyOf(kept.owner, kept.name), kept);
    this.count(kept.owner, 1, countFds(kept));
    this.total += countFds(kept);
    this.options.onChange?.(kept, undefined);
  }

  /** @returns the entry, or undefined: there is none (any more) */
  find(owner: number, name: string): KeptName | undefined {
    const entry = this.names.get(keyOf(owner, name));
    if (entry === undefined || isSpokenFor(entry)) return undefined;
    if (entry.expiresAtMs > this.nowMs()) return entry;
    this.end(entry, 'expired');
    return undefined;
  }

  /** All entries that `visible` accepts, by owner and name. */
  list(visible: (entry: KeptName) => boolean): KeptName[] {
    this.expire();
    return [...this.names.values()]
      .filter((entry) => !isSpokenFor(entry) && visible(entry))
      .sort((a, b) => a.owner - b.owner || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  }

  /**
   * Its descriptors are about to be sent, which takes as long as their receiver likes. They stay open until `arrive`, which follows in any case.
   * @param taking - the name ends when they have left
   */
  depart(entry: KeptName, { pid, uid }: Recipient, taking: boolean): void {
    entry.underWay++;
    entry.taking = taking;
    entry.way = { pid, uid };
    entry.usesLeft--;
    if (taking || Number.isFinite(entry.usesLeft)) this.options.store?.update(entry);
  }

  /** They have left, or never will. */
  arrive(entry: KeptName, sent: boolean): void {
    const { taking } = entry;
    entry.underWay--;
    if (!sent) entry.usesLeft++;
    if (this.names.get(keyOf(entry.owner, entry.name)) !== entry) {
      if (entry.underWay === 0) this.closeAll(entry);
      return;
    }
    if (sent && taking) {
      this.end(entry, 'taken');
      return;
    }
    entry.taking = false;
    if (entry.underWay > 0) return;
    entry.way = undefined;
    if (entry.usesLeft <= 0) this.end(entry, 'used-up');
    else if (taking || Number.isFinite(entry.usesLeft)) this.options.store?.update(entry);
  }

  /** Closes the descriptors and forgets the name. */
  end(entry: KeptName, reason: EndReason): void {
    if (!this.forget(entry)) return;
    this.options.store?.end(entry, reason);
    if (entry.underWay === 0) this.closeAll(entry);
    this.options.onChange?.(entry, reason);
  }

  /** Ends what is over. @returns milliseconds until the next name ends; Infinity: none will */
  expire(): number {
    const now = this.nowMs();
    let next = Number.POSITIVE_INFINITY;
    for (const entry of this.names.values()) {
      if (entry.expiresAtMs <= now) this.end(entry, 'expired');
      else next = Math.min(next, entry.expiresAtMs);
    }
    return next - now;
  }

  /** Ends everything. */
  close(): void {
    for (const entry of [...this.names.values()]) this.end(entry, 'closing');
  }

  private closeAll({ owner, fds, giver }: KeptName): void {
    // Until it is closed it is one of all: closing may take as long as who serves the file likes.
    for (const fd of giver === undefined ? fds : [...fds, giver]) {
      this.options.close(fd, owner, () => {
        this.total--;
      });
    }
  }

  private forget(entry: KeptName): boolean {
    const key = keyOf(entry.owner, entry.name);
    if (this.names.get(key) !== entry) return false;
    this.names.delete(key);
    this.count(entry.owner, -1, -countFds(entry));
    return true;
  }

  private count(owner: number, names: number, fds: number): void {
    const used = this.usage.get(owner) ?? { names: 0, fds: 0 };
    used.names += names;
    used.fds += fds;
    if (used.names === 0) this.usage.delete(owner);
    else this.usage.set(owner, used);
  }
}

function keyOf(owner: number, name: string): string {
  return `${owner} ${name}`;
}

function countFds({ fds, giver }: Pick<KeptName, 'fds'> & { readonly giver?: number | undefined }): number {
  return fds.length + (giver === undefined ? 0 : 1);
}

/** Whether nobody else can have it: it is being taken, or all its uses are under way. */
function isSpokenFor({ taking, usesLeft }: KeptName): boolean {
  return taking || usesLeft <= 0;
}
