/**
 * A QEMU guest for tests: Debian's kernel under TCG, a busybox root, up in a few seconds, with a channel on which the test
 * runs shell commands inside. The network card is the test's business: it is joined to whatever `netdev` says.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { needCommand, needQemu, type Requirement } from '../netns/capabilities.ts';
import { stopChild, waitForExit } from '../netns/process.ts';
import { CommandChannel, type ExecResult, listenOnce, QmpChannel } from './control.ts';
import { CONTROL_PORT_NAME } from './guest-files.ts';
import { getInitramfs } from './initramfs.ts';
import { getKernel, type KernelKind, needKernel } from './kernel.ts';

export type { ExecResult } from './control.ts';
export type { KernelKind } from './kernel.ts';

/** Network cards that guests have drivers for; e1000 needs the generic kernel. */
export type NetworkCard = 'virtio-net-pci' | 'e1000';

/** Options of {@link bootGuest}. */
export interface GuestOptions {
  /** `-netdev` argument with id=n0; without one the guest's card, if any, comes from `extraArgs` or the launcher. */
  netdev?: string;
  /** Card on that netdev; virtio-net-pci by default. */
  nic?: NetworkCard;
  /** The card's address. */
  mac?: string;
  /** The cloud kernel, or the generic one for a card that needs it. */
  kernel?: KernelKind;
  /** 192 by default. */
  memoryMib?: number;
  /** More QEMU arguments. */
  extraArgs?: readonly string[];
  /** QEMU runs as another user: all may use the folder of the guest's files. */
  forEverybody?: boolean;
  /** Command before qemu-system-x86_64, such as `passel run --`, or what enters a namespace. */
  launcher?: readonly string[];
  /** Limit for the boot; 60 000 by default, for a machine with other things to do. */
  bootTimeoutMs?: number;
}

/** A running guest. */
export interface Guest {
  /** The process started: QEMU, or the launcher. */
  readonly child: ChildProcess;
  readonly qmp: QmpChannel;
  /** Milliseconds from start to the first command. */
  readonly bootMs: number;
  /** Runs a shell script inside. The status is the script's; nothing is thrown for one that is not 0. */
  exec(script: string, options?: { timeoutMs?: number }): Promise<ExecResult>;
  /** Like exec, but rejects with the output when the status is not 0, and returns the output trimmed. */
  check(script: string, options?: { timeoutMs?: number }): Promise<string>;
  /** Starts a script in the background; `wait` gives its result. */
  start(script: string): Promise<{ wait(options?: { timeoutMs?: number }): Promise<ExecResult> }>;
  /** What the kernel and init printed. */
  readConsole(): Promise<string>;
  /** Ends QEMU at once, as a power failure would. */
  stop(): Promise<void>;
}

/** Everything a guest with the kernels of `kinds` needs from the machine. */
export function needGuest(...kinds: KernelKind[]): Requirement[] {
  return [
    needQemu,
    needCommand('busybox', 'busybox-static'),
    needCommand('dhclient', 'isc-dhcp-client'),
    needCommand('socat', 'socat'),
    ...kinds.map(needKernel),
  ];
}

