/**
 * Frames that are a datagram each: QEMU's `-netdev dgram`, and `-netdev socket` with `udp=` or `mcast=`, over unix and UDP sockets.
 *
 * From the guest. One recvmmsg(2) takes what is there, each frame in a slot of its own. Datagrams that can be no frame are counted and passed over: an
 * empty one (which ends reception in QEMU, so none is ever sent either), one that is shorter than an Ethernet header, one that was cut, one from
 * somebody else than the guest. Who that is the kernel sees to where the socket is connected; elsewhere the sender is compared.
 *
 * To the guest. A linear region as in stream.ts, with a list of the frames in it for sendmmsg(2). What a unix socket does not take waits until the poller
 * reports room; a UDP socket takes everything, and the far end may lose it. A frame that is refused for its length or by a firewall is counted and
 * passed over.
 *
 * Presence. A datagram socket has no connection whose end could be seen. The guest is there from the first frame that it sends, or from the start on a
 * socket that was inherited connected; it is gone when the kernel says that nobody receives any more, which shows with a frame that is sent to it, or
 * when the owner says so (silence.ts). A socket of ours with an address stays open then, and the next frame brings the guest back. An inherited one is closed: there is no way to be found by.
 *
 * Not done: frames that are larger than 64 KiB; UDP_SEGMENT and UDP_GRO, since the far end wants datagrams as they are.
 */

import type { Arena } from '../base/arena.ts';
import {
  EACCES,
  EAGAIN,
  ECONNREFUSED,
  ECONNRESET,
  EDESTADDRREQ,
  EHOSTUNREACH,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENETUNREACH,
  ENOBUFS,
  ENOENT,
  ENOMEM,
  ENOTCONN,
  EPERM,
  EPIPE,
} from '../base/errno.ts';
import type { GuestLink, HostSockets } from '../stack/ports.ts';
import { EVENT_EDGE, EVENT_ERR, EVENT_HUP, EVENT_IN, EVENT_OUT, KIND_LINK, LINK_IDLE } from '../stack/ports.ts';
import { type NativeAddon, SENDER_BYTES } from '../sys/native-addon.ts';
import { FRAME_MAX_BYTES, FRAME_MIN_BYTES } from '../wire/frame-length.ts';
import { checkCommitted } from './committed.ts';
import { raiseBuffers } from './socket-buffers.ts';

/** Room for one frame, with some to spare so that one that is too long is known by being cut. */
const SLOT_BYTES = 65_536 + 64;
const DEFAULT_RECEIVE_BYTES = 32 * SLOT_BYTES;
const DEFAULT_SEND_BYTES = 1 << 20;
const PAIR_BYTES = 8;
const IN_EVENTS = (EVENT_IN | EVENT_EDGE) >>> 0;
/** Reads of one `receive` that may bring no frame at all: somebody who sends rubbish without pause must not keep the others waiting. */
const FRUITLESS_READS = 8;

/** A sender record (frame-io.c). */
const SENDER_LENGTH = 4;
const SENDER_ADDRESS = 8;
const SENDER_ANY = 0;
const SENDER_ONLY = 1;
const SENDER_EXCEPT = 2;
const ENDPOINT_BYTES = 24;

/** Why a guest is gone: nobody receives its frames any more, its socket failed, or the owner asked for it or has not heard of it. */
export type DatagramGoneReason = 'closed' | 'error' | 'detached' | 'silent';
/** Why a datagram was passed over. */
export type DatagramFlaw = 'empty' | 'short' | 'cut' | 'stranger';

export interface DatagramLinkOptions {
  readonly arena: Arena;
  readonly sockets: HostSockets;
  readonly native: Pick<NativeAddon, 'receiveFrames'>;
  /** The largest frame; what fits the smallest datagram of the transport. Default 65 549, an Ethernet header and 64 KiB less one. */
  readonly maxFrameBytes?: number;
  /** Bytes of slots that one `receive` may fill; default 32 frames. */
  readonly receiveBytes?: number;
  /** Bytes that can be queued for the guest; default 1 MiB. */
  readonly sendBytes?: number;
  /** The index that events of KIND_LINK carry for this link; default 0. */
  readonly index?: number;
}

export interface DatagramSockets {
  /** Frames arrive here. */
  readonly receiveFd: number;
  /** Frames are sent here; connected, or to be connected while `holdSending` is in force. May be the same. */
  readonly sendFd: number;
  /** An inherited, connected socket: the guest is there now, and when it is gone the socket is of no use. */
  readonly isInherited: boolean;
}

/**
 * A datagram link. Made without sockets: `attach` gives it some.
 *
 * The owner hands the events of KIND_LINK to `onHostEvent` and then, if that says so, calls `receive` until it gives LINK_IDLE.
 */
