/**
 * Writer of "newc" cpio archives, the format of a Linux initramfs (Documentation/driver-api/early-userspace/buffer-format):
 * per entry a header of fixed hexadecimal fields, the name, the data, each padded to four bytes; `TRAILER!!!` ends it.
 * Folders above an entry are made as needed.
 */

/** File type bits of st_mode. */
const MODE_FOLDER = 0o040000;
const MODE_FILE = 0o100000;
const MODE_LINK = 0o120000;
const MODE_CHARACTER_DEVICE = 0o020000;

/** Collects entries; {@link CpioWriter.finish} gives the archive. */
export class CpioWriter {
  readonly #parts: Buffer[] = [];
  readonly #folders = new Set<string>();
  #nextInode = 1;

  /** Adds a folder and the folders above it. */
  addFolder(path: string): void {
    const name = cleanPath(path);
    if (name === '' || this.#folders.has(name)) return;
    this.#addParents(name);
    this.#folders.add(name);
    this.#addEntry(name, MODE_FOLDER | 0o755, Buffer.alloc(0), 0, 0);
  }

  /** Adds a regular file; `mode` is its permission bits. */
  addFile(path: string, data: Buffer | string, mode = 0o644): void {
    const name = cleanPath(path);
    this.#addParents(name);
    this.#addEntry(name, MODE_FILE | mode, typeof data === 'string' ? Buffer.from(data) : data, 0, 0);
  }

  /** Adds a symbolic link. */
  addLink(path: string, target: string): void {
    const name = cleanPath(path);
    this.#addParents(name);
    this.#addEntry(name, MODE_LINK | 0o777, Buffer.from(target), 0, 0);
  }

  /** Adds a character device node. */
  addCharacterDevice(path: string, major: number, minor: number): void {
    const name = cleanPath(path);
    this.#addParents(name);
    this.#addEntry(name, MODE_CHARACTER_DEVICE | 0o600, Buffer.alloc(0), major, minor);
  }

  /** The whole archive. */
  finish(): Buffer {
    this.#addEntry('TRAILER!!!', 0, Buffer.alloc(0), 0, 0);
    return Buffer.concat(this.#parts);
  }

  #addParents(name: string): void {
    const slash = name.lastIndexOf('/');
    if (slash > 0) this.addFolder(name.slice(0, slash));
  }

  #addEntry(name: string, mode: number, data: Buffer, major: number, minor: number): void {
    const nameBytes = Buffer.from(`${name}\0`);
    const fields = [
      this.#nextInode++,
      mode,
      0, // uid
      0, // gid
      (mode & MODE_FOLDER) !== 0 ? 2 : 1, // links
      0, // time: fixed, so that equal contents give equal archives
      data.length,
      0, // device of the file, major
      0, // and minor
      major,
      minor,
      nameBytes.length,
      0, // checksum, unused by newc
    ];
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
    this.#parts.push(header, nameBytes, padding(header.length + nameBytes.length), data, padding(data.length));
  }
}

function cleanPath(path: string): string {
  return path.replace(/^\/+|\/+$/g, '');
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
