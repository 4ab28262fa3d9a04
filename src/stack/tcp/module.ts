/**
 * TCP between the guest and host sockets: translated, not terminated. There is no copy of the stream here: what the guest has not
 * acknowledged stays in the host socket's receive queue, what it sends goes to the host socket's send queue, and only what that
 * cannot take at the moment is kept (RFC 9293, with RFC 5681, 5961, 6298, 6528, 6582, 7323 §2 and 2018 as far as they apply).
 *
 * The parts:
 *
 * - `connect.ts`, `accept.ts`, `handshake.ts`: opening from the guest, from the host, and what the guest says meanwhile;
 * - `receive.ts` → `gather.ts` → `spill.ts`: guest to host; `out-of-order.ts` for what comes too early; `window.ts` for what we offer;
 * - `transmit.ts` → `segment-writer.ts`, or `offloaded-writer.ts` for a guest that cuts frames itself: host to guest; `acknowledge.ts` for what the guest says about it;
 * - `service.ts`: what is due at the end of a turn; `delayed-ack.ts`; `timers.ts`; `close.ts`: how flows end;
 * - `columns.ts`, `core.ts`: the state.
 *
 * This file joins them: it finds the flow of a segment or an event and hands it on.
 *
 * Not done: timestamps and PAWS, ECN, urgent data out of line, TCP Fast Open, path MTU discovery (the link's MTU is known), congestion
 * control (the link exerts back-pressure).
 */
import { checkTcp, getTcpDstPort, getTcpFlags, getTcpSrcPort, TCP_ACK, TCP_RST, TCP_SYN } from '../../wire/tcp.ts';
import type { FlowModule, StackContext } from '../context.ts';
import { describeTcpState, type FlowDescription } from '../flow/description.ts';
import { FLOW_TCP } from '../flow/table.ts';
import type { PacketMeta } from '../packet-meta.ts';
import { EVENT_ERR, EVENT_HUP, EVENT_IN, EVENT_OUT, EVENT_RDHUP } from '../ports.ts';
import { acceptAll } from './accept.ts';
import { endFlow, releaseStores, resetBoth, resetHost } from './close.ts';
import {
  FLAG_FIN_ACKED,
  FLAG_HAS_SPILL,
  FLAG_HOST_ENDING,
  FLAG_HOST_FIN,
  FLAG_HOST_READABLE,
  FLAG_HOST_URGENT,
  STATE_CONNECTING,
  STATE_ESTABLISHED,
  STATE_RESET,
  STATE_TIME_WAIT,
} from './columns.ts';
import { onHostConnected, openFromGuest, takeServiceConnection } from './connect.ts';
import { addToTurn, TcpCore } from './core.ts';
import { drainSpill, failHost, flushGathered } from './gather.ts';
import { receiveInHandshake } from './handshake.ts';
import { EVENT_PRI } from './host-socket.ts';
import {
  isChecksumGood,
  isClosedBothWays,
  isSegmentOf,
  receiveAfterClose,
  receiveExpected,
  receiveNext,
  receiveSegment,
} from './receive.ts';
import { writeResetFor } from './segment-writer.ts';
import { serveTurn } from './service.ts';
import { fireTimer, hastenTimers } from './timers.ts';

export class TcpModule implements FlowModule {
  private readonly core: TcpCore;
  /** The flow of the last segment: the next one mostly belongs to it too. */
  private lastIndex = -1;

  constructor(ctx: StackContext) {
    this.core = new TcpCore(ctx);
  }

  /**
   * Takes a checked IP packet with protocol TCP. Its bytes must stay in place until `endInput`.
   * @returns whether it was the next payload of an established flow, so that `inputNext` may be called for what follows it
   */
  input(meta: PacketMeta): boolean {
    const { core, lastIndex } = this;
    if (lastIndex >= 0 && receiveExpected(core, lastIndex, meta)) return true;
    this.inputAny(meta);
    return false;
  }

  /**
   * Takes a segment with the addresses and ports of the last one for which `input` returned true, if it continues that one's stream.
   * Between the two there may be no other call but this and `input`.
   * @returns false when the segment needs a closer look; nothing was changed then
   */
  inputNext(l4Offset: number, l4Length: number): boolean {
    return receiveNext(this.core, this.lastIndex, l4Offset, l4Length);
  }

  private inputAny(meta: PacketMeta): void {
    const { core } = this;
    const l4 = meta.l4Offset;
    const headerBytes = checkTcp(core.view, l4, l4 + meta.l4Length);
    if (headerBytes < 0 || !isChecksumGood(core, meta, headerBytes)) {
      core.ctx.counters.badTcp++;
      return;
    }
    const index = this.findFlow(meta);
    if (index < 0) {
      this.inputUnknown(meta, headerBytes);
      return;
    }
    const state = core.columns.state[index]!;
    if (state !== STATE_ESTABLISHED && state !== STATE_TIME_WAIT) {
      receiveInHandshake(core, index, meta, headerBytes);
      return;
    }
    const flags = getTcpFlags(core.view, l4);
    if ((flags & (TCP_SYN | TCP_ACK)) === TCP_SYN && isClosedBothWays(core, index)) {
      endFlow(core, index);
      this.inputUnknown(meta, headerBytes);
      return;
    }
    if (state === STATE_TIME_WAIT) {
      receiveAfterClose(core, index, flags, meta.l4Length - headerBytes);
      return;
    }
    receiveSegment(core, index, meta, headerBytes);
  }

