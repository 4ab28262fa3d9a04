/**
 * A second holder of what the broker keeps, so that a restart loses nothing: the service manager, by FDSTORE of sd_notify(3).
 *
 * Each open file is given to it under a key of its own, once: a manager drops a second descriptor of the same open file, whatever it is called. Beside them it holds the
 * journal, a memfd in which this process writes which names there are and which keys are behind them. Every change is one line of it:
 *
 *     ["add", {owner, name, keys, …}]      descriptors are given to the manager before, and let go after a name has ended
 *     ["update", owner, name, {uses, way}] uses left; who is being sent it right now
 *     ["end", owner, name]
 *
 * Killed between any two of these steps, a broker leaves either descriptors of which the journal knows nothing (their client never got an answer: they are let
 * go), or a name whose end or use was not written down: it is there again, so that nothing is lost, and when it was on its way to somebody, that is told.
 * A journal that has grown is written anew under the next generation, given to the manager whole, and then the old one is let go: the highest one counts.
 */
import { z } from 'zod';
import type { NativeAddon } from '../sys/native-addon.ts';
import { Journal, readJournal } from './journal.ts';
import { BrokerError } from './protocol.ts';
import type { EndReason, KeptName, NameStore, Recipient } from './registry.ts';

/** Who holds descriptors for a service. */
export interface StoreManager {
  /** @throws Error: it does not take it */
  push(key: string, fd: number): void;
  /** Lets go what is called so. What it does not hear now it is told later. */
  remove(key: string): void;
}

/** A descriptor that an earlier process gave away. */
export interface StoredFd {
  /** Its receiver's. */
  readonly fd: number;
  readonly name: string;
}

const KEPT_PREFIX = 'passel-kept-';
const STATE_PREFIX = 'passel-state-';
const STATE_VERSION = 1;
/** The manager holds at most so many journals at a time. */
export const STORE_OVERHEAD_FDS = 2;
/** A journal below this is never written anew. */
const COMPACT_BYTES = 1024 * 1024;

const savedName = z.object({
  owner: z.int().min(0),
  name: z.string().min(1),
  keys: z.array(z.string()).min(1),
  share: z.union([z.literal('all'), z.array(z.int().min(0))]),
  /** Of CLOCK_MONOTONIC, which goes on while the machine does; null: none. */
  expiresAtMs: z.number().nullable(),
  uses: z.number().nullable(),
  dropOnHangup: z.boolean(),
  /** Key of the pidfd of the process with which the name ends. */
  giver: z.string().nullable(),
  way: z.object({ pid: z.int(), uid: z.int() }).nullable(),
});
type SavedName = z.infer<typeof savedName>;
const changes = savedName.pick({ uses: true, way: true });
const line = z.union([
  z.tuple([z.literal('state'), z.literal(STATE_VERSION)]),
  z.tuple([z.literal('add'), savedName]),
  z.tuple([z.literal('update'), z.int(), z.string(), changes]),
  z.tuple([z.literal('end'), z.int(), z.string()]),
]);

/** A name that an earlier process kept. Its descriptors are the caller's. */
export interface RestoredName extends Omit<SavedName, 'keys' | 'giver' | 'way'> {
  readonly fds: readonly number[];
  readonly giver: number | undefined;
  /** Whom it was being sent to when that process ended: they may or may not have it. */
  readonly way: Recipient | undefined;
}

export interface Restored {
  readonly names: readonly RestoredName[];
  /** Names whose descriptors did not all come back. */
  readonly lost: readonly { readonly owner: number; readonly name: string }[];
  /** What the manager holds and nobody needs. */
  readonly leftovers: readonly string[];
  /** By descriptor: what it is called. */
  readonly keys: ReadonlyMap<number, string>;
  /** First number that no key had. */
  readonly nextKey: number;
  readonly nextGeneration: number;
}

/** Whether a descriptor of this name was given away by a broker. */
export function isStored({ name }: StoredFd): boolean {
  return name.startsWith(KEPT_PREFIX) || name.startsWith(STATE_PREFIX);
}

