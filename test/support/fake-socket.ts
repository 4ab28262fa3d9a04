/** One host socket in memory, and its remote side, which the test plays: see fake-sockets.ts for what it can do. */
import {
  ENDPOINT_BYTES,
  EVENT_ERR,
  EVENT_HUP,
  EVENT_IN,
  EVENT_OUT,
  EVENT_RDHUP,
  SOCKET_STREAM,
} from '../../src/stack/ports.ts';

export const EAGAIN = 11;
export const EMFILE = 24;
export const EPIPE = 32;
export const ENOPROTOOPT = 92;
export const ECONNRESET = 104;
export const ECONNREFUSED = 111;
export const EINPROGRESS = 115;
export const EBADF = 9;
export const ENOTCONN = 107;

export const SOL_SOCKET = 1;
export const SO_LINGER = 13;
export const SO_PEEK_OFF = 42;

/** An endpoint record (see ports.ts). @param words 4 words, IPv4 v4-mapped */
export function endpointRecord(words: Uint32Array, port: number, scope = 0): Uint8Array {
  const record = new Uint8Array(ENDPOINT_BYTES);
  const view = new DataView(record.buffer);
  view.setUint16(2, port);
  view.setUint32(4, scope, true);
  if (words[0] === 0 && words[1] === 0 && words[2] === 0xffff) {
    record[0] = 4;
    view.setUint32(8, words[3]!);
  } else {
    record[0] = 6;
    for (let i = 0; i < 4; i++) view.setUint32(8 + 4 * i, words[i]!);
  }
  return record;
}

/** `address:port` of an endpoint record, for comparisons in tests. */
export function endpointText(record: Uint8Array): string {
  const view = new DataView(record.buffer, record.byteOffset, ENDPOINT_BYTES);
  if (record[0] === 4) return `${record.slice(8, 12).join('.')}:${view.getUint16(2)}`;
  const words = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => view.getUint16(8 + 2 * i).toString(16));
  return `[${words.join(':')}]:${view.getUint16(2)}`;
}

export interface FakeDatagram {
  readonly source: Uint8Array;
  /** Local destination record; undefined: family 0. */
  readonly local?: Uint8Array;
  readonly data: Uint8Array;
  /** UDP_GRO segment size. */
  readonly segmentBytes?: number;
}

/** A datagram that the stack sent. */
export interface FakeSentDatagram {
  readonly data: Uint8Array;
  /** Endpoint record of an unconnected send; undefined: to the socket's peer. */
  readonly to: Uint8Array | undefined;
  /** Endpoint record of the local address that was asked for. */
  readonly from: Uint8Array | undefined;
}

export interface FakeSocketError {
  /** SOCKET_ERROR_BYTES record. */
  readonly record: Uint8Array;
  readonly data: Uint8Array;
}

/** One socket as the test sees it. */
export class FakeSocket {
  readonly fd: number;
  readonly family: number;
  readonly type: number;
  readonly protocol: number;
  readonly options = new Map<string, number | string>();
  state: 'new' | 'connecting' | 'connected' | 'listening' | 'closed' = 'new';
  local: Uint8Array = new Uint8Array(ENDPOINT_BYTES);
  peer: Uint8Array = new Uint8Array(ENDPOINT_BYTES);
  /** Stream data that waits in the receive queue. */
  queue: Uint8Array = new Uint8Array(0);
  peekOffset = -1;
  ended = false;
  pendingError = 0;
  /** Stream bytes the stack has sent; grows by doubling. */
  private sentBuffer = new Uint8Array(1024);
  sentLength = 0;
  /** Bytes that send takes before it says EAGAIN. */
  space = Number.POSITIVE_INFINITY;
  blocked = false;
  writeShut = false;
  /** Closed with SO_LINGER 0: the remote saw a reset. */
  wasReset = false;
  /** Closed while unread data was in the queue: the kernel would have sent a reset. */
  closedUnread = false;
  /** Connections that wait for accept. */
  readonly backlog: FakeSocket[] = [];
  readonly datagrams: FakeDatagram[] = [];
  readonly sentDatagrams: FakeSentDatagram[] = [];
  readonly errors: FakeSocketError[] = [];
  watched: { events: number; kind: number; index: number } | undefined;
  /** Something happened since events were delivered last. */
  edge = false;
  /** False: sent stream bytes are counted and dropped, for measurements. */
  keepSent = true;

