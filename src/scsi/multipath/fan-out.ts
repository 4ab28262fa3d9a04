/**
 * PERSISTENT RESERVE OUT to a device with several paths, so that the guest, which knows of one, is right about what it has.
 *
 * A registration belongs to a nexus: an initiator port and a target port, which is to say a path. A guest whose host registers one path
 * gets conflicts as soon as another is used. So a registration is made on all paths, and what can be made only once is made on one:
 *
 * - REGISTER, REGISTER AND IGNORE: on the first path that takes it as it is, then with the same key on all others, whatever they
 *   had. If one of those refuses, those that took it are given back what the guest had, and the guest is told.
 * - RESERVE, CLEAR, PREEMPT: on the first path that answers. A PREEMPT that took the registrations of this host's other paths with it is
 *   followed by registering them again.
 * - RELEASE: on all, since only the path that holds the reservation can release it. If it is still held afterwards, by a path that
 *   does not answer, that is an error.
 * - REGISTER AND MOVE, REPLACE LOST RESERVATION and lists of other initiators are refused, as the multipath tools refuse them.
 *
 * A path that does not answer is registered when it comes back (`catchUp`), unless the key has been taken from us meanwhile: a node that
 * was fenced must not come back by itself.
 */
import {
  createParameterList,
  type ParameterList,
  parseKeys,
  parseParameterList,
  parseReservation,
} from '../parameter-data.ts';
import {
  createReserveIn,
  createReserveOut,
  PR_IN_READ_KEYS,
  PR_IN_READ_RESERVATION,
  PR_OUT_CLEAR,
  PR_OUT_PREEMPT,
  PR_OUT_PREEMPT_AND_ABORT,
  PR_OUT_REGISTER,
  PR_OUT_REGISTER_AND_IGNORE,
  PR_OUT_RELEASE,
  PR_OUT_RESERVE,
  type PrCommand,
} from '../persistent-reserve.ts';
import {
  parseSense,
  SENSE_INVALID_FIELD,
  SENSE_INVALID_PARAMETER,
  SENSE_LUN_COMMUNICATION,
  SENSE_PARAMETER_LENGTH,
  type Sense,
} from '../sense.ts';
import { STATUS_CHECK_CONDITION, STATUS_GOOD, STATUS_RESERVATION_CONFLICT } from '../status.ts';

/** What came back from a path. */
export interface PathReply {
  readonly status: number;
  /** 96 bytes. */
  readonly sense: Uint8Array;
  /** Of a command that asks, with GOOD. */
  readonly data: Uint8Array;
  /** The device was not reached, so nobody knows more than that. */
  readonly isDead: boolean;
}

/** A way to the device. */
export interface Path {
  readonly name: string;
  send(cdb: Uint8Array, parameters: Uint8Array): Promise<PathReply>;
}

/** What the guest is told. */
export interface Outcome {
  readonly status: number;
  readonly sense: Sense | Uint8Array | undefined;
  readonly note: string;
}

/** What is remembered of a device between commands. */
export interface MultipathState {
  /** The key that this host has registered; undefined: none, or not known. */
  key: bigint | undefined;
  /** Registrations shall outlive a loss of power. */
  persist: boolean;
  /** Names of the paths that have it. */
  readonly registered: Set<string>;
}

export function createMultipathState(): MultipathState {
  return { key: undefined, persist: false, registered: new Set() };
}

const UNIT_ATTENTION = 6;
const ATTENTION_RETRIES = 4;
const KEYS_MAX_BYTES = 8192;
const NO_PARAMETERS = new Uint8Array(0);

const refuse = (sense: Sense, note: string): Outcome => ({ status: STATUS_CHECK_CONDITION, sense, note });
const UNREACHED = refuse(SENSE_LUN_COMMUNICATION, 'no path answers');

/** Carries out one command. Calls for the same device must not overlap. */
export async function reserveOut(
  paths: readonly Path[],
  state: MultipathState,
  command: PrCommand,
  parameters: Uint8Array,
): Promise<Outcome> {
  const list = parseParameterList(parameters);
  if (list === undefined) return refuse(SENSE_PARAMETER_LENGTH, 'multipath: parameter list too short');
  if (list.specifyInitiators) return refuse(SENSE_INVALID_PARAMETER, 'multipath: lists of initiators are not served');
  const send: Send = (path) =>
    path.send(createReserveOut(command.serviceAction, command.type, parameters.length), parameters);
  switch (command.serviceAction) {
    case PR_OUT_REGISTER:
    case PR_OUT_REGISTER_AND_IGNORE:
      return register(paths, state, command, list, send);
    case PR_OUT_RELEASE:
      return release(paths, state, list, send);
    case PR_OUT_RESERVE:
    case PR_OUT_CLEAR:
    case PR_OUT_PREEMPT:
    case PR_OUT_PREEMPT_AND_ABORT:
      return once(paths, state, command, list, send);
    default:
      return refuse(SENSE_INVALID_FIELD, 'multipath: service action is not served');
  }
}

