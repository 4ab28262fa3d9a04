/**
 * TCP for the demo's guest: in order, without retransmission, since the link is a stream socket that loses nothing. Window
 * scaling and segments as large as the other side allows, so that transfers show what the stack can do.
 */

import { IP_PROTOCOL_TCP } from '../../../wire/ip-protocol.ts';
import {
  checkTcp,
  createTcpOptions,
  getTcpAck,
  getTcpDstPort,
  getTcpFlags,
  getTcpSeq,
  getTcpSrcPort,
  getTcpWindow,
  parseTcpOptions,
  TCP_ACK,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  writeTcpHeader,
  writeTcpSynOptions,
} from '../../../wire/tcp.ts';
import type { FrameHost } from './frame-host.ts';

/** Offered window: 65535 << 7, some 8 MiB. */
const OUR_SCALE = 7;
/** Our MTU is what the stack tells by default: 65520. */
const OUR_MSS = 65520 - 60;
const SYN_OPTIONS_BYTES = 8;
const FIRST_PORT = 49152;

/** What happens to a connection; all optional. */
export interface ConnectionEvents {
  onData?: (view: DataView, offset: number, lengthBytes: number) => void;
  /** The other side has sent everything. */
  onEnd?: () => void;
}

export class FrameConnection {
  readonly events: ConnectionEvents;
  readonly localPort: number;
  readonly remotePort: number;
  readonly remote: Uint32Array;
  /** Fulfilled when established, rejected when refused or reset. */
  readonly opened: Promise<void>;
  /** Fulfilled when all that was written is acknowledged, FIN included. */
  readonly flushed: Promise<void>;
  #resolveOpened!: () => void;
  #rejectOpened!: (error: Error) => void;
  #resolveFlushed!: () => void;
  #rejectFlushed!: (error: Error) => void;
  readonly #host: FrameHost;
  /** Sequence numbers, uint32. */
  #next = 0x1000;
  #acked = 0x1000;
  #received = 0;
  #peerWindow = 0;
  #peerScale = 0;
  #peerMss = 536;
  #established = false;
  #ending = false;
  #finSent = false;
  /** Chunks not yet sent, and how much of the first one is. */
  readonly #queue: Uint8Array[] = [];
  #firstSent = 0;
  ackDue = false;

  constructor(host: FrameHost, localPort: number, remote: Uint32Array, remotePort: number, events: ConnectionEvents) {
    this.#host = host;
    this.localPort = localPort;
    this.remote = remote;
    this.remotePort = remotePort;
    this.events = events;
    this.opened = new Promise((resolve, reject) => {
      this.#resolveOpened = resolve;
      this.#rejectOpened = reject;
    });
    this.flushed = new Promise((resolve, reject) => {
      this.#resolveFlushed = resolve;
      this.#rejectFlushed = reject;
    });
    // Whoever waits sees it; nobody has to.
    this.opened.catch(() => {});
    this.flushed.catch(() => {});
  }

  /** Sends SYN, or SYN and ACK if the other side began. */
  open(): void {
    this.#sendSegment(this.#received === 0 ? TCP_SYN : TCP_SYN | TCP_ACK, undefined, 0, 0);
    this.#next = (this.#next + 1) >>> 0;
  }

