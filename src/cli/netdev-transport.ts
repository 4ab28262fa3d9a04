/** The ways to a guest that `--netdev` names: one GuestTransport for each form of a link. */
import { PasselError } from '../base/errors.ts';
import { createLogGate, warnGated } from '../base/logger.ts';
import { createLinkClient, DIAL_PENDING, type Dialer, type LinkClient } from '../link/client.ts';
import { createDatagramLink, type DatagramFlaw, type DatagramLink } from '../link/datagram.ts';
import type { AttachableLink } from '../link/listener.ts';
import { createStreamLink } from '../link/stream.ts';
import type {
  DatagramNetdev,
  InheritedNetdev,
  MulticastNetdev,
  Netdev,
  StreamNetdev,
  UnixAddress,
} from '../qemu/netdev.ts';
import { isOverUdp, UDP_FRAME_BYTES } from '../qemu/netdev-facts.ts';
import {
  ENDPOINT_BYTES,
  EVENT_EDGE,
  EVENT_IN,
  type HostSockets,
  KIND_LINK_LISTENER,
  SOCKET_DGRAM,
} from '../stack/ports.ts';
import { CONNECTOR_PENDING, type Connector, startConnector } from '../sys/connector.ts';
import { checkStatus, nameErrno } from '../sys/errors.ts';
import type { NativeAddon } from '../sys/native-addon.ts';
import { UNIX_DATAGRAM } from '../sys/unix-socket.ts';
import {
  createInetDialer,
  createUnixDialer,
  describeStream,
  listenInet,
  openGroup,
  openUdp,
  prepareTcp,
} from './netdev-sockets.ts';
import { claimSocketPath } from './socket-path.ts';
import {
  createInheritedTransport,
  createListeningTransport,
  type GuestTransport,
  type Listening,
  listenAt,
  logGone,
  type TransportEvents,
  type TransportParts,
  watchStream,
} from './transport.ts';

const OPTION = '--netdev';
const FAMILY_UNIX = 1;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
/** Between two looks for the answer to a first connection, before the event loop has the stack's descriptors. */
const FIRST_LOOK_MS = 2;
const FIRST_CONNECT_LIMIT_MS = 10_000;
/** A peer that sends rubbish in a loop must not fill the log. */
const WARN_INTERVAL_MS = 10_000;

const FLAWS: Readonly<Record<DatagramFlaw, string>> = {
  empty: 'an empty one',
  short: 'one that is shorter than an Ethernet header',
  cut: 'one that is longer than a frame can be',
  stranger: 'one from another socket than the guest',
};

/** @param oneOff - end when the first guest has left */
export function createNetdevTransport(netdev: Netdev, oneOff: boolean, parts: TransportParts): GuestTransport {
  switch (netdev.form) {
    case 'inherited':
      return inheritsStream(netdev, parts.sockets)
        ? createInheritedTransport(netdev.fd, parts)
        : createDatagramTransport(netdev, oneOff, parts);
    case 'stream':
      if (netdev.address.type === 'fd') {
        return createInheritedTransport(netdev.address.fd, parts);
      }
      return netdev.server
        ? createServerTransport(netdev, oneOff, parts)
        : createClientTransport(netdev, oneOff, parts);
    default:
      return createDatagramTransport(netdev, oneOff, parts);
  }
}

/** @throws PasselError PASSEL_E_NETDEV */
function inheritsStream({ fd, kind }: InheritedNetdev, sockets: HostSockets): boolean {
  const type = sockets.getOption(fd, SOL_SOCKET, SO_TYPE);
  const reason =
    type < 0 ? 'it is not a socket' : type === SOCKET_DGRAM || kind === 'any' ? undefined : 'it is no datagram socket';
  if (reason !== undefined) {
    throw new PasselError('PASSEL_E_NETDEV', { option: OPTION, value: `descriptor ${fd}`, reason });
  }
  return type !== SOCKET_DGRAM;
}

/** As the kernel has it: abstract names begin with NUL. */
function nameOf({ path, isAbstract }: UnixAddress): string {
  return isAbstract ? `\0${path}` : path;
}

