/**
 * The host's listening sockets behind the port forwards.
 *
 * Each forwarded port is one socket (two where a rule names no address and the kernel has no dual-stack socket), and has an
 * index under which the poller reports it and the stack asks where it leads.
 *
 * A rule without an address binds one IPv6 socket for both families. Rules with sweeping ranges are weak: a port that is
 * taken or not permitted is left out, and only a rule of which nothing could be bound is an error.
 *
 * Rules come and go while the data path works, each by its number. Connections that came by a rule which is removed go on.
 *
 * A rule may have a unix socket instead of ports: somebody else makes it, because that takes more than sockets do. A port that the kernel has
 * chosen stands in the rule from then on.
 *
 * A rule that follows the other side (`auto`) opens nothing by itself: {@link ForwardListeners.follow} is told which of its ports to have.
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
  KIND_NAMESPACE_TCP_LISTENER,
  KIND_NAMESPACE_UDP_LISTENER,
  KIND_TCP_LISTENER,
  KIND_UDP_LISTENER,
  SOCKET_DGRAM,
  SOCKET_STREAM,
} from '../stack/ports.ts';
import { type ForwardProto, formatPortForward, type PortForwardRule } from './port-spec.ts';

// Socket options by their Linux numbers (socket(7), ip(7), ipv6(7)).
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVBUF = 8;
const SO_BINDTODEVICE = 25;
const SOL_IP = 0;
const IP_PKTINFO = 8;
const IP_FREEBIND = 15;
const SOL_IPV6 = 41;
const IPV6_V6ONLY = 26;
const IPV6_RECVPKTINFO = 49;
const IPV6_FREEBIND = 78;

/** The kernel limits this (net.core.rmem_max). */
const UDP_BUFFER_BYTES = 4 * 1024 * 1024;

const ENFILE = 23;
const EMFILE = 24;

/**
 * The kernel cuts this to net.core.somaxconn. Beyond it, and with SYN cookies, the host resets connections that their clients
 * believe open: 128, as C has it, loses some of 300 that come at once.
 */
const BACKLOG = 4096;

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
  /**
   * The listeners are the guest namespace's (`-T`, `-U`): `sockets` makes them there, a rule without an address means both loopback
   * addresses instead of all, and their events have kinds of their own.
   */
  readonly namespace?: boolean;
  /**
   * Opens the unix socket of a rule, non-blocking and listening, with this backlog. Left out: there are none.
   * @returns its fd, which becomes the listeners'
   * @throws PasselError
   */
  readonly openPath?: (rule: PortForwardRule, backlog: number) => number;
  /** A unix socket is closed for good: its file is nobody's any more. */
  readonly onPathClosed?: (path: string) => void;
}

/** A rule at work. */
export interface OpenForward {
  /** Counts up from 1 and is never given twice. */
  readonly id: number;
  readonly rule: PortForwardRule;
  /** Sockets of the rule, at least 1 unless it follows the other side. */
  readonly sockets: number;
}

/** The open listeners; owns their descriptors. */
export interface ForwardListeners extends ForwardLookup {
  /** Number of sockets open. */
  readonly count: number;
  /** Counts sockets opened and closed: as long as it stays, so do they. */
  readonly version: number;
  /** The rule that a listener belongs to. */
  ruleOf(index: number): PortForwardRule | undefined;
  /** The host's port of a listener; 0: there is no such listener. */
  portOf(index: number): number;
  /** The number of the rule that a listener belongs to; 0: none. */
  idOf(index: number): number;
  /** Registers every listener with the poller: KIND_TCP_LISTENER or KIND_UDP_LISTENER and the listener's index, level-triggered. */
  watchAll(): void;
  /** The rules at work, in the order in which they were added. */
  list(): OpenForward[];
  /**
   * Opens the listeners of further rules while the data path works, {@link PORTS_PER_STEP} ports at a time, and watches them once all are
   * open. One call at a time; the caller sees to that.
   * @param rest - lets others work between two steps
   * @throws PasselError PASSEL_E_PORT_BIND; nothing has changed then
   */
  add(rules: readonly PortForwardRule[], rest: () => Promise<void>): Promise<OpenForward[]>;
  /**
   * Closes the listeners of a rule. Their indices may be given to new ones from then on, so whoever keeps any must forget them first.
   * @param onClose - called with each index while its socket is still open
   * @returns false when there is no such rule
   */
  remove(id: number, onClose: (index: number, proto: ForwardProto) => void): boolean;
  /**
   * Makes the open ports of a rule that follows the other side those of `wanted`; a port that cannot be bound is left out and tried again
   * the next time.
   * @param wanted - whether a host port of the rule is to be open
   * @param onClose - called with each index while its socket is still open
   * @returns the ports that were opened or closed, and those that could not be opened
   */
  follow(
    id: number,
    wanted: (port: number) => boolean,
    onClose: (index: number) => void,
  ): { changed: number; failed: number };
  /** Whether one of the listeners holds this port. */
  holdsPort(proto: ForwardProto, port: number): boolean;
  closeAll(): void;
}

