/**
 * Timed scripts for TCP: the test plays the guest with hand-made segments and the remote with fake sockets, on a fake clock. Every
 * frame towards the guest is parsed by code of its own, checksums included.
 */

import { createArena } from '../../../../src/base/arena.ts';
import { silentLogger } from '../../../../src/base/logger.ts';
import type { StackContext } from '../../../../src/stack/context.ts';
import { Counters } from '../../../../src/stack/counters.ts';
import { FlowTable } from '../../../../src/stack/flow/table.ts';
import { TimerWheel } from '../../../../src/stack/flow/timer-wheel.ts';
import { GuestState } from '../../../../src/stack/guest.ts';
import { createPacketMeta } from '../../../../src/stack/packet-meta.ts';
import {
  type AddressMap,
  ENDPOINT_BYTES,
  type ForwardLookup,
  KIND_TCP,
  KIND_TCP_LISTENER,
  MAP_AS_IS,
} from '../../../../src/stack/ports.ts';
import { RoomQueue } from '../../../../src/stack/room-queue.ts';
import { TcpModule } from '../../../../src/stack/tcp/module.ts';
import { FakeLink } from '../../../support/fake-link.ts';
import { endpointRecord, type FakeSocket } from '../../../support/fake-socket.ts';
import { FakeSockets } from '../../../support/fake-sockets.ts';
import { cutFrame } from '../../../support/segmenter.ts';
import { makeStackConfig } from '../../../support/stack-config.ts';

export const GUEST4 = new Uint32Array([0, 0, 0xffff, 0xc0000202]);
export const REMOTE4 = new Uint32Array([0, 0, 0xffff, 0xc6336401]);
export const GUEST6 = new Uint32Array([0x20010db8, 0, 0, 2]);
export const REMOTE6 = new Uint32Array([0x20010db8, 1, 0, 1]);
export const GUEST_PORT = 40000;
export const REMOTE_PORT = 80;
/** The guest's initial sequence number in `openOut` and `openIn`. */
export const GUEST_ISS = 0xffff_f000;

/** A segment as tests write and read it. */
export interface Segment {
  /** Letters of S A F R P. */
  flags: string;
  seq: number;
  ack: number;
  /** Not scaled. */
  window: number;
  data: Uint8Array;
  mss?: number | undefined;
  scale?: number | undefined;
  sackOk?: boolean | undefined;
  sack?: number[] | undefined;
  srcPort: number;
  dstPort: number;
  family: number;
}

const FLAG_LETTERS: readonly [string, number][] = [
  ['F', 1],
  ['S', 2],
  ['R', 4],
  ['P', 8],
  ['A', 16],
];

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Bytes that tell by their value where in a stream they belong. */
export function pattern(length: number, from = 0): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = ((from + i) * 7 + ((from + i) >> 8)) & 0xff;
  return bytes;
}

function onesSum(bytes: Uint8Array, from: number, to: number, initial: number): number {
  let sum = initial;
  for (let i = from; i < to; i++) sum += ((i - from) & 1) === 0 ? bytes[i]! << 8 : bytes[i]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65536);
  return sum;
}

export interface HarnessOptions {
  readonly mtu?: number;
  readonly roomBytes?: number;
  readonly capacity?: number;
  readonly outboundAddress?: number;
  readonly outboundInterface?: string;
  readonly map?: Partial<AddressMap>;
  /** OFFLOAD_* of the link. */
  readonly offloads?: number;
}

let defaultOffloads = 0;

/** The link of every later {@link Harness} that does not say otherwise has these OFFLOAD_*. */
export function setDefaultOffloads(offloads: number): void {
  defaultOffloads = offloads;
}

export class Harness {
  readonly arena = createArena(16 << 20);
  readonly link: FakeLink;
  readonly sockets: FakeSockets;
  readonly ctx: StackContext;
  readonly tcp: TcpModule;
  nowMs = 10_000;
  /** What forwards look like: listener index → guest port. */
  readonly listeners = new Map<number, { socket: FakeSocket; guestPort: number; guestAddress?: Uint32Array }>();
  private readonly meta = createPacketMeta();
  private readonly frames = new Int32Array(8192);

