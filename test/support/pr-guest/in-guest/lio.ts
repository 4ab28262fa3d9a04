/**
 * A SCSI disk made by the kernel's own target (LIO) and seen through its loopback fabric: each nexus is one initiator port
 * with one target port and a disk node of its own, all for one and the same unit. Made by writing to configfs.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const TARGET = '/sys/kernel/config/target';
const CORE = join(TARGET, 'core/fileio_0');
const LOOPBACK = join(TARGET, 'loopback');

/** One path to the unit. */
export interface Nexus {
  /** The initiator's SAS address, 16 digits. */
  initiator: string;
  /** Block device node, such as /dev/sda. */
  disk: string;
  /** SCSI generic node, such as /dev/sg0. */
  generic: string;
  /** Its folder in sysfs. */
  sysfs: string;
}

/** The unit with its nexuses. */
export interface LioDisk {
  nexuses: Nexus[];
  /** File in which the target keeps registrations that shall outlive a loss of power (APTPL). */
  persistence: string;
}

/**
 * Makes a unit of 16 MiB, seen through `count` nexuses. The initiators have the same names in all units. Units are not taken down:
 * the kernel (6.1) loses count of references in a registration with SPEC_I_PT, and would wait for them for ever.
 */
export async function createLioDisk(count: number): Promise<LioDisk> {
  mkdirSync(CORE, { recursive: true });
  const number = readdirSync(CORE).filter((entry) => entry.startsWith('unit')).length + 1;
  const core = join(CORE, `unit${number}`);
  const serial = `passel-${number}`;
  mkdirSync(core);
  mkdirSync('/var/target/pr', { recursive: true });
  writeFileSync(join(core, 'control'), `fd_dev_name=/tmp/unit${number}.img,fd_dev_size=16777216\n`);
  writeFileSync(join(core, 'wwn/vpd_unit_serial'), `${serial}\n`);
  writeFileSync(join(core, 'enable'), '1\n');
  const nexuses: Nexus[] = [];
  for (let port = 1; port <= count; port++) {
    const group = join(LOOPBACK, `naa.60014050${hex(number)}${hex(port)}`, 'tpgt_1');
    const initiator = `60014051${hex(0)}${hex(port)}`;
    mkdirSync(group, { recursive: true });
    // Before the unit is linked: the initiator is mapped to the units that are there when it logs in, and to later ones.
    writeFileSync(join(group, 'nexus'), `naa.${initiator}\n`);
    mkdirSync(join(group, 'lun/lun_0'));
    symlinkSync(core, join(group, 'lun/lun_0/unit'));
    const address = readFileSync(join(group, 'address'), 'utf8').trim();
    const sysfs = `/sys/bus/scsi/devices/${address}:0`;
    await waitFor(
      `the disk at ${address}`,
      () => nodeOf(sysfs, 'block') !== '' && nodeOf(sysfs, 'scsi_generic') !== '',
    );
    nexuses.push({ initiator, disk: nodeOf(sysfs, 'block'), generic: nodeOf(sysfs, 'scsi_generic'), sysfs });
  }
  return { nexuses, persistence: `/var/target/pr/aptpl_${serial}` };
}

function hex(value: number): string {
  return value.toString(16).padStart(4, '0');
}

/** Polls: the kernel's scan of a bus has no end that a program could wait for. */
export async function waitFor(what: string, condition: () => boolean, timeoutMs = 20_000): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function nodeOf(sysfs: string, kind: 'block' | 'scsi_generic'): string {
  const folder = join(sysfs, kind);
  const name = existsSync(folder) ? readdirSync(folder)[0] : undefined;
  return name !== undefined && existsSync(`/dev/${name}`) ? `/dev/${name}` : '';
}
