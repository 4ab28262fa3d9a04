/** TCP by hand: a connection of a scripted guest whose every segment the test decides. IPv4 only. */
import {
  ETHERTYPE_IPV4,
  ethernet,
  ipv4,
  ipv4Bytes,
  PROTOCOL_TCP,
  TCP_ACK,
  TCP_FIN,
  TCP_SYN,
  type TcpFields,
  tcp,
} from './frames.ts';
import { GUEST, type ScriptedGuest } from './scripted-guest.ts';

const STACK_MAC = '9a:55:9a:55:9a:55';

/** A TCP segment that came from the stack. */
export interface Segment {
  sourcePort: number;
  destinationPort: number;
  seq: number;
  ack: number;
  flags: number;
  window: number;
  payload: Buffer;
}

/** Reads an IPv4 TCP segment out of a frame; undefined for any other frame. Padding behind the packet is left out. */
export function parseSegment(frame: Buffer): Segment | undefined {
  if (frame.length < 54 || frame.readUInt16BE(12) !== ETHERTYPE_IPV4 || frame[23] !== PROTOCOL_TCP) return undefined;
  const start = 14 + (frame.readUInt8(14) & 15) * 4;
  const end = 14 + frame.readUInt16BE(16);
  return {
    sourcePort: frame.readUInt16BE(start),
    destinationPort: frame.readUInt16BE(start + 2),
    seq: frame.readUInt32BE(start + 4),
    ack: frame.readUInt32BE(start + 8),
    flags: frame.readUInt8(start + 13),
    window: frame.readUInt16BE(start + 14),
    payload: frame.subarray(start + (frame.readUInt8(start + 12) >> 4) * 4, end),
  };
}

let nextPort = 42_000;

/** The guest's side of one connection. Sequence numbers in its methods are relative: the first byte of data is 1. */
export class ScriptedConnection {
  readonly localPort: number;
  /** The guest's initial sequence number: near the end, so that a few bytes later it wraps. */
  readonly iss = 0xffff_fff0;
  /** The stack's initial sequence number; valid after {@link open}. */
  irs = 0;
  /** What the guest acknowledges, relative; the test moves it. */
  ackNumber = 1;
  /** Window that the guest announces, unscaled. */
  window = 65_535;
  readonly #guest: ScriptedGuest;
  readonly #remote: string;
  readonly #remotePort: number;

  constructor(guest: ScriptedGuest, remote: string, remotePort: number, localPort = nextPort++) {
    this.#guest = guest;
    this.#remote = remote;
    this.#remotePort = remotePort;
    this.localPort = localPort;
  }

  /** The frame of a segment, with `seq` relative to the guest's first number. */
  frame(seq: number, fields: Partial<TcpFields> = {}): Buffer {
    const segment = tcp(GUEST.ipv4, this.#remote, {
      sourcePort: this.localPort,
      destinationPort: this.#remotePort,
      seq: (this.iss + seq) >>> 0,
      ack: (this.irs + this.ackNumber) >>> 0,
      flags: TCP_ACK,
      window: this.window,
      ...fields,
    });
    return ethernet(STACK_MAC, GUEST.mac, ETHERTYPE_IPV4, ipv4(GUEST.ipv4, this.#remote, PROTOCOL_TCP, segment));
  }

  send(seq: number, fields: Partial<TcpFields> = {}): Promise<void> {
    return this.#guest.sendFrame(this.frame(seq, fields));
  }

  sendData(seq: number, text: string): Promise<void> {
    return this.send(seq, { payload: Buffer.from(text) });
  }

  sendSyn(): Promise<void> {
    return this.send(0, { flags: TCP_SYN, ack: 0, options: Buffer.from([2, 4, 5, 0xb4]) });
  }

  /** The next segment of this connection that `accept` takes. */
  async next(what: string, accept: (segment: Segment) => boolean, timeoutMs = 3_000): Promise<Segment> {
    const frame = await this.#guest.nextFrame(what, (bytes) => this.#isOurs(bytes, accept), timeoutMs);
    return parseSegment(frame) as Segment;
  }

  /** Every segment of this connection received so far. */
  received(): Segment[] {
    return this.#guest.received.flatMap((bytes) =>
      this.#isOurs(bytes, () => true) ? [parseSegment(bytes) as Segment] : [],
    );
  }

  /** Three-way handshake. */
  async open(): Promise<void> {
    const answer = this.next('SYN-ACK', ({ flags }) => flags === (TCP_SYN | TCP_ACK));
    await Promise.all([this.sendSyn(), answer]);
    this.irs = (await answer).seq;
    await this.send(1);
  }

  /** The guest's relative number that a segment acknowledges. */
  acked(segment: Segment): number {
    return (segment.ack - this.iss) >>> 0;
  }

  /** The relative number of a segment's first byte. */
  position(segment: Segment): number {
    return (segment.seq - this.irs) >>> 0;
  }

  /** Waits until everything the guest sent up to the relative number `end` is acknowledged. */
  nextAck(end: number, timeoutMs?: number): Promise<Segment> {
    return this.next(`acknowledgement of ${end}`, (segment) => this.acked(segment) === end, timeoutMs);
  }

  /** The data received so far, put in order; holes are left out. */
  stream(): string {
    const bytes: number[] = [];
    for (const segment of this.received()) {
      if ((segment.flags & TCP_SYN) !== 0) continue;
      for (const [index, byte] of segment.payload.entries()) bytes[this.position(segment) - 1 + index] = byte;
    }
    return Buffer.from(bytes).toString('latin1');
  }

  /** Whether the stack has sent its FIN. */
  sawFin(): boolean {
    return this.received().some(({ flags }) => (flags & TCP_FIN) !== 0);
  }

  #isOurs(frame: Buffer, accept: (segment: Segment) => boolean): boolean {
    const segment = parseSegment(frame);
    return (
      segment !== undefined &&
      segment.destinationPort === this.localPort &&
      segment.sourcePort === this.#remotePort &&
      frame.subarray(26, 30).equals(ipv4Bytes(this.#remote)) &&
      accept(segment)
    );
  }
}
