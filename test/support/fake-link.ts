/**
 * A guest link in memory: frames for the guest are copied out at `flush`, frames from the guest are queued by the test. The room can
 * be limited, and the transport can be told to take nothing, to see what the stack does when the link is full.
 */
import type { Arena } from '../../src/base/arena.ts';
import type { GuestLink } from '../../src/stack/ports.ts';

const LENGTH_BYTES = 4;
const VNET_BYTES = 12;

export class FakeLink implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader: boolean;
  readonly offloads: number;
  readonly maxFrameBytes: number;
  connected = true;
  /** Frames that left by `flush`, oldest first; the test takes them out. */
  readonly sent: Uint8Array[] = [];
  /** Their virtio-net headers, on a link that has them. */
  readonly sentHeaders: Uint8Array[] = [];
  /** While true, `flush` leaves everything queued. */
  stalled = false;
  /** Number of `flush` calls that sent something. */
  flushes = 0;
  /** False: `flush` counts frames and drops them, for measurements. */
  keepFrames = true;
  framesSent = 0;
  bytesSent = 0;

  private readonly arena: Arena;
  private readonly txBase: number;
  private readonly txBytes: number;
  private txTail: number;
  private limitBytes: number;
  private readonly lengths: Int32Array;
  private readonly offsets: Int32Array;
  private queued = 0;
  private readonly rxBase: number;
  private readonly rxBytes: number;
  private readonly fromGuest: { frame: Uint8Array; header: Uint8Array }[] = [];

  /**
   * @param txBytes room for frames to the guest
   * @param offloads OFFLOAD_*; not 0: frames have virtio-net headers
   */
  constructor(arena: Arena, txBytes = 1 << 20, rxBytes = 1 << 20, offloads = 0) {
    this.hasVnetHeader = offloads !== 0;
    this.offloads = offloads;
    this.headroomBytes = LENGTH_BYTES + (this.hasVnetHeader ? VNET_BYTES : 0);
    this.maxFrameBytes = this.hasVnetHeader ? 65549 : 65535;
    this.arena = arena;
    this.txBytes = txBytes;
    this.limitBytes = txBytes;
    this.txBase = arena.allocate(txBytes, 4096);
    this.txTail = this.txBase;
    this.rxBytes = rxBytes;
    this.rxBase = arena.allocate(rxBytes, 4096);
    this.lengths = new Int32Array((txBytes >> 5) + 1);
    this.offsets = new Int32Array((txBytes >> 5) + 1);
  }

  /** Limits the room to `bytes` from now on (at most what the constructor was given). */
  limitRoom(bytes: number): void {
    this.limitBytes = Math.min(bytes, this.txBytes);
  }

  /** Lets the next `receive` give this frame (a copy is taken). @param header for a link that has virtio-net headers */
  pushFromGuest(frame: Uint8Array, header = new Uint8Array(VNET_BYTES)): void {
    this.fromGuest.push({ frame: frame.slice(), header });
  }

  receive(frames: Int32Array): number {
    // What was given last time is overwritten, as on a real link: a stack that keeps references is caught.
    this.arena.bytes.fill(0xa5, this.rxBase, this.rxBase + this.rxBytes);
    let at = this.rxBase;
    let count = 0;
    while (this.fromGuest.length > 0 && count * 2 < frames.length) {
      const { frame, header } = this.fromGuest[0]!;
      if (this.hasVnetHeader) {
        this.arena.bytes.set(header, at);
        at += VNET_BYTES;
      }
      if (at + frame.length > this.rxBase + this.rxBytes) break;
      this.arena.bytes.set(frame, at);
      frames[count * 2] = at;
      frames[count * 2 + 1] = frame.length;
      at += frame.length;
      count++;
      this.fromGuest.shift();
    }
    return count;
  }

  reserve(bytes: number): number {
    if (!this.connected || bytes > this.roomBytes()) return -1;
    return this.txTail;
  }

  roomBytes(): number {
    if (!this.connected) return 0;
    return Math.max(0, this.txBase + this.limitBytes - this.txTail);
  }

  commit(offset: number, lengthBytes: number): void {
    if (offset !== this.txTail + this.headroomBytes || offset + lengthBytes > this.txBase + this.txBytes) {
      throw new RangeError(`a frame of ${lengthBytes} bytes at ${offset} does not follow the last one`);
    }
    if (lengthBytes > this.maxFrameBytes || lengthBytes < 14) throw new RangeError(`frame of ${lengthBytes} bytes`);
    this.offsets[this.queued] = offset;
    this.lengths[this.queued] = lengthBytes;
    this.queued++;
    this.txTail = offset + lengthBytes;
  }

  flush(): number {
    if (this.queued === 0) return 0;
    if (this.stalled) return this.txTail - this.txBase;
    this.flushes++;
    for (let i = 0; i < this.queued; i++) {
      const offset = this.offsets[i]!;
      const length = this.lengths[i]!;
      this.framesSent++;
      this.bytesSent += length;
      if (!this.keepFrames) continue;
      this.sent.push(this.arena.bytes.slice(offset, offset + length));
      if (this.hasVnetHeader) this.sentHeaders.push(this.arena.bytes.slice(offset - VNET_BYTES, offset));
    }
    this.queued = 0;
    this.txTail = this.txBase;
    return 0;
  }
}