  constructor(options: HarnessOptions = {}) {
    const mtu = options.mtu ?? 1500;
    this.link = new FakeLink(this.arena, options.roomBytes ?? 4 << 20, 4 << 20, options.offloads ?? defaultOffloads);
    this.sockets = new FakeSockets(this.arena);
    const config = makeStackConfig(
      {
        ipv4: {
          guestAddress: GUEST4[3]!,
          prefixLength: 24,
          gateway: 0xc0000201,
          resolvers: [],
          outboundAddress: options.outboundAddress ?? 0,
          outboundInterface: options.outboundInterface ?? '',
        },
        ipv6: {
          guestAddress: GUEST6,
          prefixLength: 64,
          gateway: new Uint32Array([0xfe800000, 0, 0, 1]),
          ourLinkLocal: new Uint32Array([0xfe800000, 0, 0, 1]),
          resolvers: [],
          outboundAddress: undefined,
          outboundInterface: '',
        },
      },
      { guestMacHi: 0x5254, guestMacLo: 0x00010203, mtu },
    );
    const capacity = options.capacity ?? 64;
    const flows = new FlowTable(capacity, [1, 2]);
    const map: AddressMap = {
      toHost: () => MAP_AS_IS,
      toGuest: () => MAP_AS_IS,
      linkLocalScopeId: 7,
      ...options.map,
    };
    const forwards: ForwardLookup = {
      targetOf: (index) => {
        const listener = this.listeners.get(index);
        if (listener === undefined) return undefined;
        const { guestPort, guestAddress } = listener;
        return guestAddress === undefined ? { guestPort } : { guestPort, guestAddress };
      },
      fdOf: (index) => this.listeners.get(index)?.socket.fd ?? -1,
    };
    this.ctx = {
      arena: this.arena,
      view: this.arena.view,
      config,
      link: this.link,
      sockets: this.sockets,
      map,
      forwards,
      bypass: undefined,
      flows,
      timers: new TimerWheel(capacity, this.nowMs),
      roomQueue: new RoomQueue(flows),
      guest: new GuestState(config),
      counters: new Counters(),
      log: silentLogger,
      nowMs: this.nowMs,
      endpoint: this.arena.allocate(ENDPOINT_BYTES),
      secret: new Uint32Array([11, 22, 33, 44]),
    };
    this.tcp = new TcpModule(this.ctx);
  }

  /** Flows that were not ended. */
  get liveFlows(): number {
    return this.ctx.flows.count;
  }

  /** One turn of the stack: what the guest and the remotes have done is handled, what is due is sent. */
  turn(): void {
    const { ctx, tcp, link } = this;
    ctx.nowMs = this.nowMs;
    for (let count = link.receive(this.frames); count > 0; count = link.receive(this.frames)) {
      for (let i = 0; i < count; i++) this.input(this.frames[2 * i]!, this.frames[2 * i + 1]!);
      tcp.endInput();
    }
    this.sockets.deliverEvents((kind, index, events) => {
      if (kind === KIND_TCP_LISTENER) tcp.onAcceptable(index);
      else if (kind === KIND_TCP && ctx.flows.isLive(index)) tcp.onHostEvent(index, events);
    });
    if (this.nowMs >= ctx.timers.nextDueMs()) {
      ctx.timers.advance(this.nowMs, (index) => {
        if (ctx.flows.isLive(index)) tcp.onTimer(index);
      });
    }
    tcp.endTurn();
    link.flush();
    for (let left = ctx.flows.count; left > 0 && link.roomBytes() > 2048; left--) {
      const index = ctx.roomQueue.take();
      if (index < 0) break;
      if (ctx.flows.isLive(index)) tcp.onRoom(index);
    }
    tcp.endTurn();
    link.flush();
    ctx.flows.sweep((index) => {
      tcp.onRelease(index);
      ctx.timers.cancel(index);
      const fd = ctx.flows.fd[index]!;
      if (fd >= 0) this.sockets.close(fd);
    });
  }

  /** Turns until nothing changes any more. */
  settle(): void {
    for (let i = 0; i < 50; i++) {
      const before = this.link.framesSent;
      this.turn();
      if (this.link.framesSent === before && this.ctx.roomQueue.isEmpty) return;
    }
  }

  /** Lets time pass, running every timer at its moment. */
  advance(ms: number): void {
    const end = this.nowMs + ms;
    for (;;) {
      const due = this.ctx.timers.nextDueMs();
      if (due > end) break;
      this.nowMs = Math.max(this.nowMs, due);
      this.turn();
    }
    this.nowMs = end;
    this.turn();
  }

