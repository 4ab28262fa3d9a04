/**
 * The root file system of a test guest: busybox, the kernel's modules, ISC dhclient for DHCPv6, socat for what busybox's
 * nc cannot do (UDP, listening on one family), and the scripts of guest-files.ts. Built in memory, a second at most, and
 * kept in the cache under a name made of its contents' origin.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { findCommand } from '../netns/capabilities.ts';
import { runProcess } from '../netns/process.ts';
import { CpioWriter } from './cpio.ts';
import { DHCLIENT_SCRIPT, INIT_SCRIPT, UDHCPC_SCRIPT } from './guest-files.ts';
import { getCacheFolder, type Kernel } from './kernel.ts';

/** Programs copied from this machine with their shared libraries. */
const PROGRAMS = ['dhclient', 'socat'];

/** Path of an initramfs for `kernel`, made if the cache has none that fits. */
export async function getInitramfs(kernel: Kernel): Promise<string> {
  const sources = [...PROGRAMS.map((name) => findCommand(name)), findCommand('busybox'), ...kernel.modules];
  const hash = createHash('sha256').update(INIT_SCRIPT).update(UDHCPC_SCRIPT).update(DHCLIENT_SCRIPT);
  for (const source of sources) {
    const { size, mtimeMs } = await stat(source);
    hash.update(`${source} ${size} ${mtimeMs}\n`);
  }
  const path = join(getCacheFolder(), `initramfs-${kernel.release}-${hash.digest('hex').slice(0, 16)}.cpio`);
  try {
    await stat(path);
    return path;
  } catch {
    // Not made yet, or made from other sources.
  }
  await mkdir(getCacheFolder(), { recursive: true });
  const unfinished = `${path}.${process.pid}`;
  await writeFile(unfinished, await buildInitramfs(kernel));
  await rename(unfinished, path);
  return path;
}

async function buildInitramfs(kernel: Kernel): Promise<Buffer> {
  const archive = new CpioWriter();
  for (const folder of ['proc', 'sys', 'dev', 'tmp', 'sbin', 'usr/bin', 'var/run', 'var/lib/dhcp']) {
    archive.addFolder(folder);
  }
  // The kernel opens it for init before devtmpfs is mounted.
  archive.addCharacterDevice('dev/console', 5, 1);
  archive.addFile('bin/busybox', await readFile(findCommand('busybox')), 0o755);
  archive.addLink('bin/sh', 'busybox');
  archive.addFile('init', INIT_SCRIPT, 0o755);
  archive.addFile('etc/passwd', 'root:x:0:0::/:/bin/sh\n');
  archive.addFile('etc/group', 'root:x:0:\n');
  archive.addFile('etc/hosts', '127.0.0.1 localhost\n::1 localhost\n');
  archive.addFile('etc/services', 'dhcpv6-client 546/udp\ndhcpv6-server 547/udp\n');
  archive.addFile('etc/dhclient6.conf', 'request dhcp6.name-servers, dhcp6.domain-search;\n');
  archive.addFile('etc/udhcpc/default.script', UDHCPC_SCRIPT, 0o755);
  archive.addFile('sbin/dhclient-script', DHCLIENT_SCRIPT, 0o755);
  for (const module of kernel.modules) archive.addFile(`modules/${basename(module)}`, await readFile(module));
  archive.addFile('modules/order', kernel.modules.map((module) => `${basename(module)}\n`).join(''));
  const libraries = new Set<string>();
  for (const name of PROGRAMS) {
    const path = findCommand(name);
    archive.addFile(`usr/bin/${name}`, await readFile(path), 0o755);
    for (const library of await listLibraries(path)) libraries.add(library);
  }
  for (const library of libraries) archive.addFile(library, await readFile(library), 0o755);
  return archive.finish();
}

/** Paths of the shared libraries of a program, the loader among them, as ldd prints them. */
export async function listLibraries(program: string): Promise<string[]> {
  const { stdout } = await runProcess('ldd', [program], { check: false });
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] as string);
}
