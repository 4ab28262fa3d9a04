/**
 * A learning switch (IEEE 802.1D clause 7) between the guests of one network: each guest's link is plugged into a port, and each port is
 * itself a link, for the stack that serves this guest.
 *
 * Where a frame of a guest goes: to our MAC, to the stack behind its port and nowhere else; to a group address, to that stack and to all
 * other ports; to a MAC that was learned, to its port; to one that was not, to all other ports. Frames of the stack go to the
 * guest of its port only, as without a switch: nothing of that way changes, and nothing is copied.
 *
 * A frame between guests is copied once, from the region where it was received to that of the port it leaves by, and all that one
 * receive brought leaves by one `flush` per port. It may use only part of that port's region: the rest is kept for what the stack
 * sends, so that a guest which floods another cannot cut it off from the world. What does not fit is dropped and counted, as a
 * switch does.
 *
 * MACs are learned from what guests send. One that shows up at another port moves there; ours is nobody's to use. A port whose guest has
 * gone forgets what it learned. The table is bounded, and full it is begun anew: the price is flooding, not memory.
 *
 * Not done: spanning tree (a guest that joins two networks of ours can make a loop), VLANs, multicast snooping, links with
 * virtio-net headers.
 */
import type { Arena } from '../base/arena.ts';
import { type GuestLink, LINK_IDLE } from '../stack/ports.ts';
import { ETHERNET_HEADER_BYTES, ETHERNET_SRC_OFFSET, getMacHi, getMacLo, isMulticastMac } from '../wire/ethernet.ts';

/** What guests may have in all; a guest has one MAC, or a few when it runs containers or guests of its own. */
const MAX_MACS = 4096;
/** Of a port's region, kept for the stack. */
const DEFAULT_KEPT_BYTES = 2 << 20;
/** Receives in one turn whose frames were all for other guests, so that two of them do not keep the rest waiting. */
const RECEIVES_PER_TURN = 4;

const TWO_TO_32 = 0x1_0000_0000;

export interface SwitchOptions {
  readonly arena: Arena;
  /** Our MAC, as in StackConfig. */
  readonly ourMacHi: number;
  readonly ourMacLo: number;
  /** Bytes of each port's room that frames from other guests may not take; default 2 MiB of a link's 4. */
  readonly keptBytes?: number;
}

/** What passed a port, in frames unless it says otherwise. */
export interface SwitchCounters {
  /** From this port's guest to other guests; a flooded frame counts once. */
  forwarded: number;
  forwardedBytes: number;
  /** Not laid for this port's guest: no room, or too long for its link. */
  dropped: number;
  /** With our own MAC as source, from this port's guest. */
  spoofed: number;
}

export class GuestSwitch {
  readonly ports: SwitchPort[] = [];
  private readonly options: SwitchOptions;
  /** Port by MAC as a 48-bit number. */
  private readonly learned = new Map<number, SwitchPort>();

  constructor(options: SwitchOptions) {
    this.options = options;
  }

  /** @param link - a guest's link, without virtio-net headers; whatever calls its owner expects stay the owner's to make */
  addPort(link: GuestLink): SwitchPort {
    if (link.hasVnetHeader) throw new Error('a link with virtio-net headers cannot be switched');
    const port = new SwitchPort(this, link, this.options);
    this.ports.push(port);
    return port;
  }

  /** The port that a MAC was last seen at; undefined: none. */
  portOf(hi: number, lo: number): SwitchPort | undefined {
    return this.learned.get(hi * TWO_TO_32 + lo);
  }

  /** Notes that a MAC is at `port`. */
  learn(hi: number, lo: number, port: SwitchPort): void {
    if (this.learned.size >= MAX_MACS) {
      this.learned.clear();
      for (const other of this.ports) other.learnAnew();
    }
    const mac = hi * TWO_TO_32 + lo;
    this.learned.get(mac)?.learnAnew();
    this.learned.set(mac, port);
  }

  /** Forgets what was learned at `port`: its guest has gone. */
  forget(port: SwitchPort): void {
    for (const [mac, at] of this.learned) if (at === port) this.learned.delete(mac);
  }
}

