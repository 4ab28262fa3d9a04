/**
 * The host's listening sockets behind the port forwards.
 *
 * Each forwarded port is one socket (two where a rule names no address and the kernel has no dual-stack socket), and has an
 * index under which the poller reports it and the stack asks where it leads. Ranges may be long (`all` is some 37 000 ports),
 * so columns are kept rather than objects, and targets are shared between ports that lead to the same place.
 *
 * A rule without an address binds one IPv6 socket for both families. Rules with sweeping ranges are weak: a port that is
 * taken or not permitted is left out, and only a rule of which nothing could be bound is an error.
 */
import { getSystemErrorMap } from 'node:util';
import { PasselError } from '../base/errors.ts';
import { isMappedIpv4, parseIp } from '../base/ip-text.ts';
import type { Logger } from '../base/logger.ts';
import type { ForwardLookup, ForwardTarget, HostSockets } from '../stack/ports.ts';
import {
  ENDPOINT_ADDRESS,
  ENDPOINT_BYTES,
  ENDPOINT_PORT,
  EVENT_IN,
  KIND_TCP_LISTENER,
  KIND_UDP_LISTENER,
  SOCKET_DGRAM,
  SOCKET_STREAM,
} from '../stack/ports.ts';
import type { PortForwardRule } from './port-spec.ts';

// Socket options by their Linux numbers (socket(7), ip(7), ipv6(7)).
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_BINDTODEVICE = 25;
const SOL_IP = 0;
const IP_PKTINFO = 8;
const IP_FREEBIND = 15;
const SOL_IPV6 = 41;
const IPV6_V6ONLY = 26;
const IPV6_RECVPKTINFO = 49;
const IPV6_FREEBIND = 78;

/**
 * The kernel cuts this to net.core.somaxconn. Beyond it, and with SYN cookies, the host resets connections that their clients
 * believe open: 128, as C has it, loses some of 300 that come at once.
 */
const TCP_BACKLOG = 4096;

export interface ListenerOptions {
  readonly sockets: HostSockets;
  /** The arena's view, and the offset of {@link ENDPOINT_BYTES} bytes of it to work in. */
  readonly view: DataView;
  readonly scratchOffset: number;
  readonly logger: Logger;
  /** Families the guest has. */
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** `--freebind`: addresses that the host does not have (yet) may be bound. */
  readonly freebind: boolean;
}

/** The open listeners; owns their descriptors. */
export interface ForwardListeners extends ForwardLookup {
  /** Number of sockets open. */
  readonly count: number;
  /** The rule that a listener belongs to. */
  ruleOf(index: number): PortForwardRule | undefined;
  /** Registers every listener with the poller: KIND_TCP_LISTENER or KIND_UDP_LISTENER and the listener's index, level-triggered. */
  watchAll(): void;
  closeAll(): void;
}

/**
 * Opens all listeners of `rules`, in order.
 * @throws PasselError PASSEL_E_PORT_BIND; everything opened before is closed then
 */
export function openListeners(rules: readonly PortForwardRule[], options: ListenerOptions): ForwardListeners {
  const { sockets } = options;
  const fds: number[] = [];
  const ruleIndices: number[] = [];
  const targets: ForwardTarget[] = [];
  const udpIndices = new Map<number, number>();

  const closeAll = (): void => {
    for (const [index, fd] of fds.entries()) {
      if (fd >= 0) sockets.close(fd);
      fds[index] = -1;
    }
  };

  try {
    for (const [ruleIndex, rule] of rules.entries()) {
      const guestAddress = rule.targetAddress === undefined ? undefined : parseIp(rule.targetAddress);
      let opened = 0;
      let firstProblem: { endpoint: string; errno: number } | undefined;
      for (let port = rule.first; port <= rule.last; port++) {
        const guestPort = rule.targetFirst + (port - rule.first);
        const target: ForwardTarget = guestAddress === undefined ? { guestPort } : { guestPort, guestAddress };
        const bound = openPort(rule, port, options);
        for (const fd of bound.fds) {
          if (rule.proto === 'udp') udpIndices.set(port, fds.length);
          fds.push(fd);
          ruleIndices.push(ruleIndex);
          targets.push(target);
          opened++;
        }
        if (bound.errno === 0) continue;
        firstProblem ??= { endpoint: describeEndpoint(rule, port), errno: bound.errno };
        if (!rule.weak) throw bindError(rule, firstProblem.endpoint, bound.errno);
      }
      if (opened === 0 && firstProblem !== undefined) throw bindError(rule, firstProblem.endpoint, firstProblem.errno);
      if (firstProblem !== undefined) {
        const left = rule.last - rule.first + 1 - opened;
        options.logger.debug(`${left} of ports ${rule.first}-${rule.last}/${rule.proto} were taken or not permitted`);
      }
    }
  } catch (error) {
    closeAll();
    throw error;
  }

  return {
    count: fds.length,
    targetOf: (index) => targets[index],
    fdOf: (index) => fds[index] ?? -1,
    udpListenerAt: (port) => udpIndices.get(port) ?? -1,
    ruleOf: (index) => rules[ruleIndices[index] ?? -1],
    watchAll() {
      for (const [index, fd] of fds.entries()) {
        if (fd < 0) continue;
        const kind = rules[ruleIndices[index]!]!.proto === 'tcp' ? KIND_TCP_LISTENER : KIND_UDP_LISTENER;
        sockets.watch(fd, EVENT_IN, kind, index);
      }
    },
    closeAll,
  };
}

