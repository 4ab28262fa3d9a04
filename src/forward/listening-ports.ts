/**
 * Which ports somebody listens on, from /proc/net/{tcp,tcp6,udp,udp6}: what `auto` rules follow. One line a socket:
 * `sl local_address rem_address st …`, addresses as hexadecimal ADDRESS:PORT (proc_pid_net(5)).
 */
import { readFileSync } from 'node:fs';
import type { ForwardProto } from './port-spec.ts';

/** Kernel's TCP_LISTEN, tcp_states.h. */
const TCP_LISTEN = 0x0a;
/** UDP has no listening state; a bound, unconnected socket shows as TCP_CLOSE. */
const UDP_UNCONNECTED = 0x07;

/** Adds to `ports` every local port that a table of /proc/net shows as listening. */
export function parseListeningPorts(proto: ForwardProto, table: string, ports: Set<number>): void {
  const wanted = proto === 'tcp' ? TCP_LISTEN : UDP_UNCONNECTED;
  for (const line of table.split('\n')) {
    const match = /^\s*\d+:\s+[0-9A-F]+:([0-9A-F]{4})\s+[0-9A-F]+:[0-9A-F]{4}\s+([0-9A-F]{2})\s/i.exec(line);
    if (match === null) continue;
    if (Number.parseInt(match[2]!, 16) === wanted) ports.add(Number.parseInt(match[1]!, 16));
  }
}

/**
 * Reads the listening ports of both address families.
 * @param procNet - `/proc/net`, or `/proc/PID/net` of another network namespace
 */
export function readListeningPorts(proto: ForwardProto, procNet = '/proc/net'): Set<number> {
  const ports = new Set<number>();
  for (const name of [proto, `${proto}6`]) {
    try {
      parseListeningPorts(proto, readFileSync(`${procNet}/${name}`, 'latin1'), ports);
    } catch {
      // A kernel without this family has no table; the other one still counts.
    }
  }
  return ports;
}
