/**
 * One timer per flow, on a hierarchical wheel over typed arrays: arming, moving and cancelling cost a few array writes and make no
 * object. Resolution is one tick of 4 ms; three levels of 256 slots reach 18 hours.
 *
 * A deadline that moves *later* (every segment moves an idle timeout) is only noted; the entry is re-filed when its old slot
 * comes up. A deadline that moves earlier is re-filed at once.
 *
 * The wheel does not run by itself: its owner asks `nextDueMs` how long it may sleep and calls `advance`.
 */

import { ColumnBlock } from '../../base/column-block.ts';

const TICK_MS = 4;
const SLOT_BITS = 8;
const SLOTS = 1 << SLOT_BITS;
const SLOT_MASK = SLOTS - 1;
const LEVELS = 3;
/** Where entries of the slot that expires right now are filed, so that `cancel` finds them and new ones do not mix in. */
const EXPIRING = SLOTS * LEVELS;
/** One coarse slot short of a full turn: the slot under the hand never holds entries of the next turn. */
const FARTHEST_TICKS = (SLOTS - 1) * SLOTS * SLOTS - 1;

export class TimerWheel {
  /** When the flow's timer is due (the clock's milliseconds); Infinity: not armed. */
  private readonly deadline: Float64Array;
  /** Tick the entry is filed under. */
  private readonly filedTick: Float64Array;
  /** Slot + 1 the entry is filed in (level * 256 + slot); 0: not filed. */
  private readonly filedSlot: Uint16Array;
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly heads = new Int32Array(SLOTS * LEVELS + 1);
  private currentTick: number;
  private filed = 0;
  /** A lower bound of the tick at which something is to be done next. */
  private earliestTick = Number.POSITIVE_INFINITY;

  constructor(capacity: number, nowMs: number, columns = new ColumnBlock(0)) {
    this.deadline = columns.float64(capacity);
    this.filedTick = columns.float64(capacity);
    this.filedSlot = columns.uint16(capacity);
    this.next = columns.int32(capacity);
    this.previous = columns.int32(capacity);
    this.currentTick = Math.floor(nowMs / TICK_MS);
  }

  /** Arms (or moves) the timer of `index` to fire at `deadlineMs`. */
  arm(index: number, deadlineMs: number): void {
    this.deadline[index] = deadlineMs;
    const tick = Math.ceil(deadlineMs / TICK_MS);
    if (this.filedSlot[index] !== 0) {
      if (this.filedTick[index]! <= tick) return;
      this.unfile(index);
    }
    this.file(index, tick);
  }

  /** Disarms. Harmless when not armed. */
  cancel(index: number): void {
    this.deadline[index] = Number.POSITIVE_INFINITY;
    if (this.filedSlot[index] !== 0) this.unfile(index);
  }

  /** When the timer of `index` is due, in the clock's milliseconds; Infinity when it is not armed. */
  deadlineOf(index: number): number {
    return this.filedSlot[index] === 0 ? Number.POSITIVE_INFINITY : this.deadline[index]!;
  }

  /** The moment (clock's milliseconds) at which `advance` has something to do at the earliest; Infinity when nothing is armed. */
  nextDueMs(): number {
    return this.earliestTick * TICK_MS;
  }

  /** Fires every timer that is due. `fire` may arm and cancel timers, its own too. */
  advance(nowMs: number, fire: (index: number) => void): void {
    const nowTick = Math.floor(nowMs / TICK_MS);
    while (this.earliestTick <= nowTick) {
      const tick = this.nextOccupiedTick();
      if (tick > nowTick) {
        this.earliestTick = tick;
        break;
      }
      this.currentTick = tick;
      this.cascade(tick);
      this.collect(tick & SLOT_MASK);
      // From here on this tick is over: what `fire` arms for it is filed for the next one.
      this.currentTick = tick + 1;
      this.expire(nowMs, fire);
      this.earliestTick = this.nextOccupiedTick();
    }
    if (nowTick > this.currentTick) this.currentTick = nowTick;
  }

  private collect(slot: number): void {
    for (let entry = this.heads[slot]!; entry !== 0; entry = this.heads[slot]!) {
      const tick = this.filedTick[entry - 1]!;
      this.unfile(entry - 1);
      this.link(entry - 1, EXPIRING, tick);
    }
  }

