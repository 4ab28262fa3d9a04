/**
 * Frames through a tap device: the kernel of a network namespace is the guest (Documentation/networking/tuntap.rst of Linux).
 *
 * One read(2) or write(2) is one frame, so the addon makes many of them per call. What makes a tap fast is that frames may be large:
 * with a virtio-net header in front of each (wire/vnet.ts) both kernels' TCP hand over up to 64 KiB at once, whatever the MTU is, and
 * leave checksums to whom they concern. Whether frames carry the header is a property of the device, and is told here at the start.
 *
 * From the guest. Frames are read one behind the other into a region, until the queue is empty or the region full, and used where
 * they landed.
 *
 * To the guest. A linear region as in stream.ts: each frame lies behind its length and its virtio-net header, and `flush` hands the whole
 * to the addon. A device takes everything at once: its kernel handles a frame inside write(2). What it refuses is gone, as on
 * a cable that is not plugged in: the interface is down, or the header makes no sense. Those frames are counted. A device that
 * takes no more for now (which other kinds of descriptor do, and a device may with a limited TUNSETSNDBUF) keeps the rest waiting.
 *
 * A device that is deleted, or whose namespace ends, is a guest that is gone.
 *
 * Not done: several queues; io_uring (a gain for small frames only, and often forbidden); frames that are larger than 64 KiB (BIG TCP).
 */

import type { Arena } from '../base/arena.ts';
import { EAGAIN, EBADFD, ECONNRESET, EINVAL, EIO, EMSGSIZE, ENOBUFS, ENOMEM, EPIPE } from '../base/errno.ts';
import type { GuestLink, HostSockets } from '../stack/ports.ts';
import {
  EVENT_EDGE,
  EVENT_ERR,
  EVENT_HUP,
  EVENT_IN,
  EVENT_OUT,
  KIND_LINK,
  LINK_IDLE,
  OFFLOAD_CHECKSUM,
  OFFLOAD_TCP4,
  OFFLOAD_TCP6,
  OFFLOAD_UDP4,
  OFFLOAD_UDP6,
} from '../stack/ports.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts';
import { VNET_HEADER_BYTES } from '../wire/vnet.ts';
import { checkCommitted } from './committed.ts';

/** In front of each frame to the guest, for the addon. */
const LENGTH_BYTES = 4;
/** An Ethernet header and the longest IPv4 packet; IPv6 could have 40 bytes more, which nobody makes. */
const MAX_FRAME_BYTES = ETHERNET_HEADER_BYTES + 65_535;
/** Room for one frame from the guest, headers and all, and more than any has, so that one that was cut is known by its length. */
const SLOT_BYTES = 65_536 + 256;

const DEFAULT_RECEIVE_BYTES = 2 << 20;
const DEFAULT_SEND_BYTES = 4 << 20;
const MIN_REGION_BYTES = SLOT_BYTES;

/** Why a guest is gone: the device was deleted, its descriptor failed, or the owner asked for it. */
export type TapGoneReason = 'closed' | 'error' | 'detached';

export interface TapLinkOptions {
  readonly arena: Arena;
  readonly sockets: HostSockets;
  readonly native: Pick<NativeAddon, 'tunRead' | 'tunWrite' | 'setNonBlocking'>;
  /** Frames carry a virtio-net header: the device has IFF_VNET_HDR, and the size of the header is 12. */
  readonly vnetHeader?: boolean;
  /** UDP frames may be left to the device to cut; `prepareTapOffloads` of sys/tap.ts tells. */
  readonly udpSegmentation?: boolean;
  /** Bytes that one `receive` may take; default 2 MiB. */
  readonly receiveBytes?: number;
  /** Bytes that can be queued for the guest; default 4 MiB. */
  readonly sendBytes?: number;
  /** The index that events of KIND_LINK carry for this link; default 0. */
  readonly index?: number;
}

/**
 * A tap link. Made without a device: `attach` gives it one.
 *
 * The owner hands the events of KIND_LINK to `onHostEvent` and then, if that says so, calls `receive` until it gives LINK_IDLE.
 */
