/**
 * A guest for tests of reservation helpers: Node, the built executables, QEMU's own helper and sg_persist on a read-only
 * disk, the kernel's SCSI target loaded, and a small client of the helper protocol (in-guest/) to run inside.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';
import { PROJECT_ROOT } from '../native-tools.ts';
import { needCommand, type Requirement } from '../netns/capabilities.ts';
import {
  addFolder,
  addProgram,
  diskArgs,
  getCachedImage,
  type ImageContents,
  needDiskImages,
  writeImage,
} from '../qemu-guest/disk-image.ts';
import { bootGuest, type Guest, needGuest } from '../qemu-guest/guest.ts';
import { getKernel } from '../qemu-guest/kernel.ts';

/** Where the built project is inside the guest. */
export const GUEST_PASSEL = '/passel/dist';

/** Programs in the guest, with the packages that Debian has them in. */
const PROGRAMS: Record<string, string> = {
  node: 'nodejs',
  'qemu-pr-helper': 'qemu-system-common',
  sg_persist: 'sg3-utils',
  dmsetup: 'dmsetup',
};

/** A program in the guest that answers the helper protocol, by its command line without options. */
export const HELPERS = {
  c: '/usr/bin/qemu-pr-helper',
  ours: `${GUEST_PASSEL}/helpers/passel-pr-helper`,
} as const;

export type HelperName = keyof typeof HELPERS;

/** What the machine needs for such a guest. */
export function needPrGuest(): Requirement[] {
  const programs = Object.entries(PROGRAMS).map(([name, packageName]) => needCommand(name, packageName));
  return [...needGuest('cloud'), needDiskImages, ...programs];
}

/** A running guest, and the client in it. */
export interface PrGuest extends Guest {
  /**
   * Runs one part of the client (see in-guest/main.ts) and returns the JSON lines that it printed. Rejects with what it
   * said when it failed.
   */
  runClient(part: string, args: readonly string[], options?: { timeoutMs?: number }): Promise<unknown[]>;
}

/** More for a guest that needs it: see the nested test. */
export interface PrGuestOptions {
  memoryMib?: number;
  /** Adds to what is on the disk of programs, which is kept between runs under `name`. */
  tools?: { name: string; add: (contents: ImageContents) => Promise<void> };
  /** Adds to what is in /passel, which is made for each run. */
  addProject?: (contents: ImageContents) => Promise<void>;
}

/** Boots the guest and loads what its disks need. */
export async function bootPrGuest(options: PrGuestOptions = {}): Promise<PrGuest> {
  const folder = await mkdtemp(join(tmpdir(), 'passel-pr-guest-'));
  const removeFolder = (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    const tools = await collectTools(options);
    const toolsImage = await getCachedImage(options.tools?.name ?? 'pr-tools', tools);
    const projectImage = join(folder, 'project.img');
    await writeImage(await collectProject(folder, options), projectImage);
    const scratchImage = join(folder, 'scratch.img');
    await writeImage({ files: new Map(), texts: new Map([['pr/.keep', '']]) }, scratchImage);
    const guest = await bootGuest({
      memoryMib: options.memoryMib ?? 512,
      extraArgs: [
        ...diskArgs('tools', toolsImage, { readOnly: true }),
        ...diskArgs('project', projectImage, { readOnly: true }),
        ...diskArgs('scratch', scratchImage, { readOnly: false }),
      ],
    });
    try {
      await guest.check(makeSetUpScript(tools));
    } catch (error) {
      await guest.stop();
      throw error;
    }
    return {
      ...guest,
      async runClient(part, args, { timeoutMs = 120_000 } = {}) {
        const words = ['node', `${GUEST_PASSEL}/test/client.cjs`, part, ...args].map((word) => `'${word}'`);
        const { status, stdout } = await guest.exec(words.join(' '), { timeoutMs });
        const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
        if (status !== 0)
          throw new Error(`the client in the guest ended with status ${status}:\n${stdout.slice(-100_000)}`);
        return lines.map((line) => JSON.parse(line) as unknown);
      },
      async stop() {
        await guest.stop();
        await removeFolder();
      },
    };
  } catch (error) {
    await removeFolder();
    throw error;
  }
}

async function collectTools(options: PrGuestOptions): Promise<ImageContents> {
  const contents: ImageContents = { files: new Map(), texts: new Map(), links: new Map() };
  for (const name of Object.keys(PROGRAMS)) await addProgram(contents, name);
  const { scsiModules } = await getKernel('cloud');
  for (const [index, module] of scsiModules.entries()) {
    contents.files.set(`modules/${String(index).padStart(2, '0')}-${module.split('/').pop()}`, module);
  }
  await options.tools?.add(contents);
  return contents;
}

async function collectProject(folder: string, options: PrGuestOptions): Promise<ImageContents> {
  const contents: ImageContents = { files: new Map() };
  await addFolder(contents, 'dist', join(PROJECT_ROOT, 'dist'));
  const client = join(folder, 'client.cjs');
  await build({
    entryPoints: [join(PROJECT_ROOT, 'test/support/pr-guest/in-guest/main.ts')],
    outfile: client,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    define: { 'import.meta.url': 'undefined' },
    logLevel: 'warning',
  });
  contents.files.set('dist/test/client.cjs', client);
  await options.addProject?.(contents);
  return contents;
}

/**
 * Makes the disks' contents appear at their usual places (links: the root is the initramfs, which has some of the libraries
 * already), loads the modules, mounts configfs. The folder of the target's persistent registrations is a file system on a
 * mapped device, so that a test can suspend it and with it a command that writes there.
 */
function makeSetUpScript(tools: ImageContents): string {
  const folders = new Set([...tools.files.keys()].map((path) => dirname(path).replace(/^\//, '')));
  const links = [...folders]
    .map((path) => `mkdir -p /${path}; ln -s /tools/${path}/* /${path}/ 2>/dev/null`)
    .join('\n');
  return `
    mkdir -p /tools /passel /run /var/target /usr/bin
    mount -t ext4 -o ro /dev/vda /tools && mount -t ext4 -o ro /dev/vdb /passel || exit 1
    ${links}
    [ -e /usr/bin/env ] || ln -s /bin/env /usr/bin/env
    echo 'nobody:x:65534:65534:nobody:/:/bin/false' >> /etc/passwd
    echo 'nogroup:x:65534:' >> /etc/group
    for module in /tools/modules/*; do
      case $module in *scsi_debug*) insmod $module dev_size_mb=8 || exit 1 ;; *) insmod $module || exit 1 ;; esac
    done
    mount -t configfs config /sys/kernel/config || exit 1
    dmsetup create scratch --table "0 $(cat /sys/block/vdc/size) linear /dev/vdc 0" || exit 1
    mount -t ext4 /dev/dm-0 /var/target`;
}