type Send = (path: Path) => Promise<PathReply>;

/** The answer of the first path that gives one, and which it was. `skipConflicts`: a conflict counts only if all have one. */
async function first(
  paths: readonly Path[],
  send: Send,
  skipConflicts: boolean,
): Promise<{ path: Path; reply: PathReply } | undefined> {
  let conflict: { path: Path; reply: PathReply } | undefined;
  for (const path of paths) {
    const reply = await send(path);
    if (reply.isDead) continue;
    if (!skipConflicts || reply.status !== STATUS_RESERVATION_CONFLICT) return { path, reply };
    conflict ??= { path, reply };
  }
  return conflict;
}

/** Paths that have our registration first: they are the ones that can act on it. */
function preferRegistered(paths: readonly Path[], state: MultipathState): Path[] {
  const has = (path: Path): number => (state.registered.has(path.name) ? 0 : 1);
  return [...paths].sort((a, b) => has(a) - has(b));
}

function outcomeOf({ path, reply }: { path: Path; reply: PathReply }, paths: readonly Path[]): Outcome {
  return { status: reply.status, sense: reply.sense, note: `multipath: by ${path.name} of ${paths.length} paths` };
}

/** Sets a key on one path whatever it had. Unit attentions, which come once and say nothing about this, are passed. */
async function setKey(path: Path, key: bigint, persist: boolean): Promise<PathReply> {
  const parameters = createParameterList({ actionKey: key, persistThroughPowerLoss: persist });
  return sendPastAttention(path, createReserveOut(PR_OUT_REGISTER_AND_IGNORE, 0, parameters.length), parameters);
}

function sendPastAttention(path: Path, cdb: Uint8Array, parameters: Uint8Array): Promise<PathReply> {
  return pastAttention(() => path.send(cdb, parameters));
}

async function pastAttention(attempt: () => Promise<PathReply>): Promise<PathReply> {
  for (let retries = 0; ; retries++) {
    const reply = await attempt();
    const attention = reply.status === STATUS_CHECK_CONDITION && parseSense(reply.sense)?.key === UNIT_ATTENTION;
    if (!attention || reply.isDead || retries === ATTENTION_RETRIES) return reply;
  }
}

async function register(
  paths: readonly Path[],
  state: MultipathState,
  command: PrCommand,
  list: ParameterList,
  send: Send,
): Promise<Outcome> {
  const leader = await first(preferRegistered(paths, state), send, true);
  if (leader === undefined) return UNREACHED;
  if (leader.reply.status !== STATUS_GOOD) return outcomeOf(leader, paths);
  // With "ignore", the key that the guest gives for its old one means nothing.
  const claimed = command.serviceAction === PR_OUT_REGISTER ? list.reservationKey : 0n;
  const before = { key: state.key ?? claimed, persist: state.persist };
  const done = [leader.path];
  let missing = 0;
  for (const path of paths) {
    if (path === leader.path) continue;
    const reply = await setKey(path, list.actionKey, list.persistThroughPowerLoss);
    if (reply.status === STATUS_GOOD && !reply.isDead) done.push(path);
    else if (reply.isDead) missing++;
    else {
      for (const each of done) await setKey(each, before.key, before.persist);
      return { status: reply.status, sense: reply.sense, note: `multipath: ${path.name} refused; taken back` };
    }
  }
  remember(state, list.actionKey, list.persistThroughPowerLoss, done);
  const note = `multipath: on ${done.length} of ${paths.length} paths${missing > 0 ? ', others when they answer' : ''}`;
  return { status: STATUS_GOOD, sense: undefined, note };
}

function remember(state: MultipathState, key: bigint, persist: boolean, paths: readonly Path[]): void {
  state.registered.clear();
  state.key = key === 0n ? undefined : key;
  state.persist = persist;
  if (key !== 0n) for (const { name } of paths) state.registered.add(name);
}

