/**
 * Spliced UDP: datagrams that a client on one side of the namespace sends to a listener go out on the other side from a socket of their
 * own, in batches and from the memory that they were received into; answers go back through the listener.
 *
 * A flow is one client of one listener. Its *far* socket is connected to the server and, where that port is free, bound to the client's port
 * number: servers on loopback know their clients by it. It ends after {@link ONE_WAY_MS} without a datagram, {@link TWO_WAY_MS}
 * once the server has answered (Linux's nf_conntrack_udp_timeout and …_stream), or with its listener.
 *
 * Datagrams of one length, and a shorter one behind them, leave in one system call as one large one that the kernel cuts
 * (UDP_SEGMENT, udp(7)); where a path refuses that, one by one. What a receiver has no room for is lost, as UDP is between any two programs.
 * An unreachable server shows as an error on the far socket; a listener has many clients, so there is no socket on which one of them
 * could be told. The error is taken and the next datagram tried.
 */

import type { Arena } from '../../base/arena.ts';
import type { Clock } from '../../base/clock.ts';
import { EACCES } from '../../base/errno.ts';
import { createLogGate, type Logger, warnGated } from '../../base/logger.ts';
import {
  DATAGRAM_META_BYTES,
  DATAGRAM_META_LENGTH,
  DATAGRAM_META_LOCAL,
  DATAGRAM_META_SOURCE,
  ENDPOINT_BYTES,
  ENDPOINT_PORT,
  ENDPOINT_SCOPE,
  EVENT_IN,
  KIND_SPLICE_UDP,
  SOCKET_DGRAM,
} from '../../stack/ports.ts';
import { copyRecord, isSameRecord } from './endpoints.ts';
import type { SpliceSockets } from './ports.ts';
import { isUnreachable, type OpenSocket } from './tcp.ts';
import { UdpFlows } from './udp-flows.ts';

const BATCH_DATAGRAMS = 64;
/** The longest UDP payload there is, in IPv6. */
const MAX_PAYLOAD_BYTES = 65_527;
/** Off the page size, so that the starts of all slots do not compete for the same lines of the processor's caches. */
const SLOT_BYTES = 66_112;
const BATCHES_PER_EVENT = 8;
const FLOWS_MAX = 16_384;
const ONE_WAY_MS = 30_000;
const TWO_WAY_MS = 120_000;
const SWEEP_MS = 5_000;
/** What the kernel lets one send be cut into, together (udp(7)). */
const CUT_MAX_BYTES = 65_000;
const CUT_MAX_DATAGRAMS = 64;
/** The kernel halves and limits this (net.core.rmem_max): room for bursts, used only while somebody is slow. */
const BUFFER_BYTES = 4 * 1024 * 1024;
const STRAYS_MAX = 1024;
const LOG_INTERVAL_MS = 10_000;

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;

export interface UdpSpliceOptions {
  readonly arena: Arena;
  readonly sockets: SpliceSockets;
  readonly clock: Clock;
  readonly log: Logger;
  /** The listener's socket, -1 when it is gone. */
  readonly listenerFd: (listener: number, ofNamespace: boolean) => number;
  /** bind(2) with the namespace's rights. */
  readonly bindLow: ((fd: number, endpoint: number) => number) | undefined;
}

/** A flow, for people. Records are in the arena. */
export interface UdpSpliceDescription {
  readonly state: 'one-way' | 'two-way';
  readonly listener: number;
  readonly ofNamespace: boolean;
  readonly generation: number;
  readonly ageMs: number;
  readonly bytesFromClient: number;
  readonly bytesToClient: number;
  readonly clientRecord: number;
  readonly serverFd: number;
}

export class UdpSplice {
  opened = 0;
  refused = 0;
  /** Datagrams that neither side's socket took. */
  dropped = 0;
  bytes = 0;

