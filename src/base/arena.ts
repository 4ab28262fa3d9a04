/**
 * The one block of memory that the data path works in.
 *
 * Everything on the data path is an index into `bytes`/`view`; the addon is given the same block once and takes plain offsets,
 * so a call carries integers only. Regions are handed out at start-up and never given back. Pages that nobody touches
 * cost no memory: the block is zero-filled by the kernel on first touch.
 */
export interface Arena {
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /**
   * Takes a region of `lengthBytes`, aligned to `alignBytes` (a power of two, default 64).
   * @returns the region's offset
   * @throws RangeError when the arena is used up: a programming error, sizes are fixed at start-up
   */
  allocate(lengthBytes: number, alignBytes?: number): number;
}

/** Makes an arena of `sizeBytes`. */
export function createArena(sizeBytes: number): Arena {
  const buffer = new ArrayBuffer(sizeBytes);
  let top = 64;
  return {
    buffer,
    bytes: new Uint8Array(buffer),
    view: new DataView(buffer),
    allocate(lengthBytes, alignBytes = 64) {
      const offset = (top + alignBytes - 1) & ~(alignBytes - 1);
      if (offset + lengthBytes > sizeBytes) {
        throw new RangeError(`arena of ${sizeBytes} bytes cannot hold another ${lengthBytes}`);
      }
      top = offset + lengthBytes;
      return offset;
    },
  };
}
