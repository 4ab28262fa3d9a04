/**
 * Host sockets in memory, with the semantics that the stack relies on: receive queues that can be peeked with an offset and discarded
 * from the front, limited send space, edge-triggered events, half-close, resets. The test plays the remote side through
 * {@link FakeSocket}; `deliverEvents` hands out what epoll would report.
 */
import type { Arena } from '../../src/base/arena.ts';
import {
  DATAGRAM_META_BYTES,
  DATAGRAM_META_FLAGS,
  DATAGRAM_META_LENGTH,
  DATAGRAM_META_LOCAL,
  DATAGRAM_META_SEGMENT,
  DATAGRAM_META_SOURCE,
  DATAGRAM_META_SUM,
  DATAGRAM_TRUNCATED,
  ENDPOINT_BYTES,
  EVENT_ERR,
  EVENT_HUP,
  EVENT_IN,
  type HostSockets,
  NO_SUMS,
  SHUT_READ,
  SOCKET_ERROR_BYTES,
  SOCKET_STREAM,
} from '../../src/stack/ports.ts';
import {
  EAGAIN,
  EBADF,
  EINPROGRESS,
  EMFILE,
  ENOPROTOOPT,
  ENOTCONN,
  FakeSocket,
  SO_LINGER,
  SO_PEEK_OFF,
  SOL_SOCKET,
} from './fake-socket.ts';

export class FakeSockets implements HostSockets {
  readonly sockets = new Map<number, FakeSocket>();
  /** All sockets ever made, closed ones too, in order. */
  readonly all: FakeSocket[] = [];
  /** What the next connect calls give: 0 (at once), -EINPROGRESS, or another -errno. */
  connectResult = -EINPROGRESS;
  /** What open gives if not 0: -errno. */
  openResult = 0;
  /** -errno values that the next accept calls give before they accept anything. */
  readonly acceptErrors: number[] = [];
  /** Sockets that may be open at a time; more is -EMFILE. */
  descriptorLimit = Number.POSITIVE_INFINITY;
  /** False: SO_PEEK_OFF is refused, as old kernels do for TCP. */
  peekOffSupported = true;
  /** Number of calls by name. */
  readonly calls = new Map<string, number>();
  private readonly arena: Arena;
  private nextFd = 100;

  constructor(arena: Arena) {
    this.arena = arena;
  }

  /** The socket made last. */
  get last(): FakeSocket {
    const socket = this.all.at(-1);
    if (socket === undefined) throw new Error('no socket was made');
    return socket;
  }

  /** Sockets that were not closed. */
  get openCount(): number {
    return this.sockets.size;
  }

  /** Makes a listening stream socket, already known to the poller as `kind`/`index`. */
  makeListener(kind: number, index: number): FakeSocket {
    const socket = this.make(6, SOCKET_STREAM, 6);
    socket.state = 'listening';
    socket.watched = { events: EVENT_IN, kind, index };
    return socket;
  }

  /** A remote connects to `listener`. @param peer endpoint record */
  connectTo(listener: FakeSocket, peer: Uint8Array): FakeSocket {
    const socket = this.make(peer[0]!, SOCKET_STREAM, 6);
    socket.state = 'connected';
    socket.peer = peer.slice();
    listener.backlog.push(socket);
    listener.edge = true;
    return socket;
  }

  /** Hands out events as an edge-triggered poller would: once for each socket to which something happened. */
  deliverEvents(handler: (kind: number, index: number, events: number) => void): number {
    let count = 0;
    for (const socket of [...this.sockets.values()]) {
      if (!socket.edge || socket.watched === undefined) continue;
      socket.edge = false;
      const { events, kind, index } = socket.watched;
      const mask = socket.readiness() & ((events | EVENT_ERR | EVENT_HUP) >>> 0);
      if (mask === 0) continue;
      count++;
      handler(kind, index, mask);
    }
    return count;
  }

  private make(family: number, type: number, protocol: number): FakeSocket {
    const socket = new FakeSocket(this.nextFd++, family, type, protocol);
    this.sockets.set(socket.fd, socket);
    this.all.push(socket);
    return socket;
  }

  /** Connections that wait for accept have no descriptor yet. */
  private openDescriptors(): number {
    let waiting = 0;
    for (const socket of this.sockets.values()) waiting += socket.backlog.length;
    return this.sockets.size - waiting;
  }

