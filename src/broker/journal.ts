/**
 * A list of JSON lines in memory that outlives the process: a memfd (memfd_create(2)) that somebody else holds too. What has been appended is there for the
 * holder at once, also when this process is killed in the middle: a line counts when its end of line has been written.
 */
import { ftruncateSync, readSync, writeSync } from 'node:fs';
import { checkStatus } from '../sys/errors.ts';
import type { NativeAddon } from '../sys/native-addon.ts';

export class Journal {
  /** The journal's. */
  readonly fd: number;
  private size = 0;

  /** An empty one. */
  constructor(native: NativeAddon, name: string) {
    this.fd = checkStatus(native.memfdCreate(name, 0), 'memfd_create');
  }

  get sizeBytes(): number {
    return this.size;
  }

  /** @throws ENOMEM, ENOSPC …: the journal is as before */
  append(value: unknown): void {
    const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.fd, bytes, done, bytes.length - done, this.size + done);
      }
    } catch (error) {
      ftruncateSync(this.fd, this.size);
      throw error;
    }
    this.size += bytes.length;
  }
}

const READ_BYTES = 1024 * 1024;

/**
 * The lines of a journal of an earlier process, up to the first that is not whole.
 * @param fd - stays the caller's
 */
export function readJournal(fd: number): unknown[] {
  const chunks: Buffer[] = [];
  for (let position = 0; ; ) {
    const chunk = Buffer.alloc(READ_BYTES);
    const count = readSync(fd, chunk, 0, READ_BYTES, position);
    if (count === 0) break;
    chunks.push(chunk.subarray(0, count));
    position += count;
  }
  const lines = Buffer.concat(chunks).toString().split('\n');
  lines.pop();
  const values: unknown[] = [];
  for (const line of lines) {
    try {
      values.push(JSON.parse(line));
    } catch {
      break;
    }
  }
  return values;
}
