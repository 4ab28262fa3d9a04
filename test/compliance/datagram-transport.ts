/** The datagram link over each kind of socket, for the compliance suite. */
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Arena, createArena } from '../../src/base/arena.ts';
import { mapIpv4, parseIp, parseIpv4 } from '../../src/base/ip-text.ts';
import { createDatagramLink, type DatagramFlaw } from '../../src/link/datagram.ts';
import { ENDPOINT_BYTES, type HostSockets, KIND_LINK, LINK_IDLE, SOCKET_DGRAM } from '../../src/stack/ports.ts';
import { createHostSockets } from '../../src/sys/host-sockets.ts';
import { loadNative } from '../../src/sys/native.ts';
import type { NativeAddon } from '../../src/sys/native-addon.ts';
import { createPoller } from '../../src/sys/poller.ts';
import { createSocketPair, UNIX_DATAGRAM } from '../../src/sys/unix-socket.ts';
import type { Peer, TransportUnderTest } from './guest-link.ts';
import type { Wrap } from './stream-transport.ts';

const ARENA_BYTES = 32 << 20;
const PEER_BYTES = 128 * 1024;
/** The most that fits a UDP datagram over IPv4. */
const UDP4_BYTES = 65_507;
const UDP6_BYTES = 65_527;
const FAMILY_UNIX = 1;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IP = 0;
const IP_MULTICAST_TTL = 33;
const GROUP = '239.255.70.71';
const LOOPBACK = '127.0.0.1';

export type DatagramKind = 'pair' | 'unix' | 'inet4' | 'inet6' | 'multicast';

/** The `unix-dgram` package, as an end that is not connected, which is how QEMU does it. */
interface PackageSocket {
  readonly fd: number;
  bind(path: string): void;
  send(bytes: Buffer, offset: number, length: number, path: string, done: (error?: { code: number }) => void): void;
  close(): void;
}
const { createSocket } = createRequire(import.meta.url)('unix-dgram') as {
  createSocket(type: 'unix_dgram'): PackageSocket;
};

/** What a datagram peer can do beyond frames. */
export interface DatagramPeer extends Peer {
  /** Sends a datagram as it is, an empty one too. @returns bytes taken or -errno */
  sendBytes(bytes: Uint8Array): number;
  /** The same from another socket, which is not the guest's. */
  sendAsStranger(bytes: Uint8Array): number;
}

export interface DatagramTransport extends TransportUnderTest {
  /** What was passed over, oldest first. */
  readonly flaws: DatagramFlaw[];
  connect(): DatagramPeer;
}

let serial = 0;