  protected find(fd: number, call: string): FakeSocket {
    this.calls.set(call, (this.calls.get(call) ?? 0) + 1);
    const socket = this.sockets.get(fd);
    if (socket === undefined) throw new Error(`${call} on descriptor ${fd}, which is not open`);
    return socket;
  }

  private record(offset: number): Uint8Array {
    return this.arena.bytes.slice(offset, offset + ENDPOINT_BYTES);
  }

  open(family: number, type: number, protocol: number): number {
    if (this.openResult !== 0) return this.openResult;
    if (this.openDescriptors() >= this.descriptorLimit) return -EMFILE;
    return this.make(family, type, protocol).fd;
  }

  bind(fd: number, endpointOffset: number): number {
    this.find(fd, 'bind').local = this.record(endpointOffset);
    return 0;
  }

  connect(fd: number, endpointOffset: number): number {
    const socket = this.find(fd, 'connect');
    socket.peer = this.record(endpointOffset);
    if (socket.type !== SOCKET_STREAM) {
      socket.state = 'connected';
      return 0;
    }
    if (this.connectResult === 0) socket.state = 'connected';
    else if (this.connectResult === -EINPROGRESS) socket.state = 'connecting';
    return this.connectResult;
  }

  listen(fd: number, _backlog: number): number {
    this.find(fd, 'listen').state = 'listening';
    return 0;
  }

  accept(fd: number, endpointOffset: number): number {
    const { backlog } = this.find(fd, 'accept');
    const error = this.acceptErrors.shift();
    if (error !== undefined) return error;
    if (backlog.length === 0) return -EAGAIN;
    if (this.openDescriptors() >= this.descriptorLimit) return -EMFILE;
    const socket = backlog.shift()!;
    this.arena.bytes.set(socket.peer, endpointOffset);
    return socket.fd;
  }

  getName(fd: number, endpointOffset: number): number {
    this.arena.bytes.set(this.find(fd, 'getName').local, endpointOffset);
    return 0;
  }

  getPeer(fd: number, endpointOffset: number): number {
    this.arena.bytes.set(this.find(fd, 'getPeer').peer, endpointOffset);
    return 0;
  }

  shutdown(fd: number, how: number): number {
    const socket = this.find(fd, 'shutdown');
    if (socket.state !== 'connected') return -ENOTCONN;
    if (how !== SHUT_READ) {
      socket.writeShut = true;
      if (socket.ended) socket.edge = true;
    }
    return 0;
  }

  close(fd: number): number {
    const socket = this.sockets.get(fd);
    if (socket === undefined) return -EBADF;
    socket.wasReset = socket.options.get(`${SOL_SOCKET}:${SO_LINGER}`) === 0;
    socket.closedUnread = socket.queue.length > 0;
    socket.state = 'closed';
    socket.watched = undefined;
    this.sockets.delete(fd);
    return 0;
  }

  takeError(fd: number): number {
    return this.find(fd, 'takeError').takeError();
  }

  getOption(fd: number, level: number, name: number): number {
    const value = this.find(fd, 'getOption').options.get(`${level}:${name}`);
    return typeof value === 'number' ? value : -ENOPROTOOPT;
  }

  setOption(fd: number, level: number, name: number, value: number): number {
    const socket = this.find(fd, 'setOption');
    if (level === SOL_SOCKET && name === SO_PEEK_OFF) {
      if (!this.peekOffSupported) return -ENOPROTOOPT;
      socket.peekOffset = value;
    }
    socket.options.set(`${level}:${name}`, value);
    return 0;
  }

  setOptionString(fd: number, level: number, name: number, value: string): number {
    this.find(fd, 'setOptionString').options.set(`${level}:${name}`, value);
    return 0;
  }

  getTcpInfo(fd: number, _offset: number, _lengthBytes: number): number {
    this.find(fd, 'getTcpInfo');
    return -ENOPROTOOPT;
  }

  receive(fd: number, offset: number, lengthBytes: number, _flags: number): number {
    const socket = this.find(fd, 'receive');
    const count = Math.min(lengthBytes, socket.queue.length);
    if (count === 0) return this.emptyQueue(socket);
    this.arena.bytes.set(socket.queue.subarray(0, count), offset);
    this.drop(socket, count);
    return count;
  }

  send(fd: number, offset: number, lengthBytes: number, _flags: number): number {
    const socket = this.find(fd, 'send');
    const bytes = this.arena.bytes.subarray(offset, offset + lengthBytes);
    if (socket.type === SOCKET_STREAM) return socket.take(bytes);
    socket.sentDatagrams.push({ data: bytes.slice(), to: undefined, from: undefined });
    return lengthBytes;
  }