/** TCP wants its options set on each connection. */
function withTcpOptions(link: AttachableLink, netdev: StreamNetdev, parts: TransportParts): AttachableLink {
  const { address } = netdev;
  if (address.type !== 'inet') return link;
  return {
    get connected() {
      return link.connected;
    },
    attach(fd) {
      prepareTcp(parts, fd, address.keepAlive);
      return link.attach(fd);
    },
  };
}

function createServerTransport(netdev: StreamNetdev, oneOff: boolean, parts: TransportParts): GuestTransport {
  const { native } = parts;
  const listen = async (): Promise<Listening> => {
    const { address } = netdev;
    if (address.type === 'inet') return { fd: await listenInet(parts, address) };
    if (address.type === 'fd') throw new TypeError('descriptors are not listened on');
    if (address.isAbstract) return { fd: listenAt(native, nameOf(address), OPTION) };
    const path = await claimSocketPath(address.path, OPTION);
    return { fd: listenAt(native, path, OPTION), path };
  };
  return createListeningTransport({ listen, wrap: (link) => withTcpOptions(link, netdev, parts) }, oneOff, parts);
}

/** Connects, once or again and again. */
function createClientTransport(netdev: StreamNetdev, oneOff: boolean, parts: TransportParts): GuestTransport {
  const { native, arena, sockets, log } = parts;
  const stream = createStreamLink({ arena, sockets });
  const { reconnectMs } = netdev;
  const target = describeStream(netdev);
  let client: LinkClient | undefined;
  const createDialer = async (): Promise<Dialer> => {
    const { address } = netdev;
    if (address.type === 'inet') return createInetDialer(parts, address);
    if (address.type === 'fd') throw new TypeError('descriptors are not connected to');
    return createUnixDialer(parts, startConnector(native, nameOf(address)), target);
  };
  return {
    link: stream,
    onHostEvent: (events) => stream.onHostEvent(events),
    onListenerEvent: () => client?.onHostEvent(),
    socketPath: undefined,
    async open(events) {
      watchStream(stream, events, log, () => client?.guestGone());
      client = createLinkClient({
        link: stream,
        dialer: await createDialer(),
        log,
        reconnectMs,
        oneOff,
        onAttach: () => {
          log.info(`connected to ${target}`);
          events.onAttach();
        },
        onEnd: () => events.onEnd(0),
      });
      const status = await settle(client);
      if (status < 0 && reconnectMs === undefined) {
        throw new PasselError('PASSEL_E_NETDEV_ADDRESS', {
          option: OPTION,
          step: 'connect to',
          value: target,
          reason: nameErrno(status),
        });
      }
    },
    close() {
      client?.close();
      stream.detach();
    },
  };
}

/** Waits for the outcome of the first try; events do not arrive yet. */
async function settle(client: LinkClient): Promise<number> {
  const limitMs = performance.now() + FIRST_CONNECT_LIMIT_MS;
  let status = client.start();
  while (status === DIAL_PENDING && performance.now() < limitMs) {
    await new Promise((resolve) => setTimeout(resolve, FIRST_LOOK_MS));
    status = client.onHostEvent();
  }
  return status;
}