  constructor(fd: number, family: number, type: number, protocol: number) {
    this.fd = fd;
    this.family = family;
    this.type = type;
    this.protocol = protocol;
  }

  /** What the stack has sent on this stream so far. */
  get sent(): Uint8Array {
    return this.sentBuffer.subarray(0, this.sentLength);
  }

  /** The remote sends stream data. */
  deliver(data: Uint8Array | string): void {
    const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
    const joined = new Uint8Array(this.queue.length + bytes.length);
    joined.set(this.queue);
    joined.set(bytes, this.queue.length);
    this.queue = joined;
    this.edge = true;
  }

  /** The remote sends a datagram. */
  deliverDatagram(datagram: FakeDatagram): void {
    this.datagrams.push(datagram);
    this.edge = true;
  }

  /** The remote half-closes (FIN). */
  end(): void {
    this.ended = true;
    this.edge = true;
  }

  /** The connection fails (reset, timeout …): SO_ERROR is set and both directions end. */
  fail(errno: number): void {
    this.pendingError = errno;
    this.ended = true;
    this.edge = true;
  }

  /** A pending connect succeeds, or fails with `errno`. */
  completeConnect(errno = 0): void {
    if (errno === 0) this.state = 'connected';
    else {
      this.state = 'new';
      this.pendingError = errno;
    }
    this.edge = true;
  }

  /** Sets how much send takes; a sender that was refused is told. */
  setSpace(bytes: number): void {
    this.space = bytes;
    if (bytes > 0 && this.blocked) {
      this.blocked = false;
      this.edge = true;
    }
  }

  /** What epoll would report now. */
  readiness(): number {
    let mask = 0;
    if (this.state === 'listening') return this.backlog.length > 0 ? EVENT_IN : 0;
    if (this.type !== SOCKET_STREAM) {
      if (this.datagrams.length > 0) mask |= EVENT_IN;
      if (this.errors.length > 0 || this.pendingError !== 0) mask |= EVENT_ERR;
      return mask | EVENT_OUT;
    }
    if (this.state === 'connecting') return 0;
    if (this.queue.length > 0) mask |= EVENT_IN;
    if (this.ended) mask |= EVENT_IN | EVENT_RDHUP;
    if (this.pendingError !== 0) mask |= EVENT_ERR | EVENT_HUP;
    if (this.ended && this.writeShut) mask |= EVENT_HUP;
    if (this.space > 0) mask |= EVENT_OUT;
    return mask;
  }

  take(bytes: Uint8Array): number {
    if (this.pendingError !== 0) return -this.takeError();
    if (this.writeShut) return -EPIPE;
    const count = Math.min(this.space, bytes.length);
    if (count < bytes.length) this.blocked = true;
    if (count === 0) return -EAGAIN;
    this.space -= count;
    if (!this.keepSent) {
      this.sentLength += count;
      return count;
    }
    if (this.sentLength + count > this.sentBuffer.length) {
      const grown = new Uint8Array(Math.max(this.sentBuffer.length * 2, this.sentLength + count));
      grown.set(this.sent);
      this.sentBuffer = grown;
    }
    this.sentBuffer.set(count === bytes.length ? bytes : bytes.subarray(0, count), this.sentLength);
    this.sentLength += count;
    return count;
  }

  takeError(): number {
    const error = this.pendingError;
    this.pendingError = 0;
    return error;
  }
}
