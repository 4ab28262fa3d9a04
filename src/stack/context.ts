/**
 * What the parts of one stack share. Made once by `NetworkStack`; every module gets it in its constructor.
 */
import type { Arena } from '../base/arena.ts';
import type { Logger } from '../base/logger.ts';
import type { StackConfig } from './config.ts';
import type { Counters } from './counters.ts';
import type { FlowDescription } from './flow/description.ts';
import type { FlowTable } from './flow/table.ts';
import type { TimerWheel } from './flow/timer-wheel.ts';
import type { GuestState } from './guest.ts';
import type { AddressMap, ForwardLookup, GuestLink, GuestServices, HostSockets, LoopbackBypass } from './ports.ts';
import type { RoomQueue } from './room-queue.ts';

export interface StackContext {
  readonly arena: Arena;
  readonly view: DataView;
  readonly config: StackConfig;
  /** Another one may take its place between turns: see {@link NetworkStack.useLink}. Nobody keeps it. */
  link: GuestLink;
  readonly sockets: HostSockets;
  readonly map: AddressMap;
  readonly forwards: ForwardLookup;
  /** Namespace mode: takes what the host's loopback sends to forwarded ports. */
  readonly bypass: LoopbackBypass | undefined;
  /** What is behind addresses of the guest's network other than hosts. */
  readonly services?: GuestServices | undefined;
  readonly flows: FlowTable;
  readonly timers: TimerWheel;
  readonly roomQueue: RoomQueue;
  readonly guest: GuestState;
  readonly counters: Counters;
  readonly log: Logger;
  /** Monotonic milliseconds, read once at the start of each turn. */
  nowMs: number;
  /** An endpoint record that any module may use within one call. */
  readonly endpoint: number;
  /** 16 random bytes as four words: ISN and other keyed hashes (RFC 6528). */
  readonly secret: Uint32Array;
}

/** What a module that owns flows does when something happens to one of them. */
export interface FlowModule {
  /** The host side of a flow became ready: `events` is an epoll mask. Called for live flows only. */
  onHostEvent(index: number, events: number): void;
  /** The flow's timer is due. */
  onTimer(index: number): void;
  /** The flow waited in the room queue and there is room now. */
  onRoom(index: number): void;
  /** Adds what only the module knows of a live flow. Not for the data path. */
  describe(index: number, description: FlowDescription): void;
  /** The entry is about to be freed (columns in place); the host fd is closed by the caller afterwards. */
  onRelease(index: number): void;
}
