/**
 * Segments of the guest on an established flow (RFC 9293 §3.10.7.4, with the checks of RFC 5961).
 *
 * A segment that starts at `rcvNxt` has its payload noted for the host socket (gather.ts) and counts as received. One that starts
 * earlier is cut in front, one that reaches beyond the window is cut behind, one that starts later is kept (out-of-order.ts) and
 * answered at once, so that the guest sees its duplicates. Everything else is acknowledged once, when the turn ends.
 *
 * RST: taken when its number is exactly `rcvNxt`; elsewhere in the window it is answered by a challenge acknowledgement, outside
 * ignored. SYN: challenge acknowledgement. A guest that was restarted answers that with a RST that fits, and the next SYN
 * finds the way free.
 *
 * Checksums: segments without payload are verified, since it costs little. Payload is not, unless VERIFY_PAYLOAD says so: it
 * comes through a socket from the same machine, its sum would cost a pass over the data, and the host's kernel computes a new one.
 */
import { addSeq, diffSeq } from '../../base/sequence.ts';
import { foldChecksum, pseudoSumIpv6, verifyChecksum } from '../../wire/checksum.ts';
import { IP_PROTOCOL_TCP } from '../../wire/ip-protocol.ts';
import {
  getTcpAck,
  getTcpFlags,
  getTcpSeq,
  getTcpWindow,
  TCP_ACK,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
} from '../../wire/tcp.ts';
import type { FlowTable } from '../flow/table.ts';
import type { PacketMeta } from '../packet-meta.ts';
import { takeAcknowledgement } from './acknowledge.ts';
import { endFlow, resetHost } from './close.ts';
import {
  FLAG_ACK_DUE,
  FLAG_FIN_ACKED,
  FLAG_GUEST_FIN,
  FLAG_GUEST_FIN_SEEN,
  FLAG_HAS_GAP,
  FLAG_IN_TURN,
  FLAG_RECOVERING,
  STATE_ESTABLISHED,
} from './columns.ts';
import { addToTurn, type TcpCore } from './core.ts';
import { hurryAcknowledgement } from './delayed-ack.ts';
import { flushFlow, flushGathered, gatherPayload, passBytes } from './gather.ts';
import { GapStore } from './out-of-order.ts';
import { acceptableSeq, writeAck } from './segment-writer.ts';

const VERIFY_PAYLOAD = false;

/** Header of five words, hence no SACK blocks; of the flags ACK, with or without PSH. In the word with the window. */
const EXPECTED_MASK = 0xf0f7_0000 | 0;
const EXPECTED_FLAGS = 0x5010_0000;
/** States of a flow in which more than payload has to be looked at. */
const FLAGS_UNUSUAL = FLAG_GUEST_FIN | FLAG_GUEST_FIN_SEEN | FLAG_HAS_GAP | FLAG_RECOVERING;
const FLAGS_DUE_IN_TURN = FLAG_ACK_DUE | FLAG_IN_TURN;

/** Whether the segment's checksum holds, as far as it is looked at. */
export function isChecksumGood(core: TcpCore, meta: PacketMeta, headerBytes: number): boolean {
  const { l4Offset, l4Length } = meta;
  if (meta.isChecksumTrusted || (l4Length > headerBytes && !VERIFY_PAYLOAD)) return true;
  const pseudo = pseudoSumIpv6(meta.source, 0, meta.destination, 0, IP_PROTOCOL_TCP, l4Length);
  if (l4Length === headerBytes) return verifyChecksum(core.view, l4Offset, l4Length, pseudo);
  return core.sockets.sum(l4Offset, l4Length, foldChecksum(pseudo)) === 0xffff;
}

/**
 * Takes a segment if it is the one that `index` expects: the next payload, and nothing else new. That is nearly every segment of a
 * transfer to the host, hence the short cut; it is kept small, since what the compiler does not inline here costs as much as the work.
 * @param index a flow that may or may not be the segment's, live or not
 * @returns false when the segment needs a closer look; nothing was changed then
 */
export function receiveExpected(core: TcpCore, index: number, meta: PacketMeta): boolean {
  const l4 = meta.l4Offset;
  if (!isSegmentOf(core.flows, index, meta, core.view) || l4 < meta.frameOffset || l4 >= meta.frameEnd) return false;
  return receiveNext(core, index, l4, meta.l4Length);
}

/**
 * As {@link receiveExpected}, for a segment that has the flow's addresses and ports.
 * @param l4 offset of the TCP header, in the frame as the link's read has laid it
 * @param l4Length bytes of the segment, its header included
 */