  private readonly options: UdpSpliceOptions;
  private readonly sockets: SpliceSockets;
  private readonly view: DataView;
  private readonly clock: Clock;
  private readonly flows: UdpFlows;
  /** Batch that is read here: from far sockets and from listeners of the namespace. */
  private readonly slots: number;
  private readonly metas: number;
  private readonly list: number;
  private readonly bindRecord: number;
  /** Unfiled in this turn: their sockets are closed at its end. */
  private readonly ending: number[] = [];
  private sweeper: NodeJS.Timeout | undefined;
  /** False once a path has refused UDP_SEGMENT. */
  private canCut = true;
  private readonly gate = createLogGate(LOG_INTERVAL_MS);

  constructor(options: UdpSpliceOptions) {
    const { arena } = options;
    this.options = options;
    this.sockets = options.sockets;
    this.view = arena.view;
    this.clock = options.clock;
    this.flows = new UdpFlows(arena, FLOWS_MAX);
    this.slots = arena.allocate(BATCH_DATAGRAMS * SLOT_BYTES);
    this.metas = arena.allocate(BATCH_DATAGRAMS * DATAGRAM_META_BYTES);
    this.list = arena.allocate(BATCH_DATAGRAMS * 8);
    this.bindRecord = arena.allocate(ENDPOINT_BYTES);
  }

  get count(): number {
    return this.flows.count;
  }

  get bound(): number {
    return this.flows.bound;
  }

  /** How many datagrams from the first on have the same sender. */
  runLength(metaOffset: number, count: number): number {
    let run = 1;
    while (
      run < count &&
      isSameRecord(
        this.view,
        metaOffset + DATAGRAM_META_SOURCE,
        metaOffset + run * DATAGRAM_META_BYTES + DATAGRAM_META_SOURCE,
      )
    ) {
      run++;
    }
    return run;
  }

  /**
   * Passes datagrams of one sender on.
   * @param open - makes the socket of the far side
   * @param target - endpoint record of the server, and behind it the one to try where that is not reachable (family 0: none)
   * @param family - of the target
   */
  deliver(
    listener: number,
    ofNamespace: boolean,
    metaOffset: number,
    dataOffset: number,
    strideBytes: number,
    count: number,
    open: OpenSocket,
    target: number,
    family: number,
  ): void {
    const { flows } = this;
    const side = ofNamespace ? 1 : 0;
    let flow = flows.find(listener, side, metaOffset + DATAGRAM_META_SOURCE);
    if (flow < 0) flow = this.openFlow(listener, side, metaOffset, open, target, family);
    if (flow < 0) {
      this.dropped += count;
      return;
    }
    copyRecord(this.view, metaOffset + DATAGRAM_META_LOCAL, flows.localOf(flow));
    // Loopback addresses need no interface to be named.
    this.view.setUint32(flows.localOf(flow) + ENDPOINT_SCOPE, 0);
    flows.lastMs[flow] = this.clock.nowMs();
    const bytes = this.fillList(metaOffset, dataOffset, strideBytes, count);
    flows.bytesFromClient[flow] = flows.bytesFromClient[flow]! + bytes;
    this.bytes += bytes;
    this.sendConnected(flows.fd[flow]!, count);
  }

  /** Reads a listener of the namespace. @param each - is given each run of datagrams of one sender */
  readListener(
    fd: number,
    each: (metaOffset: number, dataOffset: number, strideBytes: number, count: number) => void,
  ): void {
    for (let round = 0; round < BATCHES_PER_EVENT; round++) {
      const count = this.receive(fd);
      // An error is that of an answer sent earlier: its client has gone.
      if (count <= 0) return;
      for (let i = 0; i < count; ) {
        const meta = this.metas + i * DATAGRAM_META_BYTES;
        const run = this.runLength(meta, count - i);
        each(meta, this.slots + i * SLOT_BYTES, SLOT_BYTES, run);
        i += run;
      }
      if (count < BATCH_DATAGRAMS) return;
    }
  }

