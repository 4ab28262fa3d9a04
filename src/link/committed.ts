import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts';

/**
 * What every link with a region of its own asks of a frame that is committed to it (see GuestLink).
 * @param place - where the frame must be: behind the last one, and the headroom
 * @param limit - end of the region
 * @param maxBytes - the longest frame that the link takes
 * @throws RangeError
 */
export function checkCommitted(
  offset: number,
  lengthBytes: number,
  place: number,
  limit: number,
  maxBytes: number,
): void {
  if (
    offset !== place ||
    offset + lengthBytes > limit ||
    lengthBytes < ETHERNET_HEADER_BYTES ||
    lengthBytes > maxBytes
  ) {
    throw new RangeError(`a frame of ${lengthBytes} bytes at ${offset} does not follow the last one`);
  }
}
