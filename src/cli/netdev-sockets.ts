/** The sockets of a link, from what `--netdev` says: names resolved, bound, listening, connected to where that is known from the start. */
import { PasselError, reasonOf } from '../base/errors.ts';
import { isMappedIpv4, parseIp } from '../base/ip-text.ts';
import { DIAL_PENDING, type Dialer } from '../link/client.ts';
import type { DatagramNetdev, InetAddress, MulticastNetdev, StreamNetdev } from '../qemu/netdev.ts';
import {
  ENDPOINT_ADDRESS,
  ENDPOINT_BYTES,
  ENDPOINT_PORT,
  EVENT_EDGE,
  EVENT_IN,
  EVENT_OUT,
  KIND_LINK_LISTENER,
  SOCKET_DGRAM,
  SOCKET_STREAM,
} from '../stack/ports.ts';
import { CONNECTOR_PENDING, type Connector } from '../sys/connector.ts';
import { createSystemError } from '../sys/errors.ts';
import type { TransportParts } from './transport.ts';

const OPTION = '--netdev';
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_KEEPALIVE = 9;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const BACKLOG = 8;
/** Nobody that is a neighbour only of ours has to hear of it. */
const IPPROTO_IP = 0;
const IP_MULTICAST_TTL = 33;

/** An IP address with a family, resolved. */
export interface ResolvedAddress {
  readonly family: 4 | 6;
  readonly words: Uint32Array;
  readonly port: number;
}

/** For messages. */
export function describeInet({ host, port }: InetAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Addresses of a host, in the order in which they are to be tried.
 * @param any - what the empty host means: to be listened on, or to be reached
 * @throws PasselError PASSEL_E_NETDEV_ADDRESS
 */
export async function resolveInet(address: InetAddress, any: 'listen' | 'reach'): Promise<ResolvedAddress[]> {
  const { host, port, ipv4, ipv6 } = address;
  if (host === '') {
    const [v4, v6] = any === 'listen' ? ['0.0.0.0', '::'] : ['127.0.0.1', '::1'];
    // One socket listens for both families, so the wider one comes first.
    const hosts = [...(ipv6 ? [v6] : []), ...(ipv4 ? [v4] : [])];
    return hosts.map((text) => toResolved(text!, port));
  }
  if (parseIp(host) !== undefined) return [toResolved(host, port)];
  try {
    const family = ipv4 && ipv6 ? 0 : ipv4 ? 4 : 6;
    // Not loaded for addresses, which is what nearly all are.
    const { lookup } = process.getBuiltinModule('node:dns/promises');
    const found = await lookup(host, { all: true, family, verbatim: true });
    return found.map((each) => toResolved(each.address, port));
  } catch (error) {
    return refuse('find', host, error);
  }
}

function toResolved(text: string, port: number): ResolvedAddress {
  const words = parseIp(text)!;
  return { family: isMappedIpv4(words) ? 4 : 6, words, port };
}

function refuse(step: string, value: string, error: unknown): never {
  const reason = typeof error === 'number' ? reasonOf(createSystemError(step, error)) : reasonOf(error);
  throw new PasselError('PASSEL_E_NETDEV_ADDRESS', { option: OPTION, step, value, reason }, { cause: error });
}

/** Fills an endpoint record. */
export function writeResolved({ arena }: Pick<TransportParts, 'arena'>, at: number, address: ResolvedAddress): void {
  const { view, bytes } = arena;
  bytes.fill(0, at, at + ENDPOINT_BYTES);
  bytes[at] = address.family;
  view.setUint16(at + ENDPOINT_PORT, address.port);
  const words = address.family === 4 ? address.words.subarray(3) : address.words;
  words.forEach((word, i) => {
    view.setUint32(at + ENDPOINT_ADDRESS + 4 * i, word);
  });
}

/** A listening TCP socket. @throws PasselError PASSEL_E_NETDEV_ADDRESS */
export async function listenInet(parts: TransportParts, address: InetAddress): Promise<number> {
  const { sockets, endpoint } = parts;
  const resolved = await resolveInet(address, 'listen');
  let error = 0;
  for (const each of resolved) {
    const fd = sockets.open(each.family, SOCKET_STREAM, 0);
    if (fd < 0) {
      error = fd;
      continue;
    }
    sockets.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (each.family === 6) {
      const both = address.host === '' && address.ipv4;
      sockets.setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, both ? 0 : 1);
    }
    writeResolved(parts, endpoint, each);
    error = sockets.bind(fd, endpoint);
    if (error >= 0) error = sockets.listen(fd, BACKLOG);
    if (error >= 0) return fd;
    sockets.close(fd);
    // A port that somebody has is not to be had in the other family only.
    if (address.host === '') break;
  }
  return refuse('listen on', describeInet(address), error);
}

