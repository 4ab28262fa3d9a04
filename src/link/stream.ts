/**
 * Frames over a connected stream socket: QEMU's `-netdev stream` and `-netdev socket`, each frame behind its length as 32 bits, big
 * endian (wire/frame-length.ts).
 *
 * From the guest. One receive takes as much as the region holds (1 MiB by default: more hardly pays, less costs system calls); the
 * frames are used where they landed, and a frame that is cut off at the end moves to the front before the next receive. A
 * receive that did not fill the region has emptied the socket, so the call that would only say "nothing more" is left out, unless
 * the peer is known to be closing, which only a further receive can confirm.
 *
 * To the guest. A linear region: frames are laid one behind the other, `flush` sends them with one plain `send`, and what the socket
 * did not take stays until the poller reports that it is writable again. Once everything is sent, laying starts at the front again.
 * When the end is reached with unsent bytes left, these move to the front, but only when that gives more room than the bytes
 * it moves, so the copying can never cost more than one copy of each byte sent.
 *
 * A length that no frame can have means that the two sides have lost each other: the guest is dropped. The same goes for the end
 * of the stream and for errors of the socket. The netdev's client may come back; until then nothing is queued.
 *
 * The socket is watched edge-triggered, for as long as it is attached. After a short `send` no further one is tried before
 * the event, since it would take little and cost a system call per turn. Room is asked about from the first short `send` on, until an event
 * tells of room that nobody waits for: a unix socket reports room each time that its peer has read, and with a frame at a time
 * to send, that would wake us once more for each.
 *
 * Not done: frames that are larger than 64 KiB; descriptors passed along the stream.
 */

import type { Arena } from '../base/arena.ts';
import { EAGAIN, EBADMSG, ECONNRESET, ENOBUFS, ENOMEM, EPIPE } from '../base/errno.ts';
import type { GuestLink, HostSockets } from '../stack/ports.ts';
import {
  EVENT_EDGE,
  EVENT_ERR,
  EVENT_HUP,
  EVENT_IN,
  EVENT_OUT,
  EVENT_RDHUP,
  KIND_LINK,
  LINK_IDLE,
} from '../stack/ports.ts';
import {
  FRAME_MAX_BYTES,
  FRAME_MIN_BYTES,
  FRAME_PREFIX_BYTES,
  getFrameLength,
  writeFrameLength,
} from '../wire/frame-length.ts';
import { checkCommitted } from './committed.ts';
import { raiseBuffers } from './socket-buffers.ts';

const DEFAULT_RECEIVE_BYTES = 1 << 20;
const DEFAULT_SEND_BYTES = 4 << 20;
/** What the socket is watched for, always, and while its room matters. */
const IN_EVENTS = (EVENT_IN | EVENT_RDHUP | EVENT_EDGE) >>> 0;
const ROOM_EVENTS = (IN_EVENTS | EVENT_OUT) >>> 0;
/** Both regions have to hold the largest frame. */
const MIN_REGION_BYTES = FRAME_PREFIX_BYTES + FRAME_MAX_BYTES;

/** Why a guest was dropped. `detached`: the owner asked for it. */
export type GoneReason = 'closed' | 'bad-length' | 'error' | 'detached';

export interface StreamLinkOptions {
  readonly arena: Arena;
  readonly sockets: HostSockets;
  /** Bytes that one receive may take; default 1 MiB. */
  readonly receiveBytes?: number;
  /** Bytes that can be queued for the guest; default 4 MiB. */
  readonly sendBytes?: number;
  /** The index that events of KIND_LINK carry for this link; default 0. */
  readonly index?: number;
}

/**
 * A stream link. Made without a guest: `attach` gives it one.
 *
 * The owner hands the events of KIND_LINK to `onHostEvent` and then, if that says so, calls `receive` until it gives LINK_IDLE.
 */
export class StreamLink implements GuestLink {
  readonly headroomBytes = FRAME_PREFIX_BYTES;
  readonly hasVnetHeader = false;
  readonly offloads = 0;
  readonly maxFrameBytes = FRAME_MAX_BYTES;
  connected = false;

  /** Room is there again after `flush` had left bytes behind. */
  onRoom: () => void = ignore;
  /**
   * The guest is gone; the socket is closed, nothing is queued any more, and `attach` may be called. `error` is the -errno or 0.
   * Called from inside `receive`, `flush`, `onHostEvent` or `detach`.
   */
  onGone: (reason: GoneReason, error: number) => void = ignore;

  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly sockets: HostSockets;
  private readonly index: number;
  private fd = -1;