/** Ports bound in one step of {@link ForwardListeners.add}: about a millisecond. */
const PORTS_PER_STEP = 128;

/** One socket. */
interface Listener {
  readonly fd: number;
  readonly forward: ForwardEntry;
  readonly port: number;
  readonly target: ForwardTarget;
}

interface ForwardEntry extends OpenForward {
  rule: PortForwardRule;
  sockets: number;
  readonly indices: number[];
}

/** Ports of a kind with the number of listeners that hold each. */
class PortCounts {
  private readonly counts = { tcp: new Uint16Array(65_536), udp: new Uint16Array(65_536) };

  add(proto: ForwardProto, port: number, change: 1 | -1): void {
    this.counts[proto][port]! += change;
  }

  has(proto: ForwardProto, port: number): boolean {
    return this.counts[proto][port] !== 0;
  }
}

/**
 * Opens all listeners of `rules`, in order.
 * @throws PasselError PASSEL_E_PORT_BIND; everything opened before is closed then
 */
export function openListeners(rules: readonly PortForwardRule[], options: ListenerOptions): ForwardListeners {
  const { sockets } = options;
  const listeners: (Listener | undefined)[] = [];
  const free: number[] = [];
  const forwards = new Map<number, ForwardEntry>();
  const udpIndices = new Map<number, number>();
  let lastId = 0;
  let count = 0;
  let version = 0;
  let closed = false;
  let watching = false;
  const held = new PortCounts();

  const put = (listener: Listener): number => {
    const index = free.pop() ?? listeners.length;
    listeners[index] = listener;
    listener.forward.indices.push(index);
    listener.forward.sockets++;
    count++;
    version++;
    held.add(listener.forward.rule.proto, listener.port, 1);
    if (listener.forward.rule.proto === 'udp') udpIndices.set(listener.port, index);
    return index;
  };
  const close = (index: number): void => {
    const listener = listeners[index];
    if (listener === undefined) return;
    sockets.close(listener.fd);
    const { bindPath } = listener.forward.rule;
    if (bindPath !== undefined) options.onPathClosed?.(bindPath);
    listeners[index] = undefined;
    held.add(listener.forward.rule.proto, listener.port, -1);
    count--;
    version++;
  };
  const watch = (index: number): void => {
    const listener = listeners[index];
    if (listener === undefined) return;
    const isTcp = listener.forward.rule.proto === 'tcp';
    const ofHost = isTcp ? KIND_TCP_LISTENER : KIND_UDP_LISTENER;
    const ofNamespace = isTcp ? KIND_NAMESPACE_TCP_LISTENER : KIND_NAMESPACE_UDP_LISTENER;
    sockets.watch(listener.fd, EVENT_IN, options.namespace === true ? ofNamespace : ofHost, index);
  };
  const drop = (forward: ForwardEntry): void => {
    forwards.delete(forward.id);
    for (const index of forward.indices) close(index);
    free.push(...forward.indices.splice(0).reverse());
    if (forward.rule.proto === 'udp') indexUdpPorts();
  };
  const indexUdpPorts = (): void => {
    udpIndices.clear();
    for (const [index, listener] of listeners.entries()) {
      if (listener?.forward.rule.proto === 'udp') udpIndices.set(listener.port, index);
    }
  };

  /** Opens all listeners of some rules or none; a step ends after every {@link PORTS_PER_STEP} ports. */
  function* openAll(added: readonly PortForwardRule[], atRunTime: boolean): Generator<void, ForwardEntry[]> {
    const opened: ForwardEntry[] = [];
    let ports = 0;
    try {
      for (const rule of added) {
        const forward: ForwardEntry = { id: ++lastId, rule, sockets: 0, indices: [] };
        opened.push(forward);
        // Its ports come and go with those of the other side.
        if (rule.scan) continue;
        let firstProblem: { endpoint: string; errno: number } | undefined;
        for (let port = rule.first; port <= rule.last; port++) {
          const bound = openPort(rule, port, options);
          for (const fd of bound.fds) {
            const held = isChosen(rule) ? portOfSocket(fd, options) : port;
            if (held !== port) forward.rule = nameChosenPort(rule, held, options);
            put({ fd, forward, port: held, target: targetFor(forward.rule, held) });
          }
          if (bound.errno !== 0) {
            firstProblem ??= { endpoint: describeEndpoint(rule, port), errno: bound.errno };
            // Connections need descriptors too: a sweeping rule must not take the last while the stack works.
            const isOutOfFds = bound.errno === EMFILE || bound.errno === ENFILE;
            if (!rule.weak || (isOutOfFds && atRunTime))
              throw bindError(rule, firstProblem.endpoint, bound.errno, options);
          }
          if (++ports % PORTS_PER_STEP !== 0) continue;
          yield;
          if (closed) throw new PasselError('PASSEL_E_INTERNAL', { reason: 'the stack ended meanwhile' });
        }
        if (forward.sockets === 0 && firstProblem !== undefined) {
          throw bindError(rule, firstProblem.endpoint, firstProblem.errno, options);
        }
        if (firstProblem !== undefined) {
          const left = rule.last - rule.first + 1 - forward.sockets;
          options.logger.debug(`${left} of ports ${rule.first}-${rule.last}/${rule.proto} were taken or not permitted`);
        }
      }
    } catch (error) {
      for (const forward of opened) drop(forward);
      throw error;
    }
    for (const forward of opened) forwards.set(forward.id, forward);
    return opened;
  }

  const opening = openAll(rules, false);
  while (opening.next().done !== true);

  return {
    get count() {
      return count;
    },
    get version() {
      return version;
    },
    targetOf: (index) => listeners[index]?.target,
    fdOf: (index) => listeners[index]?.fd ?? -1,
    udpListenerAt: (port) => udpIndices.get(port) ?? -1,
    ruleOf: (index) => listeners[index]?.forward.rule,
    portOf: (index) => listeners[index]?.port ?? 0,
    idOf: (index) => listeners[index]?.forward.id ?? 0,
    watchAll() {
      watching = true;
      for (let index = 0; index < listeners.length; index++) watch(index);
    },
    list: () => [...forwards.values()],
    async add(added, rest) {
      const steps = openAll(added, true);
      for (;;) {
        const step = steps.next();
        if (step.done !== true) {
          await rest();
          continue;
        }
        for (const forward of step.value) forward.indices.forEach(watch);
        return step.value;
      }
    },
    remove(id, onClose) {
      const forward = forwards.get(id);
      if (forward === undefined) return false;
      for (const index of forward.indices) onClose(index, forward.rule.proto);
      drop(forward);
      return true;
    },
    follow(id, wanted, onClose) {
      const forward = forwards.get(id);
      let changed = 0;
      let failed = 0;
      if (forward === undefined || !forward.rule.scan) return { changed, failed };
      const { rule, indices } = forward;
      const open = new Set<number>();
      for (const index of [...indices]) {
        const { port } = listeners[index]!;
        if (wanted(port)) {
          open.add(port);
          continue;
        }
        onClose(index);
        close(index);
        indices.splice(indices.indexOf(index), 1);
        free.push(index);
        forward.sockets--;
        changed++;
      }
      if (changed > 0 && rule.proto === 'udp') indexUdpPorts();
      for (let port = rule.first; port <= rule.last; port++) {
        if (open.has(port) || !wanted(port)) continue;
        const bound = openPort(rule, port, options);
        if (bound.errno !== 0) {
          failed++;
          continue;
        }
        for (const fd of bound.fds) {
          const index = put({ fd, forward, port, target: targetFor(rule, port) });
          if (watching) watch(index);
        }
        changed++;
      }
      return { changed, failed };
    },
    holdsPort: (proto, port) => held.has(proto, port),
    closeAll() {
      closed = true;
      for (let index = 0; index < listeners.length; index++) close(index);
      forwards.clear();
      udpIndices.clear();
    },
  };
}

