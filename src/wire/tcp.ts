/**
 * TCP header (RFC 9293 §3.1) and its options: maximum segment size (RFC 9293 §3.7.1), window scale and timestamps (RFC 7323),
 * selective acknowledgement (RFC 2018).
 *
 * Order when writing: options first, at offset + 20, then `writeTcpHeader`, which sums header and options onto the sum of
 * pseudo-header and payload that the caller has (the payload's usually from the native addon).
 *
 * Reading options fills one reused record; an option seen twice counts with its last value. Options that belong to a SYN are
 * ignored on other segments (RFC 7323 §2.2, RFC 2018 §2). Writing them produces the layouts that Linux sends, padded in front
 * with NOPs so that 32-bit values are aligned and each function's output is a multiple of four bytes.
 *
 * Not done: the urgent pointer is written as 0; the AE/NS bit (RFC 9768) is written as 0 and not read; fast open (RFC 7413),
 * MD5 and AO signatures and multipath are skipped.
 */
import { addHalves, finishChecksum, sumBytes } from './checksum.ts';
import { WIRE_BAD_LENGTH, WIRE_BAD_OPTION, WIRE_TRUNCATED } from './status.ts';

/** Without options. */
export const TCP_HEADER_BYTES = 20;
/** 15 words of header: 40 bytes of options at most. */
export const TCP_MAX_HEADER_BYTES = 60;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;
export const TCP_URG = 0x20;
/** RFC 3168 §6.1. */
export const TCP_ECE = 0x40;
/** RFC 3168 §6.1. */
export const TCP_CWR = 0x80;

const KIND_END = 0;
const KIND_NOP = 1;
/** RFC 9293 §3.7.1. */
const KIND_MSS = 2;
/** RFC 7323 §2.2. */
const KIND_WINDOW_SCALE = 3;
/** RFC 2018 §2. */
const KIND_SACK_PERMITTED = 4;
/** RFC 2018 §3. */
const KIND_SACK = 5;
/** RFC 7323 §3.2. */
const KIND_TIMESTAMPS = 8;

/** NOP NOP timestamps length-10: how nearly every segment with timestamps begins (RFC 7323 appendix A). */
const ALIGNED_TIMESTAMPS_WORD = 0x0101080a;

/** RFC 7323 §2.3: a larger shift is used as 14. */
export const TCP_MAX_WINDOW_SCALE = 14;
/** As many SACK blocks as 40 bytes of options can hold. */
export const TCP_MAX_SACK_BLOCKS = 4;
/** Bytes of `writeTcpTimestampOption`. */
export const TCP_TIMESTAMP_OPTION_BYTES = 12;
/** Most bytes that `writeTcpSynOptions` can write. */
export const TCP_MAX_SYN_OPTIONS_BYTES = 20;

/** @returns the header's length (20 … 60), WIRE_TRUNCATED or WIRE_BAD_LENGTH */
export function checkTcp(view: DataView, offset: number, end: number): number {
  const available = end - offset;
  if (available < TCP_HEADER_BYTES) return WIRE_TRUNCATED;
  const headerLength = (view.getUint8(offset + 12) >> 4) << 2;
  if (headerLength < TCP_HEADER_BYTES) return WIRE_BAD_LENGTH;
  return headerLength > available ? WIRE_TRUNCATED : headerLength;
}

export function getTcpSrcPort(view: DataView, offset: number): number {
  return view.getUint16(offset);
}

export function getTcpDstPort(view: DataView, offset: number): number {
  return view.getUint16(offset + 2);
}

/** Sequence number, a uint32. */
export function getTcpSeq(view: DataView, offset: number): number {
  return view.getUint32(offset + 4);
}

/** Acknowledgement number, a uint32; meaningful only with TCP_ACK. */
export function getTcpAck(view: DataView, offset: number): number {
  return view.getUint32(offset + 8);
}

/** Bytes of header and options (20 … 60). */
export function getTcpHeaderLength(view: DataView, offset: number): number {
  return (view.getUint8(offset + 12) >> 4) << 2;
}

/** The eight flags, TCP_FIN … TCP_CWR. */
export function getTcpFlags(view: DataView, offset: number): number {
  return view.getUint8(offset + 13);
}