  sendBuffer(fd: number, buffer: Uint8Array, offset: number, lengthBytes: number, _flags: number): number {
    return this.find(fd, 'sendBuffer').take(buffer.subarray(offset, offset + lengthBytes));
  }

  sendSegments(fd: number, listOffset: number, count: number, _flags: number): number {
    const socket = this.find(fd, 'sendSegments');
    const { view, bytes } = this.arena;
    let total = 0;
    for (let i = 0; i < count; i++) {
      const offset = view.getUint32(listOffset + 8 * i, true);
      const length = view.getUint32(listOffset + 8 * i + 4, true);
      const taken = socket.take(bytes.subarray(offset, offset + length));
      if (taken < 0) return total > 0 ? total : taken;
      total += taken;
      if (taken < length) break;
    }
    return total;
  }

  peekSegments(
    fd: number,
    offset: number,
    strideBytes: number,
    segmentBytes: number,
    count: number,
    skipBytes: number,
    sumsOffset: number,
  ): number {
    const socket = this.find(fd, 'peekSegments');
    const from = Math.max(0, socket.peekOffset) + skipBytes;
    const available = Math.min(socket.queue.length - from, count * segmentBytes);
    if (available <= 0) {
      // What was skipped says nothing about the end.
      if (skipBytes > 0 && socket.queue.length > 0) return -EAGAIN;
      return this.emptyQueue(socket);
    }
    for (let i = 0, at = 0; at < available; i++, at += segmentBytes) {
      const length = Math.min(segmentBytes, available - at);
      const target = offset + i * strideBytes;
      this.arena.bytes.set(socket.queue.subarray(from + at, from + at + length), target);
      if (sumsOffset !== NO_SUMS) this.arena.view.setUint32(sumsOffset + 4 * i, this.sum(target, length, 0), true);
    }
    if (socket.peekOffset >= 0) socket.peekOffset += available;
    return available;
  }

  discard(fd: number, lengthBytes: number): number {
    const socket = this.find(fd, 'discard');
    const count = Math.min(lengthBytes, socket.queue.length);
    if (count === 0) return this.emptyQueue(socket);
    this.drop(socket, count);
    return count;
  }

  private drop(socket: FakeSocket, count: number): void {
    socket.queue = socket.queue.subarray(count);
    if (socket.peekOffset > 0) socket.peekOffset = Math.max(0, socket.peekOffset - count);
  }

  private emptyQueue(socket: FakeSocket): number {
    if (socket.pendingError !== 0) return -socket.takeError();
    return socket.ended ? 0 : -EAGAIN;
  }

  receiveDatagrams(
    fd: number,
    offset: number,
    strideBytes: number,
    maxBytes: number,
    count: number,
    metaOffset: number,
  ): number {
    const socket = this.find(fd, 'receiveDatagrams');
    return this.takeDatagrams(socket, offset, strideBytes, maxBytes, count, metaOffset, 0, 0);
  }

  receiveUnsummed(
    fd: number,
    offset: number,
    strideBytes: number,
    maxBytes: number,
    count: number,
    metaOffset: number,
  ): number {
    const received = this.receiveDatagrams(fd, offset, strideBytes, maxBytes, count, metaOffset);
    for (let i = 0; i < received; i++) {
      this.arena.view.setUint32(metaOffset + i * DATAGRAM_META_BYTES + DATAGRAM_META_SUM, 0);
    }
    return received;
  }

  receiveSplitDatagrams(
    fd: number,
    offset: number,
    strideBytes: number,
    maxBytes: number,
    count: number,
    metaOffset: number,
    tailOffset: number,
    tailStrideBytes: number,
  ): number {
    const socket = this.find(fd, 'receiveSplitDatagrams');
    return this.takeDatagrams(socket, offset, strideBytes, maxBytes, count, metaOffset, tailOffset, tailStrideBytes);
  }

