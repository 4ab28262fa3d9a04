/**
 * libvirt itself, QEMU driver and TCG, starts passel-pr-helper for a domain with `<reservations managed='yes'/>`, its QEMU connects to it,
 * and both end together. The disk is one for QEMU's eyes only (support/libvirt/scsi-disk.c): no machine needs one for this.
 */
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { type Libvirt, startLibvirt } from '../support/libvirt/daemon.ts';
import { type DomainFile, type ExpectedGuest, writeDomain } from '../support/libvirt/domain.ts';
import { needLibvirt } from '../support/libvirt/packages.ts';
import { PROJECT_ROOT } from '../support/native-tools.ts';
import {
  needCommand,
  needNamespaces,
  needRoot,
  needVeth,
  type Requirement,
  requireOrSkip,
} from '../support/netns/capabilities.ts';
import { createHost, type Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/namespace.ts';
import { runProcess } from '../support/netns/process.ts';
import { needGuest } from '../support/qemu-guest/guest.ts';

const PATIENCE_MS = 60_000;
/** A block device without content: a loop device that nothing is bound to, by its number. */
const LOOP_MAJOR = 7;
const needLoop: Requirement = {
  name: 'loop',
  probe: () => (/^ *7 loop$/m.test(readFileSync('/proc/devices', 'latin1')) ? '' : 'the kernel has no loop devices'),
};

const describeSuite = await requireOrSkip(
  needNamespaces,
  needVeth,
  needRoot,
  needLoop,
  needCommand('gcc', 'gcc'),
  ...needGuest('cloud'),
  needLibvirt,
);

describeSuite('libvirt, qemu:///system, with passel-pr-helper as pr_helper', () => {
  let host: Host;
  let libvirt: Libvirt;
  let expected: ExpectedGuest | undefined;
  let running: DomainFile | undefined;
  let helperPath: string;

  beforeAll(async () => {
    host = await createHost();
    cpSync(join(PROJECT_ROOT, 'dist'), join(host.directory, 'dist'), { recursive: true });
    helperPath = join(host.directory, 'dist/helpers/passel-pr-helper');
    const source = join(PROJECT_ROOT, 'test/support/libvirt/scsi-disk.c');
    const library = join(host.directory, 'scsi-disk.so');
    await runProcess('gcc', ['-shared', '-fPIC', '-D_GNU_SOURCE', '-o', library, source]);
    libvirt = await startLibvirt(host, { mode: 'system', programs: '/nowhere', prHelper: helperPath });
    await host.sh(`mknod -m 0666 /run/disk b ${LOOP_MAJOR} 0`);
  }, 300_000);
  afterEach(async () => {
    if (running !== undefined) await libvirt.virsh(['destroy', running.name], { check: false });
    running = undefined;
    expected?.close();
  });
  afterAll(async () => {
    await libvirt?.stop();
    await host?.close();
  });

  async function start(name: string): Promise<void> {
    const domain = await writeDomain(
      host.directory,
      name,
      `<controller type='scsi' model='virtio-scsi'/>
       <disk type='block' device='lun'>
         <driver name='qemu' type='raw'/>
         <source dev='/run/disk'><reservations managed='yes'/></source>
         <target dev='sda' bus='scsi'/>
       </disk>`,
    );
    const environment = `<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <qemu:env name='LD_PRELOAD' value='${join(host.directory, 'scsi-disk.so')}'/>
    </qemu:commandline></domain>`;
    writeFileSync(domain.path, readFileSync(domain.path, 'utf8').replace('</domain>', environment));
    await libvirt.virsh(['define', domain.path]);
    expected = await domain.expectGuest();
    await libvirt.virsh(['start', name]);
    running = domain;
  }

  /** The helper's processes, by their command lines. */
  function findHelpers(): { pid: number; words: string[] }[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        try {
          const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
          // The executable, or its bundle in the hands of Node.
          const isOurs = words.some((word) => word.startsWith(helperPath));
          return isOurs ? [{ pid: Number(pid), words }] : [];
        } catch {
          return [];
        }
      });
  }

  const listFiles = async (): Promise<string> =>
    (await host.sh('find /var/lib/libvirt/qemu /run/libvirt -name "*pr-helper*" | sort')).stdout.trim();

  async function queryManagers(): Promise<unknown> {
    const { stdout } = await libvirt.virsh(['qemu-monitor-command', running!.name, '{"execute":"query-pr-managers"}']);
    return (JSON.parse(stdout) as { return: unknown }).return;
  }

  it('is started for a domain, serves its QEMU, and ends with it', async () => {
    await start('clustered');
    const [helper, ...others] = findHelpers();
    expect(others).toEqual([]);
    expect(helper!.words.at(-3)).toBe('-k');
    const socket = helper!.words.at(-2)!;
    expect(socket).toMatch(/^\/var\/lib\/libvirt\/qemu\/domain-\d+-clustered\/pr-helper0\.sock$/);
    // QEMU has been greeted, and has agreed on features.
    await waitUntil(
      'QEMU to be connected',
      async () => /"connected":true/.test(JSON.stringify(await queryManagers())),
      PATIENCE_MS,
    );
    expect(await queryManagers()).toEqual([{ connected: true, id: 'pr-helper0' }]);
    const status = readFileSync(`/proc/${helper!.pid}/status`, 'latin1');
    expect(status).toMatch(/^CapPrm:\t0000000000020000$/m);
    // libvirt wrote the number before it became the helper, and holds the file locked through it.
    const [, pidFile] = /(\S+pr-helper0\.pid)/.exec(await listFiles()) ?? [];
    expect((await host.sh(`cat ${pidFile}`)).stdout.trim()).toBe(String(helper!.pid));
    expect((await host.sh(`readlink /proc/${helper!.pid}/fd/*`)).stdout.split('\n')).toContain(pidFile);

    await libvirt.virsh(['destroy', running!.name]);
    running = undefined;
    await waitUntil('the helper to be gone', () => !existsSync(`/proc/${helper!.pid}`), PATIENCE_MS);
    await waitUntil('its files to be gone', async () => (await listFiles()) === '', PATIENCE_MS);
    expect(findHelpers()).toEqual([]);
  });

  it('tells libvirt why it cannot start, and no domain runs without it', async () => {
    const addon = join(host.directory, 'dist/native/passel.node');
    await host.sh(`mv ${addon} ${addon}.away`);
    try {
      await expect(start('refused')).rejects.toThrow(/passel-pr-helper: .*passel\.node/);
      expect((await libvirt.virsh(['list', '--state-running', '--name'])).stdout.trim()).toBe('');
    } finally {
      await host.sh(`mv ${addon}.away ${addon}`);
    }
    expect(findHelpers()).toEqual([]);
    expect(await listFiles()).toBe('');
  });
});
