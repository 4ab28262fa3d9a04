/**
 * Makes a link as bad as its user wants it (`--impair`): frames are delayed, lost, doubled, sent ahead of others, and held to a rate, in each
 * direction on its own. It stands between the stack, or the switch, and the transport, and only while it is wanted. impair-way.ts says what
 * becomes of a frame; this file moves frames, and knows who waits for what.
 *
 * From the guest. Everything that the transport has is taken at once, since a wire does not wait, and is handed on when its time has come:
 * `onWake` says when that is. What has no room to wait for the rate is dropped.
 *
 * To the guest. Frames are laid into a region of this wrapper and start at `flush`. Those whose time has come are copied down to the transport; what
 * that has no room for stays, and then there is no room here either. The stack does not drop what has no room: its flows wait. So a rate
 * costs it no frame: `reserve` grants what the limit leaves, and `onWake` comes when there is room again worth speaking of. This is not
 * what a queue on the way would do, but the stack knows no congestion control: the path of its own frames is a socket that exerts back-pressure.
 *
 * A guest that leaves takes with it what is under way in both directions.
 *
 * Not done: damage to frames (where checksums are left to the receiver nothing would notice it).
 */

import type { Arena } from '../base/arena.ts';
import type { Clock } from '../base/clock.ts';
import { type GuestLink, LINK_IDLE } from '../stack/ports.ts';
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts';
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { checkCommitted } from './committed.ts';
import { ImpairedWay, UNDER_WAY_MAX_BYTES } from './impair-way.ts';
import type { Impairment } from './impairment.ts';

const DEFAULT_SEND_BYTES = 4 << 20;
const DEFAULT_RECEIVE_BYTES = 1 << 20;
/** What the stack may have waiting for a rate, however small the limit: it does not begin to send with less room than half of this. */
const OWN_WAITING_MIN_BYTES = 320 * 1024;
/** Reads of the transport in one `receive`, so that a guest which sends without pause does not keep the host's side waiting. */
const RECEIVES_PER_CALL = 4;
const FRAMES_PER_RECEIVE = 4096;
/** Not due for sending on, but for another look, when nothing tells that the transport has taken what was left. */
const DRAIN_INTERVAL_MS = 50;

export interface ImpairOptions {
  readonly link: GuestLink;
  readonly arena: Arena;
  readonly clock: Clock;
  /** Bytes that can be laid for the guest before a `flush`; default 4 MiB. */
  readonly sendBytes?: number;
  /** Bytes that one `receive` gives; default 1 MiB. */
  readonly receiveBytes?: number;
}