  private takeDatagrams(
    socket: FakeSocket,
    offset: number,
    strideBytes: number,
    maxBytes: number,
    count: number,
    metaOffset: number,
    tailOffset: number,
    tailStrideBytes: number,
  ): number {
    const { view, bytes } = this.arena;
    let taken = 0;
    while (taken < count && socket.datagrams.length > 0) {
      const { source, local, data, segmentBytes } = socket.datagrams.shift()!;
      const target = offset + taken * strideBytes;
      const length = tailOffset === 0 ? Math.min(data.length, maxBytes) : data.length;
      bytes.set(data.subarray(0, Math.min(length, maxBytes)), target);
      if (length > maxBytes) bytes.set(data.subarray(maxBytes, length), tailOffset + taken * tailStrideBytes);
      const meta = metaOffset + taken * DATAGRAM_META_BYTES;
      bytes.fill(0, meta, meta + DATAGRAM_META_BYTES);
      bytes.set(source, meta + DATAGRAM_META_SOURCE);
      if (local !== undefined) bytes.set(local, meta + DATAGRAM_META_LOCAL);
      view.setUint32(meta + DATAGRAM_META_LENGTH, length, true);
      view.setUint32(meta + DATAGRAM_META_FLAGS, data.length > length ? DATAGRAM_TRUNCATED : 0, true);
      view.setUint32(meta + DATAGRAM_META_SUM, sumOf(data.subarray(0, length)), true);
      view.setUint32(meta + DATAGRAM_META_SEGMENT, segmentBytes ?? 0, true);
      taken++;
    }
    return taken === 0 ? -EAGAIN : taken;
  }

  sendDatagrams(fd: number, listOffset: number, count: number): number {
    const socket = this.find(fd, 'sendDatagrams');
    if (socket.pendingError !== 0) return -socket.takeError();
    for (let i = 0; i < count; i++) {
      const offset = this.arena.view.getUint32(listOffset + 8 * i, true);
      const length = this.arena.view.getUint32(listOffset + 8 * i + 4, true);
      socket.sentDatagrams.push({
        data: this.arena.bytes.slice(offset, offset + length),
        to: undefined,
        from: undefined,
      });
    }
    return count;
  }

  sendEqualDatagrams(fd: number, listOffset: number, count: number, _lengthBytes: number): number {
    this.find(fd, 'sendEqualDatagrams');
    return this.sendDatagrams(fd, listOffset, count);
  }

  sendDatagramsTo(fd: number, listOffset: number, count: number, remoteOffset: number, localOffset: number): number {
    const socket = this.find(fd, 'sendDatagramsTo');
    if (socket.pendingError !== 0) return -socket.takeError();
    for (let i = 0; i < count; i++) {
      const offset = this.arena.view.getUint32(listOffset + 8 * i, true);
      const length = this.arena.view.getUint32(listOffset + 8 * i + 4, true);
      const data = this.arena.bytes.slice(offset, offset + length);
      socket.sentDatagrams.push({ data, to: this.record(remoteOffset), from: this.record(localOffset) });
    }
    return count;
  }

  sendTo(fd: number, offset: number, lengthBytes: number, endpointOffset: number): number {
    const data = this.arena.bytes.slice(offset, offset + lengthBytes);
    this.find(fd, 'sendTo').sentDatagrams.push({ data, to: this.record(endpointOffset), from: undefined });
    return lengthBytes;
  }

  receiveError(fd: number, recordOffset: number, offset: number, lengthBytes: number): number {
    const error = this.find(fd, 'receiveError').errors.shift();
    if (error === undefined) return -EAGAIN;
    this.arena.bytes.set(error.record.subarray(0, SOCKET_ERROR_BYTES), recordOffset);
    const length = Math.min(lengthBytes, error.data.length);
    this.arena.bytes.set(error.data.subarray(0, length), offset);
    return length;
  }

  sum(offset: number, lengthBytes: number, initial: number): number {
    return sumOf(this.arena.bytes.subarray(offset, offset + lengthBytes), initial);
  }

  watch(fd: number, events: number, kind: number, index: number): number {
    const socket = this.find(fd, 'watch');
    socket.watched = { events, kind, index };
    // epoll reports at once what is ready already.
    if (socket.readiness() !== 0) socket.edge = true;
    return 0;
  }

  rewatch(fd: number, events: number, kind: number, index: number): number {
    return this.watch(fd, events, kind, index);
  }

  unwatch(fd: number): number {
    this.find(fd, 'unwatch').watched = undefined;
    return 0;
  }
}

/** One's complement sum, folded to 16 bits. */
function sumOf(bytes: Uint8Array, initial = 0): number {
  let sum = initial;
  for (let i = 0; i < bytes.length; i++) sum += (i & 1) === 0 ? bytes[i]! * 256 : bytes[i]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}
