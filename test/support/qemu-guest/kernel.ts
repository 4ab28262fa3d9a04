/**
 * Debian's kernels for test guests, fetched with apt and unpacked into a cache without being installed.
 *
 * Kept of a package: the kernel image and the modules that a guest needs, with what those depend on, in loading order.
 * The cache is $PASSEL_TEST_CACHE, or `passel-test` in the user's cache folder; it is filled once and then used as it is.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { findCommand, type Requirement } from '../netns/capabilities.ts';
import { runProcess } from '../netns/process.ts';

/** `cloud` is small and has virtio only; `generic` has every network card. */
export type KernelKind = 'cloud' | 'generic';

/** An unpacked kernel. */
export interface Kernel {
  /** Version and flavour, as `uname -r` says it. */
  release: string;
  /** Path of the bzImage. */
  image: string;
  /** Paths of the decompressed modules that every guest loads, each after those it depends on. */
  modules: string[];
  /** Paths of the modules for SCSI disks inside a guest, in loading order; without those in `modules`. */
  scsiModules: string[];
}

const META_PACKAGES: Record<KernelKind, string> = {
  cloud: 'linux-image-cloud-amd64',
  generic: 'linux-image-amd64',
};

/** Modules that every guest loads: the bus, both network cards, the control channel, disks. Those a kernel lacks are left out. */
const WANTED_MODULES = ['virtio_pci', 'virtio_net', 'e1000', 'virtio_console', 'virtio_blk'];

/** Kept for guests with SCSI disks of their own: LIO with a local initiator, a disk without reservations, multipath. */
const SCSI_MODULES = [
  'sd_mod',
  'sg',
  'target_core_mod',
  'target_core_file',
  'tcm_loop',
  'scsi_debug',
  'virtio_scsi',
  'dm_mod',
  'dm_multipath',
  'dm_round_robin',
];

