/**
 * A libvirt that knows passt, without installing it: Debian 12's own has that support patched out, so the one of its backports is
 * fetched with apt and unpacked into the cache, 4 MB in a second. The shared libraries it needs are the machine's.
 */
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findCommand, type Requirement } from '../netns/capabilities.ts';
import { runProcess } from '../netns/process.ts';
import { getCacheFolder } from '../qemu-guest/kernel.ts';

const PACKAGES = ['libvirt0', 'libvirt-common', 'libvirt-daemon', 'libvirt-daemon-driver-qemu', 'libvirt-clients'];

/** An unpacked libvirt. */
export interface LibvirtFiles {
  /** All of it is below. */
  readonly root: string;
  readonly libvirtd: string;
  readonly virsh: string;
  /** For LD_LIBRARY_PATH. */
  readonly libraries: string;
  /** For LIBVIRT_DRIVER_DIR. */
  readonly drivers: string;
  /** To be seen at /usr/share/libvirt. */
  readonly share: string;
}

/** Where it looks for its descriptions of processors, whatever it is told. */
export const SHARE_PATH = '/usr/share/libvirt';

/** The requirement "libvirt with passt", which fetches it on first use. */
export const needLibvirt: Requirement = {
  name: 'libvirt',
  probe: async () => {
    try {
      await stat(SHARE_PATH);
    } catch {
      return `${SHARE_PATH} is not there (Debian: libvirt0)`;
    }
    try {
      const { libvirtd, virsh, libraries } = await getLibvirt();
      const { stdout } = await runProcess('ldd', [libvirtd, virsh], { env: { LD_LIBRARY_PATH: libraries } });
      const missing = [...stdout.matchAll(/(\S+) => not found/g)].map((match) => match[1]);
      return missing.length === 0 ? '' : `libvirt lacks ${[...new Set(missing)].join(', ')}`;
    } catch (error) {
      return `no libvirt with passt: ${(error as Error).message}`;
    }
  },
};

let libvirt: Promise<LibvirtFiles> | undefined;

/** From the cache, fetched first if it is not there. */
export function getLibvirt(): Promise<LibvirtFiles> {
  libvirt ??= findOrFetch();
  return libvirt;
}

async function findOrFetch(): Promise<LibvirtFiles> {
  const folder = join(getCacheFolder(), 'libvirt');
  try {
    await stat(folder);
  } catch {
    await fetchLibvirt(folder);
  }
  const library = join(folder, 'usr/lib');
  const [triplet] = (await readdir(library)).filter((name) => name.endsWith('-linux-gnu'));
  if (triplet === undefined) throw new Error(`nothing in ${library} is a folder of libraries`);
  return {
    root: folder,
    libvirtd: join(folder, 'usr/sbin/libvirtd'),
    virsh: join(folder, 'usr/bin/virsh'),
    libraries: join(library, triplet),
    drivers: join(library, triplet, 'libvirt/connection-driver'),
    share: join(folder, SHARE_PATH),
  };
}

async function fetchLibvirt(folder: string): Promise<void> {
  for (const command of ['apt-get', 'dpkg-deb']) {
    if (findCommand(command) === '') throw new Error(`${command} is not there: it is fetched from Debian`);
  }
  await mkdir(getCacheFolder(), { recursive: true });
  // Built beside its place and renamed into it, so that two runs at a time cannot see half of it.
  const work = await mkdtemp(join(getCacheFolder(), '.work-'));
  try {
    const aptOptions = await fetchLists(work);
    await runProcess('apt-get', [...aptOptions, '-q', 'download', ...PACKAGES], { cwd: work, timeoutMs: 300_000 });
    const root = join(work, 'root');
    for (const file of await readdir(work)) {
      if (file.endsWith('.deb')) await runProcess('dpkg-deb', ['-x', join(work, file), root]);
    }
    await rename(root, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Lists of the suite that has it, fetched from where this machine gets its packages. @returns options that make apt use them */
async function fetchLists(work: string): Promise<string[]> {
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(await readFile('/etc/os-release', 'utf8'))?.[1] ?? '';
  const { stdout } = await runProcess('apt-get', [
    'indextargets',
    '--format',
    '$(RELEASE) $(COMPONENT) $(REPO_URI)',
    'Created-By: Packages',
  ]);
  const [, uri] = new RegExp(`^${codename} main (\\S+)$`, 'm').exec(stdout) ?? [];
  if (uri === undefined) throw new Error(`apt has no source for ${codename}`);
  const sources = join(work, 'sources.list');
  await writeFile(sources, `deb ${uri} ${codename === 'bookworm' ? 'bookworm-backports' : codename} main\n`);
  for (const name of ['lists/partial', 'cache', 'parts']) await mkdir(join(work, name), { recursive: true });
  const aptOptions = [
    `Dir::State::lists=${work}/lists`,
    `Dir::Cache=${work}/cache`,
    `Dir::Etc::sourcelist=${sources}`,
    `Dir::Etc::sourceparts=${work}/parts`,
  ].flatMap((option) => ['-o', option]);
  await runProcess('apt-get', [...aptOptions, '-q', 'update'], { timeoutMs: 300_000 });
  return aptOptions;
}