  /** All frames of one read of the link were handed in; the next read may overwrite them. */
  endInput(): void {
    flushGathered(this.core);
  }

  /** The listener has connections (KIND_TCP_LISTENER). */
  onAcceptable(listenerIndex: number): void {
    acceptAll(this.core, listenerIndex);
  }

  onHostEvent(index: number, events: number): void {
    const { core } = this;
    const { columns: c } = core;
    const state = c.state[index]!;
    if (state === STATE_RESET || state === STATE_TIME_WAIT) return;
    if (state === STATE_CONNECTING) {
      if ((events & (EVENT_OUT | EVENT_ERR | EVENT_HUP)) === 0) return;
      // No need to ask for SO_ERROR: a connect that has failed reports an error and a hang-up, and one that has succeeded neither.
      if ((events & (EVENT_ERR | EVENT_HUP)) !== 0) {
        resetBoth(core, index);
        return;
      }
      onHostConnected(core, index);
    } else if ((events & EVENT_ERR) !== 0 && core.sockets.takeError(core.flows.fd[index]!) !== 0) {
      c.flags[index] = c.flags[index]! | FLAG_HOST_READABLE;
      failHost(core, index);
      return;
    }
    let flags = c.flags[index]!;
    if ((events & (EVENT_IN | EVENT_PRI | EVENT_RDHUP | EVENT_HUP)) !== 0 && (flags & FLAG_HOST_FIN) === 0) {
      flags |= FLAG_HOST_READABLE;
      if ((events & (EVENT_RDHUP | EVENT_HUP)) !== 0) flags |= FLAG_HOST_ENDING;
      if ((events & EVENT_PRI) !== 0) flags |= FLAG_HOST_URGENT;
      c.flags[index] = flags;
      addToTurn(core, index);
    }
    if ((events & EVENT_OUT) !== 0 && (flags & FLAG_HAS_SPILL) !== 0) drainSpill(core, index);
  }

  /** The connection that `openFromGuest` has asked a service for. @param fd - becomes the flow's; or -errno */
  onServiceConnection(index: number, fd: number): void {
    takeServiceConnection(this.core, index, fd);
  }

  onTimer(index: number): void {
    fireTimer(this.core, index);
  }

  onRoom(index: number): void {
    addToTurn(this.core, index);
  }

  /** Sends what has become due. The caller flushes the link afterwards. */
  endTurn(): void {
    serveTurn(this.core);
  }

  /**
   * The guest's link is gone. Flows stay, so that a guest which comes back finds its connections, for as long as the stack says.
   */
  onGuestGone(): void {
    flushGathered(this.core);
  }

  /** A guest is there, perhaps the one that was gone. */
  onGuestBack(): void {
    hastenTimers(this.core);
  }

  /** The guest will not hear of this flow any more: the remote sees a reset. */
  abandon(index: number): void {
    resetHost(this.core, index);
  }

  describe(index: number, description: FlowDescription): void {
    const { columns: c } = this.core;
    description.state = describeTcpState(c.state[index]!, c.flags[index]!);
    // Our FIN has a sequence number like a byte.
    if ((c.flags[index]! & FLAG_FIN_ACKED) !== 0) description.bytesToGuest--;
  }

  /** Gives back what belongs to no flow. Flows are the table's to end. */
  close(): void {
    const { core } = this;
    if (core.spareFd >= 0) core.sockets.close(core.spareFd);
    core.spareFd = -1;
  }

  onRelease(index: number): void {
    releaseStores(this.core, index);
  }

  private findFlow(meta: PacketMeta): number {
    const { core, lastIndex } = this;
    const { flows, view } = core;
    if (lastIndex >= 0 && flows.kind[lastIndex] === FLOW_TCP && flows.retired[lastIndex] === 0) {
      if (isSegmentOf(flows, lastIndex, meta, view)) return lastIndex;
    }
    const { source, destination } = meta;
    const guestPort = getTcpSrcPort(view, meta.l4Offset);
    const peerPort = getTcpDstPort(view, meta.l4Offset);
    const index = flows.find(FLOW_TCP, source, 0, guestPort, destination, 0, peerPort);
    this.lastIndex = index;
    return index;
  }

  private inputUnknown(meta: PacketMeta, headerBytes: number): void {
    const { core } = this;
    const flags = getTcpFlags(core.view, meta.l4Offset);
    if ((flags & TCP_RST) !== 0 || !isUnicast(meta)) return;
    if ((flags & (TCP_SYN | TCP_ACK)) === TCP_SYN) openFromGuest(core, meta, headerBytes);
    else writeResetFor(core, meta, meta.l4Length - headerBytes);
  }
}

/** Whether source and destination are addresses of single hosts: TCP has nothing to say to others (RFC 9293 §3.9.2.3). */
function isUnicast(meta: PacketMeta): boolean {
  const { source, destination } = meta;
  if (meta.family === 4) {
    const to = destination[3]!;
    const from = source[3]!;
    return to !== 0 && to >>> 28 < 0xe && from !== 0 && from >>> 28 < 0xe;
  }
  return destination[0]! >>> 24 !== 0xff && source[0]! >>> 24 !== 0xff && (source[0]! | source[3]!) !== 0;
}