  /** Answers of a server. */
  onEvent(flow: number): void {
    const { flows, sockets } = this;
    if (flows.live[flow] === 0) return;
    const fd = flows.fd[flow]!;
    const back = this.options.listenerFd(flows.listener[flow]!, flows.ofNamespace[flow] !== 0);
    for (let round = 0; round < BATCHES_PER_EVENT; round++) {
      const count = this.receive(fd);
      if (count <= 0) {
        sockets.takeError(fd);
        return;
      }
      flows.lastMs[flow] = this.clock.nowMs();
      flows.answered[flow] = 1;
      const bytes = this.fillList(this.metas, this.slots, SLOT_BYTES, count);
      flows.bytesToClient[flow] = flows.bytesToClient[flow]! + bytes;
      this.bytes += bytes;
      for (let done = 0; done < count; ) {
        const at = this.list + done * 8;
        const sent = sockets.sendDatagramsTo(back, at, count - done, flows.clientOf(flow), flows.localOf(flow));
        // The error of an earlier answer, or this one's: it is over with one datagram.
        if (sent <= 0) this.dropped++;
        done += sent <= 0 ? 1 : sent;
      }
      if (count < BATCH_DATAGRAMS) return;
    }
  }

  private receive(fd: number): number {
    return this.sockets.receiveUnsummed(fd, this.slots, SLOT_BYTES, MAX_PAYLOAD_BYTES, BATCH_DATAGRAMS, this.metas);
  }

