/**
 * The rules of `hostfwd`: `[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT` and, of newer QEMUs, `unix:PATH-[GUESTADDR]:GUESTPORT`.
 *
 * Addresses of IPv6 stand in brackets, on both sides or on one; the other side, if it names none, is of that family too. QEMU has none.
 * Host port 0 stands for one that the kernel chooses.
 */
import { formatIp, isMappedIpv4, parseIp, parseIpv4 } from '../../base/ip-text.ts';
import type { RefuseValue } from './user-net.ts';

/** A port of the host that leads to one of the guest. */
export interface HostForward {
  readonly proto: 'tcp' | 'udp';
  /** As text; `0.0.0.0` and `::`: all addresses of the family. */
  readonly hostAddress: string;
  /** 0: the kernel chooses. */
  readonly hostPort: number;
  /** A unix socket instead: a path, or a name behind `@`; address and port mean nothing then. */
  readonly hostPath?: string;
  /** Undefined: that of IPv6 which the guest uses. */
  readonly guestAddress: string | undefined;
  readonly guestPort: number;
}

/** What the guest has by default; undefined: not that family. */
export interface ForwardFamilies {
  /** Its address, uint32. */
  readonly ipv4: number | undefined;
  readonly ipv6: boolean;
}

const ADDRESS = String.raw`\[[^\]]*\]|[^:-]*`;
const PORT_FORWARD = new RegExp(`^(tcp|udp|):(${ADDRESS}):(\\d+)-(${ADDRESS}):(\\d+)$`);
const PATH_FORWARD = new RegExp(`^unix:(.+)-(${ADDRESS}):(\\d+)$`, 's');

/** Reads a rule. */
export function parseHostForward(rule: string, families: ForwardFamilies, refuse: RefuseValue): HostForward {
  const path = PATH_FORWARD.exec(rule);
  if (path !== null) {
    const [, hostPath, guestText, guestPort] = path as unknown as [string, string, string, string];
    const guest = parseAddress(guestText, 'guest', refuse);
    const isIpv4 = guest === undefined ? families.ipv4 !== undefined : isMappedIpv4(guest);
    return {
      proto: 'tcp',
      hostAddress: '',
      hostPort: 0,
      hostPath,
      guestAddress: nameGuest(guest, isIpv4, families, refuse),
      guestPort: parsePort(guestPort, 'guest', refuse),
    };
  }
  const match = PORT_FORWARD.exec(rule);
  if (match === null) {
    return refuse(
      '[tcp|udp]:[HOSTADDRESS]:HOSTPORT-[GUESTADDRESS]:GUESTPORT or unix:PATH-[GUESTADDRESS]:GUESTPORT, with addresses of IPv6 in brackets',
    );
  }
  const [, proto, hostText, hostPort, guestText, guestPort] = match as unknown as [string, ...string[]];
  const host = parseAddress(hostText!, 'host', refuse);
  const guest = parseAddress(guestText!, 'guest', refuse);
  const named = host ?? guest;
  const isIpv4 = named === undefined || isMappedIpv4(named);
  if (host !== undefined && guest !== undefined && isMappedIpv4(guest) !== isIpv4)
    refuse('two addresses of one family');
  return {
    proto: proto === 'udp' ? 'udp' : 'tcp',
    hostAddress: host === undefined ? (isIpv4 ? '0.0.0.0' : '::') : formatIp(host),
    hostPort: hostPort === '0' ? 0 : parsePort(hostPort!, 'host', refuse),
    guestAddress: nameGuest(guest, isIpv4, families, refuse),
    guestPort: parsePort(guestPort!, 'guest', refuse),
  };
}

function parseAddress(text: string, what: string, refuse: RefuseValue): Uint32Array | undefined {
  if (text === '') return undefined;
  const isIpv6 = text.startsWith('[');
  const address = isIpv6 ? parseIp(text.slice(1, -1)) : parseIp(text);
  const isGood = address !== undefined && (isIpv6 ? !isMappedIpv4(address) : parseIpv4(text) !== undefined);
  return isGood ? address : refuse(`an IPv4 address of the ${what}, or one of IPv6 in brackets, as numbers`);
}

function nameGuest(
  guest: Uint32Array | undefined,
  isIpv4: boolean,
  { ipv4, ipv6 }: ForwardFamilies,
  refuse: RefuseValue,
): string | undefined {
  if (isIpv4 ? ipv4 === undefined : !ipv6) {
    return refuse(`no address of ${isIpv4 ? 'IPv4' : 'IPv6'}, which is switched off`);
  }
  if (guest !== undefined) return formatIp(guest);
  return isIpv4 ? formatIp(Uint32Array.of(0, 0, 0xffff, ipv4!)) : undefined;
}

/** A port, 1 … 65535. */
export function parsePort(text: string, what: string, refuse: RefuseValue): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65535 ? port : refuse(`a port of the ${what} from 1 to 65535`);
}