  private readonly rxBase: number;
  private readonly rxLimit: number;
  /** First byte not yet given to the stack, and end of what was received. */
  private rxHead: number;
  private rxEnd: number;
  /** The last receive emptied the socket. */
  private drained = false;
  /** The peer has shut down or the socket failed: only a receive without bytes is the end. */
  private ending = false;

  private readonly txBase: number;
  private readonly txLimit: number;
  /** First byte not yet sent, and end of what was committed. */
  private txHead: number;
  private txTail: number;
  /** The socket took less than it was offered and has not reported room since. */
  private blocked = false;
  /** The poller reports room. */
  private watchesRoom = false;

  constructor(options: StreamLinkOptions) {
    const { arena, sockets, receiveBytes = DEFAULT_RECEIVE_BYTES, sendBytes = DEFAULT_SEND_BYTES, index = 0 } = options;
    if (receiveBytes < MIN_REGION_BYTES || sendBytes < MIN_REGION_BYTES) {
      throw new RangeError(`a link region must hold at least ${MIN_REGION_BYTES} bytes`);
    }
    this.view = arena.view;
    this.bytes = arena.bytes;
    this.sockets = sockets;
    this.index = index;
    // Pages of their own, so that the two directions do not share cache lines with anything else.
    this.rxBase = arena.allocate(receiveBytes, 4096);
    this.rxLimit = this.rxBase + receiveBytes;
    this.rxHead = this.rxBase;
    this.rxEnd = this.rxBase;
    this.txBase = arena.allocate(sendBytes, 4096);
    this.txLimit = this.txBase + sendBytes;
    this.txHead = this.txBase;
    this.txTail = this.txBase;
  }

  /**
   * Takes a connected stream socket as the guest's: the link owns `fd` from here on, also when this fails.
   * @returns 0, or -errno when the socket cannot be watched (it is closed then)
   * @throws Error when a guest is attached already
   */
  attach(fd: number): number {
    if (this.connected) throw new Error('a guest is attached to this link already');
    raiseBuffers(this.sockets, fd);
    const result = this.sockets.watch(fd, IN_EVENTS, KIND_LINK, this.index);
    if (result < 0) {
      this.sockets.close(fd);
      return result;
    }
    this.fd = fd;
    this.connected = true;
    this.reset();
    return 0;
  }

  /** Closes the connection to the guest, if there is one; bytes that are still queued are dropped. */
  detach(): void {
    if (this.connected) this.drop('detached', 0);
  }

  /**
   * Takes an epoll mask of the socket: sends what was waiting for room and calls `onRoom`.
   * @returns whether there may be something to receive (frames, or the end of the stream)
   */
  onHostEvent(events: number): boolean {
    if (!this.connected) return false;
    if ((events & (EVENT_RDHUP | EVENT_HUP | EVENT_ERR)) !== 0) this.ending = true;
    if ((events & EVENT_OUT) !== 0) {
      if (!this.blocked) {
        this.watchRoom(false);
      } else {
        this.blocked = false;
        if (this.flush() < 0) return false;
        // With less than half of the region free, the rest of it is on its way and an event will follow.
        if (this.roomBytes() >= (this.txLimit - this.txBase) >> 1) this.onRoom();
      }
    }
    if ((events & (EVENT_IN | EVENT_RDHUP | EVENT_HUP | EVENT_ERR)) === 0) return false;
    this.drained = false;
    return this.connected;
  }

  receive(frames: Int32Array): number {
    if (!this.connected) return LINK_IDLE;
    for (;;) {
      const count = this.parse(frames);
      if (count !== 0) return count;
      if (this.drained) {
        this.drained = false;
        return LINK_IDLE;
      }
      const rest = this.rxEnd - this.rxHead;
      if (this.rxHead !== this.rxBase) {
        if (rest !== 0) this.bytes.copyWithin(this.rxBase, this.rxHead, this.rxEnd);
        this.rxHead = this.rxBase;
        this.rxEnd = this.rxBase + rest;
      }
      const wanted = this.rxLimit - this.rxEnd;
      const got = this.sockets.receive(this.fd, this.rxEnd, wanted, 0);
      if (got > 0) {
        this.rxEnd += got;
        this.drained = got < wanted && !this.ending;
      } else if (got === EAGAIN) {
        return LINK_IDLE;
      } else {
        this.drop(got === 0 ? 'closed' : 'error', got);
        return got === 0 ? ECONNRESET : got;
      }
    }
  }

