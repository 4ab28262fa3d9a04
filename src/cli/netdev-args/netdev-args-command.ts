/** `passel netdev-args LINK`: what QEMU is to be given for the link that passel-passt serves with `--netdev LINK`. */
import { resolve } from 'node:path';
import { PasselError } from '../../base/errors.ts';
import { resolvePaths } from '../../qemu/netdev-facts.ts';
import { mirrorNetdev } from '../../qemu/netdev-mirror.ts';
import { rejectFor } from '../options/definition.ts';
import { NETDEV_ARGS_OPTIONS } from '../options/netdev-args-options.ts';
import { parseNetdevValue } from '../options/netdev-value.ts';
import { scanOptions } from '../options/scan.ts';

const DEFAULT_ID = 'net0';

/** @returns exit status; @throws PasselError for the caller to report */
export async function runNetdevArgsCommand(argv: readonly string[]): Promise<number> {
  const given = scanOptions(NETDEV_ARGS_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    process.stdout.write(await formatHelp('passel netdev-args [OPTION]... LINK', NETDEV_ARGS_OPTIONS));
    return 0;
  }
  const [operand, extra] = given.operands;
  if (operand === undefined || extra !== undefined) {
    throw new PasselError('PASSEL_E_OPERAND', {
      value: extra ?? '',
      expected: 'one link, as for passel-passt --netdev',
    });
  }
  const args = listQemuArguments(operand, given.last('device'));
  process.stdout.write(`${formatArguments(args, given.last('format') ?? 'shell')}\n`);
  return 0;
}

/** @throws PasselError PASSEL_E_OPTION_VALUE, PASSEL_E_NETDEV */
export function listQemuArguments(text: string, device?: string): string[] {
  const netdev = resolvePaths(parseNetdevValue(text, rejectFor('LINK', text)), resolve);
  const id = netdev.id ?? DEFAULT_ID;
  const mirror = mirrorNetdev(netdev, id);
  if (mirror === undefined) {
    const reason = 'its other end is a descriptor, whose number only the program that made it knows';
    throw new PasselError('PASSEL_E_NETDEV', { option: 'LINK', value: text, reason });
  }
  return ['-netdev', mirror, ...(device === undefined ? [] : ['-device', `${device},netdev=${id}`])];
}

function formatArguments(args: readonly string[], format: 'shell' | 'lines' | 'json'): string {
  if (format === 'json') return JSON.stringify(args);
  return format === 'lines' ? args.join('\n') : args.map(quote).join(' ');
}

function quote(word: string): string {
  return /^[\w./,=:@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
