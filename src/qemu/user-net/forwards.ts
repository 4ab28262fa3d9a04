/** The rules of `hostfwd`: `[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT`, addresses of IPv4. */
import { formatIpv4, parseIpv4 } from '../../base/ip-text.ts';
import type { RefuseValue } from './user-net.ts';

/** A port of the host that leads to one of the guest. */
export interface HostForward {
  readonly proto: 'tcp' | 'udp';
  /** Dotted; `0.0.0.0`: all addresses. */
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly guestAddress: string;
  readonly guestPort: number;
}

/**
 * Reads a rule.
 * @param guest - the guest's address where the rule names none
 */
export function parseHostForward(rule: string, guest: number, refuse: RefuseValue): HostForward {
  const match = /^(tcp|udp|):([^:-]*):(\d+)-([^:-]*):(\d+)$/.exec(rule);
  if (match === null) return refuse('[tcp|udp]:[HOSTADDRESS]:HOSTPORT-[GUESTADDRESS]:GUESTPORT');
  const [, proto, hostText, hostPort, guestText, guestPort] = match as unknown as [string, ...string[]];
  const address = (text: string, fallback: number, what: string): string => {
    const parsed = text === '' ? fallback : parseIpv4(text);
    return parsed === undefined ? refuse(`an IPv4 address of the ${what}, as numbers`) : formatIpv4(parsed);
  };
  return {
    proto: proto === 'udp' ? 'udp' : 'tcp',
    hostAddress: address(hostText!, 0, 'host'),
    hostPort: parsePort(hostPort!, 'host', refuse),
    guestAddress: address(guestText!, guest, 'guest'),
    guestPort: parsePort(guestPort!, 'guest', refuse),
  };
}

/** A port, 1 … 65535. */
export function parsePort(text: string, what: string, refuse: RefuseValue): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65535 ? port : refuse(`a port of the ${what} from 1 to 65535`);
}
