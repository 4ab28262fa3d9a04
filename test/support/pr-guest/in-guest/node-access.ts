/** What a node of a cluster can do with a disk that is attached to it, without a helper. */
import { spawnSync } from 'node:child_process';

/** Writes one block past the page cache, and reads one. */
export function tryAccess(disk: string): string {
  const write = spawnSync('dd', ['if=/dev/zero', `of=${disk}`, 'bs=4096', 'count=1', 'oflag=direct']);
  const read = spawnSync('dd', [`if=${disk}`, 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct']);
  return `${write.status === 0 ? 'writes' : 'does not write'}, ${read.status === 0 ? 'reads' : 'does not read'}`;
}

/** Exit status of sg_persist (0, or 24 for a reservation conflict), and the keys that it printed. */
export function persist(disk: string, ...args: string[]): string {
  const { status, stdout } = spawnSync('sg_persist', ['--no-inquiry', ...args, disk], { encoding: 'utf8' });
  const keys = stdout.replace(/generation=\w+/, '').match(/0x[0-9a-f]*[1-9a-f][0-9a-f]{1,}/g) ?? [];
  return [`status ${status}`, ...keys].join(' ');
}