export class TapLink implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader: boolean;
  readonly offloads: number;
  readonly maxFrameBytes = MAX_FRAME_BYTES;
  connected = false;
  /** Frames to the guest that the device did not want. */
  refusedFrames = 0;

  /** Room is there again after `flush` had left bytes behind. */
  onRoom: () => void = ignore;
  /**
   * The device is gone; its descriptor is closed, nothing is queued any more, and `attach` may be called. `error` is the -errno or 0.
   * Called from inside `receive`, `flush`, `onHostEvent` or `detach`.
   */
  onGone: (reason: TapGoneReason, error: number) => void = ignore;

  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly sockets: HostSockets;
  private readonly native: TapLinkOptions['native'];
  private readonly headerBytes: number;
  private readonly index: number;
  private fd = -1;

  private readonly rxBase: number;
  private readonly rxBytes: number;
  /** The last read emptied the device's queue. */
  private drained = false;
  /** The descriptor has failed or lost its other end: only a read that says so is the end. */
  private ending = false;

  private readonly txBase: number;
  private readonly txLimit: number;
  /** First byte not yet sent, and end of what was committed. */
  private txHead: number;
  private txTail: number;
  /** The device took less than it was offered and has not reported room since. */
  private blocked = false;

  constructor(options: TapLinkOptions) {
    const { arena, sockets, native, vnetHeader = false, udpSegmentation = false, index = 0 } = options;
    const { receiveBytes = DEFAULT_RECEIVE_BYTES, sendBytes = DEFAULT_SEND_BYTES } = options;
    if (receiveBytes < MIN_REGION_BYTES || sendBytes < MIN_REGION_BYTES) {
      throw new RangeError(`a link region must hold at least ${MIN_REGION_BYTES} bytes`);
    }
    this.view = arena.view;
    this.bytes = arena.bytes;
    this.sockets = sockets;
    this.native = native;
    this.index = index;
    this.hasVnetHeader = vnetHeader;
    this.headerBytes = vnetHeader ? VNET_HEADER_BYTES : 0;
    this.headroomBytes = LENGTH_BYTES + this.headerBytes;
    this.offloads = vnetHeader
      ? OFFLOAD_CHECKSUM | OFFLOAD_TCP4 | OFFLOAD_TCP6 | (udpSegmentation ? OFFLOAD_UDP4 | OFFLOAD_UDP6 : 0)
      : 0;
    this.rxBase = arena.allocate(receiveBytes, 4096);
    this.rxBytes = receiveBytes;
    this.txBase = arena.allocate(sendBytes, 4096);
    this.txLimit = this.txBase + sendBytes;
    this.txHead = this.txBase;
    this.txTail = this.txBase;
  }

  /**
   * Takes a tap device's descriptor: the link owns `fd` from here on, also when this fails. It is made non-blocking.
   * @returns 0, or -errno when the descriptor cannot be watched (it is closed then)
   * @throws Error when a device is attached already
   */
  attach(fd: number): number {
    if (this.connected) throw new Error('a device is attached to this link already');
    let result = this.native.setNonBlocking(fd, 1);
    if (result >= 0) {
      result = this.sockets.watch(fd, (EVENT_IN | EVENT_OUT | EVENT_EDGE) >>> 0, KIND_LINK, this.index);
    }
    if (result < 0) {
      this.sockets.close(fd);
      return result;
    }
    this.fd = fd;
    this.connected = true;
    this.reset();
    return 0;
  }

  /** Gives the device up, if there is one; frames that are still queued are dropped. */
  detach(): void {
    if (this.connected) this.drop('detached', 0);
  }

  /**
   * Takes an epoll mask of the descriptor: sends what was waiting for room and calls `onRoom`.
   * @returns whether there may be something to receive (frames, or the news that the device is gone)
   */
  onHostEvent(events: number): boolean {
    if (!this.connected) return false;
    if ((events & (EVENT_HUP | EVENT_ERR)) !== 0) this.ending = true;
    if ((events & EVENT_OUT) !== 0 && this.blocked) {
      this.blocked = false;
      if (this.flush() < 0) return false;
      // With less than half of the region free, the rest of it is on its way and an event will follow.
      if (this.roomBytes() >= (this.txLimit - this.txBase) >> 1) this.onRoom();
    }
    if ((events & (EVENT_IN | EVENT_HUP | EVENT_ERR)) === 0) return false;
    this.drained = false;
    return this.connected;
  }

  receive(frames: Int32Array): number {
    if (!this.connected) return LINK_IDLE;
    if (this.drained) {
      this.drained = false;
      return LINK_IDLE;
    }
    const { rxBase, rxBytes } = this;
    const count = this.native.tunRead(this.fd, rxBase, rxBytes, SLOT_BYTES, this.headerBytes, frames);
    if (count > 0) {
      const last = 2 * (count - 1);
      const end = frames[last]! + frames[last + 1]!;
      // Whatever else has ended the reading has emptied the queue, and what comes from here on makes an event.
      const hadRoom = 2 * count < frames.length - 1 && end + FRAME_SPACING + SLOT_BYTES <= rxBase + rxBytes;
      this.drained = hadRoom && !this.ending;
      return count;
    }
    if (count === EAGAIN) return LINK_IDLE;
    const isClosed = count === 0 || isGoneError(count);
    this.drop(isClosed ? 'closed' : 'error', count);
    return count === 0 ? ECONNRESET : count;
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

  /** @throws RangeError for a frame that is not where the contract wants it, or of a length that no frame has */
  commit(offset: number, lengthBytes: number): void {
    if (!this.connected) return;
    checkCommitted(offset, lengthBytes, this.txTail + this.headroomBytes, this.txLimit, MAX_FRAME_BYTES);
    this.view.setUint32(this.txTail, lengthBytes, true);
    this.txTail = offset + lengthBytes;
  }

  flush(): number {
    for (;;) {
      const queued = this.txTail - this.txHead;
      if (queued === 0 || this.blocked) return queued;
      const sent = this.native.tunWrite(this.fd, this.txHead, queued, this.headerBytes);
      if (sent === queued) {
        this.txHead = this.txBase;
        this.txTail = this.txBase;
        return 0;
      }
      if (sent > 0) {
        // The next call tells what is the matter with the frame that now comes first.
        this.txHead += sent;
      } else if (sent === EAGAIN) {
        this.blocked = true;
      } else if (sent === ENOBUFS || sent === ENOMEM) {
        // The kernel is short of memory, which no event ends: the next turn tries again.
        return queued;
      } else if (isRefusal(sent)) {
        this.refusedFrames++;
        this.txHead += this.headroomBytes + this.view.getUint32(this.txHead, true);
        if (this.txHead === this.txTail) {
          this.txHead = this.txBase;
          this.txTail = this.txBase;
        }
      } else {
        this.drop(isGoneError(sent) ? 'closed' : 'error', sent);
        return sent;
      }
    }
  }

  /** Whether moving the unsent bytes to the front gives more room than it moves bytes. */
  private pays(): boolean {
    return this.txHead - this.txBase >= this.txTail - this.txHead;
  }

  private reset(): void {
    this.drained = false;
    this.ending = false;
    this.txHead = this.txBase;
    this.txTail = this.txBase;
    this.blocked = false;
  }

  private drop(reason: TapGoneReason, error: number): void {
    const { fd } = this;
    this.fd = -1;
    this.connected = false;
    this.reset();
    // Named explicitly, since the descriptor may have duplicates that keep it in the poller's set.
    this.sockets.unwatch(fd);
    this.sockets.close(fd);
    this.onGone(reason, error);
  }
}

/** The most that lies between two frames in the region: the addon lets them start where cache lines do. */
const FRAME_SPACING = 64;

/** Makes a tap link without a device. */
export function createTapLink(options: TapLinkOptions): TapLink {
  return new TapLink(options);
}

function ignore(): void {}

/** The device, or the other end of a stand-in for one, is no more. */
function isGoneError(error: number): boolean {
  return error === EBADFD || error === EPIPE || error === ECONNRESET;
}

/** The device does not want this frame: it is down, or a virtio-net header makes no sense to it. */
function isRefusal(error: number): boolean {
  return error === EIO || error === EINVAL || error === EMSGSIZE;
}