  /** Lists where the datagrams lie. @returns their bytes */
  private fillList(metaOffset: number, dataOffset: number, strideBytes: number, count: number): number {
    const { view, list } = this;
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const length = view.getUint32(metaOffset + i * DATAGRAM_META_BYTES + DATAGRAM_META_LENGTH, true);
      view.setUint32(list + i * 8, dataOffset + i * strideBytes, true);
      view.setUint32(list + i * 8 + 4, length, true);
      bytes += length;
    }
    return bytes;
  }

  private sendConnected(fd: number, count: number): void {
    const { sockets, view, list } = this;
    let retried = false;
    for (let done = 0; done < count; ) {
      const equal = this.canCut ? this.equalRun(done, count) : 1;
      const at = list + done * 8;
      let tried = equal;
      let sent: number;
      if (equal > 1) {
        sent = sockets.sendEqualDatagrams(fd, at, equal, view.getUint32(at + 4, true));
        // -EINVAL, -EIO, -EMSGSIZE: not on this path (udp(7)); it may have been a long datagram's only, but the others work either way.
        if (sent === -22 || sent === -5 || sent === -90) {
          this.canCut = false;
          continue;
        }
      } else {
        tried = 1;
        while (done + tried < count && (!this.canCut || this.equalRun(done + tried, count) === 1)) tried++;
        sent = sockets.sendDatagrams(fd, at, tried);
      }
      if (sent > 0) {
        done += sent;
        continue;
      }
      // An error that an earlier datagram has met is told once, instead of sending: this one has not been tried.
      if (!retried) {
        retried = true;
        continue;
      }
      retried = false;
      const lost = equal > 1 ? tried : 1;
      this.dropped += lost;
      done += lost;
    }
  }

  /** How many datagrams from `first` on one call can send as one: all of one length, but for a shorter last. */
  private equalRun(first: number, count: number): number {
    const { view, list } = this;
    const length = view.getUint32(list + first * 8 + 4, true);
    if (length === 0) return 1;
    const most = Math.min(count - first, CUT_MAX_DATAGRAMS, Math.floor(CUT_MAX_BYTES / length));
    let run = 1;
    while (run < most) {
      const next = view.getUint32(list + (first + run) * 8 + 4, true);
      if (next > length || next === 0) break;
      run++;
      if (next < length) break;
    }
    return run;
  }

  private openFlow(
    listener: number,
    side: number,
    metaOffset: number,
    open: OpenSocket,
    target: number,
    family: number,
  ): number {
    const { flows, sockets, clock } = this;
    const client = metaOffset + DATAGRAM_META_SOURCE;
    const flow = flows.open(listener, side, client);
    if (flow < 0) return this.refuse('too many of them');
    copyRecord(this.view, client, flows.clientOf(flow));
    const fd = open(family, SOCKET_DGRAM);
    if (fd < 0) {
      flows.unfile(flow);
      flows.release(flow);
      return this.refuse(`errno ${-fd}`);
    }
    flows.fd[flow] = fd;
    flows.openedMs[flow] = clock.nowMs();
    sockets.setOption(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_BYTES);
    sockets.setOption(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES);
    this.bindLikeClient(fd, client, target, side);
    let status = sockets.connect(fd, target);
    if (isUnreachable(status) && this.view.getUint8(target + ENDPOINT_BYTES) === family) {
      status = sockets.connect(fd, target + ENDPOINT_BYTES);
    }
    if (status < 0 || sockets.watch(fd, EVENT_IN, KIND_SPLICE_UDP, flow) < 0) {
      flows.unfile(flow);
      this.ending.push(flow);
      return this.refuse(`errno ${-status}`);
    }
    // Between bind and connect anybody could write to the port.
    for (let i = 0; i < STRAYS_MAX && sockets.receive(fd, this.bindRecord, 1, 0) >= 0; i++);
    this.opened++;
    this.sweeper ??= setInterval(() => this.expire(), SWEEP_MS).unref();
    return flow;
  }

  private refuse(reason: string): number {
    this.refused++;
    warnGated(this.options.log, this.gate, this.clock.nowMs(), `loopback datagrams are dropped: ${reason}`);
    return -1;
  }

  /** Gives the far socket the client's port number, if that is free. */
  private bindLikeClient(fd: number, client: number, target: number, side: number): void {
    const { view, bindRecord, sockets } = this;
    const port = view.getUint16(client + ENDPOINT_PORT);
    // A server that writes to its own port would talk to itself.
    if (port === 0 || port === view.getUint16(target + ENDPOINT_PORT)) return;
    copyRecord(view, target, bindRecord);
    view.setUint16(bindRecord + ENDPOINT_PORT, port);
    const status = sockets.bind(fd, bindRecord);
    if (status === EACCES && side === 0) this.options.bindLow?.(fd, bindRecord);
  }

  private expire(): void {
    const { flows } = this;
    const now = this.clock.nowMs();
    for (let flow = 0; flow < flows.bound; flow++) {
      const limit = flows.answered[flow] !== 0 ? TWO_WAY_MS : ONE_WAY_MS;
      if (flows.live[flow] !== 0 && now - flows.lastMs[flow]! >= limit) this.end(flow);
    }
    this.endTurn();
    if (flows.count > 0) return;
    clearInterval(this.sweeper);
    this.sweeper = undefined;
  }

  private end(flow: number): void {
    this.flows.unfile(flow);
    this.ending.push(flow);
  }

  onListenerClosed(listener: number, ofNamespace: boolean): void {
    const { flows } = this;
    const side = ofNamespace ? 1 : 0;
    for (let flow = 0; flow < flows.bound; flow++) {
      if (flows.live[flow] !== 0 && flows.listener[flow] === listener && flows.ofNamespace[flow] === side)
        this.end(flow);
    }
  }

  /** Closes the sockets of flows that have ended. */
  endTurn(): void {
    const { ending, flows, sockets } = this;
    if (ending.length === 0) return;
    for (const flow of ending) {
      sockets.close(flows.fd[flow]!);
      flows.release(flow);
    }
    ending.length = 0;
  }

  /** @returns undefined when there is no such flow. Not for the data path */
  describe(flow: number): UdpSpliceDescription | undefined {
    const { flows } = this;
    if (flows.live[flow] === 0) return undefined;
    return {
      state: flows.answered[flow] !== 0 ? 'two-way' : 'one-way',
      listener: flows.listener[flow]!,
      ofNamespace: flows.ofNamespace[flow] !== 0,
      generation: flows.generation[flow]!,
      ageMs: this.clock.nowMs() - flows.openedMs[flow]!,
      bytesFromClient: flows.bytesFromClient[flow]!,
      bytesToClient: flows.bytesToClient[flow]!,
      clientRecord: flows.clientOf(flow),
      serverFd: flows.fd[flow]!,
    };
  }

  close(): void {
    clearInterval(this.sweeper);
    for (let flow = 0; flow < this.flows.bound; flow++) if (this.flows.live[flow] !== 0) this.end(flow);
    this.endTurn();
  }
}
