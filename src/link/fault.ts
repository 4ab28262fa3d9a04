/**
 * Makes a link as bad as a test wants it: frames are lost, doubled, overtaken by later ones, or changed by a bit, each with its
 * own probability per direction, by a seeded generator, so that a run can be repeated.
 *
 * To the guest, frames are laid into a region of this wrapper, since the link beneath wants its frames back to back and
 * cannot take one out; `flush` decides the fate of each and copies the survivors down. What the link below has no room for stays
 * and goes first next time.
 *
 * Reordering holds one frame back per direction until `distance` others have passed, or until a later turn finds nothing to pass it.
 */

import type { Arena } from '../base/arena.ts';
import { type GuestLink, LINK_IDLE } from '../stack/ports.ts';
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts';
import { checkCommitted } from './committed.ts';
import { createRandom } from './random.ts';

/** Probabilities, 0 … 1, drawn per frame in this order; at most one of them strikes. */
export interface FaultRates {
  readonly loss?: number;
  readonly duplicate?: number;
  readonly reorder?: number;
  readonly corrupt?: number;
}

export interface FaultOptions {
  readonly link: GuestLink;
  readonly arena: Arena;
  readonly seed: number;
  readonly toGuest?: FaultRates;
  readonly fromGuest?: FaultRates;
  /** Frames that overtake a held one; default 3. */
  readonly distance?: number;
  /** Bytes that can be queued for the guest; default 1 MiB. */
  readonly sendBytes?: number;
}

/** What was done so far. */
export interface FaultCounts {
  passed: number;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
}

const DEFAULT_DISTANCE = 3;
const DEFAULT_SEND_BYTES = 1 << 20;

const FATE_PASS = 0;
const FATE_LOSE = 1;
const FATE_DUPLICATE = 2;
const FATE_HOLD = 3;

export class FaultLink implements GuestLink {
  readonly headroomBytes: number;
  readonly hasVnetHeader: boolean;
  readonly offloads: number;
  readonly maxFrameBytes: number;
  readonly toGuestCounts: FaultCounts = createCounts();
  readonly fromGuestCounts: FaultCounts = createCounts();
  private readonly link: GuestLink;
  private readonly bytes: Uint8Array;
  private readonly random: () => number;
  private readonly toGuest: Required<FaultRates>;
  private readonly fromGuest: Required<FaultRates>;
  private readonly distance: number;

  private readonly txBase: number;
  private readonly txLimit: number;
  private txTail: number;
  /** Lengths of the frames in the region, oldest first; `txCount` of them. */
  private readonly txLengths: Int32Array;
  private txCount = 0;
  /** What is still to be copied down of the oldest frame; negative: its fate is not decided. */
  private copiesLeft = -1;
  /** Where the held frame lies, its headroom in front. */
  private readonly txHeld: number;
  private txHeldBytes = 0;
  private txHeldPassed = 0;
  private txHeldFlushes = 0;

  private readonly rxHeld: number;
  private rxHeldBytes = 0;
  private rxHeldPassed = 0;
  private rxFrames = new Int32Array(0);

  constructor(options: FaultOptions) {
    const { link, arena, sendBytes = DEFAULT_SEND_BYTES } = options;
    this.link = link;
    this.bytes = arena.bytes;
    this.headroomBytes = link.headroomBytes;
    this.hasVnetHeader = link.hasVnetHeader;
    this.offloads = link.offloads;
    this.maxFrameBytes = link.maxFrameBytes;
    this.random = createRandom(options.seed);
    this.toGuest = completeRates(options.toGuest);
    this.fromGuest = completeRates(options.fromGuest);
    this.distance = options.distance ?? DEFAULT_DISTANCE;
    this.txBase = arena.allocate(sendBytes);
    this.txLimit = this.txBase + sendBytes;
    this.txTail = this.txBase;
    this.txLengths = new Int32Array(Math.ceil(sendBytes / (ETHERNET_HEADER_BYTES + link.headroomBytes)));
    this.txHeld = arena.allocate(link.headroomBytes + link.maxFrameBytes) + link.headroomBytes;
    this.rxHeld = arena.allocate(link.headroomBytes + link.maxFrameBytes) + link.headroomBytes;
  }

  get connected(): boolean {
    return this.link.connected;
  }

  receive(frames: Int32Array): number {
    const { link, fromGuest, fromGuestCounts: counts, bytes, headroomBytes } = this;
    // Every frame may come twice, and the held one behind it.
    const most = Math.max(1, Math.floor(frames.length / 6));
    if (this.rxFrames.length !== 2 * most) this.rxFrames = new Int32Array(2 * most);
    const { rxFrames } = this;
    for (;;) {
      const count = link.receive(rxFrames);
      if (count <= 0) {
        if (count === LINK_IDLE && this.rxHeldBytes !== 0) return this.releaseReceived(frames, 0);
        if (count < 0) this.rxHeldBytes = 0;
        return count;
      }
      let out = 0;
      // The place of a frame that is let go in this call must keep its bytes until the next one.
      let mayHold = this.rxHeldBytes === 0;
      for (let i = 0; i < count; i++) {
        const offset = rxFrames[2 * i]!;
        const length = rxFrames[2 * i + 1]!;
        const fate = this.decide(fromGuest, counts, offset, length, mayHold);
        if (fate === FATE_LOSE) continue;
        if (fate === FATE_HOLD) {
          bytes.copyWithin(this.rxHeld - headroomBytes, offset - headroomBytes, offset + length);
          this.rxHeldBytes = length;
          this.rxHeldPassed = 0;
          mayHold = false;
          continue;
        }
        for (let copies = fate === FATE_DUPLICATE ? 2 : 1; copies > 0; copies--) {
          frames[2 * out] = offset;
          frames[2 * out + 1] = length;
          out++;
        }
        if (this.rxHeldBytes !== 0 && ++this.rxHeldPassed >= this.distance) out = this.releaseReceived(frames, out);
      }
      // None left does not mean that the link is idle.
      if (out > 0) return out;
    }
  }

