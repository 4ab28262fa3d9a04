/**
 * A guest's TCP, as simple as one can be and still be right: sends its stream with a window and goes back to the oldest
 * unacknowledged byte on a timer, takes our stream in order, keeps what comes early and reports it by SACK. It exists to be compared
 * with, so it shares no code with the stack.
 */
import type { Harness, Segment } from './harness.ts';

const MSS = 1460;
const TIMEOUT_MS = 300;

export interface ModelOptions {
  readonly stream: Uint8Array;
  readonly port: number;
  readonly iss: number;
  /** Largest window it offers, bytes. */
  readonly windowBytes: number;
  readonly sack: boolean;
  readonly random: () => number;
}

export class ModelGuest {
  state: 'syn-sent' | 'open' | 'reset' = 'syn-sent';
  /** What has arrived in order. */
  received = new Uint8Array(0);
  finReceived = false;
  private isClosed = false;
  private readonly options: ModelOptions;
  private readonly outbox: Partial<Segment>[] = [];
  private readonly early = new Map<number, Uint8Array>();
  private una = 0;
  private next = 0;
  private peerWindow = 0;
  private peerScale = 0;
  private irs = 0;
  private timerMs = 0;

  constructor(options: ModelOptions, nowMs: number) {
    this.options = options;
    this.sendSyn(nowMs);
  }

  /** Everything of ours has arrived, everything of theirs too, both FINs included. */
  get isDone(): boolean {
    return this.isClosed || (this.finReceived && this.una > this.options.stream.length);
  }

  private seqOf(position: number): number {
    return (this.options.iss + 1 + position) >>> 0;
  }

  private sendSyn(nowMs: number): void {
    const { iss, sack } = this.options;
    this.push({ flags: 'S', seq: iss, mss: MSS, scale: 7, sackOk: sack, window: 64240 });
    this.timerMs = nowMs + 1000;
  }

  private push(segment: Partial<Segment>): void {
    this.outbox.push({ ...segment, srcPort: this.options.port });
  }

  private expected(): number {
    return (this.irs + 1 + this.received.length + (this.finReceived ? 1 : 0)) >>> 0;
  }

  private sendSegment(flags: string, position: number, data: Uint8Array): void {
    const sack: number[] = [];
    if (this.options.sack) {
      for (const [at, bytes] of this.early) {
        const left = (this.irs + 1 + at) >>> 0;
        if (sack.length < 6) sack.push(left, (left + bytes.length) >>> 0);
      }
    }
    this.push({
      flags,
      seq: this.seqOf(position),
      ack: this.expected(),
      data,
      window: this.window(),
      ...(sack.length > 0 ? { sack } : {}),
    });
  }

  private window(): number {
    const kept = [...this.early.values()].reduce((sum, bytes) => sum + bytes.length, 0);
    return Math.max(0, this.options.windowBytes - kept) >> 7;
  }

  /** Sends what is due; takes the segments out. */
  poll(nowMs: number): Partial<Segment>[] {
    if (nowMs >= this.timerMs && this.state !== 'reset' && !this.isDone) {
      if (this.state === 'syn-sent') this.sendSyn(nowMs);
      else if (this.next > this.una) {
        this.next = this.una;
        this.timerMs = nowMs + TIMEOUT_MS;
      } else {
        // Keeps a receiver-only connection going even when its acknowledgements were lost.
        this.sendSegment('A', this.next, new Uint8Array(0));
        this.timerMs = nowMs + TIMEOUT_MS;
      }
    }
    if (this.state === 'open') this.sendData(nowMs);
    return this.outbox.splice(0);
  }

  private sendData(nowMs: number): void {
    const { stream, random } = this.options;
    while (this.next < stream.length && this.next - this.una < this.peerWindow) {
      const most = Math.min(MSS, stream.length - this.next, this.peerWindow - (this.next - this.una));
      const length = random() < 0.8 ? most : 1 + Math.floor(random() * most);
      if (this.next === this.una) this.timerMs = nowMs + TIMEOUT_MS;
      this.sendSegment('A', this.next, stream.subarray(this.next, this.next + length));
      this.next += length;
    }
    if (this.next === stream.length) {
      this.sendSegment('FA', this.next, new Uint8Array(0));
      this.next++;
      this.timerMs = nowMs + TIMEOUT_MS;
    }
  }

  /** Takes a segment of the stack. */
  take(segment: Segment): void {
    if (this.state === 'reset') return;
    if (segment.flags.includes('R')) {
      // In LAST-ACK a reset says that the acknowledgement of our FIN was lost: the connection is over all the same.
      if (this.finReceived && this.una >= this.options.stream.length) this.isClosed = true;
      else this.state = 'reset';
      return;
    }
    if (segment.flags.includes('S')) {
      if (this.state === 'syn-sent') {
        this.irs = segment.seq;
        this.peerScale = segment.scale ?? 0;
        this.state = 'open';
      }
      this.sendSegment('A', this.next, new Uint8Array(0));
      this.peerWindow = segment.window;
      return;
    }
    if (this.state !== 'open') return;
    const acked = (segment.ack - this.seqOf(0)) | 0;
    if (acked > this.una) this.una = acked;
    if (this.next < this.una) this.next = this.una;
    this.peerWindow = segment.window << this.peerScale;
    this.takeData(segment);
  }

  private takeData(segment: Segment): void {
    const position = (segment.seq - this.irs - 1) | 0;
    const isFin = segment.flags.includes('F');
    if (segment.data.length === 0 && !isFin) {
      // An old number asks for an answer.
      if (position < this.received.length) this.sendSegment('A', this.next, new Uint8Array(0));
      return;
    }
    if (segment.data.length > 0 && position > this.received.length) this.early.set(position, segment.data);
    else this.append(position, segment.data);
    for (let again = true; again; ) {
      again = false;
      for (const [at, bytes] of this.early) {
        if (at > this.received.length) continue;
        this.early.delete(at);
        this.append(at, bytes);
        again = true;
      }
    }
    if (isFin && position + segment.data.length === this.received.length) this.finReceived = true;
    this.sendSegment('A', this.next, new Uint8Array(0));
  }

  private append(position: number, data: Uint8Array): void {
    const old = this.received.length - position;
    if (old < 0 || old >= data.length) return;
    const joined = new Uint8Array(position + data.length);
    joined.set(this.received);
    joined.set(data.subarray(old), this.received.length);
    this.received = joined;
  }

  /** Hands what `poll` gives to the harness, through `fate`. */
  exchange(h: Harness, fate: (deliver: () => void) => void): void {
    for (const segment of this.poll(h.nowMs)) fate(() => h.queue(segment));
  }
}