export function receiveNext(core: TcpCore, index: number, l4: number, l4Length: number): boolean {
  const { view, columns: c } = core;
  const length = l4Length - TCP_HEADER_BYTES;
  if (length <= 0 || c.state[index] !== STATE_ESTABLISHED) return false;
  const flagsAndWindow = view.getUint32(l4 + 12);
  const rcvNxt = c.rcvNxt[index]!;
  if (
    (flagsAndWindow & EXPECTED_MASK) !== EXPECTED_FLAGS ||
    view.getUint32(l4 + 4) !== rcvNxt ||
    view.getUint32(l4 + 8) !== c.sndUna[index] ||
    (flagsAndWindow & 0xffff) << c.sndScale[index]! !== c.sndWnd[index] ||
    (c.flags[index]! & FLAGS_UNUSUAL) !== 0 ||
    length > diffSeq(c.rcvEdge[index]!, rcvNxt)
  ) {
    return false;
  }
  gatherPayload(core, index, l4 + TCP_HEADER_BYTES, length);
  c.rcvNxt[index] = rcvNxt + length;
  if ((c.flags[index]! & FLAGS_DUE_IN_TURN) !== FLAGS_DUE_IN_TURN) owe(core, index);
  return true;
}

/** Whether the segment has the flow's addresses and ports. */
export function isSegmentOf(flows: FlowTable, index: number, meta: PacketMeta, view: DataView): boolean {
  const { source, destination, family } = meta;
  const at = index * 4;
  return (
    view.getUint16(meta.l4Offset) === flows.guestPort[index] &&
    view.getUint16(meta.l4Offset + 2) === flows.peerPort[index] &&
    flows.peerAddress[at + 3] === destination[3] &&
    flows.guestAddress[at + 3] === source[3] &&
    flows.family[index] === family &&
    // Of IPv4 addresses only the last word can differ.
    (family === 4 || isSameHead(flows, at, source, destination))
  );
}

function isSameHead(flows: FlowTable, at: number, source: Uint32Array, destination: Uint32Array): boolean {
  const { guestAddress, peerAddress } = flows;
  return (
    guestAddress[at + 2] === source[2] &&
    guestAddress[at + 1] === source[1] &&
    guestAddress[at] === source[0] &&
    peerAddress[at + 2] === destination[2] &&
    peerAddress[at + 1] === destination[1] &&
    peerAddress[at] === destination[0]
  );
}

/** Takes a segment of an established flow. @param headerBytes of its TCP header, options included */
export function receiveSegment(core: TcpCore, index: number, meta: PacketMeta, headerBytes: number): void {
  const { view, columns: c } = core;
  const l4 = meta.l4Offset;
  const tcpFlags = getTcpFlags(view, l4);
  const seq = getTcpSeq(view, l4);
  c.heardMs[index] = core.ctx.nowMs;
  if ((tcpFlags & (TCP_RST | TCP_SYN)) !== 0) {
    receiveControl(core, index, tcpFlags, seq);
    return;
  }
  if ((tcpFlags & TCP_ACK) === 0) return;

  let payload = l4 + headerBytes;
  let length = meta.l4Length - headerBytes;
  let fin = (tcpFlags & TCP_FIN) !== 0;
  const rcvNxt = c.rcvNxt[index]!;
  const window = diffSeq(c.rcvEdge[index]!, rcvNxt);
  let distance = diffSeq(seq, rcvNxt);
  if (distance < 0) {
    const old = -distance;
    // Nothing new: a duplicate, a keep-alive or a window probe. All of them want an answer.
    if (old >= length + (fin ? 1 : 0)) {
      owe(core, index);
      return;
    }
    payload += old;
    length -= old;
    distance = 0;
  } else if (distance > window) {
    owe(core, index);
    return;
  }
  if (distance + length > window) {
    length = window > distance ? window - distance : 0;
    fin = false;
    owe(core, index);
  }

  const isPure = length === 0 && !fin;
  const guestWindow = getTcpWindow(view, l4) << c.sndScale[index]!;
  if (!takeAcknowledgement(core, index, seq, getTcpAck(view, l4), guestWindow, isPure, l4, headerBytes)) return;
  if (isPure) return;
  // After its FIN the guest has nothing more to say.
  if ((c.flags[index]! & FLAG_GUEST_FIN) !== 0) {
    owe(core, index);
    return;
  }
  if (distance > 0) {
    keepBeyondGap(core, index, addSeq(rcvNxt, distance), payload, length, fin);
    return;
  }

  let next = addSeq(rcvNxt, length);
  if (length > 0) {
    gatherPayload(core, index, payload, length);
    // Reassembled packets do not lie where the link's read put them, and their place is reused sooner.
    if (payload < meta.frameOffset || payload >= meta.frameEnd) flushGathered(core);
  }
  c.rcvNxt[index] = next;
  if (fin) {
    c.guestFinSeq[index] = next;
    c.flags[index] = c.flags[index]! | FLAG_GUEST_FIN_SEEN;
  }
  let flags = c.flags[index]!;
  const hadGap = (flags & FLAG_HAS_GAP) !== 0;
  if (hadGap || (flags & FLAG_GUEST_FIN_SEEN) !== 0) {
    if (hadGap) next = fillGap(core, index);
    flags = c.flags[index]!;
    if ((flags & FLAG_GUEST_FIN_SEEN) !== 0 && next === c.guestFinSeq[index]) {
      c.rcvNxt[index] = addSeq(next, 1);
      flags |= FLAG_GUEST_FIN;
    }
  }
  c.flags[index] = flags | FLAG_ACK_DUE;
  if (hadGap) hurryAcknowledgement(core, index);
  addToTurn(core, index);
}

