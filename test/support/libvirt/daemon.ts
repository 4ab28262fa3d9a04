/**
 * libvirtd with its QEMU driver in an isolated host, with state, sockets and settings of its own: no service of the machine
 * is used or seen, nothing of it is left behind.
 *
 * `system` runs it as root, as a service would, with passt and QEMU as another user; `session` as a user without any privileges.
 */
import { chmodSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Host } from '../netns/host.ts';
import { type RunOptions, type RunResult, stopChild, waitUntil } from '../netns/namespace.ts';
import { getLibvirt, type LibvirtFiles, SHARE_PATH } from './packages.ts';

export type LibvirtMode = 'system' | 'session';

/** A running libvirtd. */
export interface Libvirt {
  /** Where it keeps the sockets and PID files of passt, as seen in the host. */
  readonly passtFolder: string;
  virsh(args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** A shell script that is virsh for this daemon, without its address; PATH is the caller's. */
  readonly virshScript: string;
  /** Ends the daemon; domains go on until the host is closed. */
  stop(): Promise<void>;
}

/** Options of {@link startLibvirt}. */
export interface LibvirtOptions {
  mode: LibvirtMode;
  /** Folder in front of its PATH: where it finds `passt`. */
  programs: string;
  /** What it starts for `<reservations managed='yes'/>`, an absolute path. */
  prHelper?: string;
}

const IS_ROOT = process.getuid?.() === 0;
/** A user without privileges that every Debian has an entry for, which libvirt looks for. */
const NOBODY = 65534;
/** In the user namespace of an ordinary user everybody is root, which libvirt takes as a reason to act as system daemon. */
const INNER_USER = 1000;
const TIMEOUT_MS = 60_000;

/** Starts libvirtd in `host` and waits until it answers. */
export async function startLibvirt(host: Host, options: LibvirtOptions): Promise<Libvirt> {
  const { mode } = options;
  const folder = join(host.directory, 'libvirt-state');
  const settings = join(folder, 'libvirt');
  for (const path of [folder, settings, join(folder, 'run')]) {
    mkdirSync(path);
    chmodSync(path, mode === 'session' ? 0o777 : 0o755);
  }
  const logPath = join(folder, 'libvirtd.log');
  writeFileSync(join(settings, 'qemu.conf'), listQemuSettings(options).join('\n'));
  writeFileSync(join(settings, 'libvirtd.conf'), listDaemonSettings(logPath).join('\n'));
  const files = copyForOthers(await getLibvirt(), host.directory);
  await host.sh(listMounts(mode, files, settings).join('\n'));
  const env = makeEnvironment(mode, files, options.programs, folder);

  const [command, args] = asUser(mode, files.libvirtd, []);
  const child = host.spawn(command, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let messages = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    messages += chunk.toString();
  });
  const virsh = (virshArgs: readonly string[], runOptions: RunOptions = {}): Promise<RunResult> => {
    const [program, programArgs] = asUser(mode, files.virsh, ['-q', '-c', `qemu:///${mode}`, ...virshArgs]);
    return host.run(program, programArgs, { timeoutMs: TIMEOUT_MS, env, ...runOptions });
  };
  const answers = async (): Promise<boolean> => {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('libvirtd ended');
    return (await virsh(['uri'], { check: false })).status === 0;
  };
  try {
    await waitUntil('libvirtd to answer', answers, TIMEOUT_MS, 100);
  } catch (error) {
    await stopChild(child);
    throw new Error(`${(error as Error).message}\n${messages}${readIfThere(logPath)}`);
  }
  return {
    passtFolder: mode === 'system' ? '/run/libvirt/qemu/passt' : join(folder, 'run/libvirt/qemu/run/passt'),
    virsh,
    virshScript: makeVirshScript(env, asUser(mode, files.virsh, [])),
    stop: async () => {
      await stopChild(child, 10_000);
    },
  };
}

