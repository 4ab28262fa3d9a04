/**
 * The length in front of each frame on a stream netdev (QEMU's `-netdev stream` and `socket`): 32 bits, big endian, not
 * counting itself.
 *
 * A length outside 14 … 65535 means that the two sides have lost each other in the byte stream; there is no way to find
 * the next frame, so the connection has to be closed. QEMU itself takes up to 69632 bytes, but never sends more than
 * an Ethernet header and 64 KiB. A length of 0 must never be sent: it stops QEMU's receiver for good.
 */
import { ETHERNET_HEADER_BYTES } from './ethernet.ts';
import { WIRE_BAD_LENGTH, WIRE_TRUNCATED } from './status.ts';

export const FRAME_PREFIX_BYTES = 4;
export const FRAME_MIN_BYTES = ETHERNET_HEADER_BYTES;
export const FRAME_MAX_BYTES = 65535;

/** Checks the prefix only, not that the frame is there. @returns 4, WIRE_TRUNCATED or WIRE_BAD_LENGTH */
export function checkFrameLength(view: DataView, offset: number, end: number): number {
  if (end - offset < FRAME_PREFIX_BYTES) return WIRE_TRUNCATED;
  const length = view.getUint32(offset);
  return length < FRAME_MIN_BYTES || length > FRAME_MAX_BYTES ? WIRE_BAD_LENGTH : FRAME_PREFIX_BYTES;
}

/** Bytes of the frame behind the prefix. */
export function getFrameLength(view: DataView, offset: number): number {
  return view.getUint32(offset);
}

/** @param length bytes of the frame behind the prefix, 14 … 65535 */
export function writeFrameLength(view: DataView, offset: number, length: number): void {
  view.setUint32(offset, length);
}