/** Has an acknowledgement sent by the end of the turn. */
function owe(core: TcpCore, index: number): void {
  const { flags } = core.columns;
  flags[index] = flags[index]! | FLAG_ACK_DUE;
  addToTurn(core, index);
}

function receiveControl(core: TcpCore, index: number, tcpFlags: number, seq: number): void {
  const { columns: c } = core;
  if ((tcpFlags & TCP_RST) === 0) {
    owe(core, index);
    return;
  }
  // The guest has forgotten a connection that is over for it. What it had sent was acknowledged and still has to arrive.
  if (isClosedBothWays(core, index)) return;
  const distance = diffSeq(seq, c.rcvNxt[index]!);
  if (distance === 0) {
    // What came before it is delivered; the remote may get to see it before the reset.
    flushFlow(core, index);
    resetHost(core, index);
  } else if (distance > 0 && distance < Math.max(1, diffSeq(c.rcvEdge[index]!, c.rcvNxt[index]!))) {
    owe(core, index);
  }
}

function keepBeyondGap(core: TcpCore, index: number, seq: number, payload: number, length: number, fin: boolean): void {
  const { columns: c, ctx } = core;
  ctx.counters.tcpOutOfOrder++;
  if (fin) {
    c.guestFinSeq[index] = addSeq(seq, length);
    c.flags[index] = c.flags[index]! | FLAG_GUEST_FIN_SEEN;
  }
  if (length > 0) {
    let store = core.gaps.get(index);
    if (store === undefined) {
      store = new GapStore();
      core.gaps.set(index, store);
      c.flags[index] = c.flags[index]! | FLAG_HAS_GAP;
    }
    store.insert(seq, ctx.arena.bytes, payload, length);
  }
  // At once and for each segment: the guest counts them (RFC 5681 §4.2). Without room on the link one has to do.
  if (!writeAck(core, index, acceptableSeq(core, index), false)) owe(core, index);
}

/** Passes on what continues the stream now. @returns the new `rcvNxt` */
function fillGap(core: TcpCore, index: number): number {
  const { columns: c } = core;
  const store = core.gaps.get(index)!;
  let next = c.rcvNxt[index]!;
  for (let bytes = store.take(next); bytes !== undefined; bytes = store.take(next)) {
    passBytes(core, index, bytes);
    next = addSeq(next, bytes.length);
  }
  c.rcvNxt[index] = next;
  if (store.isEmpty) {
    core.gaps.delete(index);
    c.flags[index] = c.flags[index]! & ~FLAG_HAS_GAP;
  }
  return next;
}

/** Takes a segment of a flow in TIME-WAIT: what asks for an acknowledgement gets the last one again. */
export function receiveAfterClose(core: TcpCore, index: number, tcpFlags: number, length: number): void {
  if ((tcpFlags & TCP_RST) !== 0) endFlow(core, index);
  else if (length > 0 || (tcpFlags & TCP_FIN) !== 0) owe(core, index);
}

/** Whether both directions are done, so that a new SYN may take the place of the flow. */
export function isClosedBothWays(core: TcpCore, index: number): boolean {
  return (core.columns.flags[index]! & (FLAG_GUEST_FIN | FLAG_FIN_ACKED)) === (FLAG_GUEST_FIN | FLAG_FIN_ACKED);
}
