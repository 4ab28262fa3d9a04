/**
 * What TCP knows about each flow: typed-array columns beside those of the flow table, under the same index.
 *
 * Names follow RFC 9293 §3.3.1 where it has one: `snd` is the direction host → guest (we send), `rcv` is guest → host. Sequence
 * numbers are uint32. All columns are allocated at the table's capacity; untouched pages cost nothing.
 *
 * The connection's state is one small number while it is being set up and torn down, and flags while it lives: the two
 * directions close independently, and each of FIN seen / FIN passed on / FIN acknowledged is one bit.
 */

import type { ColumnBlock } from '../../base/column-block.ts';

/** Entry not in use. */
export const STATE_NONE = 0;
/** The guest's SYN waits for the host's connect to finish. */
export const STATE_CONNECTING = 1;
/** The host has accepted a connection; our SYN to the guest is on its way. */
export const STATE_SYN_SENT = 2;
/** Our SYN-ACK to the guest is on its way. */
export const STATE_SYN_RECEIVED = 3;
/** Handshake done; which directions are still open is told by the flags. */
export const STATE_ESTABLISHED = 4;
/** The host side is gone; a RST has to reach the link, and then the flow ends. */
export const STATE_RESET = 5;
/** Over, and without a socket; answers a guest that has missed our last acknowledgement. */
export const STATE_TIME_WAIT = 6;

/** The flow stands in the turn list and is served when the turn ends. */
export const FLAG_IN_TURN = 0x1;
/** An acknowledgement has to go out by the end of the turn. */
export const FLAG_ACK_DUE = 0x2;
/** A SYN or SYN-ACK has to go out. */
export const FLAG_SYN_DUE = 0x4;
/** The host socket may have data that was not peeked yet. */
export const FLAG_HOST_READABLE = 0x8;
/** The kernel has the remote's FIN: a short peek does not mean that an event will follow. */
export const FLAG_HOST_ENDING = 0x10;
/** Urgent data was announced: peeks stop at the mark, so a short one does not mean that the queue is empty. */
export const FLAG_HOST_URGENT = 0x20;
/** A peek came to the end of the stream: `finSeq` is the sequence number of our FIN. */
export const FLAG_HOST_FIN = 0x40;
/** The guest has acknowledged our FIN. */
export const FLAG_FIN_ACKED = 0x80;
/** The guest's FIN has been taken: `rcvNxt` is behind it. */
export const FLAG_GUEST_FIN = 0x100;
/** The guest's FIN has been seen, maybe beyond a gap: it stands at `guestFinSeq`. */
export const FLAG_GUEST_FIN_SEEN = 0x200;
/** shutdown(SHUT_WRITE) was done on the host socket. */
export const FLAG_HOST_SHUT = 0x400;
/** Bytes wait in the spill because the host socket was full. */
export const FLAG_HAS_SPILL = 0x800;
/** Bytes beyond a gap are kept. */
export const FLAG_HAS_GAP = 0x1000;
/** Both sides have said SACK-permitted. */
export const FLAG_SACK_OK = 0x2000;
/** SO_PEEK_OFF does not work on this socket: peeks have to skip. */
export const FLAG_NO_PEEK_OFF = 0x4000;
/** The host's connection failed: what can be read goes out, then a RST. */
export const FLAG_HOST_FAILED = 0x8000;
/** Something was lost: see recovery.ts, which owns the columns `recover` … `sendLimit`. */
export const FLAG_RECOVERING = 0x10000;
/** The persist timer has run out: send what little the window allows (RFC 1122 §4.2.3.4). */
export const FLAG_FORCE_SEND = 0x20000;
/** New data was acknowledged: the retransmission timer starts anew (RFC 6298 §5.3). */
export const FLAG_RTO_RESTART = 0x40000;
/** An acknowledgement is held back for data that may carry it, see delayed-ack.ts. */
export const FLAG_ACK_DELAYED = 0x80000;
/** SO_PEEK_OFF is set: a peek starts at `peekOffset` and advances it. Without, it starts at the front of the queue. */
export const FLAG_PEEK_OFF = 0x100000;
/** The poller reports room in the host socket, see host-socket.ts. */
export const FLAG_WATCHES_ROOM = 0x200000;

export class TcpColumns {
  /** STATE_… */
  readonly state: Uint8Array;
  /** FLAG_… */
  readonly flags: Uint32Array;

  /** Our initial sequence number. */
  readonly iss: Uint32Array;
  /** Oldest number that the guest has not acknowledged. */
  readonly sndUna: Uint32Array;
  /** Next number to send for the first time. */
  readonly sndNxt: Uint32Array;
  /** Window that the guest offers, in bytes from sndUna. */
  readonly sndWnd: Uint32Array;
  /** Largest window that the guest has ever offered. */
  readonly maxWnd: Uint32Array;
  /** Sequence and acknowledgement number of the segment that set sndWnd last. */
  readonly sndWl1: Uint32Array;
  readonly sndWl2: Uint32Array;
  /** Shift of the guest's window field. */
  readonly sndScale: Uint8Array;
  /** Most payload in a segment to the guest. */
  readonly mss: Uint16Array;
  /** Number of the FIN to the guest; valid with FLAG_HOST_FIN. */
  readonly finSeq: Uint32Array;
  /** Number of the first byte in the host socket's receive queue. */
  readonly queueSeq: Uint32Array;
  /** What SO_PEEK_OFF of the host socket stands at; 0 while it is not set. */
  readonly peekOffset: Uint32Array;