export function createDatagramTransport(kind: DatagramKind, wrap: Wrap = (link) => link): DatagramTransport {
  const native = loadNative();
  const arena = createArena(ARENA_BYTES);
  const poller = createPoller(native, arena);
  const sockets = createHostSockets(native, arena, poller.fd);
  const peerRegion = arena.allocate(PEER_BYTES);
  const maxFrameBytes =
    kind === 'inet4' || kind === 'multicast' ? UDP4_BYTES : kind === 'inet6' ? UDP6_BYTES : undefined;
  const datagram = createDatagramLink({
    arena,
    sockets,
    native,
    ...(maxFrameBytes === undefined ? {} : { maxFrameBytes }),
  });
  const link = wrap(datagram, arena);
  const places = createPlaces(native, arena, sockets);
  const open = new Map<number, () => void>();
  const frames = new Int32Array(512);
  let readable = false;
  poller.handlers[KIND_LINK] = (_index, events) => {
    if (datagram.onHostEvent(events)) readable = true;
  };

  const transport: DatagramTransport = {
    link,
    arena,
    gone: [],
    flaws: [],
    rooms: 0,
    connect() {
      const { ours, theirs, stranger, packaged = [] } = places.meet(kind);
      for (const fd of [theirs, stranger]) if (fd >= 0) open.set(fd, () => native.close(fd));
      for (const socket of packaged) open.set(socket.fd, () => socket.close());
      datagram.acceptAll();
      if (kind === 'unix') datagram.acceptFromPath(places.theirPath);
      if (kind === 'multicast') datagram.acceptAllBut(places.ownEndpoint);
      datagram.detach();
      const status = datagram.attach({ ...ours, isInherited: kind === 'pair' });
      if (status < 0) throw new Error(`attach: errno ${-status}`);
      const peer = createPeer(theirs, stranger, packaged);
      if (kind !== 'pair') {
        // The guest is there from its first frame on.
        peer.sendFrame(new Uint8Array(60));
        transport.pump();
      }
      return peer;
    },
    pump() {
      const got: Uint8Array[] = [];
      poller.drain();
      while (readable) {
        const count = link.receive(frames);
        if (count <= LINK_IDLE) {
          readable = false;
          break;
        }
        for (let i = 0; i < count; i++) {
          const at = frames[2 * i]!;
          got.push(arena.bytes.slice(at, at + frames[2 * i + 1]!));
        }
      }
      link.flush();
      return got;
    },
    detach: () => datagram.detach(),
    close() {
      datagram.detach();
      for (const close of open.values()) close();
      places.clear();
      poller.close();
    },
  };
  datagram.onGone = (reason) => transport.gone.push(reason);
  datagram.onFlaw = (flaw) => transport.flaws.push(flaw);
  datagram.onRoom = () => {
    transport.rooms++;
  };
  return transport;

  function createPeer(fd: number, stranger: number, packaged: readonly PackageSocket[]): DatagramPeer {
    // Members of a group hear what they send, our peer too.
    const own: Uint8Array[] = [];
    const isOwn = (frame: Uint8Array): boolean => {
      const at = kind === 'multicast' ? own.findIndex((each) => Buffer.compare(each, frame) === 0) : -1;
      if (at >= 0) own.splice(at, 1);
      return at >= 0;
    };
    const send = (from: number, bytes: Uint8Array): number => {
      if (kind === 'multicast') own.push(bytes);
      const socket = packaged.find((each) => each.fd === from);
      if (socket !== undefined) {
        let result = bytes.length;
        socket.send(Buffer.from(bytes), 0, bytes.length, places.ourPath, (error) => {
          if (error !== undefined) result = -Math.abs(error.code);
        });
        return result;
      }
      arena.bytes.set(bytes, peerRegion);
      if (kind === 'multicast') return sockets.sendTo(from, peerRegion, bytes.length, places.groupEndpoint);
      return sockets.send(from, peerRegion, bytes.length, 0);
    };
    return {
      sendBytes: (bytes) => send(fd, bytes),
      sendAsStranger: (bytes) => send(stranger, bytes),
      sendFrame: (frame) => send(fd, frame) === frame.length,
      receiveFrames(limitBytes = Number.POSITIVE_INFINITY) {
        const got: Uint8Array[] = [];
        for (let left = limitBytes; left > 0; ) {
          const length = sockets.receive(fd, peerRegion, PEER_BYTES, 0);
          if (length === 0) throw new Error('an empty datagram, which ends reception in QEMU');
          if (length < 0) break;
          const frame = arena.bytes.slice(peerRegion, peerRegion + length);
          left -= length;
          if (!isOwn(frame)) got.push(frame);
        }
        return got;
      },
      isEnded() {
        const status = send(fd, new Uint8Array(60));
        return kind === 'multicast' || status < 0 || send(fd, new Uint8Array(60)) < 0;
      },
      close() {
        for (const each of [fd, stranger]) {
          open.get(each)?.();
          open.delete(each);
        }
      },
    };
  }
}

interface Meeting {
  readonly ours: { readonly receiveFd: number; readonly sendFd: number };
  readonly theirs: number;
  /** A socket of somebody else that is about to send to us, or -1. */
  readonly stranger: number;
  /** Those of them that are the package's. */
  readonly packaged?: readonly PackageSocket[];
}