/** Where a host port of a rule leads. */
function targetFor(rule: PortForwardRule, port: number): ForwardTarget {
  const guestPort = rule.targetFirst + (port - rule.first);
  const guestAddress = rule.targetAddress === undefined ? undefined : parseIp(rule.targetAddress);
  return guestAddress === undefined ? { guestPort } : { guestPort, guestAddress };
}

/** The kernel is to choose the port of a rule. */
function isChosen(rule: PortForwardRule): boolean {
  return rule.first === 0 && rule.bindPath === undefined;
}

/** 0: not known. */
function portOfSocket(fd: number, { sockets, view, scratchOffset }: ListenerOptions): number {
  return sockets.getName(fd, scratchOffset) < 0 ? 0 : view.getUint16(scratchOffset + ENDPOINT_PORT);
}

function nameChosenPort(rule: PortForwardRule, port: number, { logger }: ListenerOptions): PortForwardRule {
  const chosen = { ...rule, first: port, last: port };
  logger.info(`${rule.option ?? `--${rule.proto}-ports`}: the host's port is ${port}: ${formatPortForward(chosen)}`);
  return chosen;
}

interface OpenResult {
  readonly fds: readonly number[];
  /** 0, or the positive errno of the attempt that failed. */
  readonly errno: number;
}

