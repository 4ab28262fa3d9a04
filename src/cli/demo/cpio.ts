/**
 * The "newc" cpio format of a Linux initramfs (kernel documentation, driver-api/early-userspace/buffer-format): a header of
 * hexadecimal fields, name and data for each file, both padded to four bytes, and a trailer.
 */

const MODE_FOLDER = 0o040755;
const MODE_LINK = 0o120777;
const MODE_DEVICE = 0o020600;
const MODE_FILE = 0o100000;

export interface CpioEntry {
  /** Without a slash in front. Folders must stand before what is in them. */
  readonly path: string;
  readonly kind: 'folder' | 'file' | 'link' | 'device';
  /** A file's contents, a link's target. */
  readonly data?: Buffer;
  readonly executable?: boolean;
  /** A character device's numbers. */
  readonly major?: number;
  readonly minor?: number;
}

export function buildCpio(entries: readonly CpioEntry[]): Buffer {
  const trailer: CpioEntry = { path: 'TRAILER!!!', kind: 'file' };
  return Buffer.concat([...entries, trailer].flatMap((entry, index) => buildEntry(entry, index + 1)));
}

function buildEntry(entry: CpioEntry, inode: number): Buffer[] {
  const data = entry.data ?? Buffer.alloc(0);
  const name = Buffer.from(`${entry.path}\0`);
  const links = entry.kind === 'folder' ? 2 : 1;
  const fields = [
    inode,
    modeOf(entry),
    0,
    0,
    links,
    0,
    data.length,
    0,
    0,
    entry.major ?? 0,
    entry.minor ?? 0,
    name.length,
    0,
  ];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return [header, name, padding(header.length + name.length), data, padding(data.length)];
}

function modeOf(entry: CpioEntry): number {
  if (entry.kind === 'folder') return MODE_FOLDER;
  if (entry.kind === 'link') return MODE_LINK;
  if (entry.kind === 'device') return MODE_DEVICE;
  return MODE_FILE | (entry.executable === true ? 0o755 : 0o644);
}

function padding(lengthBytes: number): Buffer {
  return Buffer.alloc(-lengthBytes & 3);
}
