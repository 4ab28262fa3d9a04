/** A libvirt domain that boots the guest of support/qemu-guest, and the channel to it. */
import { chmodSync, copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CommandChannel, listenOnce } from '../qemu-guest/control.ts';
import { CONTROL_PORT_NAME } from '../qemu-guest/guest-files.ts';
import { getInitramfs } from '../qemu-guest/initramfs.ts';
import { getKernel } from '../qemu-guest/kernel.ts';

/** A domain described in a file that `virsh define` takes. */
export interface DomainFile {
  readonly name: string;
  readonly path: string;
  readonly consolePath: string;
  /** Waits for the guest of the next `virsh start`: to be called before it. */
  expectGuest(): Promise<ExpectedGuest>;
}

export interface ExpectedGuest {
  /** Resolves when the guest takes commands. */
  readonly ready: Promise<CommandChannel>;
  close(): void;
}

/**
 * Writes a domain into `directory`, with what it boots from, for whichever user libvirt runs as.
 * @param interfaceXml - its `<interface>` element
 */
export async function writeDomain(directory: string, name: string, interfaceXml: string): Promise<DomainFile> {
  const kernel = await getKernel('cloud');
  const image = join(directory, 'vmlinuz');
  const initramfs = join(directory, 'initramfs');
  copyFileSync(kernel.image, image);
  copyFileSync(await getInitramfs(kernel), initramfs);
  for (const file of [image, initramfs]) chmodSync(file, 0o644);
  const consolePath = join(directory, `${name}.console`);
  const controlPath = join(directory, `${name}.control`);
  const path = join(directory, `${name}.xml`);
  writeFileSync(consolePath, '');
  chmodSync(consolePath, 0o666);
  writeFileSync(
    path,
    `<domain type='qemu'>
  <name>${name}</name>
  <memory unit='MiB'>192</memory>
  <vcpu>1</vcpu>
  <cpu mode='maximum'/>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${image}</kernel>
    <initrd>${initramfs}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off nokaslr net.ifnames=0</cmdline>
  </os>
  <features><acpi/></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='${consolePath}'/></serial>
    <channel type='unix'>
      <source mode='connect' path='${controlPath}'/>
      <target type='virtio' name='${CONTROL_PORT_NAME}'/>
    </channel>
    ${interfaceXml}
  </devices>
</domain>
`,
  );
  return {
    name,
    path,
    consolePath,
    async expectGuest() {
      const { server, connection } = await listenOnce(controlPath);
      chmodSync(controlPath, 0o666);
      const ready = connection.then(async (socket) => {
        const channel = new CommandChannel(socket);
        await channel.waitReady();
        return channel;
      });
      ready.catch(() => {});
      return { ready, close: () => server.close() };
    },
  };
}
