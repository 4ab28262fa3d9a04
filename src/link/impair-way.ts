/**
 * One direction of a link that is made worse on purpose: decides for each frame whether it is lost, doubled or sent ahead, and when it arrives,
 * and keeps it until then.
 *
 * Time is computed, not measured: a frame leaves when the one before it has been sent at the given rate, and arrives a delay later. A late
 * timer therefore makes frames come in a bunch, and never fewer of them.
 */
import { FrameQueue } from './impair-queue.ts';
import { limitOf, type WayCounters, type WayImpairment } from './impairment.ts';
import { createRandom } from './random.ts';

/** What may be under way at most: 100 Mbit/s for five seconds. */
export const UNDER_WAY_MAX_BYTES = 64 << 20;

const TRANSPARENT: WayImpairment = {
  delayMs: 0,
  jitterMs: 0,
  loss: 0,
  duplicate: 0,
  reorder: 0,
  bitsPerSecond: 0,
  limitBytes: 0,
  seed: undefined,
};

export class ImpairedWay {
  readonly counters: WayCounters = { passed: 0, lost: 0, dropped: 0, duplicated: 0, reordered: 0 };
  private given: WayImpairment | undefined;
  private rules = TRANSPARENT;
  /** What may wait for a rate in any case, in bytes. */
  private readonly ownBytes: number;
  private bytesPerMs = 0;
  private limitBytes = Number.POSITIVE_INFINITY;
  private random: () => number = Math.random;
  private readonly ordered = new FrameQueue(UNDER_WAY_MAX_BYTES);
  /** Those that overtake others. */
  private readonly ahead = new FrameQueue(UNDER_WAY_MAX_BYTES >> 2);
  /** When the last frame has been sent at the given rate. */
  private sentMs = 0;

  /** @param ownBytes - what may wait for a rate, however small the limit: of a sender that keeps to the limit by itself */
  constructor(ownBytes = 0) {
    this.ownBytes = ownBytes;
  }

  /** What was asked for; undefined: nothing. */
  get impairment(): WayImpairment | undefined {
    return this.given;
  }

  /** Frames under way. */
  get count(): number {
    return this.ordered.count + this.ahead.count;
  }

  /** Their bytes. */
  get bytes(): number {
    return this.ordered.bytes + this.ahead.bytes;
  }

  /** Nothing is asked for and nothing under way. */
  get isIdle(): boolean {
    return this.given === undefined && this.count === 0;
  }

  /** When the next frame arrives; infinity: there is none. */
  get nextDueMs(): number {
    return Math.min(this.ordered.nextDueMs, this.ahead.nextDueMs);
  }

  /** Bytes of the next frame. */
  get nextBytes(): number {
    return this.first().nextBytes;
  }

  /** What is to wait for the rate at most; infinity without one. */
  get limit(): number {
    return limitOf(this.rules);
  }

  /** What does wait at most. */
  get mostWaitingBytes(): number {
    return this.limitBytes;
  }

  /** What counts from here on; frames are counted anew. Those that are under way arrive as they would have; without any impairment, at once. */
  configure(given: WayImpairment | undefined): void {
    this.given = given;
    const rules = given ?? TRANSPARENT;
    this.rules = rules;
    this.bytesPerMs = rules.bitsPerSecond / 8000;
    this.limitBytes = Math.max(limitOf(rules), this.ownBytes);
    this.random = rules.seed === undefined ? Math.random : createRandom(rules.seed);
    this.sentMs = 0;
    for (const name of Object.keys(this.counters) as (keyof WayCounters)[]) this.counters[name] = 0;
    if (given !== undefined) return;
    this.ordered.hurry();
    this.ahead.hurry();
  }

  /** Bytes that wait for the rate. */
  waitingBytes(nowMs: number): number {
    return this.sentMs > nowMs ? (this.sentMs - nowMs) * this.bytesPerMs : 0;
  }

  /** When no more than so many bytes wait for the rate. */
  timeOfWaiting(bytes: number): number {
    return this.bytesPerMs === 0 ? 0 : this.sentMs - bytes / this.bytesPerMs;
  }

  /**
   * Takes a frame.
   * @param offset - of what belongs in front of the frame, to be kept with it
   * @param leadBytes - length of that
   * @param lengthBytes - length of the frame itself
   */
  admit(source: Buffer, offset: number, leadBytes: number, lengthBytes: number, nowMs: number): void {
    const { rules, counters } = this;
    if (rules.loss !== 0 && this.random() < rules.loss) {
      counters.lost++;
      return;
    }
    if (!this.enqueue(source, offset, leadBytes, lengthBytes, nowMs)) {
      counters.dropped++;
      return;
    }
    counters.passed++;
    if (rules.duplicate === 0 || this.random() >= rules.duplicate) return;
    if (this.enqueue(source, offset, leadBytes, lengthBytes, nowMs)) counters.duplicated++;
  }

  /** Copies the next frame, with what belongs in front of it, and forgets it. */
  take(target: Buffer, offset: number): void {
    this.first().take(target, offset);
  }

  /** Forgets what is under way. */
  clear(): void {
    this.ordered.clear();
    this.ahead.clear();
    this.sentMs = 0;
  }

  private first(): FrameQueue {
    return this.ahead.nextDueMs < this.ordered.nextDueMs ? this.ahead : this.ordered;
  }

  private enqueue(source: Buffer, offset: number, leadBytes: number, lengthBytes: number, nowMs: number): boolean {
    const { rules, bytesPerMs } = this;
    let sentMs = nowMs;
    if (bytesPerMs !== 0) {
      const waiting = this.waitingBytes(nowMs);
      // A frame that is longer than the limit would never get through.
      if (waiting > 0 && waiting + lengthBytes > this.limitBytes) return false;
      sentMs = Math.max(this.sentMs, nowMs) + lengthBytes / bytesPerMs;
    }
    const total = leadBytes + lengthBytes;
    if (rules.reorder !== 0 && this.random() < rules.reorder) {
      if (!this.ahead.push(source, offset, total, sentMs)) return false;
      this.counters.reordered++;
    } else {
      const jitterMs = rules.jitterMs === 0 ? 0 : rules.jitterMs * (2 * this.random() - 1);
      // However the delay varies, a later frame does not overtake an earlier one: it is behind it.
      if (!this.ordered.push(source, offset, total, sentMs + rules.delayMs + jitterMs)) return false;
    }
    this.sentMs = sentMs;
    return true;
  }
}
