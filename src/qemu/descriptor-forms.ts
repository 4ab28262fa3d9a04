/**
 * Forms of QEMU's options with inherited descriptors that QEMU refuses whatever the descriptor is, found before it is started: what was opened
 * for it would be lost, and its messages do not say which of two options is the wrong one. As QEMU 7.2 has it (qemu(1)).
 */
import { propertiesOf, walkOptions } from './command-line.ts';
import { isOn } from './descriptor-uses.ts';
import { getProperty, type Property } from './option-string.ts';

export interface RefusedForm {
  /** Without dashes. */
  readonly option: string;
  readonly value: string;
  readonly reason: string;
}

/** The first one on a command line (without the program). */
export function findRefusedForm(args: readonly string[]): RefusedForm | undefined {
  const options = walkOptions(args);
  const withFd = new Set<string>();
  for (const option of options) {
    const { name, value } = option;
    if (value === undefined) continue;
    const properties = propertiesOf(option);
    const id = getProperty(properties, 'id');
    if (name === 'chardev' && hasKey(properties, 'fd') && id !== undefined) withFd.add(id);
    const reason = CHECKS[name]?.(properties);
    if (reason !== undefined) return { option: name, value, reason };
  }
  for (const option of options) {
    const properties = option.name === 'netdev' ? propertiesOf(option) : [];
    const chardev = getProperty(properties, 'chardev');
    if (getProperty(properties, 'type') !== 'vhost-user' || chardev === undefined || !withFd.has(chardev)) continue;
    const reason = `vhost-user passes descriptors, which only a chardev with path= can, and '${chardev}' has fd=`;
    return { option: 'netdev', value: option.value!, reason };
  }
  return undefined;
}

const CHECKS: Readonly<Record<string, (properties: readonly Property[]) => string | undefined>> = {
  chardev: checkChardev,
  'add-fd': checkAddFd,
  netdev: checkNetdev,
};

function checkChardev(properties: readonly Property[]): string | undefined {
  if (getProperty(properties, 'backend') !== 'socket' || !hasKey(properties, 'fd')) return undefined;
  for (const key of ['path', 'host']) {
    if (hasKey(properties, key)) return `fd= is the whole address: ${key}= names another one`;
  }
  // A client that is told to wait, or to connect again, would need an address for that.
  const server = isOn(properties, 'server');
  if (hasKey(properties, 'reconnect')) return 'reconnect= needs an address, and a descriptor has none';
  if (server) return undefined;
  if (hasKey(properties, 'wait')) return 'wait= is for server=on only';
  if (hasKey(properties, 'tls-creds'))
    return 'tls-creds= on a client needs the name of the server, and a descriptor has none';
  return undefined;
}

function checkAddFd(properties: readonly Property[]): string | undefined {
  if (!/^\d+$/.test(getProperty(properties, 'set') ?? '')) return 'set= must be there, a number of 0 or more';
  const fd = getProperty(properties, 'fd');
  return fd !== undefined && /^[0-2]$/.test(fd) ? 'fd= must not be a standard stream' : undefined;
}

/** What comes with the descriptor of a tap, or is for making one. */
const TAP_ALONE = ['ifname', 'script', 'downscript', 'helper', 'vnet_hdr', 'queues'];

function checkNetdev(properties: readonly Property[]): string | undefined {
  const type = getProperty(properties, 'type');
  if (type === 'tap') {
    const own = ['fd', 'fds'].find((key) => hasKey(properties, key));
    const other = TAP_ALONE.find((key) => hasKey(properties, key));
    if (own !== undefined && other !== undefined) return `${own}= and ${other}= exclude each other`;
  }
  if (type === 'dgram' && getProperty(properties, 'local.type') === 'fd' && hasKey(properties, 'remote.type')) {
    return 'remote.* is not possible with local.type=fd: the socket is connected already';
  }
  return undefined;
}

function hasKey(properties: readonly Property[], key: string): boolean {
  return properties.some((property) => property.key === key);
}
