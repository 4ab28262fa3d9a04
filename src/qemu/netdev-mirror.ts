/**
 * The other end of a link: who listens here is connected to from there, and what is local here is remote there.
 *
 * What only one end has to know is left out: when to connect again (which QEMU before 8.0 does not know either), keep-alive probes.
 */

import type { InetAddress, Netdev, UnixAddress } from './netdev.ts';
import { escapeValue } from './option-string.ts';

/** A server that listens on all addresses is reached by this one. */
const LOOPBACK_V4 = '127.0.0.1';
const LOOPBACK_V6 = '::1';
const ALL_ADDRESSES = ['', '0.0.0.0', '::'];

/**
 * The text of `-netdev` for the other end.
 * @param id - QEMU's name for it
 * @returns undefined when the other end is a descriptor that whoever made the pair has
 */
export function mirrorNetdev(netdev: Netdev, id: string): string | undefined {
  const pairs = listMirror(netdev);
  if (pairs === undefined) return undefined;
  return [netdev.type, ...[['id', id] as const, ...pairs].map(([key, value]) => `${key}=${escapeValue(value)}`)].join(
    ',',
  );
}

type Pairs = Array<readonly [key: string, value: string]>;

function listMirror(netdev: Netdev): Pairs | undefined {
  switch (netdev.form) {
    case 'inherited':
      return undefined;
    case 'multicast': {
      const { group, port, local } = netdev;
      if (netdev.type === 'socket') {
        return [['mcast', `${group}:${port}`], ...(local === undefined ? [] : ([['localaddr', local]] as Pairs))];
      }
      const interfaceOf: Pairs =
        local === undefined
          ? []
          : [
              ['local.type', 'inet'],
              ['local.host', local],
              ['local.port', String(port)],
            ];
      return [['remote.type', 'inet'], ['remote.host', group], ['remote.port', String(port)], ...interfaceOf];
    }
    case 'datagram': {
      const { local, remote } = netdev;
      if (netdev.type === 'socket') {
        return [
          ['udp', hostAndPort(local)],
          ['localaddr', hostAndPort(remote)],
        ];
      }
      return [...addressPairs('local', remote), ...addressPairs('remote', local)];
    }
    case 'stream': {
      const { address, server } = netdev;
      if (address.type === 'fd') return undefined;
      if (netdev.type === 'socket') return [[server ? 'connect' : 'listen', hostAndPort(address)]];
      return [['server', server ? 'off' : 'on'], ...addressPairs('addr', address, server)];
    }
  }
}

function addressPairs(prefix: string, address: InetAddress | UnixAddress, reach = prefix === 'remote'): Pairs {
  const pairs: Pairs = [[`${prefix}.type`, address.type]];
  if (address.type === 'unix') {
    pairs.push([`${prefix}.path`, address.path]);
    if (address.isAbstract) pairs.push([`${prefix}.abstract`, 'on']);
    return pairs;
  }
  pairs.push(
    [`${prefix}.host`, reach ? reachableHost(address) : address.host],
    [`${prefix}.port`, String(address.port)],
  );
  return pairs;
}

function reachableHost({ host, ipv4 }: InetAddress): string {
  if (!ALL_ADDRESSES.includes(host)) return host;
  return host === '::' || !ipv4 ? LOOPBACK_V6 : LOOPBACK_V4;
}

function hostAndPort(address: InetAddress | UnixAddress): string {
  if (address.type !== 'inet') throw new TypeError('only addresses with ports are written like this');
  return `${reachableHost(address)}:${address.port}`;
}
