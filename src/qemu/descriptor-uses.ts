/**
 * What QEMU's options need a descriptor to be. QEMU takes some that it cannot use and says nothing (a datagram socket for a stream, a
 * listening socket for a connected one), or goes on without a network.
 */
import { propertiesOf, walkOptions } from './command-line.ts';
import { getProperty, type Property } from './option-string.ts';

export type DescriptorNeed = 'listening' | 'connected' | 'datagram' | 'connected-or-datagram' | 'tap';

/** An option with a descriptor. */
export interface DescriptorUse {
  /** Without dashes. */
  readonly option: string;
  readonly value: string;
  /** What stands where the number of the descriptor belongs, or several with colons between. */
  readonly text: string;
  /** Whether it may be several. */
  readonly several: boolean;
  readonly need: DescriptorNeed;
}

/** In the order of a command line (without the program). Options that take any descriptor are left out. */
export function listDescriptorUses(args: readonly string[]): DescriptorUse[] {
  const uses: DescriptorUse[] = [];
  for (const option of walkOptions(args)) {
    const { name, value = '' } = option;
    if (name !== 'chardev' && name !== 'netdev') continue;
    const properties = propertiesOf(option);
    const found = name === 'chardev' ? useOfChardev(properties) : useOfNetdev(properties);
    if (found !== undefined) uses.push({ option: name, value, ...found });
  }
  return uses;
}

type Found = Pick<DescriptorUse, 'text' | 'several' | 'need'>;

function useOfChardev(properties: readonly Property[]): Found | undefined {
  const text = getProperty(properties, 'fd');
  if (getProperty(properties, 'backend') !== 'socket' || text === undefined) return undefined;
  return { text, several: false, need: streamNeed(properties) };
}

function useOfNetdev(properties: readonly Property[]): Found | undefined {
  const get = (key: string): string | undefined => getProperty(properties, key);
  const one = (text: string | undefined, need: DescriptorNeed): Found | undefined =>
    text === undefined ? undefined : { text, several: false, need };
  switch (get('type')) {
    case 'stream':
      return get('addr.type') === 'fd' ? one(get('addr.str'), streamNeed(properties)) : undefined;
    case 'dgram':
      return get('local.type') === 'fd' ? one(get('local.str'), 'datagram') : undefined;
    case 'socket':
      return one(get('fd'), 'connected-or-datagram');
    case 'tap': {
      const several = get('fds');
      return several === undefined ? one(get('fd'), 'tap') : { text: several, several: true, need: 'tap' };
    }
  }
  return undefined;
}

function streamNeed(properties: readonly Property[]): DescriptorNeed {
  return isOn(properties, 'server') ? 'listening' : 'connected';
}

/** A switch that stands alone is on. */
export function isOn(properties: readonly Property[], key: string): boolean {
  const last = properties.findLast((property) => property.key === key);
  return last !== undefined && /^(on|yes|true|y)$/.test(last.value ?? 'on');
}