/** Frames are small and wanted at once; probes only where the link asks for them. */
export function prepareTcp({ sockets }: Pick<TransportParts, 'sockets'>, fd: number, keepAlive: boolean): void {
  sockets.setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (keepAlive) sockets.setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

/** Connects by TCP to the addresses of a host, which are found out now, since later no resolver can be asked. */
export async function createInetDialer(parts: TransportParts, address: InetAddress): Promise<Dialer> {
  const { sockets, endpoint, arena } = parts;
  const addresses = await resolveInet(address, 'reach');
  // Of its own, because a dialer works between the turns of others.
  const record = arena.allocate(ENDPOINT_BYTES);
  let next = 0;
  let fd = -1;
  const finish = (status: number): number => {
    const own = fd;
    fd = -1;
    sockets.unwatch(own);
    if (status >= 0) return own;
    sockets.close(own);
    return status;
  };
  return {
    target: describeInet(address),
    alternatives: addresses.length,
    begin() {
      const target = addresses[next++ % addresses.length]!;
      fd = sockets.open(target.family, SOCKET_STREAM, 0);
      if (fd < 0) return fd;
      prepareTcp(parts, fd, address.keepAlive);
      writeResolved(parts, record, target);
      const status = sockets.connect(fd, record);
      if (status !== DIAL_PENDING) return finish(status);
      const watched = sockets.watch(fd, (EVENT_OUT | EVENT_EDGE) >>> 0, KIND_LINK_LISTENER, 0);
      return watched < 0 ? finish(watched) : DIAL_PENDING;
    },
    poll() {
      if (fd < 0) return DIAL_PENDING;
      const error = sockets.takeError(fd);
      if (error !== 0) return finish(error > 0 ? -error : error);
      return sockets.getPeer(fd, endpoint) < 0 ? DIAL_PENDING : finish(0);
    },
    close() {
      if (fd >= 0) finish(-1);
    },
  };
}

/** Connects to a unix socket by the child that knows its name. */
export function createUnixDialer({ sockets }: TransportParts, connector: Connector, target: string): Dialer {
  sockets.watch(connector.fd, (EVENT_IN | EVENT_EDGE) >>> 0, KIND_LINK_LISTENER, 0);
  return {
    target,
    alternatives: 1,
    begin() {
      const status = connector.ask();
      return status < 0 ? status : DIAL_PENDING;
    },
    poll() {
      const answer = connector.takeAnswer();
      return answer === CONNECTOR_PENDING ? DIAL_PENDING : answer;
    },
    close() {
      sockets.unwatch(connector.fd);
      connector.close();
    },
  };
}

/** The UDP socket of a link between two addresses. @throws PasselError PASSEL_E_NETDEV_ADDRESS */
export async function openUdp(parts: TransportParts, { local, remote }: DatagramNetdev): Promise<number> {
  if (local.type !== 'inet' || remote.type !== 'inet') throw new TypeError('not a link over UDP');
  const { sockets, endpoint } = parts;
  const [here, there] = await Promise.all([resolveInet(local, 'listen'), resolveInet(remote, 'reach')]);
  const pair = here.flatMap((a) => there.filter((b) => a.family === b.family).map((b) => [a, b] as const))[0];
  if (pair === undefined) {
    return refuse(
      'use',
      describeInet(remote),
      new Error(`it has no address of the same family as ${describeInet(local)}`),
    );
  }
  const fd = sockets.open(pair[0].family, SOCKET_DGRAM, 0);
  if (fd < 0) return refuse('use', describeInet(local), fd);
  writeResolved(parts, endpoint, pair[0]);
  const bound = sockets.bind(fd, endpoint);
  writeResolved(parts, endpoint, pair[1]);
  const connected = bound < 0 ? bound : sockets.connect(fd, endpoint);
  if (connected >= 0) return fd;
  sockets.close(fd);
  return bound < 0 ? refuse('bind to', describeInet(local), bound) : refuse('send to', describeInet(remote), connected);
}

/**
 * Sockets of a member of a group: one that receives, and one to send by, so that what comes back from it is known by its port.
 * @param ownEndpoint - an endpoint record that gets the sending one's address
 * @throws PasselError PASSEL_E_NETDEV_ADDRESS
 */
export function openGroup(
  parts: TransportParts,
  { group, port, local }: MulticastNetdev,
  ownEndpoint: number,
): { receiveFd: number; sendFd: number } {
  const { native, sockets, endpoint } = parts;
  const open: number[] = [];
  const need = (step: string, value: string, status: number): number => {
    if (status >= 0) return status;
    for (const fd of open) sockets.close(fd);
    return refuse(step, value, status);
  };
  const socket = (): number => {
    const fd = need('use', group, sockets.open(4, SOCKET_DGRAM, 0));
    open.push(fd);
    return fd;
  };
  const name = `${group}:${port}`;
  // Both are in use at once by the call that joins.
  const interfaceRecord = ownEndpoint;
  if (local === undefined) parts.arena.bytes.fill(0, interfaceRecord, interfaceRecord + ENDPOINT_BYTES);
  else writeResolved(parts, interfaceRecord, toResolved(local, 0));
  writeResolved(parts, endpoint, toResolved(group, port));
  const receiveFd = socket();
  need('bind to', name, sockets.setOption(receiveFd, SOL_SOCKET, SO_REUSEADDR, 1));
  need('bind to', name, sockets.bind(receiveFd, endpoint));
  need('join', name, native.joinGroup(receiveFd, endpoint, interfaceRecord));
  const sendFd = socket();
  if (local !== undefined) need('send from', local, native.sendToGroupFrom(sendFd, interfaceRecord));
  need('send to', name, sockets.setOption(sendFd, IPPROTO_IP, IP_MULTICAST_TTL, 1));
  need('send to', name, sockets.connect(sendFd, endpoint));
  need('send to', name, sockets.getName(sendFd, ownEndpoint));
  return { receiveFd, sendFd };
}

/** For messages: where a stream netdev leads to. */
export function describeStream({ address }: StreamNetdev): string {
  if (address.type === 'inet') return describeInet(address);
  return address.type === 'fd' ? `descriptor ${address.fd}` : `${address.isAbstract ? '@' : ''}${address.path}`;
}
