/** Which devices a helper serves: rules by device number. A rule that denies wins; where any rule allows, all else is denied. */
import { statSync } from 'node:fs';

export interface DeviceRule {
  readonly kind: 'block' | 'character' | 'any';
  readonly major: number;
  /** undefined: every one. */
  readonly minor: number | undefined;
}

export interface DeviceRules {
  readonly allow: readonly DeviceRule[];
  readonly deny: readonly DeviceRule[];
}

export interface DeviceNumber {
  readonly kind: 'block' | 'character' | 'other';
  readonly major: number;
  readonly minor: number;
}

const NUMBERS = /^(\d{1,4}):(\d{1,7}|\*)$/;

/**
 * `MAJOR:MINOR`, `MAJOR:*`, or the path of a device, which stands for the number that it has now.
 * @returns undefined for something else
 * @throws Error with `code` when there is nothing at the path
 */
export function parseDeviceRule(text: string): DeviceRule | undefined {
  const match = NUMBERS.exec(text);
  if (match !== null) {
    const [, major, minor] = match;
    return { kind: 'any', major: Number(major), minor: minor === '*' ? undefined : Number(minor) };
  }
  if (!text.startsWith('/')) return undefined;
  const stat = statSync(text);
  if (!stat.isBlockDevice() && !stat.isCharacterDevice()) return undefined;
  return { kind: stat.isBlockDevice() ? 'block' : 'character', ...splitDevice(stat.rdev) };
}

/** The kernel's encoding of device numbers in user space. */
function splitDevice(device: number): { major: number; minor: number } {
  const number = BigInt(device);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn & 0xffff_ffffn);
  return { major: Number(major), minor: Number(minor) };
}

export function mayServe({ allow, deny }: DeviceRules, device: DeviceNumber): boolean {
  const matches = (rule: DeviceRule): boolean =>
    rule.major === device.major &&
    (rule.minor === undefined || rule.minor === device.minor) &&
    (rule.kind === 'any' || rule.kind === device.kind);
  return !deny.some(matches) && (allow.length === 0 || allow.some(matches));
}