/** Boots a guest and waits until it takes commands. Rejects with the console's text when it does not. */
export async function bootGuest(options: GuestOptions): Promise<Guest> {
  const { nic = 'virtio-net-pci', memoryMib = 192, bootTimeoutMs = 60_000 } = options;
  const kernel = await getKernel(options.kernel ?? (nic === 'e1000' ? 'generic' : 'cloud'));
  const initramfs = await getInitramfs(kernel);
  const folder = await mkdtemp(join(tmpdir(), 'passel-guest-'));
  const consolePath = join(folder, 'console');
  const controlPath = join(folder, 'control');
  const qmpPath = join(folder, 'qmp');
  const control = await listenOnce(controlPath);
  const qmpListener = await listenOnce(qmpPath);
  let image = kernel.image;
  let initrd = initramfs;
  if (options.forEverybody === true) {
    // The cache may be in a home that is its owner's only.
    [image, initrd] = [join(folder, 'kernel'), join(folder, 'initrd')];
    await Promise.all([copyFile(kernel.image, image), copyFile(initramfs, initrd)]);
    for (const path of [folder, controlPath, qmpPath, image, initrd]) await chmod(path, 0o777);
  }
  const args = [
    // With RDRAND, and trust in it, the guest's random numbers are there at once instead of after 1.5 s of jitter.
    ...[
      '-nodefaults',
      '-no-user-config',
      '-display',
      'none',
      '-machine',
      'pc',
      '-accel',
      'tcg',
      '-cpu',
      'max',
      '-no-reboot',
    ],
    ...['-m', String(memoryMib), '-kernel', image, '-initrd', initrd],
    ...['-append', 'console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off nokaslr net.ifnames=0'],
    ...['-chardev', `file,id=console,path=${consolePath}`, '-serial', 'chardev:console'],
    ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=control,path=${controlPath},server=off`],
    ...['-device', `virtserialport,chardev=control,name=${CONTROL_PORT_NAME}`],
    ...['-chardev', `socket,id=qmp,path=${qmpPath},server=off`, '-mon', 'chardev=qmp,mode=control'],
  ];
  if (options.netdev !== undefined) {
    const device = [`${nic},netdev=n0,id=nic0`];
    if (options.mac !== undefined) device.push(`mac=${options.mac}`);
    // The boot ROM has no use here and its loading costs time.
    args.push('-netdev', options.netdev, '-device', [...device, 'romfile='].join(','));
  }
  const line = [...(options.launcher ?? []), 'qemu-system-x86_64', ...args, ...(options.extraArgs ?? [])];
  const startedMs = performance.now();
  const child = spawn(line[0] as string, line.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let messages = '';
  const collect = (chunk: Buffer): void => {
    messages += chunk.toString();
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  const readConsole = async (): Promise<string> => `${messages}${await readFile(consolePath, 'utf8').catch(() => '')}`;
  const cleanUp = async (): Promise<void> => {
    await stopChild(child);
    control.server.close();
    qmpListener.server.close();
    await rm(folder, { recursive: true, force: true });
  };

  let timer: NodeJS.Timeout | undefined;
  try {
    const failure = new Promise<never>((_, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => reject(new Error(`QEMU ended early (${code ?? signal})`)));
      timer = setTimeout(() => reject(new Error(`no command loop after ${bootTimeoutMs} ms`)), bootTimeoutMs);
    });
    failure.catch(() => {});
    const qmp = await Promise.race([qmpListener.connection.then((socket) => QmpChannel.open(socket)), failure]);
    const channel = new CommandChannel(await Promise.race([control.connection, failure]));
    await Promise.race([channel.waitReady(), failure]);
    const bootMs = performance.now() - startedMs;
    return makeGuest({ child, qmp, channel, bootMs, readConsole, cleanUp });
  } catch (error) {
    const text = await readConsole();
    await cleanUp();
    throw new Error(`the guest did not boot: ${(error as Error).message}\n${text}`);
  } finally {
    clearTimeout(timer);
  }
}

interface GuestParts {
  child: ChildProcess;
  qmp: QmpChannel;
  channel: CommandChannel;
  bootMs: number;
  readConsole: () => Promise<string>;
  cleanUp: () => Promise<void>;
}

function makeGuest(parts: GuestParts): Guest {
  const { child, qmp, channel, bootMs, readConsole, cleanUp } = parts;
  let lastJob = 0;
  const exec: Guest['exec'] = (script, { timeoutMs = 60_000 } = {}) => channel.exec(script, timeoutMs);
  const check: Guest['check'] = async (script, options) => {
    const { status, stdout } = await exec(script, options);
    if (status !== 0) throw new Error(`in the guest, status ${status}:\n${script}\n${stdout}`);
    return stdout.trim();
  };
  return {
    child,
    qmp,
    bootMs,
    exec,
    check,
    async start(script) {
      const job = `/tmp/.job${++lastJob}`;
      const body = Buffer.from(script).toString('base64');
      // The job's status file is written elsewhere and moved, so that it is complete when it is seen.
      await check(
        `echo ${body} | base64 -d > ${job}
         (setsid sh -c 'sh ${job} > ${job}.output 2>&1; echo $? > ${job}.new; mv ${job}.new ${job}.status' &) > /dev/null 2>&1`,
      );
      return {
        async wait(options) {
          const output = await check(
            `until [ -e ${job}.status ]; do sleep 0.05; done; cat ${job}.status ${job}.output`,
            options,
          );
          const end = output.indexOf('\n');
          return end < 0
            ? { status: Number(output), stdout: '' }
            : { status: Number(output.slice(0, end)), stdout: output.slice(end + 1) };
        },
      };
    },
    readConsole,
    async stop() {
      qmp.execute('quit').catch(() => {});
      const timer = setTimeout(() => child.kill('SIGTERM'), 3_000);
      await waitForExit(child);
      clearTimeout(timer);
      channel.close();
      qmp.close();
      await cleanUp();
    },
  };
}