export class DatagramLink implements GuestLink {
  readonly headroomBytes = 0;
  readonly hasVnetHeader = false;
  readonly offloads = 0;
  readonly maxFrameBytes: number;
  connected = false;
  /** Frames to the guest that the socket did not want. */
  refusedFrames = 0;
  /** Datagrams that were no frames. */
  passedOver = 0;

  /** Room is there again after `flush` had left bytes behind. */
  onRoom: () => void = ignore;
  /** The guest's first frame has come, since the start or since it was gone. Called from inside `receive`: for taking note. */
  onArrival: () => void = ignore;
  /**
   * The guest is gone and nothing is queued any more. `error` is the -errno or 0. Called from inside `receive`, `flush`, `onHostEvent` or
   * `detach`.
   */
  onGone: (reason: DatagramGoneReason, error: number) => void = ignore;
  /** Nobody receives what is sent. The owner may know better and answer true: it has called `holdSending` and looks for the guest's new socket. */
  onRefusal: () => boolean = refuse;
  /** A datagram was passed over. */
  onFlaw: (flaw: DatagramFlaw) => void = ignore;

  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly sockets: HostSockets;
  private readonly native: DatagramLinkOptions['native'];
  private readonly index: number;
  private readonly sender: number;
  private receiveFd = -1;
  private sendFd = -1;
  private isInherited = false;

  private readonly rxBase: number;
  private readonly rxBytes: number;
  /** The last receive emptied the socket. */
  private drained = false;

  private readonly txBase: number;
  private readonly txLimit: number;
  /** First byte not yet sent, and end of what was committed. */
  private txHead: number;
  private txTail: number;
  /** Offset and length of each queued frame. */
  private readonly listBase: number;
  private listHead: number;
  private listTail: number;
  /** The socket took less than it was offered and has not reported room since. */
  private blocked = false;
  private held = false;

  constructor(options: DatagramLinkOptions) {
    const { arena, sockets, native, maxFrameBytes = FRAME_MAX_BYTES, index = 0 } = options;
    const { receiveBytes = DEFAULT_RECEIVE_BYTES, sendBytes = DEFAULT_SEND_BYTES } = options;
    if (receiveBytes < SLOT_BYTES || sendBytes < SLOT_BYTES) {
      throw new RangeError(`a link region must hold at least ${SLOT_BYTES} bytes`);
    }
    this.maxFrameBytes = maxFrameBytes;
    this.view = arena.view;
    this.bytes = arena.bytes;
    this.sockets = sockets;
    this.native = native;
    this.index = index;
    this.sender = arena.allocate(SENDER_BYTES);
    this.rxBase = arena.allocate(receiveBytes, 4096);
    this.rxBytes = receiveBytes;
    this.txBase = arena.allocate(sendBytes, 4096);
    this.txLimit = this.txBase + sendBytes;
    this.txHead = this.txBase;
    this.txTail = this.txBase;
    // As many as the region has room for: pages that are never touched cost nothing.
    this.listBase = arena.allocate(Math.ceil(sendBytes / FRAME_MIN_BYTES) * PAIR_BYTES, 4096);
    this.listHead = this.listBase;
    this.listTail = this.listBase;
  }

  /**
   * Takes sockets: the link owns them from here on, also when this fails.
   * @returns 0, or -errno when they cannot be watched (they are closed then)
   * @throws Error when it has sockets already
   */
  attach({ receiveFd, sendFd, isInherited }: DatagramSockets): number {
    if (this.receiveFd >= 0) throw new Error('this link has its sockets already');
    const { sockets, index } = this;
    raiseBuffers(sockets, receiveFd);
    let result = sockets.watch(receiveFd, IN_EVENTS, KIND_LINK, index);
    if (result >= 0 && sendFd !== receiveFd) {
      raiseBuffers(sockets, sendFd);
      result = sockets.watch(sendFd, EVENT_EDGE, KIND_LINK, index);
    }
    if (result < 0) {
      sockets.close(receiveFd);
      if (sendFd !== receiveFd) sockets.close(sendFd);
      return result;
    }
    this.receiveFd = receiveFd;
    this.sendFd = sendFd;
    this.isInherited = isInherited;
    this.connected = isInherited;
    this.held = false;
    this.drained = false;
    this.reset();
    return 0;
  }

  /** Datagrams of the unix socket at this path only. @throws RangeError for a path that no socket has */
  acceptFromPath(path: string): void {
    const encoded = new TextEncoder().encode(path);
    if (encoded.length > SENDER_BYTES - SENDER_ADDRESS) throw new RangeError('no socket has a path of this length');
    this.view.setUint32(this.sender, SENDER_ONLY, true);
    this.view.setUint32(this.sender + SENDER_LENGTH, encoded.length, true);
    this.bytes.set(encoded, this.sender + SENDER_ADDRESS);
  }

