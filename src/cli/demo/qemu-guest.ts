/** The guest in a virtual machine: a kernel of this computer and busybox, booted by QEMU with a virtio card on our socket. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, closeSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram } from '../../sys/process.ts';
import { buildCpio, type CpioEntry } from './cpio.ts';
import { type DemoGuest, withTimeout } from './demo-guest.ts';
import { findGuestKernel, type GuestKernel } from './guest-kernel.ts';
import { type GuestConsole, INIT_SCRIPT, LEASE_SCRIPT, openGuestConsole } from './qemu-console.ts';

/** How QEMU boots a kernel of this architecture directly. */
interface Platform {
  readonly program: string;
  readonly console: string;
  readonly machine: readonly string[];
  /** Without hardware virtualisation. */
  readonly emulatedCpu: readonly string[];
}

const PLATFORMS: Readonly<Partial<Record<NodeJS.Architecture, Platform>>> = {
  x64: { program: 'qemu-system-x86_64', console: 'ttyS0', machine: ['-machine', 'pc'], emulatedCpu: [] },
  arm64: {
    program: 'qemu-system-aarch64',
    console: 'ttyAMA0',
    machine: ['-machine', 'virt'],
    emulatedCpu: ['-cpu', 'max'],
  },
};

const GUEST_FD = 3;
const BLOCK_BYTES = 65536;
const BOOT_TIMEOUT_MS = 60_000;
/** With hardware virtualisation a guest is up in a second or two. */
const KVM_TIMEOUT_MS = 8_000;
const COMMAND_TIMEOUT_MS = 40_000;
/** The first QEMU with -netdev stream. */
const LEAST_QEMU = 7.2;
/** ELF: a program header of this type names the dynamic loader. */
const PT_INTERP = 3;

interface Parts {
  readonly platform: Platform;
  readonly qemuPath: string;
  readonly busyboxPath: string;
  readonly kernel: GuestKernel;
}

/** Everything that is needed, or what is missing. */
function findParts(): Parts | string {
  const platform = PLATFORMS[process.arch];
  if (platform === undefined) return `no virtual machine is prepared for ${process.arch}`;
  const qemuPath = findOptional(platform.program);
  if (qemuPath === undefined) return `${platform.program} is not installed`;
  const version = /version (\d+\.\d+)/.exec(execFileSync(qemuPath, ['--version'], { encoding: 'utf8' }))?.[1];
  if (Number(version ?? 0) < LEAST_QEMU) return `QEMU ${version} has no stream netdev: 7.2 is the first that has`;
  const busyboxPath = findOptional('busybox');
  if (busyboxPath === undefined || !isStatic(busyboxPath)) {
    return 'a statically linked busybox is not installed (Debian: busybox-static)';
  }
  const kernel = findGuestKernel();
  if (kernel === undefined)
    return 'there is no readable kernel image with modules in /boot (PASSEL_KERNEL can name one)';
  return { platform, qemuPath, busyboxPath, kernel };
}

function findOptional(command: string): string | undefined {
  try {
    return findProgram(command);
  } catch {
    return undefined;
  }
}

/** Whether a 64-bit ELF program needs no dynamic loader. */
function isStatic(path: string): boolean {
  const elf = readFileSync(path).subarray(0, 4096);
  if (elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2) return false;
  const tableAt = Number(elf.readBigUInt64LE(32));
  const entryBytes = elf.readUInt16LE(54);
  for (let i = 0; i < elf.readUInt16LE(56); i++) {
    if (elf.readUInt32LE(tableAt + i * entryBytes) === PT_INTERP) return false;
  }
  return true;
}