/** One frame in each datagram. */
function createDatagramTransport(
  netdev: DatagramNetdev | MulticastNetdev | InheritedNetdev,
  oneOff: boolean,
  parts: TransportParts,
): GuestTransport {
  const { native, arena, sockets, log } = parts;
  const link = createDatagramLink({
    arena,
    sockets,
    native,
    ...(isOverUdp(netdev) ? { maxFrameBytes: UDP_FRAME_BYTES } : {}),
  });
  const gate = createLogGate(WARN_INTERVAL_MS);
  let socketPath: string | undefined;
  let peer: UnixPeer | undefined;
  let closed = false;
  const warn = (text: string): void => warnGated(log, gate, performance.now(), text);

  const attach = async (): Promise<number> => {
    if (netdev.form === 'inherited') return link.attach({ receiveFd: netdev.fd, sendFd: netdev.fd, isInherited: true });
    if (netdev.form === 'multicast') {
      const own = arena.allocate(ENDPOINT_BYTES);
      const fds = openGroup(parts, netdev, own);
      link.acceptAllBut(own);
      return link.attach({ ...fds, isInherited: false });
    }
    if (netdev.local.type === 'unix' && netdev.remote.type === 'unix') {
      socketPath = await claimSocketPath(netdev.local.path, OPTION);
      const fds = openUnixDatagrams(native, socketPath);
      const status = link.attach({ ...fds, isInherited: false });
      if (status < 0) return status;
      link.acceptFromPath(netdev.remote.path);
      peer = createUnixPeer(link, startConnector(native, netdev.remote.path, fds.sendFd), sockets);
      return status;
    }
    const fd = await openUdp(parts, netdev);
    return link.attach({ receiveFd: fd, sendFd: fd, isInherited: false });
  };

  const watch = ({ onRoom, onAttach, onGone, onEnd }: TransportEvents): void => {
    link.onRoom = onRoom;
    link.onArrival = () => {
      peer?.greet();
      log.info('guest connected');
      // The link says so from inside a turn, with frames in its hands.
      setImmediate(() => {
        if (!closed && link.connected) onAttach();
      });
    };
    link.onRefusal = () => peer?.greet() ?? false;
    link.onGone = (reason, error) => {
      if (closed) return;
      logGone(log, reason, error);
      // A guest that was stopped is silent, and not at its end.
      onGone(reason !== 'silent');
      if (reason !== 'silent' && (oneOff || netdev.form === 'inherited')) onEnd(0);
    };
    link.onFlaw = (flaw) => {
      // What a group gives back of our own is nothing to speak of.
      if (flaw !== 'stranger' || netdev.form !== 'multicast') warn(`a datagram was passed over: ${FLAWS[flaw]}`);
    };
  };

  return {
    link,
    onHostEvent: (events) => link.onHostEvent(events),
    onListenerEvent: () => peer?.onHostEvent(),
    ...(netdev.form === 'inherited' ? {} : { presumeGone: () => link.presumeGone() }),
    get socketPath() {
      return socketPath;
    },
    async open(events) {
      watch(events);
      const status = await attach();
      if (status < 0) {
        throw new PasselError('PASSEL_E_NETDEV', {
          option: OPTION,
          value: describeDatagram(netdev),
          reason: nameErrno(status),
        });
      }
      if (link.connected) {
        log.info('guest connected');
        events.onAttach();
      }
    },
    close() {
      closed = true;
      peer?.close();
      link.detach();
    },
  };
}

function describeDatagram(netdev: DatagramNetdev | MulticastNetdev | InheritedNetdev): string {
  if (netdev.form === 'inherited') return `descriptor ${netdev.fd}`;
  if (netdev.form === 'multicast') return `${netdev.group}:${netdev.port}`;
  return netdev.local.type === 'unix' ? netdev.local.path : netdev.local.host;
}

/** One socket that receives under our name, and one to send by. */
function openUnixDatagrams(native: NativeAddon, path: string): { receiveFd: number; sendFd: number } {
  const receiveFd = checkStatus(native.open(FAMILY_UNIX, UNIX_DATAGRAM, 0), 'socket');
  const bound = native.unixBind(receiveFd, path, -1);
  const sendFd = bound < 0 ? bound : native.open(FAMILY_UNIX, UNIX_DATAGRAM, 0);
  if (sendFd >= 0) return { receiveFd, sendFd };
  native.close(receiveFd);
  throw new PasselError('PASSEL_E_SOCKET_PATH', { option: OPTION, value: path, reason: nameErrno(sendFd) });
}

/** The guest's socket: which one its name means is asked for when the guest shows up, and when nobody receives any more. */
interface UnixPeer {
  /** Has the sending socket connected. @returns true */
  greet(): boolean;
  onHostEvent(): void;
  close(): void;
}

function createUnixPeer(link: DatagramLink, connector: Connector, sockets: HostSockets): UnixPeer {
  sockets.watch(connector.fd, (EVENT_IN | EVENT_EDGE) >>> 0, KIND_LINK_LISTENER, 0);
  let asked = false;
  return {
    greet() {
      link.holdSending();
      if (!asked) asked = connector.ask() >= 0;
      return asked;
    },
    onHostEvent() {
      const answer = asked ? connector.takeAnswer() : CONNECTOR_PENDING;
      if (answer === CONNECTOR_PENDING) return;
      asked = false;
      if (answer >= 0) link.releaseSending();
      else link.forget(answer);
    },
    close() {
      sockets.unwatch(connector.fd);
      connector.close();
    },
  };
}
