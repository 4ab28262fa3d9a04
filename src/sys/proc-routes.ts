/**
 * Default routes from /proc/net/route and /proc/net/ipv6_route: what netlink would tell, as text that needs no socket, no
 * privileges and no sandbox exception.
 */
import { endianness } from 'node:os';

/** A default route of one family. `gateway` is undefined for a route straight onto a link (tunnels). */
export interface DefaultRoute<Address> {
  readonly interfaceName: string;
  readonly gateway: Address | undefined;
  /** The kernel prefers lower values. */
  readonly metric: number;
}

// route flags, linux/route.h
const RTF_UP = 0x0001;
const RTF_GATEWAY = 0x0002;
const RTF_REJECT = 0x0200;

/**
 * IPv4 default routes, best first. Columns: Iface Destination Gateway Flags RefCnt Use Metric Mask …; addresses are
 * hexadecimal numbers in the byte order of the machine.
 */
export function parseIpv4DefaultRoutes(table: string): DefaultRoute<number>[] {
  const routes: DefaultRoute<number>[] = [];
  for (const line of table.split('\n').slice(1)) {
    const columns = line.trim().split(/\s+/);
    if (columns.length < 8) continue;
    const [interfaceName, destination, gatewayHex, flagsHex] = columns as [string, string, string, string];
    const flags = Number.parseInt(flagsHex, 16);
    const isDefault = /^0+$/.test(destination) && /^0+$/.test(columns[7]!);
    if (!isDefault || !(flags & RTF_UP) || flags & RTF_REJECT) continue;
    const gateway = flags & RTF_GATEWAY ? fromMachineOrder(Number.parseInt(gatewayHex, 16)) : undefined;
    routes.push({ interfaceName, gateway, metric: Number(columns[6]) });
  }
  return routes.sort((a, b) => a.metric - b.metric);
}

/**
 * IPv6 default routes, best first. Columns: destination, its prefix length, source, its prefix length, next hop, metric,
 * reference count, use count, flags, interface; all hexadecimal, addresses in network order.
 */
export function parseIpv6DefaultRoutes(table: string): DefaultRoute<Uint32Array>[] {
  const routes: DefaultRoute<Uint32Array>[] = [];
  for (const line of table.split('\n')) {
    const columns = line.trim().split(/\s+/);
    if (columns.length < 10) continue;
    const [destination, prefixLength, , , nextHop, metricHex] = columns as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    const interfaceName = columns[9]!;
    const flags = Number.parseInt(columns[8]!, 16);
    // The kernel keeps an unreachable catch-all route on lo, which looks like a default route but for its flags.
    const isDefault = /^0+$/.test(destination) && prefixLength === '00' && interfaceName !== 'lo';
    if (!isDefault || !(flags & RTF_UP) || flags & RTF_REJECT) continue;
    const gateway = flags & RTF_GATEWAY ? parseHexIpv6(nextHop) : undefined;
    routes.push({ interfaceName, gateway, metric: Number.parseInt(metricHex, 16) });
  }
  return routes.sort((a, b) => a.metric - b.metric);
}

/** 32 hexadecimal digits → 4 words. */
export function parseHexIpv6(hex: string): Uint32Array {
  return Uint32Array.of(
    Number.parseInt(hex.slice(0, 8), 16),
    Number.parseInt(hex.slice(8, 16), 16),
    Number.parseInt(hex.slice(16, 24), 16),
    Number.parseInt(hex.slice(24, 32), 16),
  );
}

function fromMachineOrder(value: number): number {
  if (endianness() === 'BE') return value;
  return ((value >>> 24) | ((value >>> 8) & 0xff00) | ((value << 8) & 0xff0000) | (value << 24)) >>> 0;
}