  reserve(bytes: number): number {
    if (!this.connected) return -1;
    if (bytes > this.txLimit - this.txTail) {
      if (!this.pays() || bytes > this.txLimit - this.txBase - (this.txTail - this.txHead)) return -1;
      this.bytes.copyWithin(this.txBase, this.txHead, this.txTail);
      this.txTail = this.txBase + (this.txTail - this.txHead);
      this.txHead = this.txBase;
    }
    return this.txTail;
  }

  roomBytes(): number {
    if (!this.connected) return 0;
    return this.pays() ? this.txLimit - this.txBase - (this.txTail - this.txHead) : this.txLimit - this.txTail;
  }

  /** @throws RangeError for a frame that is not where the contract wants it, or of a length that would break the stream */
  commit(offset: number, lengthBytes: number): void {
    if (!this.connected) return;
    checkCommitted(offset, lengthBytes, this.txTail + FRAME_PREFIX_BYTES, this.txLimit, FRAME_MAX_BYTES);
    writeFrameLength(this.view, this.txTail, lengthBytes);
    this.txTail = offset + lengthBytes;
  }

  flush(): number {
    const queued = this.txTail - this.txHead;
    if (queued === 0 || this.blocked) return queued;
    const sent = this.sockets.send(this.fd, this.txHead, queued, 0);
    if (sent === queued) {
      this.txHead = this.txBase;
      this.txTail = this.txBase;
      return 0;
    }
    if (sent >= 0) {
      this.txHead += sent;
      this.blocked = true;
      this.watchRoom(true);
      return queued - sent;
    }
    if (sent === EAGAIN) {
      this.blocked = true;
      this.watchRoom(true);
      return queued;
    }
    // The kernel is short of memory, which no event ends: the next turn tries again.
    if (sent === ENOBUFS || sent === ENOMEM) return queued;
    this.drop(sent === ECONNRESET || sent === EPIPE ? 'closed' : 'error', sent);
    return sent;
  }

  /** Fills `frames` with the complete frames at the head. @returns their number, or -errno after a length that no frame has */
  private parse(frames: Int32Array): number {
    const { view, rxEnd } = this;
    const most = frames.length >> 1;
    let at = this.rxHead;
    let count = 0;
    while (count < most && at + FRAME_PREFIX_BYTES <= rxEnd) {
      const length = getFrameLength(view, at);
      if (length < FRAME_MIN_BYTES || length > FRAME_MAX_BYTES) {
        // The frames before it are good: the guest is dropped when they have been taken.
        if (count !== 0) break;
        this.drop('bad-length', EBADMSG);
        return EBADMSG;
      }
      const next = at + FRAME_PREFIX_BYTES + length;
      if (next > rxEnd) break;
      frames[count << 1] = at + FRAME_PREFIX_BYTES;
      frames[(count << 1) + 1] = length;
      count++;
      at = next;
    }
    this.rxHead = at;
    return count;
  }

  /** Whether moving the unsent bytes to the front gives more room than it moves bytes. */
  private pays(): boolean {
    return this.txHead - this.txBase >= this.txTail - this.txHead;
  }

  /** Has room reported or not. What is ready at that moment is reported again, so no edge can be missed. */
  private watchRoom(wanted: boolean): void {
    if (this.watchesRoom === wanted) return;
    this.watchesRoom = wanted;
    this.sockets.rewatch(this.fd, wanted ? ROOM_EVENTS : IN_EVENTS, KIND_LINK, this.index);
  }

  private reset(): void {
    this.rxHead = this.rxBase;
    this.rxEnd = this.rxBase;
    this.drained = false;
    this.ending = false;
    this.txHead = this.txBase;
    this.txTail = this.txBase;
    this.blocked = false;
    this.watchesRoom = false;
  }

  private drop(reason: GoneReason, error: number): void {
    const { fd } = this;
    this.fd = -1;
    this.connected = false;
    this.reset();
    // Named explicitly, since a descriptor given by --fd may have duplicates that keep it in the poller's set.
    this.sockets.unwatch(fd);
    this.sockets.close(fd);
    this.onGone(reason, error);
  }
}

/** Makes a stream link without a guest. */
export function createStreamLink(options: StreamLinkOptions): StreamLink {
  return new StreamLink(options);
}

function ignore(): void {}