/** @returns what is in the way, or undefined */
export function lackForQemuGuest(): string | undefined {
  try {
    const parts = findParts();
    return typeof parts === 'string' ? parts : undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

function buildInitramfs(parts: Parts): Buffer {
  const modules = parts.kernel.loadModules();
  const init = INIT_SCRIPT.replaceAll('CONSOLE', parts.platform.console).replace(
    'MODULES',
    modules.map((module) => module.name).join(' '),
  );
  const file = (path: string, data: Buffer, executable = false): CpioEntry => ({
    path,
    kind: 'file',
    data,
    executable,
  });
  const folders = ['bin', 'dev', 'proc', 'sys', 'modules', 'etc'].map((path): CpioEntry => ({ path, kind: 'folder' }));
  return buildCpio([
    ...folders,
    { path: 'dev/console', kind: 'device', major: 5, minor: 1 },
    file('bin/busybox', readFileSync(parts.busyboxPath), true),
    { path: 'bin/sh', kind: 'link', data: Buffer.from('busybox') },
    file('init', Buffer.from(init), true),
    file('lease', Buffer.from(LEASE_SCRIPT), true),
    ...modules.map((module) => file(`modules/${module.name}`, module.data)),
  ]);
}

function isKvmUsable(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** A booted machine. */
interface Machine {
  readonly console: GuestConsole;
  stop(): Promise<void>;
}

/** @param fd - our end of the stream socket to the stack; goes to QEMU */
export async function createQemuGuest(fd: number): Promise<DemoGuest> {
  const parts = findParts();
  if (typeof parts === 'string') throw new Error(parts);
  const folder = mkdtempSync(join(tmpdir(), 'passel-demo-'));
  const initramfsPath = join(folder, 'initramfs');
  writeFileSync(initramfsPath, buildInitramfs(parts));
  const removeFolder = (): void => rmSync(folder, { recursive: true, force: true });
  let kvm = isKvmUsable();
  let machine: Machine;
  try {
    if (kvm) {
      // Some /dev/kvm, inside other virtual machines above all, start no guest.
      const booted = await bootMachine(parts, initramfsPath, fd, true, KVM_TIMEOUT_MS).catch(() => undefined);
      kvm = booted !== undefined;
      machine = booted ?? (await bootMachine(parts, initramfsPath, fd, false, BOOT_TIMEOUT_MS));
    } else machine = await bootMachine(parts, initramfsPath, fd, false, BOOT_TIMEOUT_MS);
  } catch (error) {
    removeFolder();
    throw error;
  } finally {
    closeSync(fd);
  }
  const speed = kvm ? 'with KVM' : 'emulated';
  return {
    kind: 'qemu',
    title: `a QEMU virtual machine (${speed}, Linux ${parts.kernel.version}) with a virtio network card`,
    improvement: kvm ? undefined : 'a usable /dev/kvm would make the virtual machine many times faster',
    ...createActions(machine.console),
    async stop() {
      await machine.stop();
      removeFolder();
    },
  };
}

/** @param fd - stays the caller's. Rejects with what QEMU and the guest said */
async function bootMachine(
  { platform, qemuPath, kernel }: Parts,
  initramfsPath: string,
  fd: number,
  kvm: boolean,
  timeoutMs: number,
): Promise<Machine> {
  const args = [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-m', '256', ...platform.machine],
    ...(kvm ? ['-accel', 'kvm', '-cpu', 'host'] : ['-accel', 'tcg', ...platform.emulatedCpu]),
    ...['-kernel', kernel.imagePath, '-initrd', initramfsPath],
    ...['-append', `console=${platform.console} quiet loglevel=3 panic=-1 net.ifnames=0 mitigations=off`],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-netdev', `stream,id=n0,server=off,addr.type=fd,addr.str=${GUEST_FD}`],
    ...['-device', 'virtio-net-pci,netdev=n0,romfile='],
  ];
  const child = spawn(qemuPath, args, { stdio: ['pipe', 'pipe', 'pipe', fd] });
  let messages = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    messages += chunk.toString();
  });
  const ended = once(child, 'close');
  ended.catch(() => {});
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended.catch(() => {});
  };
  const console = openGuestConsole(child.stdout!, child.stdin!);
  try {
    await withTimeout('boot', timeoutMs, console.ready);
  } catch (error) {
    await stop();
    throw new Error(`${(error as Error).message} ${messages}${console.text()}`.trim());
  }
  return { console, stop };
}

type Actions = Omit<DemoGuest, 'kind' | 'title' | 'improvement' | 'stop'>;

function createActions(console: GuestConsole): Actions {
  const run = (script: string): Promise<string> =>
    withTimeout('command in the guest', COMMAND_TIMEOUT_MS, console.run(script));
  return {
    async getLease() {
      const output = await run('udhcpc -i eth0 -n -q -t 10 -T 1 -O mtu -s /lease');
      const [, address = '', prefix, router = '', mtu, ...resolvers] = /^lease .*$/m.exec(output)?.[0].split(' ') ?? [];
      if (address === '') throw new Error(`no lease: ${output.trim()}`);
      return { address, prefixLength: Number(prefix), router, mtu: Number(mtu), resolvers };
    },
    async getAdvertisement() {
      const output = await run(
        'for i in $(seq 100); do ip -6 addr show dev eth0 scope global | grep inet6 && exit; sleep 0.1; done; exit 1',
      );
      const address = /inet6 (\S+)\/\d+/.exec(output)?.[1] ?? '';
      const prefix = (await run('ip -6 route show dev eth0'))
        .split('\n')
        .find((line) => /^[23f][^e].*\/\d+ /.test(line));
      return { address, prefix: prefix?.split(' ')[0] ?? 'unknown' };
    },
    async resolveName(name, resolver) {
      const output = await run(`nslookup -type=a ${name} ${resolver} || true`);
      const addresses = [...output.matchAll(/^Address(?: \d+)?: (\d+\.\d+\.\d+\.\d+)$/gm)].map((match) => match[1]!);
      return addresses.length > 0 ? addresses.join(', ') : (output.trim().split('\n').at(-1) ?? 'no answer');
    },
    fetchPage: (address, port) =>
      run(`wget -q -O - http://${address.includes(':') ? `[${address}]` : address}:${port}/`),
    async answerOnce(port, text) {
      await run(`echo '${text.trim()}' > /greeting; (nc -l -p ${port} < /greeting > /dev/null 2>&1 &); sleep 0.3`);
    },
    async download(address, port) {
      const output = await run(`nc ${address} ${port} -e dd of=/dev/null bs=${BLOCK_BYTES} iflag=fullblock 2>&1`);
      const [, full = '0', partial = '0'] = /^(\d+)\+(\d+) records in/m.exec(output) ?? [];
      // Transfers are whole blocks; a part of one would be a byte too few or too many.
      return (Number(full) + Number(partial) / 2) * BLOCK_BYTES;
    },
    async upload(address, port, bytes) {
      await run(`nc ${address} ${port} -e dd if=/dev/zero bs=${BLOCK_BYTES} count=${bytes / BLOCK_BYTES} 2>&1`);
    },
  };
}