  /** Hands in the frame at `offset`, without a link. */
  input(offset: number, length: number): void {
    const { meta, arena } = this;
    const { view } = arena;
    meta.frameOffset = offset;
    meta.frameEnd = offset + length;
    const l3 = offset + 14;
    meta.l3Offset = l3;
    meta.etherType = view.getUint16(offset + 12);
    if (meta.etherType === 0x0800) {
      meta.family = 4;
      meta.l4Offset = l3 + 20;
      meta.l4Length = view.getUint16(l3 + 2) - 20;
      setMapped(meta.source, view.getUint32(l3 + 12));
      setMapped(meta.destination, view.getUint32(l3 + 16));
    } else {
      meta.family = 6;
      meta.l4Offset = l3 + 40;
      meta.l4Length = view.getUint16(l3 + 4);
      for (let i = 0; i < 4; i++) {
        meta.source[i] = view.getUint32(l3 + 8 + 4 * i);
        meta.destination[i] = view.getUint32(l3 + 24 + 4 * i);
      }
    }
    meta.protocol = 6;
    this.tcp.input(meta);
  }

  /** Puts a segment of the guest on the link; it is handled in the next turn. */
  queue(segment: Partial<Segment>): void {
    this.link.pushFromGuest(buildFrame(segment));
  }

  /** Sends a segment of the guest and runs a turn. */
  send(segment: Partial<Segment>): void {
    this.queue(segment);
    this.turn();
  }

  /** Takes the segments sent to the guest since the last time. */
  take(): Segment[] {
    const { sent, sentHeaders, hasVnetHeader } = this.link;
    const frames = sent.splice(0);
    if (!hasVnetHeader) return frames.map(parseFrame);
    const headers = sentHeaders.splice(0);
    return frames.flatMap((frame, i) => cutFrame(headers[i]!, frame)).map(parseFrame);
  }

  /** As `take`, for when exactly one is expected. */
  takeOne(): Segment {
    const all = this.take();
    if (all.length !== 1) throw new Error(`expected one segment, got: ${all.map(describe).join('; ') || 'none'}`);
    return all[0]!;
  }

  /** Opens a connection from the guest. @param window field of the guest's first acknowledgement */
  openOut(syn: Partial<Segment> = {}, window = 500): Connection {
    const family = syn.family ?? 4;
    const options = { mss: 1460, scale: 7, sackOk: true, window: 64240, ...syn };
    this.send({ flags: 'S', seq: GUEST_ISS, ...options, family });
    const socket = this.sockets.last;
    socket.completeConnect();
    this.turn();
    const synAck = this.takeOne();
    const conn = new Connection(this, socket, synAck.seq, options.scale === undefined ? 0 : options.scale);
    conn.family = family;
    conn.synAck = synAck;
    if (syn.srcPort !== undefined) conn.guestPort = syn.srcPort;
    conn.window = window;
    conn.ack();
    this.take();
    return conn;
  }

  /** Makes a forwarded port. */
  addListener(index: number, guestPort: number): FakeSocket {
    const socket = this.sockets.makeListener(KIND_TCP_LISTENER, index);
    this.listeners.set(index, { socket, guestPort });
    return socket;
  }

  /** Opens a connection from the remote to the guest's port 22. */
  openIn(answer: Partial<Segment> = {}): Connection {
    const listener = this.listeners.get(1)?.socket ?? this.addListener(1, 22);
    const socket = this.sockets.connectTo(listener, endpointRecord(REMOTE4, 5555));
    this.turn();
    const syn = this.takeOne();
    const conn = new Connection(this, socket, syn.seq, 7);
    conn.guestPort = 22;
    conn.remotePort = 5555;
    conn.send('SA', { mss: 1460, scale: 7, sackOk: true, seq: GUEST_ISS, window: 64240, ...answer });
    this.take();
    return conn;
  }
}

/** An established connection with the guest's numbers. */
export class Connection {
  /** Next number that the guest sends. */
  guestNext = (GUEST_ISS + 1) >>> 0;
  /** Next number that the guest expects. */
  ourNext: number;
  /** The guest's window field. */
  window = 500;
  guestPort = GUEST_PORT;
  remotePort = REMOTE_PORT;
  family = 4;
  synAck: Segment | undefined;
  readonly harness: Harness;
  readonly socket: FakeSocket;
  readonly ourFirst: number;
  readonly scale: number;

