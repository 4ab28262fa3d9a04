/**
 * Echo by raw sockets (the `raw-socket` package), for hosts whose net.ipv4.ping_group_range refuses ping sockets.
 *
 * The sockets must be open before the process gives its privileges up, so the need is found out at start: ping sockets are
 * tried, and only where they are refused and CAP_NET_RAW is held is the package loaded at all.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { reasonOf } from '../base/errors.ts';
import { formatIp, parseIp } from '../base/ip-text.ts';
import type { Logger } from '../base/logger.ts';
import type { RawEcho } from '../stack/icmp/raw-echo.ts';
import { type HostSockets, SOCKET_DGRAM } from '../stack/ports.ts';
import { IP_PROTOCOL_ICMP, IP_PROTOCOL_ICMPV6 } from '../wire/ip-protocol.ts';

const CAP_NET_RAW = 13;
const here = typeof __filename === 'undefined' ? fileURLToPath(import.meta.url) : __filename;

/** What is used of the package, which brings no types. */
interface RawSocketPackage {
  readonly AddressFamily: { readonly IPv4: number; readonly IPv6: number };
  readonly Protocol: { readonly ICMP: number; readonly ICMPv6: number };
  readonly SocketLevel: { readonly IPPROTO_IP: number; readonly IPPROTO_IPV6: number };
  readonly SocketOption: { readonly IP_TTL: number; readonly IPV6_UNICAST_HOPS: number };
  createSocket(options: { addressFamily: number; protocol: number }): RawSocket;
}

interface RawSocket {
  on(event: 'message', listener: (message: Buffer, source: string) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  setOption(level: number, option: number, value: number): void;
  send(
    buffer: Buffer,
    offset: number,
    length: number,
    address: string,
    after: (error: Error | null, bytes: number) => void,
  ): void;
  close(): void;
}

/** Raw echo with the sockets it holds. */
export interface OpenRawEcho extends RawEcho {
  close(): void;
}

/**
 * Opens raw sockets for the families whose ping sockets are refused.
 * @param onTurnEnd called after each message that was handed on
 * @returns undefined when ping sockets work, or when raw sockets are not permitted either
 */
export function createRawEcho(sockets: HostSockets, log: Logger, onTurnEnd: () => void): OpenRawEcho | undefined {
  const families = [4, 6].filter((family) => !pingSocketWorks(sockets, family));
  if (families.length === 0 || !holdsNetRaw()) return undefined;
  let raw: RawSocketPackage;
  const open = new Map<number, RawSocket>();
  const echo: OpenRawEcho = {
    onMessage: undefined,
    open: (family) => open.has(family),
    send(family, message, destination, scopeId, hopLimit) {
      const socket = open.get(family);
      if (socket === undefined) return;
      const [level, option] =
        family === 4
          ? [raw.SocketLevel.IPPROTO_IP, raw.SocketOption.IP_TTL]
          : [raw.SocketLevel.IPPROTO_IPV6, raw.SocketOption.IPV6_UNICAST_HOPS];
      try {
        socket.setOption(level, option, hopLimit);
        const address = scopeId === 0 ? formatIp(destination) : `${formatIp(destination)}%${scopeId}`;
        // The package sends later, when the caller's bytes may have changed.
        socket.send(Buffer.from(message), 0, message.length, address, () => {});
      } catch (error) {
        log.debug(`echo request by raw socket: ${reasonOf(error)}`);
      }
    },
    close() {
      for (const socket of open.values()) socket.close();
      open.clear();
    },
  };
  try {
    raw = process.getBuiltinModule('node:module').createRequire(here)('raw-socket') as RawSocketPackage;
    for (const family of families) {
      const socket = raw.createSocket(
        family === 4
          ? { addressFamily: raw.AddressFamily.IPv4, protocol: raw.Protocol.ICMP }
          : { addressFamily: raw.AddressFamily.IPv6, protocol: raw.Protocol.ICMPv6 },
      );
      socket.on('error', (error) => log.debug(`raw socket: ${error.message}`));
      socket.on('message', (message, source) => {
        const address = parseIp(source.replace(/%.*$/, ''));
        if (address === undefined) return;
        // Only IPv4 raw sockets give the IP header along (raw(7)).
        const headerBytes = family === 4 ? (message[0]! & 15) * 4 : 0;
        echo.onMessage?.(family, address, message.subarray(headerBytes));
        onTurnEnd();
      });
      open.set(family, socket);
    }
  } catch (error) {
    log.debug(`raw sockets cannot be used: ${reasonOf(error)}`);
    echo.close();
    return undefined;
  }
  return echo;
}

function pingSocketWorks(sockets: HostSockets, family: number): boolean {
  const fd = sockets.open(family, SOCKET_DGRAM, family === 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6);
  if (fd < 0) return false;
  sockets.close(fd);
  return true;
}

function holdsNetRaw(): boolean {
  try {
    const match = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
    return match !== null && ((BigInt(`0x${match[1]}`) >> BigInt(CAP_NET_RAW)) & 1n) === 1n;
  } catch {
    return false;
  }
}