/** The window field as it stands, not scaled. */
export function getTcpWindow(view: DataView, offset: number): number {
  return view.getUint16(offset + 14);
}

export function getTcpChecksum(view: DataView, offset: number): number {
  return view.getUint16(offset + 16);
}

/** Meaningful only with TCP_URG. */
export function getTcpUrgent(view: DataView, offset: number): number {
  return view.getUint16(offset + 18);
}

/**
 * Writes the 20 fixed bytes, with a checksum over them, the options that already stand behind them, and the given sum.
 * @param seq sequence number, int32 or uint32
 * @param ack acknowledgement number, int32 or uint32
 * @param headerLength bytes of header and options, a multiple of 4 in 20 … 60
 * @param window the field's value (0 … 65535), already scaled down
 * @param sumOfPseudoAndPayload sum (see checksum.ts) of the pseudo-header and the payload
 */
export function writeTcpHeader(
  view: DataView,
  offset: number,
  srcPort: number,
  dstPort: number,
  seq: number,
  ack: number,
  headerLength: number,
  flags: number,
  window: number,
  sumOfPseudoAndPayload: number,
): void {
  const lengthAndFlags = (headerLength << 10) | flags;
  view.setUint16(offset, srcPort);
  view.setUint16(offset + 2, dstPort);
  view.setUint32(offset + 4, seq);
  view.setUint32(offset + 8, ack);
  view.setUint16(offset + 12, lengthAndFlags);
  view.setUint16(offset + 14, window);
  let sum = sumOfPseudoAndPayload + srcPort + dstPort + addHalves(seq) + addHalves(ack) + lengthAndFlags + window;
  if (headerLength > TCP_HEADER_BYTES) {
    sum = sumBytes(view, offset + TCP_HEADER_BYTES, headerLength - TCP_HEADER_BYTES, sum);
  }
  view.setUint16(offset + 16, finishChecksum(sum));
  view.setUint16(offset + 18, 0);
}

/** What `parseTcpOptions` found; one record is reused for all segments. */
export interface TcpOptions {
  /** 0: none; only ever set by a SYN. */
  mss: number;
  /** 0 … 14, -1: none; only ever set by a SYN. */
  windowScale: number;
  /** Only ever set by a SYN. */
  sackPermitted: boolean;
  /** Whether tsVal and tsEcr are valid. */
  hasTimestamp: boolean;
  /** uint32. */
  tsVal: number;
  /** uint32; meaningful only with TCP_ACK. */
  tsEcr: number;
  /** 0 … 4. */
  sackCount: number;
  /** Left and right edge of each block in turn, 2 · sackCount values. */
  readonly sackBlocks: Uint32Array;
}

/** Makes the record that `parseTcpOptions` fills. */
export function createTcpOptions(): TcpOptions {
  return {
    mss: 0,
    windowScale: -1,
    sackPermitted: false,
    hasTimestamp: false,
    tsVal: 0,
    tsEcr: 0,
    sackCount: 0,
    sackBlocks: new Uint32Array(2 * TCP_MAX_SACK_BLOCKS),
  };
}

/**
 * Fills `options` from the segment at `offset`, which `checkTcp` has accepted with `headerLength`.
 * @returns 0, or WIRE_BAD_OPTION; what stood before the bad option is in the record then, and RFC 9293 §3.1 (MUST-7) leaves it
 * to the caller to go on with that.
 */