/** Folder for what tests fetch and may keep between runs. */
export function getCacheFolder(): string {
  return (
    process.env['PASSEL_TEST_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'passel-test')
  );
}

/** The requirement "a kernel of this kind", which fetches it on first use. */
export function needKernel(kind: KernelKind): Requirement {
  return {
    name: `${kind}-kernel`,
    probe: async () => {
      try {
        await getKernel(kind);
        return '';
      } catch (error) {
        return `no ${kind} kernel for guests: ${(error as Error).message}`;
      }
    },
  };
}

const kernels = new Map<KernelKind, Promise<Kernel>>();

/** The kernel of this kind from the cache, fetched first if it is not there. */
export function getKernel(kind: KernelKind): Promise<Kernel> {
  let kernel = kernels.get(kind);
  if (kernel === undefined) {
    kernel = findOrFetchKernel(kind);
    kernels.set(kind, kernel);
  }
  return kernel;
}

async function findOrFetchKernel(kind: KernelKind): Promise<Kernel> {
  // Another choice of modules is another folder.
  const choice = createHash('sha256').update(`${WANTED_MODULES} ${SCSI_MODULES}`).digest('hex').slice(0, 8);
  const folder = join(getCacheFolder(), `${kind}-${choice}`);
  try {
    return await readKernel(folder);
  } catch {
    // Not there yet.
  }
  await fetchKernel(kind, folder);
  return readKernel(folder);
}

async function readKernel(folder: string): Promise<Kernel> {
  const names = JSON.parse(await readFile(join(folder, 'kernel.json'), 'utf8')) as Omit<Kernel, 'image'>;
  return {
    release: names.release,
    image: join(folder, 'vmlinuz'),
    modules: names.modules.map((name) => join(folder, name)),
    scsiModules: names.scsiModules.map((name) => join(folder, name)),
  };
}

async function fetchKernel(kind: KernelKind, folder: string): Promise<void> {
  for (const command of ['apt-get', 'apt-cache', 'dpkg-deb']) {
    if (findCommand(command) === '') throw new Error(`${command} is not there: kernels are fetched from Debian`);
  }
  await mkdir(getCacheFolder(), { recursive: true });
  // Built beside its place and renamed into it, so that two runs at a time cannot see half a kernel.
  const work = await mkdtemp(join(getCacheFolder(), '.work-'));
  try {
    const name = await downloadPackage(META_PACKAGES[kind], work);
    const archive = (await readdir(work)).find((file) => file.endsWith('.deb'));
    if (archive === undefined) throw new Error(`apt-get download left no package ${name}`);
    const unpacked = join(work, 'unpacked');
    await runProcess('dpkg-deb', ['-x', join(work, archive), unpacked], { timeoutMs: 300_000 });
    const release = name.replace(/^linux-image-/, '').replace(/-unsigned$/, '');
    const result = join(work, 'result');
    await mkdir(result);
    await rename(join(unpacked, 'boot', `vmlinuz-${release}`), join(result, 'vmlinuz'));
    const names = await collectModules(await findModulesFolder(unpacked, release), result);
    await writeFile(join(result, 'kernel.json'), JSON.stringify({ release, ...names }));
    await rm(folder, { recursive: true, force: true });
    await rename(result, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Downloads what the meta package depends on into `work`. The machine's package lists may be missing, or older than a
 * kernel that has been replaced since: then with fresh lists of our own, which needs no root.
 * @returns the package's name
 */
async function downloadPackage(metaPackage: string, work: string): Promise<string> {
  try {
    return await downloadDependency(metaPackage, work, []);
  } catch {
    const aptOptions = await fetchPackageLists(work);
    return downloadDependency(metaPackage, work, aptOptions);
  }
}

async function downloadDependency(metaPackage: string, work: string, aptOptions: string[]): Promise<string> {
  const name = await readDependency(metaPackage, aptOptions);
  if (name === '') throw new Error(`apt knows no package ${metaPackage}`);
  await runProcess('apt-get', [...aptOptions, '-q', 'download', name], { cwd: work, timeoutMs: 300_000 });
  return name;
}

/** @returns options that make apt use the lists */
async function fetchPackageLists(work: string): Promise<string[]> {
  const lists = join(work, 'lists');
  const cache = join(work, 'cache');
  await mkdir(join(lists, 'partial'), { recursive: true });
  await mkdir(join(cache, 'archives/partial'), { recursive: true });
  const aptOptions = ['-o', `Dir::State::lists=${lists}`, '-o', `Dir::Cache=${cache}`];
  await runProcess('apt-get', [...aptOptions, '-q', 'update'], { timeoutMs: 300_000 });
  return aptOptions;
}

async function readDependency(metaPackage: string, aptOptions: string[]): Promise<string> {
  const { stdout } = await runProcess('apt-cache', [...aptOptions, 'depends', metaPackage], { check: false });
  return /Depends: (linux-image-\d\S*)/.exec(stdout)?.[1] ?? '';
}

async function findModulesFolder(unpacked: string, release: string): Promise<string> {
  for (const parent of ['lib/modules', 'usr/lib/modules']) {
    const folder = join(unpacked, parent, release);
    const found = await readdir(folder).catch(() => []);
    if (found.length > 0) return folder;
  }
  throw new Error(`the kernel package has no modules for ${release}`);
}

/**
 * Writes the wanted modules and what they need, decompressed, into `target`.
 * @returns file names in loading order
 */
async function collectModules(modulesFolder: string, target: string): Promise<Pick<Kernel, 'modules' | 'scsiModules'>> {
  const files = await readdir(modulesFolder, { recursive: true });
  const paths = new Map<string, string>();
  for (const file of files) {
    const name = /([^/]+)\.ko(\.xz|\.zst|\.gz)?$/.exec(file)?.[1];
    if (name !== undefined) paths.set(name.replaceAll('-', '_'), join(modulesFolder, file));
  }
  const order: string[] = [];
  const add = async (name: string): Promise<void> => {
    const path = paths.get(name.replaceAll('-', '_'));
    const fileName = `${name.replaceAll('-', '_')}.ko`;
    // A name without a file is built into the kernel, or is a card that this kernel lacks.
    if (path === undefined || order.includes(fileName)) return;
    const data = await readModule(path);
    for (const dependency of readDependencies(data)) await add(dependency);
    await writeFile(join(target, fileName), data);
    order.push(fileName);
  };
  for (const name of WANTED_MODULES) await add(name);
  const commonCount = order.length;
  for (const name of SCSI_MODULES) await add(name);
  return { modules: order.slice(0, commonCount), scsiModules: order.slice(commonCount) };
}

async function readModule(path: string): Promise<Buffer> {
  const decompressor = { xz: 'xz', zst: 'zstd', gz: 'gzip' }[basename(path).split('.').pop() as string];
  if (decompressor === undefined) return readFile(path);
  await runProcess(decompressor, ['-d', '-k', '-f', path]);
  return readFile(path.replace(/\.[^.]+$/, ''));
}

/** The `depends=` entry of a module's .modinfo section: zero-terminated `key=value` strings. */
function readDependencies(module: Buffer): string[] {
  const marker = Buffer.from('\0depends=');
  const start = module.indexOf(marker);
  if (start < 0) return [];
  const end = module.indexOf(0, start + marker.length);
  return module
    .subarray(start + marker.length, end)
    .toString()
    .split(',')
    .filter((name) => name !== '');
}