/** @param stored - all become this function's: those of no name are closed */
export function restoreNames(native: NativeAddon, stored: readonly StoredFd[]): Restored {
  const byKey = new Map(stored.map(({ name, fd }) => [name, fd]));
  const states = stored.filter(({ name }) => name.startsWith(STATE_PREFIX));
  const generation = (name: string): number => Number(name.slice(STATE_PREFIX.length));
  states.sort((a, b) => generation(b.name) - generation(a.name));
  const saved = states[0] === undefined ? [] : replay(readJournal(states[0].fd));
  const used = new Set<number>();
  const keys = new Map<number, string>();
  /** A key may be behind several names, each of which closes its descriptor. */
  const claim = (key: string): number => {
    const fd = byKey.get(key)!;
    const own = used.has(fd) ? native.duplicate(fd, 3) : fd;
    if (own < 0) throw new BrokerError('system', `a kept descriptor cannot be duplicated: errno ${-own}`);
    used.add(own);
    keys.set(own, key);
    return own;
  };
  const names: RestoredName[] = [];
  const lost: { owner: number; name: string }[] = [];
  for (const { keys: wanted, giver, way, ...rest } of saved) {
    const all = giver === null ? wanted : [...wanted, giver];
    if (!all.every((key) => byKey.has(key))) {
      lost.push({ owner: rest.owner, name: rest.name });
      continue;
    }
    names.push({
      ...rest,
      fds: wanted.map(claim),
      giver: giver === null ? undefined : claim(giver),
      way: way ?? undefined,
    });
  }
  const needed = new Set(keys.values());
  for (const { fd } of stored) if (!used.has(fd)) native.close(fd);
  const number = ({ name }: StoredFd): number => Number(name.slice(KEPT_PREFIX.length)) || 0;
  return {
    names,
    lost,
    leftovers: [...byKey.keys()].filter((key) => !needed.has(key)),
    keys,
    nextKey: 1 + Math.max(0, ...stored.filter(({ name }) => name.startsWith(KEPT_PREFIX)).map(number)),
    nextGeneration: 1 + Math.max(0, ...states.map(({ name }) => generation(name))),
  };
}

function replay(lines: readonly unknown[]): SavedName[] {
  const names = new Map<string, SavedName>();
  for (const [index, value] of lines.entries()) {
    const parsed = line.safeParse(value);
    // Of another version, or not ours: nothing behind it can be understood either.
    if (!parsed.success || (index === 0) !== (parsed.data[0] === 'state')) break;
    const entry = parsed.data;
    if (entry[0] === 'add') names.set(keyOf(entry[1].owner, entry[1].name), entry[1]);
    else if (entry[0] === 'end') names.delete(keyOf(entry[1], entry[2]));
    else if (entry[0] === 'update') {
      const old = names.get(keyOf(entry[1], entry[2]));
      if (old !== undefined) names.set(keyOf(entry[1], entry[2]), { ...old, ...entry[3] });
    }
  }
  return [...names.values()];
}

/** An open file that the manager holds. */
interface StoredFile {
  readonly key: string;
  readonly id: string;
  /** The registry's descriptors of it. */
  readonly fds: number[];
}

export interface FdStoreOptions {
  readonly native: NativeAddon;
  readonly manager: StoreManager;
  /** What {@link restoreNames} found. */
  readonly restored: Restored;
  /** Something could not be remembered. */
  readonly onTrouble: (message: string) => void;
}

export class FdStore implements NameStore {
  private readonly options: FdStoreOptions;
  private readonly names = new Set<KeptName>();
  private readonly byFd = new Map<number, StoredFile>();
  private readonly byId = new Map<string, StoredFile[]>();
  private nextKey: number;
  private generation: number;
  private journal: Journal | undefined;
  /** Size of the journal when it was written anew. */
  private baseBytes = 0;

  constructor(options: FdStoreOptions) {
    this.options = options;
    this.nextKey = options.restored.nextKey;
    this.generation = options.restored.nextGeneration;
  }

  /** A name that has been restored. */
  adopt(entry: KeptName): void {
    for (const fd of descriptorsOf(entry)) this.hold(fd, this.options.restored.keys.get(fd)!);
    this.names.add(entry);
  }

  /** Once all names have been adopted. @throws Error when the manager takes no journal */
  start(): void {
    this.renew();
    for (const key of this.options.restored.leftovers) this.options.manager.remove(key);
  }

  add(entry: KeptName): void {
    if (this.journal === undefined) throw new BrokerError('system', 'the service manager keeps nothing');
    const held: number[] = [];
    try {
      for (const fd of descriptorsOf(entry)) {
        this.give(fd);
        held.push(fd);
      }
      this.journal.append(['add', this.save(entry)]);
    } catch (error) {
      for (const fd of held) this.letGo(fd);
      const { message, code } = error as NodeJS.ErrnoException;
      throw new BrokerError('system', `the service manager does not keep it: ${message}`, code);
    }
    this.names.add(entry);
    this.compact();
  }