  reserve(bytes: number): number {
    if (!this.link.connected || bytes > this.txLimit - this.txTail) return -1;
    return this.txTail;
  }

  roomBytes(): number {
    return this.link.connected ? this.txLimit - this.txTail : 0;
  }

  commit(offset: number, lengthBytes: number): void {
    if (!this.link.connected) return;
    checkCommitted(offset, lengthBytes, this.txTail + this.headroomBytes, this.txLimit, this.maxFrameBytes);
    this.txLengths[this.txCount++] = lengthBytes;
    this.txTail = offset + lengthBytes;
  }

  flush(): number {
    if (!this.link.connected) {
      this.reset();
      return this.link.flush();
    }
    for (;;) {
      const moved = this.moveDown();
      const below = this.link.flush();
      if (below !== 0 || this.txCount === 0) return below < 0 ? below : below + this.txTail - this.txBase;
      // The link below is empty again and there is more for it.
      if (!moved) return this.txTail - this.txBase;
    }
  }

  /** Forgets all frames that are queued or held back. */
  reset(): void {
    this.txTail = this.txBase;
    this.txCount = 0;
    this.copiesLeft = -1;
    this.txHeldBytes = 0;
    this.rxHeldBytes = 0;
  }

  /** Decides and copies down as many frames as the link below has room for. @returns whether any frame left the region */
  private moveDown(): boolean {
    const { bytes, txLengths, headroomBytes, toGuest, toGuestCounts: counts } = this;
    let at = this.txBase;
    let done = 0;
    let isFull = false;
    for (; done < this.txCount; done++) {
      const offset = at + headroomBytes;
      const length = txLengths[done]!;
      if (this.copiesLeft < 0) {
        const fate = this.decide(toGuest, counts, offset, length, this.txHeldBytes === 0);
        this.copiesLeft = fate === FATE_PASS ? 1 : fate === FATE_DUPLICATE ? 2 : 0;
        if (fate === FATE_HOLD) {
          bytes.copyWithin(this.txHeld - headroomBytes, at, offset + length);
          this.txHeldBytes = length;
          this.txHeldPassed = 0;
          this.txHeldFlushes = 0;
        } else if (fate !== FATE_LOSE) {
          this.txHeldPassed++;
        }
      }
      while (this.copiesLeft > 0 && this.copyDown(offset, length)) this.copiesLeft--;
      if (this.copiesLeft > 0) {
        isFull = true;
        break;
      }
      this.copiesLeft = -1;
      at = offset + length;
      if (this.txHeldBytes !== 0 && this.txHeldPassed >= this.distance) this.releaseSent();
    }
    if (done > 0) {
      bytes.copyWithin(this.txBase, at, this.txTail);
      txLengths.copyWithin(0, done, this.txCount);
      this.txTail -= at - this.txBase;
      this.txCount -= done;
    }
    if (!isFull && this.txHeldBytes !== 0 && ++this.txHeldFlushes > 1) this.releaseSent();
    return done > 0;
  }

  private copyDown(offset: number, length: number): boolean {
    const start = this.link.reserve(this.headroomBytes + length);
    if (start < 0) return false;
    // A virtio-net header in the headroom belongs to its frame.
    this.bytes.copyWithin(start, offset - this.headroomBytes, offset + length);
    this.link.commit(start + this.headroomBytes, length);
    return true;
  }

  private releaseSent(): void {
    if (this.copyDown(this.txHeld, this.txHeldBytes)) this.txHeldBytes = 0;
  }

  private releaseReceived(frames: Int32Array, at: number): number {
    frames[2 * at] = this.rxHeld;
    frames[2 * at + 1] = this.rxHeldBytes;
    this.rxHeldBytes = 0;
    return at + 1;
  }

  /** Draws the fate of a frame, counts it, and changes a bit if that is what it is. */
  private decide(
    rates: Required<FaultRates>,
    counts: FaultCounts,
    offset: number,
    length: number,
    mayHold: boolean,
  ): number {
    let chance = this.random();
    if (chance < rates.loss) {
      counts.lost++;
      return FATE_LOSE;
    }
    chance -= rates.loss;
    if (chance < rates.duplicate) {
      counts.duplicated++;
      return FATE_DUPLICATE;
    }
    chance -= rates.duplicate;
    if (chance < rates.reorder) {
      if (mayHold) {
        counts.reordered++;
        return FATE_HOLD;
      }
    } else if (chance - rates.reorder < rates.corrupt) {
      counts.corrupted++;
      this.bytes[offset + Math.floor(this.random() * length)]! ^= 1 << Math.floor(this.random() * 8);
      return FATE_PASS;
    }
    counts.passed++;
    return FATE_PASS;
  }
}

/** Wraps `options.link` in faults; use the result in its place. Rates that are left out are 0. */
export function createFaultLink(options: FaultOptions): FaultLink {
  return new FaultLink(options);
}

function createCounts(): FaultCounts {
  return { passed: 0, lost: 0, duplicated: 0, reordered: 0, corrupted: 0 };
}

function completeRates(rates: FaultRates = {}): Required<FaultRates> {
  return {
    loss: rates.loss ?? 0,
    duplicate: rates.duplicate ?? 0,
    reorder: rates.reorder ?? 0,
    corrupt: rates.corrupt ?? 0,
  };
}
