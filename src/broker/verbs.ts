/** What each verb does: one function a verb, and one row in {@link VERB_HANDLERS}. */
import { ENOPROTOOPT } from '../base/errno.ts';
import { nameErrno } from '../sys/errors.ts';
import type { FdFacts } from '../sys/fd-facts.ts';
import { readFdFacts } from '../sys/fd-facts.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { createSocketPair } from '../sys/unix-socket.ts';
import { checkExpectation, checkKeepable } from './fd-check.ts';
import { type Confined, connectTo, type EndpointScratch, listenAt, openConfined } from './places.ts';
import type { Network, Peer, Permissions } from './policy.ts';
import {
  BrokerError,
  type FdExpectation,
  type KeepRequest,
  type SocketPlace,
  type Verb,
  type VerbRequest,
} from './protocol.ts';
import type { KeptName, Registry } from './registry.ts';

/**
 * Makes taps: the bridge helper's part, which the broker does not know. Decides by the access list as `peer` would read it.
 * @returns descriptors, one a queue, the caller's
 * @throws BrokerError `denied` or `system`
 */
export type TapMaker = (
  request: VerbRequest<'tap'>,
  peer: Peer,
) => { readonly fds: readonly number[]; readonly result: Readonly<Record<string, unknown>> };

/**
 * Joins a client to a network: starts a stack, or connects to one. What stacks are is not the broker's business.
 * @param limit - stacks that may run for the user at a time
 * @returns a connected stream socket, the caller's; what it is joined to ends with it
 * @throws BrokerError `system` or `quota`
 */
export type NetworkMaker = (
  name: string,
  network: Network,
  peer: Peer,
  limit: number,
) => Promise<{ readonly fd: number; readonly result: Readonly<Record<string, unknown>> }>;

/** What verbs work with. */
export interface VerbContext {
  readonly native: NativeAddon;
  readonly scratch: EndpointScratch;
  readonly registry: Registry;
  readonly makeTap: TapMaker | undefined;
  readonly joinNetwork?: NetworkMaker | undefined;
  /** What the broker's own listeners are called. */
  readonly ownNames: ReadonlySet<string>;
  /** Of the process that asks; undefined: the kernel does not say. */
  readonly pidfd: number | undefined;
}

/** An answer before it is sent. */
export interface VerbAnswer {
  readonly result: Readonly<Record<string, unknown>>;
  /** To be sent. */
  readonly fds: readonly number[];
  /** Of the descriptors that were given or made, for the log. */
  readonly facts: readonly FdFacts[];
  /** Called once: the answer has left, or it never will. Closes or keeps `fds`. */
  readonly settle: (sent: boolean) => void;
}

type Handler<V extends Verb> = (
  context: VerbContext,
  may: Permissions,
  asked: VerbRequest<V>,
  /** What came with the request; the handler's if it takes any, which the table says. */
  fds: readonly number[],
) => VerbAnswer | Promise<VerbAnswer>;

interface VerbRow<V extends Verb> {
  /** How many descriptors come with the request. */
  readonly fds: 'none' | 'some';
  readonly run: Handler<V>;
}

export const VERB_HANDLERS: { readonly [V in Verb]: VerbRow<V> } = {
  put: { fds: 'some', run: put },
  take: { fds: 'none', run: take },
  copy: { fds: 'none', run: copy },
  stat: { fds: 'none', run: stat },
  drop: { fds: 'none', run: drop },
  list: { fds: 'none', run: list },
  open: { fds: 'none', run: open },
  listen: { fds: 'none', run: listen },
  connect: { fds: 'none', run: connect },
  socketpair: { fds: 'none', run: socketpair },
  tap: { fds: 'none', run: tap },
  netdev: { fds: 'none', run: netdev },
};

function put(context: VerbContext, may: Permissions, asked: VerbRequest<'put'>, fds: readonly number[]): VerbAnswer {
  const facts = examine(context.native, fds);
  for (const [index, each] of facts.entries()) {
    checkKeepable(each, index);
    checkForeign(context, fds[index]!, each, index);
    if (asked.expect !== undefined) checkExpectation(each, asked.expect, index);
  }
  const entry = keep(context, may, asked.name, asked, fds, facts, asked.replace);
  return say({ name: entry.name }, facts);
}

function take(context: VerbContext, may: Permissions, asked: VerbRequest<'take'>): VerbAnswer {
  return handOut(context, may, asked, true);
}

function copy(context: VerbContext, may: Permissions, asked: VerbRequest<'copy'>): VerbAnswer {
  return handOut(context, may, asked, false);
}

