/**
 * Read-only disks with programs of this machine for a guest: an ext4 image without a journal, filled by mke2fs, so nobody
 * has to mount anything. The guest reads from it what it runs, and no more: a program of 100 MB costs no time at boot.
 */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findCommand, needCommand, type Requirement } from '../netns/capabilities.ts';
import { runProcess } from '../netns/process.ts';
import { listLibraries } from './initramfs.ts';
import { getCacheFolder } from './kernel.ts';

/** What an image holds, by path inside. */
export interface ImageContents {
  /** Copies of files, with their permissions. */
  files: Map<string, string>;
  /** Symbolic links: their targets. */
  links?: Map<string, string>;
  /** Files by what is in them; executable ones start with `#!`. */
  texts?: Map<string, string | Buffer>;
}

/** The requirement "images can be made". */
export const needDiskImages: Requirement = needCommand('mke2fs', 'e2fsprogs');

/** Adds a program under `usr/bin` and its shared libraries where the loader looks for them. */
export async function addProgram(contents: ImageContents, name: string, source = findCommand(name)): Promise<void> {
  if (source === '') throw new Error(`${name} is not on this machine`);
  contents.files.set(`usr/bin/${name}`, source);
  await addLibraries(contents, source);
}

/** Adds the shared libraries of a program or library. */
export async function addLibraries(contents: ImageContents, source: string): Promise<void> {
  for (const library of await listLibraries(source)) contents.files.set(library, library);
}

/** Adds all files below a folder. */
export async function addFolder(contents: ImageContents, path: string, source: string): Promise<void> {
  for (const entry of await readdir(source, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    contents.files.set(join(path, file.slice(source.length)), file);
  }
}

/** Writes an image to `target`, replacing what is there in one step. */
export async function writeImage(contents: ImageContents, target: string): Promise<void> {
  const staging = await mkdtemp(join(tmpdir(), 'passel-image-'));
  const unfinished = `${target}.${process.pid}`;
  try {
    let sizeBytes = 0;
    let count = 0;
    const place = async (path: string): Promise<string> => {
      const staged = join(staging, path);
      await mkdir(dirname(staged), { recursive: true });
      count++;
      return staged;
    };
    for (const [path, source] of contents.files) {
      await copyFile(source, await place(path));
      sizeBytes += (await stat(source)).size;
    }
    for (const [path, to] of contents.links ?? []) await symlink(to, await place(path));
    for (const [path, text] of contents.texts ?? []) {
      await writeFile(await place(path), text, { mode: String(text.slice(0, 2)) === '#!' ? 0o755 : 0o644 });
      sizeBytes += text.length;
    }
    // Blocks of 4 KiB, inodes, folders: a tenth more and a bit is ample.
    const sizeKib = Math.ceil((sizeBytes * 1.1) / 1024) + count * 8 + 1024;
    const features = ['-t', 'ext4', '-O', '^has_journal,^resize_inode', '-m', '0', '-N', String(count * 2 + 256)];
    await runProcess(findCommand('mke2fs'), ['-q', ...features, '-d', staging, unfinished, `${sizeKib}k`]);
    await rename(unfinished, target);
  } finally {
    await rm(staging, { recursive: true, force: true });
    await rm(unfinished, { force: true });
  }
}

/** Path of an image with these contents in the cache, made if it is not there. Older ones of this name go. */
export async function getCachedImage(name: string, contents: ImageContents): Promise<string> {
  const hash = createHash('sha256');
  for (const [path, source] of contents.files) {
    const { size, mtimeMs } = await stat(source);
    hash.update(`${path} ${source} ${size} ${mtimeMs}\n`);
  }
  hash.update(JSON.stringify([[...(contents.links ?? [])], [...(contents.texts ?? [])]]));
  const fileName = `${name}-${hash.digest('hex').slice(0, 16)}.img`;
  const path = join(getCacheFolder(), fileName);
  const exists = await stat(path).then(
    () => true,
    () => false,
  );
  if (exists) return path;
  await mkdir(getCacheFolder(), { recursive: true });
  await writeImage(contents, path);
  for (const other of await readdir(getCacheFolder())) {
    if (other.startsWith(`${name}-`) && other.endsWith('.img') && other !== fileName) {
      await rm(join(getCacheFolder(), other), { force: true });
    }
  }
  return path;
}

/** QEMU arguments for a disk of a guest; those that are not read-only keep nothing (`snapshot=on`). */
export function diskArgs(id: string, path: string, options: { readOnly: boolean }): string[] {
  const access = options.readOnly ? 'readonly=on' : 'snapshot=on';
  return [
    '-drive',
    `file=${path},if=none,id=${id},format=raw,${access}`,
    '-device',
    `virtio-blk-pci,drive=${id},serial=${id}`,
  ];
}