async function release(
  paths: readonly Path[],
  state: MultipathState,
  list: ParameterList,
  send: Send,
): Promise<Outcome> {
  const replies: { path: Path; reply: PathReply }[] = [];
  for (const path of preferRegistered(paths, state)) {
    // Once a path has released, the others are told of it; the guest, which asked for it, is not.
    const isReleased = replies.some(({ reply }) => reply.status === STATUS_GOOD);
    const reply = isReleased ? await pastAttention(() => send(path)) : await send(path);
    if (reply.isDead) continue;
    replies.push({ path, reply });
    // A path without our registration has nothing to release and says "conflict"; the word of one that has it counts.
    if (reply.status !== STATUS_GOOD && reply.status !== STATUS_RESERVATION_CONFLICT)
      return outcomeOf({ path, reply }, paths);
  }
  const good = replies.find(({ reply }) => reply.status === STATUS_GOOD);
  if (good === undefined) return replies[0] === undefined ? UNREACHED : outcomeOf(replies[0], paths);
  const held = await readHolder(good.path);
  if (held !== undefined && held === list.reservationKey) {
    return refuse(SENSE_LUN_COMMUNICATION, 'multipath: the path that holds the reservation does not answer');
  }
  return outcomeOf(good, paths);
}

async function readHolder(path: Path): Promise<bigint | undefined> {
  const reply = await sendPastAttention(path, createReserveIn(PR_IN_READ_RESERVATION, KEYS_MAX_BYTES), NO_PARAMETERS);
  return reply.status === STATUS_GOOD ? parseReservation(reply.data)?.held?.key : undefined;
}

async function once(
  paths: readonly Path[],
  state: MultipathState,
  command: PrCommand,
  list: ParameterList,
  send: Send,
): Promise<Outcome> {
  // A path that missed the registration says "conflict" although the guest is registered.
  const chosen = await first(preferRegistered(paths, state), send, true);
  if (chosen === undefined) return UNREACHED;
  if (chosen.reply.status !== STATUS_GOOD) return outcomeOf(chosen, paths);
  if (command.serviceAction === PR_OUT_CLEAR) {
    remember(state, 0n, false, []);
    return outcomeOf(chosen, paths);
  }
  // A device accepts these from the registered only, so this is our key, even if we were started after it was registered.
  if (state.key !== list.reservationKey) remember(state, list.reservationKey, state.persist, [chosen.path]);
  state.registered.add(chosen.path.name);
  const tookOwn = list.actionKey === list.reservationKey || list.actionKey === 0n;
  if (command.serviceAction !== PR_OUT_RESERVE && tookOwn) {
    const others = paths.filter((path) => path !== chosen.path);
    for (const path of others) {
      const reply = await setKey(path, list.reservationKey, state.persist);
      if (reply.status === STATUS_GOOD && !reply.isDead) state.registered.add(path.name);
      else state.registered.delete(path.name);
    }
  }
  return outcomeOf(chosen, paths);
}

/** What {@link catchUp} did. */
export interface CatchUp {
  /** Paths that were registered now. */
  readonly added: readonly string[];
  /** Our key is gone: others have removed it. */
  readonly lost: boolean;
}

/**
 * Registers paths that did not answer before, or are new. Must not overlap with commands for the same device.
 */
export async function catchUp(paths: readonly Path[], state: MultipathState): Promise<CatchUp> {
  const { key } = state;
  const nothing = { added: [], lost: false };
  if (key === undefined) return nothing;
  for (const name of [...state.registered])
    if (!paths.some((path) => path.name === name)) state.registered.delete(name);
  const missing = paths.filter(({ name }) => !state.registered.has(name));
  const witness = paths.find(({ name }) => state.registered.has(name));
  if (missing.length === 0) return nothing;
  if (witness === undefined) return nothing;
  const before = await countKey(witness, key);
  if (before === undefined) return nothing;
  if (before === 0) {
    remember(state, 0n, false, []);
    return { added: [], lost: true };
  }
  const added: string[] = [];
  for (const path of missing) {
    const reply = await setKey(path, key, state.persist);
    if (reply.isDead || reply.status !== STATUS_GOOD) continue;
    // Between the question and the registration others may have preempted us. What was just made is then all that there is of our key.
    const after = await countKey(witness, key);
    if (after !== undefined && after <= 1) {
      await setKey(path, 0n, false);
      remember(state, 0n, false, []);
      return { added, lost: true };
    }
    state.registered.add(path.name);
    added.push(path.name);
  }
  return { added, lost: false };
}

/** How many registrations have this key; undefined when the path does not say. */
async function countKey(path: Path, key: bigint): Promise<number | undefined> {
  const reply = await sendPastAttention(path, createReserveIn(PR_IN_READ_KEYS, KEYS_MAX_BYTES), NO_PARAMETERS);
  if (reply.isDead || reply.status !== STATUS_GOOD) return undefined;
  const keys = parseKeys(reply.data);
  const count = keys?.keys.filter((each) => each === key).length;
  // More registrations than fit: ours may be among those that did not.
  return count === 0 && keys!.keys.length < keys!.total ? undefined : count;
}
