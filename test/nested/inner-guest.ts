/**
 * The guest inside the guest: its initramfs, and the command line of the QEMU that runs it. It tells its story on the console, one
 * `story:` line per step, and needs no answer.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { findCommand } from '../support/netns/capabilities.ts';
import { CpioWriter } from '../support/qemu-guest/cpio.ts';
import { addLibraries, type ImageContents } from '../support/qemu-guest/disk-image.ts';
import { listLibraries } from '../support/qemu-guest/initramfs.ts';
import { getKernel, type Kernel } from '../support/qemu-guest/kernel.ts';

/** Key that the inner guest registers. */
export const INNER_KEY = 'abc1';

/** Modules of the kernel's SCSI set that the inner guest has a use for. */
const INNER_MODULES = ['scsi_common.ko', 'scsi_mod.ko', 'virtio_scsi.ko', 'sd_mod.ko', 'sg.ko'];

/**
 * Registers and reserves (type 5: only registrants write), writes, and goes on writing until it may not any more; then what it is
 * told and what is left.
 */
const INNER_INIT = `#!/bin/busybox sh
export PATH=/bin:/usr/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
until [ -b /dev/sda ]; do sleep 0.1; done
say() { echo "story: $*" > /dev/console; }
persist() { sg_persist --no-inquiry "$@" /dev/sda 2>&1; }
write() { dd if=/dev/zero of=/dev/sda bs=4096 count=1 oflag=direct 2>/dev/null; }
say "keys: $(persist --in --read-keys | tail -n 1)"
persist --out --register --param-sark=${INNER_KEY} > /dev/null && say registered
persist --out --reserve --param-rk=${INNER_KEY} --prout-type=5 > /dev/null && say reserved
say "holder: $(persist --in --read-reservation | grep Key)"
write && say written
say ready
while write; do sleep 0.2; done
say fenced
say "keys: $(persist --in --read-keys | grep -c 0x${INNER_KEY}) of mine"
persist --out --register --param-rk=${INNER_KEY} --param-sark=1 > /dev/null || say "refused: $?"
say end
poweroff -f
`;

/** Adds QEMU with what it reads at start, where its binary expects it. */
export async function addQemu(contents: ImageContents): Promise<void> {
  const files = [
    findCommand('qemu-system-x86_64'),
    '/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so',
    '/usr/share/seabios/bios-256k.bin',
    '/usr/share/qemu/kvmvapic.bin',
    '/usr/share/qemu/linuxboot_dma.bin',
  ];
  for (const file of files) contents.files.set(file.slice(1), file);
  await addLibraries(contents, files[0]!);
}

/** The inner guest's kernel and initramfs. */
export async function makeInnerGuest(): Promise<{ kernel: Kernel; initramfs: Buffer }> {
  const kernel = await getKernel('cloud');
  const archive = new CpioWriter();
  for (const folder of ['proc', 'sys', 'dev', 'usr/bin']) archive.addFolder(folder);
  archive.addCharacterDevice('dev/console', 5, 1);
  archive.addFile('bin/busybox', await readFile(findCommand('busybox')), 0o755);
  archive.addLink('bin/sh', 'busybox');
  archive.addFile('init', INNER_INIT, 0o755);
  const persist = findCommand('sg_persist');
  archive.addFile('usr/bin/sg_persist', await readFile(persist), 0o755);
  for (const library of await listLibraries(persist)) archive.addFile(library, await readFile(library), 0o755);
  const bus = kernel.modules.filter((path) => /virtio(_ring|_pci\w*)?\.ko$/.test(path));
  const wanted = kernel.scsiModules.filter((path) => INNER_MODULES.includes(basename(path)));
  const modules = [...bus, ...wanted];
  for (const module of modules) archive.addFile(`modules/${basename(module)}`, await readFile(module));
  archive.addFile('modules/order', modules.map((module) => `${basename(module)}\n`).join(''));
  return { kernel, initramfs: archive.finish() };
}

/** Command line, for the outer guest, of a QEMU whose guest has `disk` with reservations by the helper at `socket`. */
export function innerQemu(options: {
  disk: string;
  socket: string;
  kernel: string;
  initramfs: string;
  console: string;
}): string {
  return [
    'qemu-system-x86_64 -nodefaults -no-user-config -display none -machine pc -accel tcg -cpu max -no-reboot -m 192',
    `-kernel ${options.kernel} -initrd ${options.initramfs}`,
    "-append 'console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off nokaslr no_timer_check'",
    `-serial file:${options.console}`,
    `-object pr-manager-helper,id=pr0,path=${options.socket}`,
    '-device virtio-scsi-pci',
    `-blockdev driver=host_device,node-name=disk,filename=${options.disk},pr-manager=pr0`,
    '-device scsi-block,drive=disk',
  ].join(' ');
}