/** Without what a machine may not have, or would be changed by: control groups, security modules, a log daemon. */
function listQemuSettings({ mode, prHelper }: LibvirtOptions): string[] {
  const settings = [
    ...(prHelper === undefined ? [] : [`pr_helper = "${prHelper}"`]),
    'namespaces = []',
    'cgroup_controllers = []',
    'security_driver = "none"',
    'stdio_handler = "file"',
  ];
  if (mode === 'session') return settings;
  return [...settings, 'user = "nobody"', 'group = "nogroup"', 'dynamic_ownership = 0', 'remember_owner = 0'];
}

function listDaemonSettings(logPath: string): string[] {
  return ['auth_unix_ro = "none"', 'auth_unix_rw = "none"', `log_outputs = "3:file:${logPath}"`];
}

/** Shell commands that put the daemon's files where it looks for them, in the host's mount namespace. */
function listMounts(mode: LibvirtMode, files: LibvirtFiles, settings: string): string[] {
  const mounts = [`mount --bind ${files.share} ${SHARE_PATH}`];
  if (mode === 'session') return mounts;
  const state = ['/run', '/var/lib', '/var/cache', '/var/log'].map((path) => `mount -t tmpfs tmpfs ${path}`);
  return [
    ...mounts,
    ...state,
    'mount -t tmpfs tmpfs /etc/libvirt',
    `cp ${settings}/* /etc/libvirt`,
    // With one that it can use and its QEMU cannot, libvirt looks at QEMU anew before each step, for half a minute.
    '[ ! -e /dev/kvm ] || { mknod -m 0666 /run/kvm c 10 232 && mount --bind /run/kvm /dev/kvm; } || true',
  ];
}

function makeEnvironment(
  mode: LibvirtMode,
  files: LibvirtFiles,
  programs: string,
  folder: string,
): Record<string, string> {
  const env: Record<string, string> = {
    // Node too, which the first line of our executables asks for.
    PATH: [programs, dirname(process.execPath), process.env['PATH'], '/usr/sbin', '/sbin'].join(':'),
    HOME: folder,
    LD_LIBRARY_PATH: files.libraries,
    LIBVIRT_DRIVER_DIR: files.drivers,
    // virsh would start a daemon of its own where it finds none.
    LIBVIRT_AUTOSTART: '0',
  };
  if (mode === 'system') return env;
  return {
    ...env,
    XDG_CONFIG_HOME: folder,
    XDG_RUNTIME_DIR: join(folder, 'run'),
    XDG_CACHE_HOME: join(folder, 'cache'),
    XDG_DATA_HOME: join(folder, 'data'),
  };
}

function asUser(mode: LibvirtMode, command: string, args: readonly string[]): [string, string[]] {
  if (mode === 'system') return [command, [...args]];
  return IS_ROOT
    ? ['setpriv', [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--', command, ...args]]
    : ['unshare', ['--user', `--map-user=${INNER_USER}`, `--map-group=${INNER_USER}`, '--', command, ...args]];
}

function makeVirshScript(env: Readonly<Record<string, string>>, [command, args]: [string, string[]]): string {
  const settings = Object.entries(env).filter(([name]) => name !== 'PATH');
  return `#!/bin/sh
${settings.map(([name, value]) => `export ${name}='${value}'`).join('\n')}
exec ${[command, ...args].join(' ')} "$@"
`;
}

/** The cache may be in a home directory that is closed to others. */
function copyForOthers(files: LibvirtFiles, directory: string): LibvirtFiles {
  const root = join(directory, 'libvirt');
  cpSync(files.root, root, { recursive: true, verbatimSymlinks: true });
  const moved = (path: string): string => root + path.slice(files.root.length);
  return {
    root,
    libvirtd: moved(files.libvirtd),
    virsh: moved(files.virsh),
    libraries: moved(files.libraries),
    drivers: moved(files.drivers),
    share: moved(files.share),
  };
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