  /** Queues bytes, which must not change until sent. */
  write(bytes: Uint8Array): void {
    this.#queue.push(bytes);
    if (this.#established) this.#sendQueued();
  }

  /** Ends our direction after what is queued. */
  end(): void {
    this.#ending = true;
    if (this.#established) this.#sendQueued();
  }

  sendAck(): void {
    this.ackDue = false;
    this.#sendSegment(TCP_ACK, undefined, 0, 0);
  }

  onSegment(view: DataView, at: number, end: number, headerBytes: number): void {
    const flags = getTcpFlags(view, at);
    if (flags & TCP_RST) {
      this.#fail('connection refused or reset');
      return;
    }
    if (flags & TCP_SYN) {
      const options = createTcpOptions();
      parseTcpOptions(view, at, headerBytes, options);
      if (options.mss > 0) this.#peerMss = Math.min(options.mss, OUR_MSS);
      this.#peerScale = Math.max(0, options.windowScale);
      this.#received = (getTcpSeq(view, at) + 1) >>> 0;
      if (!(flags & TCP_ACK)) {
        this.open();
        return;
      }
      this.ackDue = true;
    }
    if (flags & TCP_ACK) this.#onAck(getTcpAck(view, at), getTcpWindow(view, at), (flags & TCP_SYN) !== 0);
    const lengthBytes = end - at - headerBytes;
    // Behind or beyond what is due: a duplicate, or a gap that cannot happen here. Either way the answer is where we stand.
    if (lengthBytes > 0 || flags & TCP_FIN) this.ackDue = true;
    if (getTcpSeq(view, at) !== this.#received || flags & TCP_SYN) return;
    if (lengthBytes > 0) {
      this.#received = (this.#received + lengthBytes) >>> 0;
      this.events.onData?.(view, at + headerBytes, lengthBytes);
    }
    if (flags & TCP_FIN) {
      this.#received = (this.#received + 1) >>> 0;
      this.events.onEnd?.();
    }
  }

  #onAck(ack: number, window: number, isSyn: boolean): void {
    this.#acked = ack;
    // The window of a SYN is never scaled (RFC 7323, 2.2).
    this.#peerWindow = isSyn ? window : window * 2 ** this.#peerScale;
    if (!this.#established) {
      this.#established = true;
      this.#resolveOpened();
    }
    this.#sendQueued();
    if (this.#finSent && this.#acked === this.#next) this.#resolveFlushed();
  }

  #fail(reason: string): void {
    this.#rejectOpened(new Error(reason));
    this.#rejectFlushed(new Error(reason));
    this.events.onEnd?.();
  }

  #sendQueued(): void {
    for (;;) {
      const first = this.#queue[0];
      if (first === undefined) break;
      const inFlight = (this.#next - this.#acked) >>> 0;
      const room = Math.min(this.#peerMss, this.#peerWindow - inFlight);
      if (room <= 0) return;
      const lengthBytes = Math.min(room, first.length - this.#firstSent);
      this.#sendSegment(TCP_ACK | TCP_PSH, first, this.#firstSent, lengthBytes);
      this.#next = (this.#next + lengthBytes) >>> 0;
      this.#firstSent += lengthBytes;
      if (this.#firstSent === first.length) {
        this.#queue.shift();
        this.#firstSent = 0;
      }
    }
    if (this.#ending && !this.#finSent) {
      this.#finSent = true;
      this.#sendSegment(TCP_ACK | TCP_FIN, undefined, 0, 0);
      this.#next = (this.#next + 1) >>> 0;
    }
  }

  #sendSegment(flags: number, source: Uint8Array | undefined, offset: number, lengthBytes: number): void {
    const host = this.#host;
    const headerBytes = TCP_HEADER_BYTES + (flags & TCP_SYN ? SYN_OPTIONS_BYTES : 0);
    let sum = host.beginPacket(this.remote, IP_PROTOCOL_TCP, headerBytes + lengthBytes);
    const at = host.payloadAt;
    if (flags & TCP_SYN) writeTcpSynOptions(host.view, at + TCP_HEADER_BYTES, OUR_MSS, OUR_SCALE, false, false, 0, 0);
    if (source !== undefined) sum += host.putPayload(at + headerBytes, source.subarray(offset, offset + lengthBytes));
    const ack = flags & TCP_ACK ? this.#received : 0;
    writeTcpHeader(host.view, at, this.localPort, this.remotePort, this.#next, ack, headerBytes, flags, 65535, sum);
    host.sendPacket();
  }
}

/** All connections of a host. */
export class FrameTcp {
  readonly #host: FrameHost;
  readonly #connections = new Map<string, FrameConnection>();
  readonly #listeners = new Map<number, (connection: FrameConnection) => ConnectionEvents>();
  readonly #ackDue = new Set<FrameConnection>();
  #nextPort = FIRST_PORT;

  constructor(host: FrameHost) {
    this.#host = host;
    host.onTcp = (source, view, at, end) => this.#receive(source, view, at, end);
  }

  connect(remote: Uint32Array, remotePort: number, events: ConnectionEvents): FrameConnection {
    const connection = this.#add(this.#nextPort++, remote, remotePort, events);
    connection.open();
    return connection;
  }

  /** `accept` is called for each connection to `port`. */
  listen(port: number, accept: (connection: FrameConnection) => ConnectionEvents): void {
    this.#listeners.set(port, accept);
  }

  /** Acknowledges what came in one batch of frames with one segment a connection. */
  sendDueAcks(): void {
    for (const connection of this.#ackDue) if (connection.ackDue) connection.sendAck();
    this.#ackDue.clear();
  }

  #add(localPort: number, remote: Uint32Array, remotePort: number, events: ConnectionEvents): FrameConnection {
    const connection = new FrameConnection(this.#host, localPort, remote, remotePort, events);
    this.#connections.set(`${localPort} ${remotePort}`, connection);
    return connection;
  }

  #receive(source: Uint32Array, view: DataView, at: number, end: number): void {
    const headerBytes = checkTcp(view, at, end);
    if (headerBytes < 0) return;
    const localPort = getTcpDstPort(view, at);
    const remotePort = getTcpSrcPort(view, at);
    let connection = this.#connections.get(`${localPort} ${remotePort}`);
    const accept = this.#listeners.get(localPort);
    if (connection === undefined && accept !== undefined && getTcpFlags(view, at) & TCP_SYN) {
      const events: ConnectionEvents = {};
      connection = this.#add(localPort, source, remotePort, events);
      Object.assign(events, accept(connection));
    }
    if (connection === undefined) return;
    connection.onSegment(view, at, end, headerBytes);
    if (connection.ackDue) this.#ackDue.add(connection);
  }
}