  /** Datagrams of everybody but the endpoint of the record at `endpointOffset`, which is our own: groups give back what was sent to them. */
  acceptAllBut(endpointOffset: number): void {
    this.view.setUint32(this.sender, SENDER_EXCEPT, true);
    this.bytes.copyWithin(this.sender + SENDER_ADDRESS, endpointOffset, endpointOffset + ENDPOINT_BYTES);
  }

  /** Any sender, which is so from the start. */
  acceptAll(): void {
    this.view.setUint32(this.sender, SENDER_ANY, true);
  }

  /** Gives the sockets up, if there are some; frames that are still queued are dropped. */
  detach(): void {
    if (this.receiveFd < 0) return;
    const was = this.connected;
    this.closeSockets();
    if (was) this.leave('detached', 0);
  }

  /** The guest is taken to be gone until its next frame. */
  presumeGone(): void {
    if (this.connected) this.leave('silent', 0);
  }

  /** Frames are queued and not sent from now on: the socket that sends is being connected. */
  holdSending(): void {
    this.held = true;
  }

  /** It is connected: what waits is sent. */
  releaseSending(): void {
    this.held = false;
    this.blocked = false;
    if (this.connected) this.flush();
  }

  /** It could not be connected: the guest is not there. */
  forget(error: number): void {
    this.held = false;
    if (this.connected) this.leave('closed', error);
  }

  /**
   * Takes an epoll mask of a socket: sends what was waiting for room and calls `onRoom`.
   * @returns whether there may be something to receive
   */
  onHostEvent(events: number): boolean {
    if (this.receiveFd < 0) return false;
    if ((events & EVENT_OUT) !== 0 && this.blocked) {
      this.blocked = false;
      if (this.flush() < 0) return this.receiveFd >= 0;
      // Told of each frame that the guest reads, we would wake for nothing while there is room.
      if (!this.blocked) this.watchFor(this.sendFd, false);
      // With less than half of the region free, the rest of it is on its way and an event will follow.
      if (this.roomBytes() >= (this.txLimit - this.txBase) >> 1) this.onRoom();
    }
    if ((events & (EVENT_IN | EVENT_HUP | EVENT_ERR)) === 0) return false;
    this.drained = false;
    return this.receiveFd >= 0;
  }

  receive(frames: Int32Array): number {
    for (let left = FRUITLESS_READS; this.receiveFd >= 0; left--) {
      if (left === 0) {
        // Watched anew, it tells of what is still there.
        this.watchFor(this.receiveFd, this.blocked && this.sendFd === this.receiveFd);
        return LINK_IDLE;
      }
      if (this.drained) {
        this.drained = false;
        return LINK_IDLE;
      }
      const got = this.native.receiveFrames(this.receiveFd, this.rxBase, this.rxBytes, SLOT_BYTES, frames, this.sender);
      if (got > 0) {
        const most = Math.min(frames.length >> 1, Math.floor(this.rxBytes / SLOT_BYTES));
        this.drained = got < most;
        const count = this.sift(frames, got);
        if (count === 0) continue;
        if (!this.connected) {
          this.connected = true;
          this.onArrival();
        }
        return count;
      }
      if (got === EAGAIN) return LINK_IDLE;
      if (this.connected) {
        this.lose(got);
        return got;
      }
      // An error that is left from a guest that has gone is over with being told.
      if (got !== ECONNREFUSED) return LINK_IDLE;
    }
    return LINK_IDLE;
  }

  reserve(bytes: number): number {
    if (!this.connected) return -1;
    if (bytes > this.txLimit - this.txTail) {
      if (!this.pays() || bytes > this.txLimit - this.txBase - (this.txTail - this.txHead)) return -1;
      this.moveToFront();
    }
    return this.txTail;
  }

  roomBytes(): number {
    if (!this.connected) return 0;
    return this.pays() ? this.txLimit - this.txBase - (this.txTail - this.txHead) : this.txLimit - this.txTail;
  }

  /** @throws RangeError for a frame that is not where the contract wants it, or of a length that no frame has */
  commit(offset: number, lengthBytes: number): void {
    if (!this.connected) return;
    checkCommitted(offset, lengthBytes, this.txTail, this.txLimit, this.maxFrameBytes);
    this.view.setUint32(this.listTail, offset, true);
    this.view.setUint32(this.listTail + 4, lengthBytes, true);
    this.listTail += PAIR_BYTES;
    this.txTail = offset + lengthBytes;
  }