  constructor(harness: Harness, socket: FakeSocket, ourIss: number, scale: number) {
    this.harness = harness;
    this.socket = socket;
    this.ourFirst = (ourIss + 1) >>> 0;
    this.ourNext = this.ourFirst;
    this.scale = scale;
  }

  /** Segment of the guest with current numbers, `over` on top. Not sent, numbers not moved. */
  make(flags: string, over: Partial<Segment> = {}): Partial<Segment> {
    return {
      flags,
      seq: this.guestNext,
      ack: this.ourNext,
      window: this.window,
      srcPort: this.guestPort,
      dstPort: this.remotePort,
      family: this.family,
      ...over,
    };
  }

  /** Sends it and runs a turn, numbers not moved. */
  send(flags: string, over: Partial<Segment> = {}): void {
    this.harness.send(this.make(flags, over));
  }

  /** The guest sends data in order. */
  sendData(data: Uint8Array | string, flags = 'PA'): void {
    const bytes = typeof data === 'string' ? bytesOf(data) : data;
    this.send(flags, { data: bytes });
    this.guestNext = (this.guestNext + bytes.length + (flags.includes('F') ? 1 : 0)) >>> 0;
  }

  /** The guest acknowledges everything up to `ourNext`. */
  ack(): void {
    this.send('A');
  }

  /** Takes in-order data segments off the link into `ourNext`. @returns the bytes */
  receiveData(): Uint8Array {
    const parts: number[] = [];
    for (const segment of this.harness.take()) {
      if (segment.seq !== this.ourNext) {
        // Sent again though it had arrived.
        const end = (segment.seq + segment.data.length - this.ourNext) | 0;
        if (segment.data.length === 0 || end <= 0) continue;
        throw new Error(`expected number ${this.relative(this.ourNext)}, got ${this.relative(segment.seq)}`);
      }
      parts.push(...segment.data);
      this.ourNext = (this.ourNext + segment.data.length + (segment.flags.includes('F') ? 1 : 0)) >>> 0;
    }
    return Uint8Array.from(parts);
  }

  /** A number of ours, counted from the first data byte. */
  relative(seq: number): number {
    return (seq - this.ourFirst) | 0;
  }

  get sentToHost(): string {
    return new TextDecoder().decode(this.socket.sent);
  }
}

/** A connection of the guest's with ten full segments under way to it. */
export function openWithTenSent(): { h: Harness; conn: Connection; sent: Segment[] } {
  const h = new Harness();
  const conn = h.openOut();
  conn.window = 1000;
  conn.ack();
  conn.socket.deliver(pattern(14_600));
  h.turn();
  return { h, conn, sent: h.take() };
}

export function describe(segment: Segment): string {
  return `${segment.flags} seq ${segment.seq} ack ${segment.ack} win ${segment.window} len ${segment.data.length}`;
}

function optionBytes(segment: Partial<Segment>): number[] {
  const options: number[] = [];
  if (segment.mss !== undefined) options.push(2, 4, segment.mss >> 8, segment.mss & 255);
  if (segment.scale !== undefined) options.push(1, 3, 3, segment.scale);
  if (segment.sackOk === true) options.push(1, 1, 4, 2);
  if (segment.sack !== undefined && segment.sack.length > 0) {
    options.push(1, 1, 5, 2 + 4 * segment.sack.length);
    for (const edge of segment.sack) options.push(edge >>> 24, (edge >> 16) & 255, (edge >> 8) & 255, edge & 255);
  }
  return options;
}

