/** Looking for disks in sysfs. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const SCSI_DEVICES = '/sys/bus/scsi/devices';

/** Node of the first disk with this model or, if that is '', of the SCSI device at `sysfs`; '' if there is none. */
export function findDisk(model: string, sysfs?: string): string {
  const folders = sysfs === undefined ? readdirSync(SCSI_DEVICES).map((name) => join(SCSI_DEVICES, name)) : [sysfs];
  for (const folder of folders) {
    if (!existsSync(join(folder, 'block'))) continue;
    if (model !== '' && readFileSync(join(folder, 'model'), 'utf8').trim() !== model) continue;
    const name = readdirSync(join(folder, 'block'))[0];
    if (name !== undefined) return `/dev/${name}`;
  }
  return '';
}