  update(entry: KeptName): void {
    const { uses, way } = this.save(entry);
    this.write(['update', entry.owner, entry.name, { uses, way }]);
  }

  end(entry: KeptName, reason: EndReason): void {
    // The successor goes on with it.
    if (reason === 'closing' || !this.names.delete(entry)) return;
    // The line that added what replaces it has ended it.
    if (reason !== 'replaced') this.write(['end', entry.owner, entry.name]);
    for (const fd of descriptorsOf(entry)) this.letGo(fd);
  }

  close(): void {
    if (this.journal !== undefined) this.options.native.close(this.journal.fd);
    this.journal = undefined;
  }

  private write(value: unknown): void {
    try {
      this.journal?.append(value);
    } catch (error) {
      this.options.onTrouble(`what has changed would be forgotten by a restart: ${(error as Error).message}`);
    }
    this.compact();
  }

  private compact(): void {
    if (this.journal === undefined || this.journal.sizeBytes < Math.max(COMPACT_BYTES, 4 * this.baseBytes)) return;
    try {
      this.renew();
    } catch (error) {
      // The old one goes on; this is tried again when it has grown as much once more.
      this.baseBytes = this.journal.sizeBytes;
      this.options.onTrouble(`the journal cannot be written anew: ${(error as Error).message}`);
    }
  }

  private renew(): void {
    const { native, manager } = this.options;
    const name = `${STATE_PREFIX}${this.generation}`;
    const journal = new Journal(native, name);
    try {
      journal.append(['state', STATE_VERSION]);
      for (const entry of this.names) journal.append(['add', this.save(entry)]);
      manager.push(name, journal.fd);
    } catch (error) {
      native.close(journal.fd);
      throw error;
    }
    if (this.journal !== undefined) {
      native.close(this.journal.fd);
      manager.remove(`${STATE_PREFIX}${this.generation - 1}`);
    }
    this.generation++;
    this.journal = journal;
    this.baseBytes = journal.sizeBytes;
  }

  private save(entry: KeptName): SavedName {
    const { owner, name, fds, share, expiresAtMs, usesLeft, underWay, dropOnHangup, giver, way } = entry;
    return {
      owner,
      name,
      keys: fds.map((fd) => this.byFd.get(fd)!.key),
      share: share === 'all' ? 'all' : [...share],
      expiresAtMs: Number.isFinite(expiresAtMs) ? expiresAtMs : null,
      // What is under way may not arrive.
      uses: Number.isFinite(usesLeft) ? usesLeft + underWay : null,
      dropOnHangup,
      giver: giver === undefined ? null : this.byFd.get(giver)!.key,
      way: way ?? null,
    };
  }

  private give(fd: number): void {
    const { manager } = this.options;
    const same = this.find(fd);
    if (same !== undefined) {
      same.fds.push(fd);
      this.byFd.set(fd, same);
      return;
    }
    const key = `${KEPT_PREFIX}${this.nextKey++}`;
    manager.push(key, fd);
    this.hold(fd, key);
  }

  private hold(fd: number, key: string): void {
    const id = this.identify(fd);
    const list = this.byId.get(id) ?? [];
    let file = list.find((each) => each.key === key);
    if (file === undefined) {
      file = { key, id, fds: [] };
      list.push(file);
      this.byId.set(id, list);
    }
    file.fds.push(fd);
    this.byFd.set(fd, file);
  }

  private letGo(fd: number): void {
    const file = this.byFd.get(fd);
    if (file === undefined) return;
    this.byFd.delete(fd);
    file.fds.splice(file.fds.indexOf(fd), 1);
    if (file.fds.length > 0) return;
    const list = this.byId.get(file.id)!;
    list.splice(list.indexOf(file), 1);
    if (list.length === 0) this.byId.delete(file.id);
    this.options.manager.remove(file.key);
  }

  /** The open file behind a descriptor, if the manager holds it. Where kcmp(2) is forbidden every descriptor is taken for a file of its own. */
  private find(fd: number): StoredFile | undefined {
    const { native } = this.options;
    return this.byId.get(this.identify(fd))?.find(({ fds }) => native.compareFiles(fd, fds[0]!) === 0);
  }

  private identify(fd: number): string {
    const facts = new Int32Array(5);
    this.options.native.fileFacts(fd, facts);
    return facts.join(' ');
  }
}

/** All that a name holds open. */
function descriptorsOf({ fds, giver }: KeptName): readonly number[] {
  return giver === undefined ? fds : [...fds, giver];
}

function keyOf(owner: number, name: string): string {
  return `${owner} ${name}`;
}