  /** Recovery is over when this number is acknowledged. */
  readonly recover: Uint32Array;
  /** What lies before this number was sent again in the running recovery. */
  readonly resentEnd: Uint32Array;
  /** What lies before this number, and was not reported, is lost. */
  readonly lostEnd: Uint32Array;
  /** Most bytes in flight after a timeout; 0: only the window counts. */
  readonly sendLimit: Uint32Array;
  readonly dupAcks: Uint8Array;
  /** Number whose acknowledgement ends the running round-trip measurement; valid with rttStartMs. */
  readonly rttSeq: Uint32Array;
  /** When the measured segment left; 0: none is measured. */
  readonly rttStartMs: Float64Array;
  /** Smoothed round-trip time and its variation, ms; srttMs 0: nothing measured yet. */
  readonly srttMs: Float32Array;
  readonly rttVarMs: Float32Array;
  /** Current retransmission or persist interval, back-off included. */
  readonly rtoMs: Float32Array;
  /** TIMER_…, see timers.ts. */
  readonly timerKind: Uint8Array;
  /** Unanswered SYNs, retransmissions or probes in a row. */
  readonly retries: Uint8Array;
  /** When the first unanswered retransmission left, valid with retries > 0. */
  readonly stalledMs: Float64Array;
  /** When the guest was last heard of on this flow. */
  readonly heardMs: Float64Array;

  /** Next number expected from the guest. */
  readonly rcvNxt: Uint32Array;
  /** What the guest was last told by an acknowledgement. */
  readonly ackedSeq: Uint32Array;
  /** Whether acknowledgements are worth holding back, see delayed-ack.ts. */
  readonly dialogue: Uint8Array;
  /** First number beyond the largest window ever offered; never goes back. */
  readonly rcvEdge: Uint32Array;
  /** Shift of our window field; RCV_NO_SCALE until agreed. */
  readonly rcvScale: Uint8Array;
  readonly guestFinSeq: Uint32Array;
  /** Bytes in the flow's spill. */
  readonly spilled: Uint32Array;
  /** Slot of the segments gathered in this turn, plus 1; 0: none. */
  readonly gatherSlot: Uint8Array;

  /** Sum of addresses and protocol for the checksum, folded to 16 bits. */
  readonly pseudoSum: Uint16Array;

  constructor(capacity: number, columns: ColumnBlock) {
    this.state = columns.uint8(capacity);
    this.flags = columns.uint32(capacity);
    this.iss = columns.uint32(capacity);
    this.sndUna = columns.uint32(capacity);
    this.sndNxt = columns.uint32(capacity);
    this.sndWnd = columns.uint32(capacity);
    this.maxWnd = columns.uint32(capacity);
    this.sndWl1 = columns.uint32(capacity);
    this.sndWl2 = columns.uint32(capacity);
    this.sndScale = columns.uint8(capacity);
    this.mss = columns.uint16(capacity);
    this.finSeq = columns.uint32(capacity);
    this.queueSeq = columns.uint32(capacity);
    this.peekOffset = columns.uint32(capacity);
    this.recover = columns.uint32(capacity);
    this.resentEnd = columns.uint32(capacity);
    this.lostEnd = columns.uint32(capacity);
    this.sendLimit = columns.uint32(capacity);
    this.dupAcks = columns.uint8(capacity);
    this.rttSeq = columns.uint32(capacity);
    this.rttStartMs = columns.float64(capacity);
    this.srttMs = columns.float32(capacity);
    this.rttVarMs = columns.float32(capacity);
    this.rtoMs = columns.float32(capacity);
    this.timerKind = columns.uint8(capacity);
    this.retries = columns.uint8(capacity);
    this.stalledMs = columns.float64(capacity);
    this.heardMs = columns.float64(capacity);
    this.rcvNxt = columns.uint32(capacity);
    this.ackedSeq = columns.uint32(capacity);
    this.dialogue = columns.uint8(capacity);
    this.rcvEdge = columns.uint32(capacity);
    this.rcvScale = columns.uint8(capacity);
    this.guestFinSeq = columns.uint32(capacity);
    this.spilled = columns.uint32(capacity);
    this.gatherSlot = columns.uint8(capacity);
    this.pseudoSum = columns.uint16(capacity);
  }

  /** Prepares the columns of an entry just opened. Numbers that the handshake sets are left alone. */
  reset(index: number, state: number, iss: number, nowMs: number): void {
    this.state[index] = state;
    this.flags[index] = 0;
    this.iss[index] = iss;
    this.sndUna[index] = iss;
    this.sndNxt[index] = iss;
    this.sndWnd[index] = 0;
    this.maxWnd[index] = 0;
    this.sndScale[index] = 0;
    this.queueSeq[index] = iss + 1;
    this.peekOffset[index] = 0;
    this.recover[index] = iss;
    this.sendLimit[index] = 0;
    this.dupAcks[index] = 0;
    this.rttStartMs[index] = 0;
    this.srttMs[index] = 0;
    this.rttVarMs[index] = 0;
    this.timerKind[index] = 0;
    this.retries[index] = 0;
    this.heardMs[index] = nowMs;
    this.rcvNxt[index] = 0;
    this.rcvEdge[index] = 0;
    this.ackedSeq[index] = 0;
    this.dialogue[index] = 0;
    this.spilled[index] = 0;
    this.gatherSlot[index] = 0;
  }
}
