/** Limits of a recording. */
import type { Reject } from './definition.ts';
import { parseSize } from './values.ts';

/** Room for what is in front of all frames and behind them, and some frames. */
export const CAPTURE_SIZE_MIN = 4096;
/** An Ethernet header. */
export const SNAPLEN_MIN = 14;
/** No frame is longer. */
export const SNAPLEN_MAX = 262_144;

/** Bytes of a file. */
export function parseCaptureSize(text: string, reject: Reject): number {
  const expected = `a number of bytes, at least ${CAPTURE_SIZE_MIN}, with K, M or G if you like`;
  const size = parseSize(text, () => reject(expected));
  return size < CAPTURE_SIZE_MIN || !Number.isSafeInteger(size) ? reject(expected) : size;
}

/** Bytes of a frame. */
export function parseSnaplen(text: string, reject: Reject): number {
  const bytes = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (bytes < SNAPLEN_MIN || bytes > SNAPLEN_MAX) reject(`a number of bytes, from ${SNAPLEN_MIN} to ${SNAPLEN_MAX}`);
  return bytes;
}