/** Made without any impairment: `configure` says what there is to be. */
export class ImpairLink implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader: boolean;
  readonly offloads: number;
  readonly maxFrameBytes: number;
  readonly toGuest = new ImpairedWay(OWN_WAITING_MIN_BYTES);
  readonly fromGuest = new ImpairedWay();

  /**
   * The time has come for frames: `receive` may have some and `flush` something to send, or there is room again.
   * Called from a turn of Node's loop of its own.
   */
  onWake: () => void = ignore;

  private readonly clock: Clock;
  private readonly memory: Buffer;
  private readonly leadBytes: number;
  private link: GuestLink;

  private readonly txBase: number;
  private readonly txLimit: number;
  private txTail: number;
  /** Lengths of the frames in the region, oldest first; `txCount` of them. */
  private readonly txLengths: Int32Array;
  private txCount = 0;
  /** The transport has no room for what is due. */
  private blocked = false;
  /** Somebody was told that there is little room. */
  private isShort = false;

  private readonly rxBase: number;
  private readonly rxLimit: number;
  private readonly rxFrames = new Int32Array(2 * FRAMES_PER_RECEIVE);

  private timer: NodeJS.Timeout | undefined;
  private timerDueMs = Number.POSITIVE_INFINITY;
  private more: NodeJS.Immediate | undefined;

  constructor(options: ImpairOptions) {
    const { link, arena, clock, sendBytes = DEFAULT_SEND_BYTES, receiveBytes = DEFAULT_RECEIVE_BYTES } = options;
    this.link = link;
    this.clock = clock;
    this.memory = Buffer.from(arena.buffer);
    this.headroomBytes = link.headroomBytes;
    this.hasVnetHeader = link.hasVnetHeader;
    this.offloads = link.offloads;
    this.maxFrameBytes = link.maxFrameBytes;
    this.leadBytes = link.hasVnetHeader ? VNET_HEADER_BYTES : 0;
    this.txBase = arena.allocate(sendBytes, 4096);
    this.txLimit = this.txBase + sendBytes;
    this.txTail = this.txBase;
    this.txLengths = new Int32Array(Math.ceil(sendBytes / (ETHERNET_HEADER_BYTES + link.headroomBytes)));
    this.rxBase = arena.allocate(receiveBytes, 4096);
    this.rxLimit = this.rxBase + receiveBytes;
  }

  get connected(): boolean {
    return this.link.connected;
  }

  /** Nothing is asked for in either direction, and nothing under way: the link beneath may be used in place of this one. */
  get isIdle(): boolean {
    return this.toGuest.isIdle && this.fromGuest.isIdle && this.txCount === 0;
  }

  /** What a switch should leave of `roomBytes` to the stack; undefined: as much as of any link. */
  get keptBytes(): number | undefined {
    const { limit, mostWaitingBytes: most } = this.toGuest;
    return most === Number.POSITIVE_INFINITY ? undefined : Math.max(most / 2, most - limit);
  }

  /** Says what is to become of frames from here on. What is under way goes on. To be followed by a call of `onWake`. */
  configure({ toGuest, fromGuest }: Impairment): void {
    this.toGuest.configure(toGuest);
    this.fromGuest.configure(fromGuest);
  }

  /** Puts another link beneath: the same transport in another wrapping. */
  useLink(link: GuestLink): void {
    this.link = link;
  }

  /** Forgets what is under way, and all timers. */
  clear(): void {
    this.toGuest.clear();
    this.fromGuest.clear();
    this.txTail = this.txBase;
    this.txCount = 0;
    this.blocked = false;
    clearTimeout(this.timer);
    this.timerDueMs = Number.POSITIVE_INFINITY;
    clearImmediate(this.more);
    this.more = undefined;
  }

  receive(frames: Int32Array): number {
    const { link, fromGuest, rxFrames, memory, leadBytes } = this;
    if (fromGuest.isIdle) return link.receive(frames);
    for (let round = 0; round < RECEIVES_PER_CALL; round++) {
      const nowMs = this.clock.nowMs();
      const due = this.give(frames, nowMs);
      if (due > 0) return due;
      const count = link.receive(rxFrames);
      if (count < 0) this.clear();
      if (count <= 0) {
        this.arm(nowMs);
        return count;
      }
      for (let i = 0; i < count; i++) {
        const length = rxFrames[2 * i + 1]!;
        fromGuest.admit(memory, rxFrames[2 * i]! - leadBytes, leadBytes, length, nowMs);
      }
    }
    this.more ??= setImmediate(() => {
      this.more = undefined;
      this.onWake();
    });
    return LINK_IDLE;
  }

  reserve(bytes: number): number {
    return bytes > this.roomBytes() ? -1 : this.txTail;
  }

  roomBytes(): number {
    const { toGuest } = this;
    if (!this.link.connected || this.blocked) return 0;
    const staged = this.txTail - this.txBase;
    // Doubled frames take room too, and the end of a ring may be of no use.
    const underWay = (UNDER_WAY_MAX_BYTES - toGuest.bytes) / 2 - staged - DEFAULT_SEND_BYTES;
    let room = Math.min(this.txLimit - this.txTail, underWay);
    const most = toGuest.mostWaitingBytes;
    if (most !== Number.POSITIVE_INFINITY) {
      room = Math.min(room, most - staged - toGuest.waitingBytes(this.clock.nowMs()));
      if (room < most / 2) this.isShort = true;
    }
    return Math.max(0, Math.trunc(room));
  }

  commit(offset: number, lengthBytes: number): void {
    if (!this.link.connected) return;
    checkCommitted(offset, lengthBytes, this.txTail + this.headroomBytes, this.txLimit, this.maxFrameBytes);
    this.txLengths[this.txCount++] = lengthBytes;
    this.txTail = offset + lengthBytes;
  }

  flush(): number {
    if (!this.link.connected) {
      this.clear();
      return this.link.flush();
    }
    const nowMs = this.clock.nowMs();
    this.start(nowMs);
    for (let stuck = 0; ; ) {
      if (this.moveDown(nowMs)) stuck = 0;
      else stuck++;
      const below = this.link.flush();
      if (below < 0) {
        this.clear();
        return below;
      }
      // Where the transport has sent everything there is room again.
      if (!this.blocked || below !== 0 || stuck > 1) {
        this.arm(nowMs);
        return below + (this.blocked ? this.toGuest.bytes : 0);
      }
    }
  }

  /** Sends the frames of the region on their way. */
  private start(nowMs: number): void {
    const { toGuest, memory, headroomBytes, leadBytes, txLengths, txCount } = this;
    let at = this.txBase;
    for (let i = 0; i < txCount; i++) {
      const offset = at + headroomBytes;
      const length = txLengths[i]!;
      toGuest.admit(memory, offset - leadBytes, leadBytes, length, nowMs);
      at = offset + length;
    }
    this.txTail = this.txBase;
    this.txCount = 0;
  }

  /** Copies down what is due, as far as there is room. @returns whether anything was */
  private moveDown(nowMs: number): boolean {
    const { link, toGuest, memory, headroomBytes, leadBytes } = this;
    let moved = false;
    this.blocked = false;
    while (toGuest.nextDueMs <= nowMs) {
      const length = toGuest.nextBytes - leadBytes;
      const start = link.reserve(headroomBytes + length);
      if (start < 0) {
        this.blocked = true;
        break;
      }
      toGuest.take(memory, start + headroomBytes - leadBytes);
      link.commit(start + headroomBytes, length);
      moved = true;
    }
    return moved;
  }

  /** Copies out what is due from the guest. @returns how many frames */
  private give(frames: Int32Array, nowMs: number): number {
    const { fromGuest, memory, leadBytes, rxLimit } = this;
    const most = frames.length >> 1;
    let at = this.rxBase;
    let count = 0;
    while (count < most && fromGuest.nextDueMs <= nowMs) {
      const bytes = fromGuest.nextBytes;
      if (at + bytes > rxLimit) break;
      fromGuest.take(memory, at);
      frames[2 * count] = at + leadBytes;
      frames[2 * count + 1] = bytes - leadBytes;
      at += bytes;
      count++;
    }
    return count;
  }

  /** Sets the timer for what comes next. */
  private arm(nowMs: number): void {
    const { toGuest, fromGuest } = this;
    let due = fromGuest.nextDueMs;
    if (!this.blocked) due = Math.min(due, toGuest.nextDueMs);
    else if (toGuest.impairment === undefined) due = Math.min(due, nowMs + DRAIN_INTERVAL_MS);
    if (this.isShort) due = Math.min(due, toGuest.timeOfWaiting(toGuest.mostWaitingBytes / 2));
    if (due >= this.timerDueMs) return;
    clearTimeout(this.timer);
    this.timerDueMs = due;
    this.timer = setTimeout(() => this.fire(), Math.max(1, Math.ceil(due - nowMs)));
  }

  private fire(): void {
    this.timerDueMs = Number.POSITIVE_INFINITY;
    this.isShort = false;
    this.onWake();
    // Timers may come a little early: then nothing has armed the next one.
    this.arm(this.clock.nowMs());
  }
}

/** Wraps `options.link`; use the result in its place. */
export function createImpairLink(options: ImpairOptions): ImpairLink {
  return new ImpairLink(options);
}

function ignore(): void {}