export class SwitchPort implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader = false;
  readonly offloads = 0;
  readonly maxFrameBytes: number;
  readonly counters: SwitchCounters = { forwarded: 0, forwardedBytes: 0, dropped: 0, spoofed: 0 };

  /** There may be more to receive, of which no event tells. Called from a later turn of Node's loop. */
  onMore: () => void = ignore;

  private readonly bridge: GuestSwitch;
  private link: GuestLink;
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly ourMacHi: number;
  private readonly ourMacLo: number;
  private readonly defaultKeptBytes: number;
  private keptBytes: number;
  /** The last source learned and still known to be here, since a guest seldom has another. */
  private sourceHi = -1;
  private sourceLo = -1;
  /** Frames were laid for this port's guest and not flushed. */
  private hasLaid = false;
  private more: NodeJS.Immediate | undefined;

  constructor(bridge: GuestSwitch, link: GuestLink, options: SwitchOptions) {
    this.bridge = bridge;
    this.link = link;
    this.headroomBytes = link.headroomBytes;
    this.maxFrameBytes = link.maxFrameBytes;
    this.view = options.arena.view;
    this.bytes = options.arena.bytes;
    this.ourMacHi = options.ourMacHi;
    this.ourMacLo = options.ourMacLo;
    this.defaultKeptBytes = options.keptBytes ?? DEFAULT_KEPT_BYTES;
    this.keptBytes = this.defaultKeptBytes;
  }

  /**
   * Plugs in another link to the same guest: the same transport in another wrapping.
   * @param keptBytes - of its room, for the stack; left out: what the switch was made with
   */
  useLink(link: GuestLink, keptBytes: number = this.defaultKeptBytes): void {
    this.link = link;
    this.keptBytes = keptBytes;
  }

  get connected(): boolean {
    return this.link.connected;
  }

  receive(frames: Int32Array): number {
    for (let i = 0; i < RECEIVES_PER_TURN; i++) {
      const count = this.link.receive(frames);
      if (count <= 0) return count;
      const left = this.sort(frames, count);
      this.bridge.ports.forEach(flushLaid);
      if (left > 0) return left;
    }
    this.more ??= setImmediate(() => {
      this.more = undefined;
      this.onMore();
    });
    return LINK_IDLE;
  }

  reserve(bytes: number): number {
    return this.link.reserve(bytes);
  }

  roomBytes(): number {
    return this.link.roomBytes();
  }

  commit(offset: number, lengthBytes: number): void {
    this.link.commit(offset, lengthBytes);
  }

  flush(): number {
    this.hasLaid = false;
    return this.link.flush();
  }

  /** The guest has gone, or the port is given up: forgets its MACs. */
  clear(): void {
    this.learnAnew();
    clearImmediate(this.more);
    this.more = undefined;
    this.bridge.forget(this);
  }

  /** What was learned here may be so no more: the next frame says it again. */
  learnAnew(): void {
    this.sourceHi = -1;
  }

  /** Passes on what is for other guests. @returns how many frames, moved to the front of `frames`, are for the stack */
  private sort(frames: Int32Array, count: number): number {
    const { view, ourMacHi, ourMacLo, counters } = this;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const offset = frames[2 * i]!;
      const length = frames[2 * i + 1]!;
      // Too short for an Ethernet header: the stack counts it.
      const isFrame = length >= ETHERNET_HEADER_BYTES;
      const hi = isFrame ? getMacHi(view, offset) : ourMacHi;
      const lo = isFrame ? getMacLo(view, offset) : ourMacLo;
      if (isFrame && !this.takeSource(offset)) {
        counters.spoofed++;
        continue;
      }
      const isGroup = isMulticastMac(hi);
      if (isGroup || hi !== ourMacHi || lo !== ourMacLo) {
        this.forward(offset, length, isGroup ? undefined : this.bridge.portOf(hi, lo));
        if (!isGroup) continue;
      }
      frames[2 * kept] = offset;
      frames[2 * kept + 1] = length;
      kept++;
    }
    return kept;
  }

  /** Learns the sender. @returns false when it calls itself by our MAC */
  private takeSource(offset: number): boolean {
    const { view } = this;
    const hi = getMacHi(view, offset + ETHERNET_SRC_OFFSET);
    const lo = getMacLo(view, offset + ETHERNET_SRC_OFFSET);
    if (hi === this.sourceHi && lo === this.sourceLo) return true;
    if (hi === this.ourMacHi && lo === this.ourMacLo) return false;
    if (isMulticastMac(hi)) return true;
    this.bridge.learn(hi, lo, this);
    this.sourceHi = hi;
    this.sourceLo = lo;
    return true;
  }

  /** @param to - undefined: all other ports */
  private forward(offset: number, length: number, to: SwitchPort | undefined): void {
    // It has come from there: the guest talks to a neighbour on its own side.
    if (to === this) return;
    this.counters.forwarded++;
    this.counters.forwardedBytes += length;
    if (to !== undefined) {
      to.lay(offset, length);
      return;
    }
    for (const port of this.bridge.ports) if (port !== this && port.connected) port.lay(offset, length);
  }

  /** Queues a frame of another guest for this port's. */
  private lay(offset: number, length: number): void {
    const { link, headroomBytes } = this;
    if (!link.connected) return;
    const bytes = headroomBytes + length;
    const start = length <= this.maxFrameBytes && link.roomBytes() >= bytes + this.keptBytes ? link.reserve(bytes) : -1;
    if (start < 0) {
      this.counters.dropped++;
      return;
    }
    this.bytes.copyWithin(start + headroomBytes, offset, offset + length);
    link.commit(start + headroomBytes, length);
    this.hasLaid = true;
  }

  /** Sends what other guests sent here. */
  flushLaid(): void {
    if (this.hasLaid) this.flush();
  }
}

function flushLaid(port: SwitchPort): void {
  port.flushLaid();
}

function ignore(): void {}
