/**
 * A file descriptor with one owner. Descriptors are small integers that the kernel reuses at once, so closing one twice
 * closes somebody else's: whoever holds an OwnedFd closes it, whoever takes the number out of it has become the owner.
 */
import { closeSync } from 'node:fs';

export class OwnedFd {
  #fd: number;

  /** @param fd - an open descriptor (>= 0); this object is its owner from here on */
  constructor(fd: number) {
    if (!Number.isInteger(fd) || fd < 0) throw new RangeError(`not a file descriptor: ${fd}`);
    this.#fd = fd;
  }

  /** The number, to be used while this object lives. Throws once closed or taken. */
  get fd(): number {
    if (this.#fd < 0) throw new RangeError('the file descriptor was closed or given away');
    return this.#fd;
  }

  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  /** Gives the descriptor away: the caller owns it from here on. */
  take(): number {
    const { fd } = this;
    this.#fd = -1;
    return fd;
  }

  /** Closes the descriptor; a second call does nothing. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    closeSync(fd);
  }
}
