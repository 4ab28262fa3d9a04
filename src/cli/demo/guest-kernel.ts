/** A Linux kernel of this computer, with the modules that a virtio network card needs, for the demo's virtual machine. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir, release } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';

export interface GuestKernel {
  readonly imagePath: string;
  /** Version, for people. */
  readonly version: string;
  /** Names and contents, in the order in which they must be loaded. */
  loadModules(): { readonly name: string; readonly data: Buffer }[];
}

/** What must be there for virtio-net-pci; what a kernel has built in is not missing. */
const WANTED_MODULES = ['virtio_pci', 'virtio_net', 'ipv6'];

/** Loading order where the modules lie beside the image without a modules.dep, as the tests' kernel cache has them. */
const KNOWN_ORDER = [
  'virtio_ring',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio',
  'virtio_pci',
  'failover',
  'net_failover',
  'virtio_net',
];

/**
 * Finds a readable kernel image: the one PASSEL_KERNEL names, the running one, another one in /boot, or one that the
 * project's tests have fetched.
 * @returns undefined if there is none
 */
export function findGuestKernel(): GuestKernel | undefined {
  for (const imagePath of listImages()) {
    const modules = findModules(imagePath);
    if (modules !== undefined) return { imagePath, ...modules };
  }
  return undefined;
}

function listImages(): string[] {
  const chosen = process.env['PASSEL_KERNEL'];
  const running = [`/boot/vmlinuz-${release()}`, `/lib/modules/${release()}/vmlinuz`];
  const others = listFolder('/boot')
    .filter((name) => name.startsWith('vmlinuz-'))
    .map((name) => join('/boot', name));
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  // Folders are called KIND or KIND-HASH; those without the modules of a network card are passed over.
  const folders = listFolder(join(cache, 'passel-test')).filter((name) => /^(cloud|generic)\b/.test(name));
  const fetched = folders.map((name) => join(cache, 'passel-test', name, 'vmlinuz'));
  const all = chosen === undefined ? [...running, ...others.reverse(), ...fetched] : [chosen];
  return all.filter(isReadable);
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

function findModules(imagePath: string): Omit<GuestKernel, 'imagePath'> | undefined {
  const beside = dirname(imagePath);
  if (existsSync(join(beside, 'virtio_net.ko'))) {
    const paths = KNOWN_ORDER.map((name) => join(beside, `${name}.ko`)).filter((path) => existsSync(path));
    const { release: version = 'kernel' } = JSON.parse(readText(join(beside, 'kernel.json')) || '{}') as {
      release?: string;
    };
    return { version, loadModules: () => paths.map(readModule) };
  }
  const version = /vmlinuz-(.+)$/.exec(basename(imagePath))?.[1] ?? basename(beside);
  const folder = ['/lib/modules', '/usr/lib/modules']
    .map((root) => join(root, version))
    .find((path) => existsSync(path));
  if (folder === undefined) return undefined;
  const paths = resolveModules(readText(join(folder, 'modules.dep')), readText(join(folder, 'modules.builtin')));
  return paths && { version, loadModules: () => paths.map((path) => readModule(join(folder, path))) };
}

/**
 * The files to load, dependencies first.
 * @param dependencies - text of modules.dep: `path: path path …`, dependencies with the deepest last
 * @param builtin - text of modules.builtin, a path a line
 * @returns undefined if something is neither a module nor built in
 */
export function resolveModules(dependencies: string, builtin: string): string[] | undefined {
  const order: string[] = [];
  for (const name of WANTED_MODULES) {
    const isNamed = (path: string): boolean =>
      basename(path)
        .replace(/\.ko.*$/, '')
        .replaceAll('-', '_') === name;
    const line = dependencies.split('\n').find((each) => isNamed(each.split(':')[0]!));
    if (line === undefined) {
      // IPv6 may be left out of a kernel; a network card may not.
      if (builtin.split('\n').some(isNamed) || name === 'ipv6') continue;
      return undefined;
    }
    const [path = '', needs = ''] = line.split(':');
    for (const each of [...needs.trim().split(' ').reverse(), path]) {
      if (each !== '' && !order.includes(each)) order.push(each);
    }
  }
  return order;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Distributions compress modules in different ways; the guest's insmod takes plain ones only. */
function readModule(path: string): { name: string; data: Buffer } {
  const name = basename(path).replace(/\.ko.*$/, '.ko');
  if (path.endsWith('.gz')) return { name, data: gunzipSync(readFileSync(path)) };
  const tool = path.endsWith('.xz') ? 'xz' : path.endsWith('.zst') ? 'zstd' : undefined;
  if (tool === undefined) return { name, data: readFileSync(path) };
  return { name, data: execFileSync(tool, ['-dcq', path], { maxBuffer: 1 << 28 }) };
}