/** A whole Ethernet frame of the guest. */
export function buildFrame(segment: Partial<Segment>): Uint8Array {
  const family = segment.family ?? 4;
  const data = segment.data ?? new Uint8Array(0);
  const options = optionBytes(segment);
  const ipBytes = family === 4 ? 20 : 40;
  const tcpBytes = 20 + options.length + data.length;
  const frame = new Uint8Array(14 + ipBytes + tcpBytes);
  const view = new DataView(frame.buffer);
  frame.set([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55, 0x52, 0x54, 0, 1, 2, 3], 0);
  view.setUint16(12, family === 4 ? 0x0800 : 0x86dd);
  let pseudo = 6 + tcpBytes;
  if (family === 4) {
    view.setUint16(14, 0x4500);
    view.setUint16(16, 20 + tcpBytes);
    view.setUint16(22, (64 << 8) | 6);
    view.setUint32(26, GUEST4[3]!);
    view.setUint32(30, REMOTE4[3]!);
    view.setUint16(24, ~onesSum(frame, 14, 34, 0) & 0xffff);
    pseudo += onesSum(frame, 26, 34, 0);
  } else {
    view.setUint32(14, 0x60000000);
    view.setUint16(18, tcpBytes);
    view.setUint16(20, (6 << 8) | 64);
    for (let i = 0; i < 4; i++) {
      view.setUint32(22 + 4 * i, GUEST6[i]!);
      view.setUint32(38 + 4 * i, REMOTE6[i]!);
    }
    pseudo += onesSum(frame, 22, 54, 0);
  }
  const tcp = 14 + ipBytes;
  view.setUint16(tcp, segment.srcPort ?? GUEST_PORT);
  view.setUint16(tcp + 2, segment.dstPort ?? REMOTE_PORT);
  view.setUint32(tcp + 4, segment.seq ?? 0);
  view.setUint32(tcp + 8, segment.ack ?? 0);
  let bits = 0;
  for (const [letter, bit] of FLAG_LETTERS) if ((segment.flags ?? '').includes(letter)) bits |= bit;
  view.setUint16(tcp + 12, ((20 + options.length) << 10) | bits);
  view.setUint16(tcp + 14, segment.window ?? 64240);
  frame.set(options, tcp + 20);
  frame.set(data, tcp + 20 + options.length);
  view.setUint16(tcp + 16, ~onesSum(frame, tcp, frame.length, pseudo) & 0xffff);
  return frame;
}

/** Takes a frame to the guest apart. @throws when anything in it is wrong */
export function parseFrame(frame: Uint8Array): Segment {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame.length < 60) throw new Error(`frame of ${frame.length} bytes`);
  if (view.getUint32(0) !== 0x52540001 || view.getUint32(8) !== 0x9a559a55) throw new Error('wrong MAC addresses');
  const type = view.getUint16(12);
  let tcp: number;
  let end: number;
  let pseudo: number;
  let family: number;
  if (type === 0x0800) {
    family = 4;
    if (view.getUint8(14) !== 0x45) throw new Error('not an IPv4 header of 20 bytes');
    if (onesSum(frame, 14, 34, 0) !== 0xffff) throw new Error('wrong IPv4 checksum');
    tcp = 34;
    end = 14 + view.getUint16(16);
    pseudo = onesSum(frame, 26, 34, 0);
  } else if (type === 0x86dd) {
    family = 6;
    if (view.getUint8(14) >> 4 !== 6 || view.getUint8(20) !== 6) throw new Error('not an IPv6 header');
    tcp = 54;
    end = 54 + view.getUint16(18);
    pseudo = onesSum(frame, 22, 54, 0);
  } else {
    throw new Error(`EtherType ${type}`);
  }
  if (end > frame.length || (end < frame.length && frame.length !== 60))
    throw new Error('frame and packet length differ');
  if (onesSum(frame, tcp, end, pseudo + 6 + (end - tcp)) !== 0xffff) throw new Error('wrong TCP checksum');
  const headerBytes = (view.getUint8(tcp + 12) >> 4) * 4;
  const bits = view.getUint8(tcp + 13);
  const segment: Segment = {
    flags: FLAG_LETTERS.filter(([, bit]) => (bits & bit) !== 0)
      .map(([letter]) => letter)
      .join(''),
    seq: view.getUint32(tcp + 4),
    ack: view.getUint32(tcp + 8),
    window: view.getUint16(tcp + 14),
    data: frame.slice(tcp + headerBytes, end),
    srcPort: view.getUint16(tcp),
    dstPort: view.getUint16(tcp + 2),
    family,
  };
  for (let at = tcp + 20; at < tcp + headerBytes; ) {
    const kind = frame[at]!;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = frame[at + 1]!;
    if (kind === 2) segment.mss = view.getUint16(at + 2);
    if (kind === 3) segment.scale = frame[at + 2]!;
    if (kind === 4) segment.sackOk = true;
    if (kind === 5) {
      segment.sack = [];
      for (let i = 2; i < length; i += 4) segment.sack.push(view.getUint32(at + i));
    }
    at += length;
  }
  return segment;
}

function setMapped(words: Uint32Array, address: number): void {
  words[0] = 0;
  words[1] = 0;
  words[2] = 0xffff;
  words[3] = address;
}