function handOut(
  context: VerbContext,
  may: Permissions,
  asked: VerbRequest<'take' | 'copy'>,
  taking: boolean,
): VerbAnswer {
  const { registry } = context;
  const entry = find(context, may, asked, 'use');
  expectAll(entry, asked.expect);
  registry.depart(entry, may.peer, taking);
  const { fds, facts } = entry;
  return { result: { name: entry.name }, fds, facts, settle: (sent) => registry.arrive(entry, sent) };
}

function stat(context: VerbContext, may: Permissions, asked: VerbRequest<'stat'>): VerbAnswer {
  return say(describe(find(context, may, asked, 'use'), context.registry.nowMs()));
}

function drop({ registry, ...context }: VerbContext, may: Permissions, asked: VerbRequest<'drop'>): VerbAnswer {
  const entry = find({ registry, ...context }, may, asked, 'drop');
  registry.end(entry, 'dropped');
  return say({ name: entry.name });
}

/** A reader of many names gets as many as fit one message. */
const MAX_LISTED = 200;

function list({ registry }: VerbContext, may: Permissions): VerbAnswer {
  const entries = registry.list((entry) => may.mayUse(entry, 'use'));
  const names = entries.slice(0, MAX_LISTED).map(({ owner, name, fds }) => ({ owner, name, fds: fds.length }));
  return say({ names, total: entries.length });
}

function open(context: VerbContext, may: Permissions, asked: VerbRequest<'open'>): VerbAnswer {
  const confined = may.checkOpen(asked.path, asked.access, asked.create === true);
  const fd = openConfined(context.native, confined, asked);
  return giveOrKeep(context, may, asked, [fd], { path: asked.path }, (facts) => checkKeepable(facts, 0));
}

function listen(context: VerbContext, may: Permissions, asked: VerbRequest<'listen'>): VerbAnswer {
  const confined = confine(may, 'listen', asked.place);
  const fd = listenAt(context, asked, confined);
  return giveOrKeep(context, may, asked, [fd], {});
}

function connect(context: VerbContext, may: Permissions, asked: VerbRequest<'connect'>): VerbAnswer {
  const confined = confine(may, 'connect', asked.place);
  const fd = connectTo(context, asked.place, confined);
  return giveOrKeep(context, may, asked, [fd], {}, (facts) => {
    // Who it is connected to would take the client for the broker's own user.
    if (isOwn(context, fd, facts)) throw new BrokerError('denied', 'it is the socket of this broker');
  });
}

const PAIR_TYPES = { stream: 1, dgram: 2, seqpacket: 5 } as const;

/** Both ends are sent; or, with a name, the first is sent and the second kept. */
function socketpair(context: VerbContext, may: Permissions, asked: VerbRequest<'socketpair'>): VerbAnswer {
  const { native } = context;
  const [first, second] = createSocketPair(native, PAIR_TYPES[asked.type ?? 'stream']);
  const facts = examine(native, [first, second]);
  if (asked.name === undefined) return give(native, [first, second], {}, facts);
  try {
    keep(context, may, asked.name, asked, [second], facts.slice(1));
  } catch (error) {
    native.close(first);
    native.close(second);
    throw error;
  }
  return give(native, [first], { name: asked.name }, facts);
}

function tap(context: VerbContext, may: Permissions, asked: VerbRequest<'tap'>): VerbAnswer {
  if (context.makeTap === undefined) throw new BrokerError('denied', 'this broker makes no taps');
  may.checkBridge(asked.bridge);
  const { fds, result } = context.makeTap(asked, may.peer);
  return giveOrKeep(context, may, asked, fds, result);
}

/** The only verb that takes its time: the connection gets its answer later, others are served meanwhile. */
async function netdev(context: VerbContext, may: Permissions, asked: VerbRequest<'netdev'>): Promise<VerbAnswer> {
  if (context.joinNetwork === undefined) throw new BrokerError('denied', 'this broker has no networks');
  const network = may.checkNetwork(asked.network);
  const { fd, result } = await context.joinNetwork(asked.network, network, may.peer, may.maxNetworks);
  return giveOrKeep(context, may, asked, [fd], { network: asked.network, ...result });
}

// ------------------------------------------------------------------------------------------------------------------------------ parts

function say(result: Readonly<Record<string, unknown>>, facts: readonly FdFacts[] = []): VerbAnswer {
  return { result, fds: [], facts, settle: () => {} };
}