/** Sockets that know each other. */
function createPlaces(native: NativeAddon, arena: Arena, sockets: HostSockets) {
  const name = join(tmpdir(), `passel-datagram-${process.pid}-${serial++}`);
  const ourPath = `${name}-host`;
  const theirPath = `${name}-guest`;
  const ownEndpoint = arena.allocate(ENDPOINT_BYTES);
  const groupEndpoint = arena.allocate(ENDPOINT_BYTES);
  const scratch = arena.allocate(ENDPOINT_BYTES);
  const clear = (): void => {
    for (const path of [ourPath, theirPath, `${name}-stranger`]) rmSync(path, { force: true });
  };
  const need = (status: number): number => {
    if (status < 0) throw new Error(`errno ${-status}`);
    return status;
  };
  const writeEndpoint = (at: number, text: string, port: number): void => {
    const words = parseIp(text)!;
    const family = text.includes(':') ? 6 : 4;
    arena.bytes.fill(0, at, at + ENDPOINT_BYTES);
    arena.bytes[at] = family;
    arena.view.setUint16(at + 2, port);
    if (family === 4) arena.view.setUint32(at + 8, mapIpv4(parseIpv4(text)!)[3]!);
    else for (let i = 0; i < 4; i++) arena.view.setUint32(at + 8 + 4 * i, words[i]!);
  };
  const bindInet = (family: 4 | 6, host: string): { fd: number; port: number } => {
    const fd = need(sockets.open(family, SOCKET_DGRAM, 0));
    writeEndpoint(scratch, host, 0);
    need(sockets.bind(fd, scratch));
    need(sockets.getName(fd, scratch));
    return { fd, port: arena.view.getUint16(scratch + 2) };
  };
  const connectInet = (fd: number, host: string, port: number): void => {
    writeEndpoint(scratch, host, port);
    need(sockets.connect(fd, scratch));
  };

  function meetUnix(): Meeting {
    clear();
    const [receiveFd, sendFd] = [0, 0].map(() => need(native.open(FAMILY_UNIX, UNIX_DATAGRAM, 0)));
    need(native.unixBind(receiveFd!, ourPath, -1));
    const [theirs, stranger] = [theirPath, `${name}-stranger`].map((path) => {
      const socket = createSocket('unix_dgram');
      socket.bind(path);
      return socket;
    });
    need(native.unixConnect(sendFd!, theirPath));
    const ours = { receiveFd: receiveFd!, sendFd: sendFd! };
    return { ours, theirs: theirs!.fd, stranger: stranger!.fd, packaged: [theirs!, stranger!] };
  }

  function meetInet(family: 4 | 6): Meeting {
    const host = family === 4 ? LOOPBACK : '::1';
    const [ours, theirs, stranger] = [0, 0, 0].map(() => bindInet(family, host));
    connectInet(ours!.fd, host, theirs!.port);
    for (const each of [theirs!, stranger!]) connectInet(each.fd, host, ours!.port);
    return { ours: { receiveFd: ours!.fd, sendFd: ours!.fd }, theirs: theirs!.fd, stranger: stranger!.fd };
  }

  function meetGroup(): Meeting {
    // A port that is free for both.
    const probe = bindInet(4, LOOPBACK);
    need(sockets.close(probe.fd));
    const join = (): number => {
      const fd = need(sockets.open(4, SOCKET_DGRAM, 0));
      need(sockets.setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1));
      writeEndpoint(groupEndpoint, GROUP, probe.port);
      need(sockets.bind(fd, groupEndpoint));
      writeEndpoint(scratch, LOOPBACK, 0);
      need(native.joinGroup(fd, groupEndpoint, scratch));
      need(native.sendToGroupFrom(fd, scratch));
      need(sockets.setOption(fd, IPPROTO_IP, IP_MULTICAST_TTL, 0));
      return fd;
    };
    const receiveFd = join();
    const theirs = join();
    const sendFd = need(sockets.open(4, SOCKET_DGRAM, 0));
    writeEndpoint(scratch, LOOPBACK, 0);
    need(native.sendToGroupFrom(sendFd, scratch));
    need(sockets.setOption(sendFd, IPPROTO_IP, IP_MULTICAST_TTL, 0));
    need(sockets.connect(sendFd, groupEndpoint));
    need(sockets.getName(sendFd, ownEndpoint));
    return { ours: { receiveFd, sendFd }, theirs, stranger: -1 };
  }

  return {
    ourPath,
    theirPath,
    ownEndpoint,
    groupEndpoint,
    clear,
    meet(kind: DatagramKind): Meeting {
      if (kind === 'unix') return meetUnix();
      if (kind === 'multicast') return meetGroup();
      if (kind === 'inet4' || kind === 'inet6') return meetInet(kind === 'inet4' ? 4 : 6);
      const [ours, theirs] = createSocketPair(native, UNIX_DATAGRAM);
      return { ours: { receiveFd: ours, sendFd: ours }, theirs, stranger: -1 };
    },
  };
}
