/**
 * A place where the recipes of passel(1) run as they are written: our executables by their names on PATH, and a `qemu-system-x86_64` that takes
 * an image NAME.qcow2 for the guest of support/qemu-guest, and every accelerator for TCG.
 */
import type { ChildProcess } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PROJECT_ROOT } from './native-tools.ts';
import { findCommand } from './netns/capabilities.ts';
import type { Host } from './netns/host.ts';
import { CommandChannel, type ExecResult, listenOnce } from './qemu-guest/control.ts';
import { CONTROL_PORT_NAME } from './qemu-guest/guest-files.ts';
import { getInitramfs } from './qemu-guest/initramfs.ts';
import { getKernel } from './qemu-guest/kernel.ts';

/** A machine that somebody else starts. */
export interface RecipeGuest {
  /** Runs a shell script in it, waiting for the machine first; rejects when the status is not 0, with the output. */
  check(script: string): Promise<string>;
  exec(script: string): Promise<ExecResult>;
}

export interface RecipePlace {
  /** Where recipes run; any user may write here. */
  readonly directory: string;
  /** The folder in front of PATH. */
  readonly programs: string;
  /** The home that `~` stands for. */
  readonly home: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** The console of the last machine without an image. */
  readConsole(): string;
  /** Makes the image NAME.qcow2, whose machine can be talked to. */
  makeImage(name: string): Promise<RecipeGuest>;
  /** Starts a recipe in the host. */
  start(script: string): { readonly child: ChildProcess; output(): string };
}

const COMMAND_TIMEOUT_MS = 60_000;

/** POSIX shell: each argument is taken from the front and put, changed, to the end. */
const QEMU_SCRIPT = (qemu: string, console: string): string => `#!/bin/sh
serial='-serial file:${console}'
for argument; do
  shift
  case $argument in
    kvm) set -- "$@" tcg ;;
    *.qcow2)
      serial=
      while IFS= read -r line; do set -- "$@" "$line"; done < "$argument"
      ;;
    *) set -- "$@" "$argument" ;;
  esac
done
exec ${qemu} "$@" -display none $serial
`;

/** Sets up the place in an isolated host. */
export async function createRecipePlace(host: Host): Promise<RecipePlace> {
  const { directory } = host;
  const programs = join(directory, 'programs');
  const home = join(directory, 'home');
  const consolePath = join(directory, 'console');
  for (const folder of [programs, home]) {
    mkdirSync(folder);
    chmodSync(folder, 0o777);
  }
  // For users who may not look into this tree, by the names that npm would install.
  cpSync(join(PROJECT_ROOT, 'dist'), join(directory, 'dist'), { recursive: true });
  const { bin } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as {
    bin: Record<string, string>;
  };
  for (const [name, path] of Object.entries(bin)) symlinkSync(join(directory, path), join(programs, name));
  writeProgram(join(programs, 'qemu-system-x86_64'), QEMU_SCRIPT(findCommand('qemu-system-x86_64'), consolePath));

  const cached = await getKernel('cloud');
  const [kernel, initramfs] = [join(directory, 'vmlinuz'), join(directory, 'initrd.img')];
  copyFileSync(cached.image, kernel);
  copyFileSync(await getInitramfs(cached), initramfs);
  for (const file of [kernel, initramfs]) chmodSync(file, 0o644);

  const env = {
    ...process.env,
    HOME: home,
    PATH: [programs, dirname(process.execPath), process.env['PATH']].join(':'),
  };
  return {
    directory,
    programs,
    home,
    kernel,
    initramfs,
    readConsole: () => readFileSync(consolePath, 'latin1'),
    async makeImage(name) {
      const control = join(directory, `${name}.control`);
      const { connection } = await listenOnce(control);
      const args = [
        ...['-cpu', 'max', '-kernel', kernel, '-initrd', initramfs],
        ...['-append', 'console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off nokaslr net.ifnames=0'],
        ...['-serial', `file:${join(directory, `${name}.console`)}`],
        ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=control,path=${control},server=off`],
        ...['-device', `virtserialport,chardev=control,name=${CONTROL_PORT_NAME}`],
      ];
      writeFileSync(join(directory, `${name}.qcow2`), `${args.join('\n')}\n`);
      return talkTo(
        connection.then(async (socket) => {
          const channel = new CommandChannel(socket);
          await channel.waitReady();
          return channel;
        }),
      );
    },
    start(script) {
      let output = '';
      const child = host.spawn('sh', ['-e', '-c', script], { cwd: directory, env, stdio: ['ignore', 'pipe', 'pipe'] });
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on('data', (chunk: Buffer) => {
          output += chunk.toString();
        });
      }
      return { child, output: () => output };
    },
  };
}

/** @param ready - resolves when the machine takes commands */
export function talkTo(ready: Promise<CommandChannel>): RecipeGuest {
  ready.catch(() => {});
  const exec = async (script: string): Promise<ExecResult> => (await ready).exec(script, COMMAND_TIMEOUT_MS);
  return {
    exec,
    async check(script) {
      const { status, stdout } = await exec(script);
      if (status !== 0) throw new Error(`in the guest, status ${status}:\n${script}\n${stdout}`);
      return stdout.trim();
    },
  };
}

/** Writes an executable script. */
export function writeProgram(path: string, text: string): void {
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}
