/**
 * Datagrams on their way to the host: collected while they are of one flow, then sent together from where the link has read them
 * to. By the flow's own socket, or by the listener of a forwarded port; see module.ts for which.
 */
import type { StackContext } from '../context.ts';
import { clearEndpoint, writeEndpoint } from '../endpoint.ts';
import { createQuotedDatagram, type IcmpErrorSender, type QuotedDatagram } from '../icmp/errors.ts';
import { REASON_HOST, reasonOfErrno } from '../icmp/reasons.ts';
import { ENDPOINT_BYTES } from '../ports.ts';
import { EAGAIN, EINVAL, EIO, EMSGSIZE, ENOBUFS } from '../socket-options.ts';
import type { UdpColumns } from './columns.ts';
import { fillQuoted } from './quoted.ts';
import { MIN_RUN, measureRun } from './runs.ts';

/** Datagrams of one flow sent together; one sendmmsg takes 1024 at most (UIO_MAXIOV). */
const MAX_BATCH = 1024;

export class DatagramsToHost {
  private readonly ctx: StackContext;
  private readonly columns: UdpColumns;
  private readonly icmpErrors: IcmpErrorSender;
  private readonly onSent: (flow: number) => void;
  private readonly quoted: QuotedDatagram = createQuotedDatagram();
  /** What waits: pairs of u32 LE (offset, length), all of `flow`. */
  private readonly list: number;
  private flow = -1;
  private count = 0;
  private bytes = 0;
  /** Remote and local endpoint for sends by a listener. */
  private readonly remoteEndpoint: number;
  private readonly localEndpoint: number;

  /** @param onSent called once per batch: sets the flow's timeout */
  constructor(ctx: StackContext, columns: UdpColumns, icmpErrors: IcmpErrorSender, onSent: (flow: number) => void) {
    this.ctx = ctx;
    this.columns = columns;
    this.icmpErrors = icmpErrors;
    this.onSent = onSent;
    this.list = ctx.arena.allocate(MAX_BATCH * 8);
    this.remoteEndpoint = ctx.arena.allocate(ENDPOINT_BYTES);
    this.localEndpoint = ctx.arena.allocate(ENDPOINT_BYTES);
  }

  /** Adds a datagram's payload, which has to stay in place until `flush`. Those of another flow are sent first. */
  add(flow: number, offset: number, lengthBytes: number): void {
    if (flow !== this.flow || this.count === MAX_BATCH) {
      this.flush();
      this.flow = flow;
    }
    const { view } = this.ctx;
    const pair = this.list + this.count * 8;
    view.setUint32(pair, offset, true);
    view.setUint32(pair + 4, lengthBytes, true);
    this.count++;
    this.bytes += lengthBytes;
  }

  /** Forgets what waits for a flow that is about to be freed. */
  forget(flow: number): void {
    if (this.flow !== flow) return;
    this.flow = -1;
    this.count = 0;
    this.bytes = 0;
  }

  /** Sends what waits. Each datagram is tried twice: the first failure may be the news of an earlier one (ip(7)). */
  flush(): void {
    let left = this.count;
    if (left === 0) return;
    const { ctx, flow, bytes } = this;
    this.count = 0;
    this.bytes = 0;
    const { flows } = ctx;
    if (!flows.isLive(flow)) return;
    flows.bytesToHost[flow] = flows.bytesToHost[flow]! + bytes;
    let at = this.list;
    let failures = 0;
    while (left > 0) {
      const sent = this.send(flow, at, left);
      if (sent > 0) {
        at += sent * 8;
        left -= sent;
        failures = 0;
      } else if (sent === -EAGAIN || sent === -ENOBUFS) {
        ctx.counters.udpDropped += left;
        break;
      } else if (++failures === 2) {
        ctx.counters.udpDropped++;
        this.tellFailure(flow, at, -sent);
        at += 8;
        left--;
        failures = 0;
      }
    }
    this.onSent(flow);
  }

  private send(flow: number, list: number, count: number): number {
    const { ctx, columns } = this;
    const via = columns.via[flow]!;
    if (via === 0) return this.sendConnected(flow, list, count);
    const { view } = ctx;
    const { remoteEndpoint, localEndpoint } = this;
    const port = columns.remotePort[flow]!;
    writeEndpoint(view, remoteEndpoint, columns.remoteAddress, flow * 4, port, columns.remoteScope[flow]!);
    if (columns.localFamily[flow] === 0) clearEndpoint(view, localEndpoint);
    else writeEndpoint(view, localEndpoint, columns.localAddress, flow * 4, 0, columns.localScope[flow]!);
    return ctx.sockets.sendDatagramsTo(ctx.forwards.fdOf(via - 1), list, count, remoteEndpoint, localEndpoint);
  }

  private sendConnected(flow: number, list: number, count: number): number {
    const { ctx, columns } = this;
    const fd = ctx.flows.fd[flow]!;
    let single = count;
    if (count >= MIN_RUN && columns.refusesRuns[flow] === 0) {
      const run = measureRun(ctx.view, list, count);
      if (run > 0) {
        const sent = ctx.sockets.sendEqualDatagrams(fd, list, run, ctx.view.getUint32(list + 4, true));
        if (sent !== -EINVAL && sent !== -EIO && sent !== -EMSGSIZE) return sent;
        // Fragments cannot be made of runs, nor can every path take them. One by one they go always.
        columns.refusesRuns[flow] = 1;
      } else {
        single = -run;
      }
    }
    return ctx.sockets.sendDatagrams(fd, list, single);
  }

  /** A send that failed by itself leaves nothing in the error queue. */
  private tellFailure(flow: number, pair: number, errno: number): void {
    const { ctx, quoted, columns } = this;
    const reason = reasonOfErrno(errno);
    if (reason < 0 || reason > REASON_HOST) return;
    const { flows, view } = ctx;
    fillQuoted(quoted, flows, columns, flow, view.getUint32(pair, true), view.getUint32(pair + 4, true));
    this.icmpErrors.sendReason(quoted, reason, flows.guestAddress, flow * 4, flows.peerAddress, flow * 4);
  }
}
