/**
 * The virtio-net header in front of a frame (virtio 1.2 §5.1.6): what of the sender's work is left to the receiver.
 *
 * 12 bytes, little-endian (a tap uses the machine's own order unless told otherwise, which on all that Node runs on is this): flags, kind
 * of segmentation, length of all headers, payload of each segment, where the checksummed part of the packet begins, where in it the
 * checksum stands, number of buffers.
 *
 * A partial checksum is the pseudo-header's sum, folded and not inverted, in the place of the checksum. The receiver completes it
 * when the frame leaves the machine; inside it is as good as a whole one, since there is nothing that could have changed the bytes.
 * A frame of more payload than one segment is cut by the receiver, or, again, used as it is.
 *
 * Not done: ECN with segmentation (the bit may come and means nothing to us), UDP fragmentation (type 3), hash reports, merged buffers.
 */
import { WIRE_BAD_LENGTH, WIRE_TRUNCATED, WIRE_UNSUPPORTED } from './status.ts';

export const VNET_HEADER_BYTES = 12;

/** The checksum is partial: to be completed from `checksum start` on. */
export const VNET_NEEDS_CHECKSUM = 1;
/** The sender has verified the checksum. */
export const VNET_CHECKSUM_VALID = 2;

export const VNET_WHOLE = 0;
export const VNET_TCP4 = 1;
export const VNET_TCP6 = 4;
/** UDP datagrams of equal length, but for the last. */
export const VNET_UDP = 5;
/** Joins a TCP kind: the first segment has CWR set. */
const VNET_ECN = 0x80;

/**
 * Checks the header against the frame that follows it at `offset + 12`.
 * @returns 12, WIRE_TRUNCATED, WIRE_BAD_LENGTH (no segment size, or a checksum outside the frame) or WIRE_UNSUPPORTED
 */
export function checkVnet(view: DataView, offset: number, end: number): number {
  const frameBytes = end - offset - VNET_HEADER_BYTES;
  if (frameBytes < 0) return WIRE_TRUNCATED;
  const kind = getVnetKind(view, offset);
  if (kind !== VNET_WHOLE) {
    if (kind !== VNET_TCP4 && kind !== VNET_TCP6 && kind !== VNET_UDP) return WIRE_UNSUPPORTED;
    if (getVnetSegmentBytes(view, offset) === 0) return WIRE_BAD_LENGTH;
  }
  if ((getVnetFlags(view, offset) & VNET_NEEDS_CHECKSUM) !== 0) {
    const start = view.getUint16(offset + 6, true);
    if (start + view.getUint16(offset + 8, true) + 2 > frameBytes) return WIRE_BAD_LENGTH;
  }
  return VNET_HEADER_BYTES;
}

/** VNET_NEEDS_CHECKSUM, VNET_CHECKSUM_VALID. */
export function getVnetFlags(view: DataView, offset: number): number {
  return view.getUint8(offset);
}

/** VNET_WHOLE, VNET_TCP4 … */
export function getVnetKind(view: DataView, offset: number): number {
  return view.getUint8(offset + 1) & ~VNET_ECN;
}

/** Payload bytes of each segment but the last; meaningless with VNET_WHOLE. */
export function getVnetSegmentBytes(view: DataView, offset: number): number {
  return view.getUint16(offset + 4, true);
}

/** Writes the header of a frame that leaves nothing to do. */
export function writeVnetWhole(view: DataView, offset: number): void {
  view.setUint32(offset, 0);
  view.setUint32(offset + 4, 0);
  view.setUint32(offset + 8, 0);
}

/**
 * Writes the header of a frame with a partial checksum.
 * @param kind VNET_WHOLE when one segment holds all
 * @param headersBytes from the start of the frame to the payload
 * @param segmentBytes payload of each segment
 * @param checksumStart from the start of the frame to the TCP or UDP header
 * @param checksumOffset from there to the checksum
 */
export function writeVnetPartial(
  view: DataView,
  offset: number,
  kind: number,
  headersBytes: number,
  segmentBytes: number,
  checksumStart: number,
  checksumOffset: number,
): void {
  const isWhole = kind === VNET_WHOLE;
  view.setUint8(offset, VNET_NEEDS_CHECKSUM);
  view.setUint8(offset + 1, kind);
  view.setUint16(offset + 2, headersBytes, true);
  view.setUint16(offset + 4, isWhole ? 0 : segmentBytes, true);
  view.setUint16(offset + 6, checksumStart, true);
  view.setUint16(offset + 8, checksumOffset, true);
  view.setUint16(offset + 10, 0);
}