export function parseTcpOptions(view: DataView, offset: number, headerLength: number, options: TcpOptions): number {
  options.mss = 0;
  options.windowScale = -1;
  options.sackPermitted = false;
  options.hasTimestamp = false;
  options.sackCount = 0;
  if (headerLength === TCP_HEADER_BYTES) return 0;

  const end = offset + headerLength;
  const isSyn = (view.getUint8(offset + 13) & TCP_SYN) !== 0;
  let at = offset + TCP_HEADER_BYTES;
  if (end - at >= TCP_TIMESTAMP_OPTION_BYTES && view.getUint32(at) === ALIGNED_TIMESTAMPS_WORD) {
    options.hasTimestamp = true;
    options.tsVal = view.getUint32(at + 4);
    options.tsEcr = view.getUint32(at + 8);
    at += TCP_TIMESTAMP_OPTION_BYTES;
  }
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === KIND_END) return 0;
    if (kind === KIND_NOP) {
      at++;
      continue;
    }
    if (at + 2 > end) return WIRE_BAD_OPTION;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return WIRE_BAD_OPTION;
    switch (kind) {
      case KIND_MSS:
        if (length !== 4) return WIRE_BAD_OPTION;
        if (isSyn) options.mss = view.getUint16(at + 2);
        break;
      case KIND_WINDOW_SCALE:
        if (length !== 3) return WIRE_BAD_OPTION;
        if (isSyn) options.windowScale = Math.min(view.getUint8(at + 2), TCP_MAX_WINDOW_SCALE);
        break;
      case KIND_SACK_PERMITTED:
        if (length !== 2) return WIRE_BAD_OPTION;
        if (isSyn) options.sackPermitted = true;
        break;
      case KIND_SACK: {
        if (length < 10 || (length & 7) !== 2) return WIRE_BAD_OPTION;
        const words = (length - 2) >> 2;
        for (let i = 0; i < words; i++) options.sackBlocks[i] = view.getUint32(at + 2 + (i << 2));
        options.sackCount = words >> 1;
        break;
      }
      case KIND_TIMESTAMPS:
        if (length !== 10) return WIRE_BAD_OPTION;
        options.hasTimestamp = true;
        options.tsVal = view.getUint32(at + 2);
        options.tsEcr = view.getUint32(at + 6);
        break;
    }
    at += length;
  }
  return 0;
}

/**
 * Writes the options of a SYN or SYN-ACK at `offset` (of the options, header + 20).
 * @param mss 1 … 65535
 * @param windowScale 0 … 14, -1: none
 * @returns bytes written, a multiple of 4, at most TCP_MAX_SYN_OPTIONS_BYTES
 */
export function writeTcpSynOptions(
  view: DataView,
  offset: number,
  mss: number,
  windowScale: number,
  sackPermitted: boolean,
  hasTimestamp: boolean,
  tsVal: number,
  tsEcr: number,
): number {
  let at = offset;
  view.setUint16(at, (KIND_MSS << 8) | 4);
  view.setUint16(at + 2, mss);
  at += 4;
  // SACK-permitted takes the place of the two NOPs in front of the timestamps where both are sent.
  const sackOrNops = sackPermitted ? (KIND_SACK_PERMITTED << 8) | 2 : (KIND_NOP << 8) | KIND_NOP;
  if (hasTimestamp) {
    view.setUint16(at, sackOrNops);
    view.setUint16(at + 2, (KIND_TIMESTAMPS << 8) | 10);
    view.setUint32(at + 4, tsVal);
    view.setUint32(at + 8, tsEcr);
    at += 12;
  } else if (sackPermitted) {
    view.setUint16(at, (KIND_NOP << 8) | KIND_NOP);
    view.setUint16(at + 2, sackOrNops);
    at += 4;
  }
  if (windowScale >= 0) {
    view.setUint16(at, (KIND_NOP << 8) | KIND_WINDOW_SCALE);
    view.setUint16(at + 2, (3 << 8) | windowScale);
    at += 4;
  }
  return at - offset;
}

/** Writes NOP, NOP, timestamps at `offset`. @returns 12 */
export function writeTcpTimestampOption(view: DataView, offset: number, tsVal: number, tsEcr: number): number {
  view.setUint32(offset, ALIGNED_TIMESTAMPS_WORD);
  view.setUint32(offset + 4, tsVal);
  view.setUint32(offset + 8, tsEcr);
  return TCP_TIMESTAMP_OPTION_BYTES;
}

/**
 * Writes NOP, NOP, SACK at `offset`.
 * @param blocks left and right edge of each block in turn, most recent block first (RFC 2018 §4)
 * @param count blocks to write: 1 … 4, 3 beside timestamps
 * @returns bytes written, 4 + 8 · count
 */
export function writeTcpSackOption(view: DataView, offset: number, blocks: Uint32Array, count: number): number {
  view.setUint16(offset, (KIND_NOP << 8) | KIND_NOP);
  view.setUint16(offset + 2, (KIND_SACK << 8) | (2 + (count << 3)));
  const words = count << 1;
  for (let i = 0; i < words; i++) view.setUint32(offset + 4 + (i << 2), blocks[i]!);
  return 4 + (count << 3);
}