interface OpenResult {
  readonly fds: readonly number[];
  /** 0, or the positive errno of the attempt that failed. */
  readonly errno: number;
}

function openPort(rule: PortForwardRule, port: number, options: ListenerOptions): OpenResult {
  if (rule.bindAddress !== undefined) {
    const address = parseIp(rule.bindAddress)!;
    return openSocket(rule, isMappedIpv4(address) ? 4 : 6, address, port, false, options);
  }
  const { ipv4, ipv6 } = options;
  if (ipv4 && ipv6) {
    const both = openSocket(rule, 6, undefined, port, true, options);
    // A host without IPv6 (EAFNOSUPPORT, EADDRNOTAVAIL with disable_ipv6) still serves the other family.
    if (both.errno !== 97 && both.errno !== 99) return both;
    return openSocket(rule, 4, undefined, port, false, options);
  }
  return openSocket(rule, ipv6 ? 6 : 4, undefined, port, false, options);
}

/** One socket, bound and (TCP) listening; `address` undefined: all addresses of the family. */
function openSocket(
  rule: PortForwardRule,
  family: 4 | 6,
  address: Uint32Array | undefined,
  port: number,
  dualStack: boolean,
  options: ListenerOptions,
): OpenResult {
  const { sockets, view, scratchOffset } = options;
  const isTcp = rule.proto === 'tcp';
  const fd = sockets.open(family, isTcp ? SOCKET_STREAM : SOCKET_DGRAM, 0);
  if (fd < 0) return { fds: [], errno: -fd };

  const steps = (): number => {
    let status = 0;
    if (family === 6) status = sockets.setOption(fd, SOL_IPV6, IPV6_V6ONLY, dualStack ? 0 : 1);
    if (status < 0) return status;
    if (isTcp) status = sockets.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (status < 0) return status;
    if (rule.bindInterface !== undefined) {
      status = sockets.setOptionString(fd, SOL_SOCKET, SO_BINDTODEVICE, rule.bindInterface);
      if (status < 0) return status;
    }
    if (options.freebind) {
      if (family === 4 || dualStack) sockets.setOption(fd, SOL_IP, IP_FREEBIND, 1);
      if (family === 6) sockets.setOption(fd, SOL_IPV6, IPV6_FREEBIND, 1);
    }
    writeEndpoint(view, scratchOffset, family, address, port);
    status = sockets.bind(fd, scratchOffset);
    if (status < 0) return status;
    if (isTcp) return sockets.listen(fd, TCP_BACKLOG);
    // Replies leave through sockets bound to the same port, so reuse must be on; but only after our own bind, which would
    // otherwise share a port with another program unnoticed.
    status = sockets.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (status < 0) return status;
    // The address a datagram came to is the one its reply must come from.
    return family === 6
      ? sockets.setOption(fd, SOL_IPV6, IPV6_RECVPKTINFO, 1)
      : sockets.setOption(fd, SOL_IP, IP_PKTINFO, 1);
  };
  const status = steps();
  if (status >= 0) return { fds: [fd], errno: 0 };
  sockets.close(fd);
  return { fds: [], errno: -status };
}

function writeEndpoint(
  view: DataView,
  offset: number,
  family: 4 | 6,
  address: Uint32Array | undefined,
  port: number,
): void {
  for (let i = 0; i < ENDPOINT_BYTES; i += 4) view.setUint32(offset + i, 0);
  view.setUint8(offset, family);
  view.setUint16(offset + ENDPOINT_PORT, port);
  if (address === undefined) return;
  if (family === 4) view.setUint32(offset + ENDPOINT_ADDRESS, address[3]!);
  else for (let i = 0; i < 4; i++) view.setUint32(offset + ENDPOINT_ADDRESS + 4 * i, address[i]!);
}

function describeEndpoint(rule: PortForwardRule, port: number): string {
  const address = rule.bindAddress === undefined ? '*' : rule.bindAddress;
  const shown = address.includes(':') ? `[${address}]` : address;
  const device = rule.bindInterface === undefined ? '' : `%${rule.bindInterface}`;
  return `${shown}${device}:${port}/${rule.proto}`;
}

function bindError(rule: PortForwardRule, endpoint: string, errno: number): PasselError {
  const [name, text] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, ''];
  const option = rule.proto === 'tcp' ? '--tcp-ports' : '--udp-ports';
  const reason = text === '' ? name : `${name}: ${text}`;
  const hint =
    name === 'EACCES' ? 'ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE' : undefined;
  return new PasselError('PASSEL_E_PORT_BIND', { option, endpoint, reason }, hint === undefined ? {} : { hint });
}