  flush(): number {
    for (;;) {
      const queued = this.txTail - this.txHead;
      if (queued === 0 || this.blocked || this.held) return queued;
      const count = (this.listTail - this.listHead) / PAIR_BYTES;
      const sent = this.sockets.sendDatagrams(this.sendFd, this.listHead, count);
      if (sent > 0) {
        // The next call tells what is the matter with the frame that now comes first.
        this.advance(sent);
      } else if (sent === EAGAIN) {
        this.blocked = true;
        this.watchFor(this.sendFd, true);
      } else if (sent === ENOBUFS || sent === ENOMEM) {
        // The kernel is short of memory, which no event ends: the next turn tries again.
        return queued;
      } else if (isRefusal(sent)) {
        this.refusedFrames++;
        this.advance(1);
      } else if (!this.onRefusal()) {
        this.lose(sent);
        return sent;
      }
    }
  }

  /** What a socket tells of from now on; of what is so already, at once. */
  private watchFor(fd: number, room: boolean): void {
    const events = (fd === this.receiveFd ? IN_EVENTS : EVENT_EDGE) | (room ? EVENT_OUT : 0);
    this.sockets.rewatch(fd, events >>> 0, KIND_LINK, this.index);
  }

  /** Leaves the frames in `frames`, in order. @returns their number */
  private sift(frames: Int32Array, got: number): number {
    let count = 0;
    for (let i = 0; i < got; i++) {
      const length = frames[2 * i + 1]!;
      if (length >= FRAME_MIN_BYTES && length <= FRAME_MAX_BYTES) {
        frames[2 * count] = frames[2 * i]!;
        frames[2 * count + 1] = length;
        count++;
      } else {
        this.passedOver++;
        this.onFlaw(
          length === 0
            ? 'empty'
            : length === EPERM
              ? 'stranger'
              : length < 0 || length > FRAME_MAX_BYTES
                ? 'cut'
                : 'short',
        );
      }
    }
    return count;
  }

  /** Takes sent frames from the queue. */
  private advance(count: number): void {
    this.listHead += count * PAIR_BYTES;
    if (this.listHead === this.listTail) {
      this.txHead = this.txBase;
      this.txTail = this.txBase;
      this.listHead = this.listBase;
      this.listTail = this.listBase;
    } else {
      this.txHead = this.view.getUint32(this.listHead, true);
    }
  }

  private moveToFront(): void {
    const { view, txBase, txHead, txTail, listBase } = this;
    const shift = txHead - txBase;
    this.bytes.copyWithin(txBase, txHead, txTail);
    let to = listBase;
    for (let at = this.listHead; at < this.listTail; at += PAIR_BYTES, to += PAIR_BYTES) {
      view.setUint32(to, view.getUint32(at, true) - shift, true);
      view.setUint32(to + 4, view.getUint32(at + 4, true), true);
    }
    this.listHead = listBase;
    this.listTail = to;
    this.txHead = txBase;
    this.txTail = txTail - shift;
  }

  /** Whether moving the unsent bytes to the front gives more room than it moves bytes. */
  private pays(): boolean {
    return this.txHead - this.txBase >= this.txTail - this.txHead;
  }

  private reset(): void {
    this.txHead = this.txBase;
    this.txTail = this.txBase;
    this.listHead = this.listBase;
    this.listTail = this.listBase;
    this.blocked = false;
  }

  private lose(error: number): void {
    if (this.isInherited) this.closeSockets();
    this.leave(isGoneError(error) ? 'closed' : 'error', error);
  }

  private leave(reason: DatagramGoneReason, error: number): void {
    this.connected = false;
    this.reset();
    this.onGone(reason, error);
  }

  private closeSockets(): void {
    const { receiveFd, sendFd } = this;
    this.receiveFd = -1;
    this.sendFd = -1;
    // Named explicitly, since an inherited descriptor may have duplicates that keep it in the poller's set.
    this.sockets.unwatch(receiveFd);
    this.sockets.close(receiveFd);
    if (sendFd === receiveFd) return;
    this.sockets.unwatch(sendFd);
    this.sockets.close(sendFd);
  }
}

/** Makes a datagram link without sockets. */
export function createDatagramLink(options: DatagramLinkOptions): DatagramLink {
  return new DatagramLink(options);
}

function ignore(): void {}

function refuse(): boolean {
  return false;
}

/** Nobody is at the other end. */
function isGoneError(error: number): boolean {
  return (
    error === ECONNREFUSED ||
    error === ECONNRESET ||
    error === EPIPE ||
    error === ENOTCONN ||
    error === EDESTADDRREQ ||
    error === ENOENT
  );
}

/** The frame is too long for where it has to pass, or is not let through: the next one may be luckier. */
function isRefusal(error: number): boolean {
  return (
    error === EMSGSIZE ||
    error === EPERM ||
    error === EACCES ||
    error === EIO ||
    error === EINVAL ||
    error === ENETDOWN ||
    error === ENETUNREACH ||
    error === EHOSTUNREACH
  );
}