/** Descriptors that nobody keeps: they are closed when they have been sent. */
function give(
  native: NativeAddon,
  fds: readonly number[],
  result: Readonly<Record<string, unknown>>,
  facts: readonly FdFacts[],
): VerbAnswer {
  return {
    result,
    fds,
    facts,
    settle: () => {
      for (const fd of fds) native.close(fd);
    },
  };
}

/** Sends what was made, or keeps it under the name that was asked for. Closes it when that fails. */
function giveOrKeep(
  context: VerbContext,
  may: Permissions,
  asked: KeepRequest & { readonly name?: string | undefined },
  fds: readonly number[],
  result: Readonly<Record<string, unknown>>,
  check?: (facts: FdFacts) => void,
): VerbAnswer {
  const { native } = context;
  try {
    const facts = examine(native, fds);
    if (check !== undefined) for (const each of facts) check(each);
    if (asked.name === undefined) return give(native, fds, result, facts);
    keep(context, may, asked.name, asked, fds, facts);
    return say({ ...result, name: asked.name }, facts);
  } catch (error) {
    for (const fd of fds) native.close(fd);
    throw error;
  }
}

function keep(
  { native, registry, pidfd }: VerbContext,
  may: Permissions,
  name: string,
  { ttl, uses, share = [], dropOnHangup, dropOnExit = false }: KeepRequest,
  fds: readonly number[],
  facts: readonly FdFacts[],
  replace = false,
): KeptName {
  const ttlMs = ttl === undefined ? undefined : ttl * 1000;
  const giver = dropOnExit ? ownPidfd(native, pidfd) : undefined;
  const entry = { owner: may.peer.uid, name, fds, facts, share, ttlMs, uses, dropOnHangup, giver };
  try {
    return registry.add(entry, may.quota, replace);
  } catch (error) {
    if (giver !== undefined) native.close(giver);
    throw error;
  }
}

function ownPidfd(native: NativeAddon, pidfd: number | undefined): number {
  const own = pidfd === undefined ? ENOPROTOOPT : native.duplicate(pidfd, 3);
  if (own >= 0) return own;
  throw new BrokerError('system', 'dropOnExit: the asking process cannot be watched (SO_PEERPIDFD)', nameErrno(own));
}

function examine(native: NativeAddon, fds: readonly number[]): FdFacts[] {
  return fds.map((fd) => readFdFacts(native, fd));
}

/** The broker's listener, or the client's end of a connection to it, would let the broker hold on to itself. */
function checkForeign(context: VerbContext, fd: number, facts: FdFacts, which: number): void {
  if (isOwn(context, fd, facts)) throw new BrokerError('fd-kind', `descriptor ${which} is a socket of this broker`);
}

function isOwn({ native, ownNames }: VerbContext, fd: number, { family }: FdFacts): boolean {
  if (family !== 'unix') return false;
  const names = [native.unixName(fd, 0), native.unixName(fd, 1)];
  return names.some((name) => typeof name === 'string' && ownNames.has(name));
}

/** A name that the user may not have is the same to them as one that does not exist. */
function find(
  { registry }: VerbContext,
  may: Permissions,
  { name, owner = may.peer.uid }: { readonly name: string; readonly owner?: number | undefined },
  access: 'use' | 'drop',
): KeptName {
  const entry = registry.find(owner, name);
  if (entry === undefined || !may.mayUse(entry, 'use')) {
    throw new BrokerError('no-such-name', `user ${owner} has no '${name}'`);
  }
  if (!may.mayUse(entry, access)) throw new BrokerError('denied', `'${name}' belongs to user ${owner}`);
  return entry;
}

function expectAll(entry: KeptName, expected: FdExpectation | undefined): void {
  if (expected === undefined) return;
  for (const [index, facts] of entry.facts.entries()) checkExpectation(facts, expected, index);
}

function describe(
  { owner, name, facts, share, usesLeft, expiresAtMs, dropOnHangup, giver }: KeptName,
  nowMs: number,
): Record<string, unknown> {
  return {
    owner,
    name,
    fds: facts.map(({ pathOnly: _pathOnly, ...rest }) => rest),
    share,
    uses: Number.isFinite(usesLeft) ? usesLeft : null,
    ttl: Number.isFinite(expiresAtMs) ? Math.max(0, expiresAtMs - nowMs) / 1000 : null,
    dropOnHangup,
    dropOnExit: giver !== undefined,
  };
}

function confine(may: Permissions, verb: 'listen' | 'connect', place: SocketPlace): Confined | undefined {
  return may.checkPlace(verb, place);
}