  private expire(nowMs: number, fire: (index: number) => void): void {
    for (let entry = this.heads[EXPIRING]!; entry !== 0; entry = this.heads[EXPIRING]!) {
      const index = entry - 1;
      this.unfile(index);
      const due = this.deadline[index]!;
      if (due > nowMs) this.file(index, Math.ceil(due / TICK_MS));
      else fire(index);
    }
  }

  /** Brings the entries of coarser slots that begin at `tick` down. */
  private cascade(tick: number): void {
    if ((tick & SLOT_MASK) !== 0) return;
    const one = Math.floor(tick / SLOTS);
    if ((one & SLOT_MASK) === 0) this.refile(2 * SLOTS + (Math.floor(one / SLOTS) & SLOT_MASK));
    this.refile(SLOTS + (one & SLOT_MASK));
  }

  private refile(slot: number): void {
    for (let entry = this.heads[slot]!; entry !== 0; entry = this.heads[slot]!) {
      const index = entry - 1;
      const tick = this.filedTick[index]!;
      this.unfile(index);
      this.file(index, tick);
    }
  }

  private file(index: number, tick: number): void {
    let at = Math.max(tick, this.currentTick);
    if (at - this.currentTick > FARTHEST_TICKS) at = this.currentTick + FARTHEST_TICKS;
    const level0 = Math.floor(at / SLOTS) === Math.floor(this.currentTick / SLOTS);
    const level1 = Math.floor(at / (SLOTS * SLOTS)) === Math.floor(this.currentTick / (SLOTS * SLOTS));
    let slot: number;
    let wakeTick: number;
    if (level0) {
      slot = at & SLOT_MASK;
      wakeTick = at;
    } else if (level1) {
      slot = SLOTS + (Math.floor(at / SLOTS) & SLOT_MASK);
      wakeTick = Math.floor(at / SLOTS) * SLOTS;
    } else {
      slot = 2 * SLOTS + (Math.floor(at / (SLOTS * SLOTS)) & SLOT_MASK);
      wakeTick = Math.floor(at / (SLOTS * SLOTS)) * SLOTS * SLOTS;
    }
    this.link(index, slot, at);
    if (wakeTick < this.earliestTick) this.earliestTick = wakeTick;
  }

  private link(index: number, slot: number, tick: number): void {
    const head = this.heads[slot]!;
    this.next[index] = head;
    this.previous[index] = 0;
    if (head !== 0) this.previous[head - 1] = index + 1;
    this.heads[slot] = index + 1;
    this.filedSlot[index] = slot + 1;
    this.filedTick[index] = tick;
    this.filed++;
  }

  private unfile(index: number): void {
    const slot = this.filedSlot[index]! - 1;
    const next = this.next[index]!;
    const previous = this.previous[index]!;
    if (previous === 0) this.heads[slot] = next;
    else this.next[previous - 1] = next;
    if (next !== 0) this.previous[next - 1] = previous;
    this.filedSlot[index] = 0;
    this.filed--;
    if (this.filed === 0) this.earliestTick = Number.POSITIVE_INFINITY;
  }

  /** The next tick, from the current one on, at which a slot expires or cascades; Infinity when nothing is filed. */
  private nextOccupiedTick(): number {
    if (this.filed === 0) return Number.POSITIVE_INFINITY;
    const current = this.currentTick;
    const base = current - (current & SLOT_MASK);
    // At a boundary that was not cascaded yet, the coarse slot that begins here is due first.
    if (current === base && this.coarseSlotOccupied(current)) return current;
    for (let slot = current & SLOT_MASK; slot < SLOTS; slot++) {
      if (this.heads[slot] !== 0) return base + slot;
    }
    const one = Math.floor(current / SLOTS);
    const oneBase = one - (one & SLOT_MASK);
    for (let slot = (one & SLOT_MASK) + 1; slot < SLOTS; slot++) {
      if (this.heads[SLOTS + slot] !== 0) return (oneBase + slot) * SLOTS;
    }
    const two = Math.floor(one / SLOTS);
    for (let step = 1; step <= SLOTS; step++) {
      if (this.heads[2 * SLOTS + ((two + step) & SLOT_MASK)] !== 0) return (two + step) * SLOTS * SLOTS;
    }
    return Number.POSITIVE_INFINITY;
  }

  private coarseSlotOccupied(tick: number): boolean {
    const one = Math.floor(tick / SLOTS);
    if (this.heads[SLOTS + (one & SLOT_MASK)] !== 0) return true;
    return (one & SLOT_MASK) === 0 && this.heads[2 * SLOTS + (Math.floor(one / SLOTS) & SLOT_MASK)] !== 0;
  }
}