function openPort(rule: PortForwardRule, port: number, options: ListenerOptions): OpenResult {
  if (rule.bindPath !== undefined) {
    return { fds: options.openPath === undefined ? [] : [options.openPath(rule, BACKLOG)], errno: 0 };
  }
  if (rule.bindAddress !== undefined) {
    const address = parseIp(rule.bindAddress)!;
    return openSocket(rule, isMappedIpv4(address) ? 4 : 6, address, port, false, options);
  }
  const { ipv4, ipv6 } = options;
  if (options.namespace === true) return openLoopback(rule, port, options);
  if (ipv4 && ipv6) {
    const both = openSocket(rule, 6, undefined, port, true, options);
    // A host without IPv6 (EAFNOSUPPORT, EADDRNOTAVAIL with disable_ipv6) still serves the other family.
    if (both.errno !== EAFNOSUPPORT && both.errno !== EADDRNOTAVAIL) return both;
    return openSocket(rule, 4, undefined, port, false, options);
  }
  return openSocket(rule, ipv6 ? 6 : 4, undefined, port, false, options);
}

const EAFNOSUPPORT = 97;
const EADDRNOTAVAIL = 99;
const LOOPBACK_V4 = Uint32Array.of(0, 0, 0xffff, 0x7f000001);
const LOOPBACK_V6 = Uint32Array.of(0, 0, 0, 1);

/** 127.0.0.1 and ::1, or the one of them that there is. */
function openLoopback(rule: PortForwardRule, port: number, options: ListenerOptions): OpenResult {
  const first = options.ipv4 ? openSocket(rule, 4, LOOPBACK_V4, port, false, options) : NOTHING;
  if (!options.ipv6 || first.errno !== 0) return first;
  const second = openSocket(rule, 6, LOOPBACK_V6, port, false, options);
  const isWithoutFamily = second.errno === EAFNOSUPPORT || second.errno === EADDRNOTAVAIL;
  if (second.errno === 0 || (options.ipv4 && isWithoutFamily)) {
    return { fds: [...first.fds, ...second.fds], errno: 0 };
  }
  // One family only would be half a forward: clients try ::1 or 127.0.0.1 first as they like.
  for (const fd of first.fds) options.sockets.close(fd);
  return second;
}

const NOTHING: OpenResult = { fds: [], errno: 0 };

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
    if (isTcp) return sockets.listen(fd, BACKLOG);
    // Replies leave through sockets bound to the same port, so reuse must be on; but only after our own bind, which would
    // otherwise share a port with another program unnoticed.
    status = sockets.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (status < 0) return status;
    // Room for bursts; the stack sees to that of the host's listeners.
    if (options.namespace === true) sockets.setOption(fd, SOL_SOCKET, SO_RCVBUF, UDP_BUFFER_BYTES);
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

function bindError(rule: PortForwardRule, endpoint: string, errno: number, options: ListenerOptions): PasselError {
  const [name, text] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, ''];
  const option = rule.option ?? `--${rule.proto}-${options.namespace === true ? 'ns' : 'ports'}`;
  const reason = text === '' ? name : `${name}: ${text}`;
  const hint =
    name === 'EACCES' ? 'ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE' : undefined;
  return new PasselError('PASSEL_E_PORT_BIND', { option, endpoint, reason }, hint === undefined ? {} : { hint });
}
