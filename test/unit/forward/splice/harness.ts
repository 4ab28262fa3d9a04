/**
 * A splice on this machine's loopback, with the real addon and poller: "host" and "namespace" are one, kept apart by their port
 * numbers. What the stack does in passel-pasta (accept, receive, offer to the bypass) is done here in the simplest way.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createArena } from '../../../../src/base/arena.ts';
import { systemClock } from '../../../../src/base/clock.ts';
import { silentLogger } from '../../../../src/base/logger.ts';
import { type ForwardListeners, openListeners } from '../../../../src/forward/listeners.ts';
import type { ForwardProto, PortForwardRule } from '../../../../src/forward/port-spec.ts';
import type { NamespaceSockets, SpliceForward, SpliceSockets } from '../../../../src/forward/splice/ports.ts';
import { createSpliceForward } from '../../../../src/forward/splice/splice.ts';
import {
  DATAGRAM_META_BYTES,
  ENDPOINT_BYTES,
  KIND_TCP_LISTENER,
  KIND_UDP_LISTENER,
} from '../../../../src/stack/ports.ts';
import { createHostSockets } from '../../../../src/sys/host-sockets.ts';
import { loadNative } from '../../../../src/sys/native.ts';
import { createPoller } from '../../../../src/sys/poller.ts';

const SO_RCVBUF = 8;
const BATCH = 64;
const STRIDE = 66_112;

/** A rule from a host port of 127.0.0.1 (or of the namespace's loopback) to a port of the other side. */
export function rule(
  proto: ForwardProto,
  port: number,
  target: number,
  more: Partial<PortForwardRule> = {},
): PortForwardRule {
  return {
    proto,
    bindAddress: '127.0.0.1',
    first: port,
    last: port,
    targetFirst: target,
    weak: false,
    scan: false,
    ...more,
  };
}

export interface Harness {
  readonly splice: SpliceForward;
  readonly forwards: ForwardListeners;
  readonly sockets: SpliceSockets;
  /** Sockets that the "namespace" was asked for. */
  opened(): number;
  /** Offers to the bypass that it did not take. */
  declined(): number;
  close(): void;
}

export interface HarnessOptions {
  readonly hostRules?: readonly PortForwardRule[];
  readonly namespaceRules?: readonly PortForwardRule[];
  readonly guestAddress?: (family: number) => Uint32Array | undefined;
  readonly namespace?: Partial<NamespaceSockets>;
  /** Replaces some of the socket calls. */
  readonly wrap?: (sockets: SpliceSockets) => Partial<SpliceSockets>;
}

export function createHarness(options: HarnessOptions): Harness {
  const native = loadNative();
  const arena = createArena(32 * 1024 * 1024);
  const poller = createPoller(native, arena);
  const plain: SpliceSockets = {
    ...createHostSockets(native, arena, poller.fd),
    pipe: native.pipe,
    spliceStream: native.spliceStream,
  };
  const sockets: SpliceSockets = { ...plain, ...options.wrap?.(plain) };
  const endpoint = arena.allocate(ENDPOINT_BYTES);
  const slots = arena.allocate(BATCH * STRIDE);
  const metas = arena.allocate(BATCH * DATAGRAM_META_BYTES);
  const forwards = openListeners(options.hostRules ?? [], {
    sockets,
    view: arena.view,
    scratchOffset: endpoint,
    logger: silentLogger,
    ipv4: true,
    ipv6: true,
    freebind: false,
  });
  // As the stack does.
  for (let index = 0; index < forwards.count; index++) sockets.setOption(forwards.fdOf(index), 1, SO_RCVBUF, 4 << 20);
  let opened = 0;
  let declined = 0;
  const splice = createSpliceForward({
    arena,
    sockets,
    namespace: {
      open(family, type) {
        opened++;
        return plain.open(family, type, 0);
      },
      ...options.namespace,
    },
    forwards,
    guestAddress: options.guestAddress ?? (() => undefined),
    clock: systemClock,
    log: silentLogger,
    namespaceRules: options.namespaceRules ?? [],
    ipv4: true,
    ipv6: true,
    kickTurn: () => poller.kickTurn(),
  });
  splice.install(poller.handlers);
  poller.handlers[KIND_TCP_LISTENER] = (index) => {
    for (;;) {
      const fd = sockets.accept(forwards.fdOf(index), endpoint);
      if (fd < 0) return;
      if (splice.bypass.takeConnection(index, fd, endpoint)) continue;
      declined++;
      sockets.close(fd);
    }
  };
  poller.handlers[KIND_UDP_LISTENER] = (index) => {
    const fd = forwards.fdOf(index);
    for (;;) {
      const count = sockets.receiveDatagrams(fd, slots, STRIDE, STRIDE, BATCH, metas);
      if (count <= 0) return;
      for (let i = 0; i < count; ) {
        const meta = metas + i * DATAGRAM_META_BYTES;
        const taken = splice.bypass.takeDatagrams(index, meta, slots + i * STRIDE, STRIDE, count - i);
        if (taken === 0) declined++;
        i += taken === 0 ? 1 : taken;
      }
    }
  };
  poller.onTurnEnd = () => splice.endTurn();
  forwards.watchAll();
  poller.start();
  return {
    splice,
    forwards,
    sockets,
    opened: () => opened,
    declined: () => declined,
    close() {
      poller.stop();
      splice.close();
      forwards.closeAll();
      poller.close();
    },
  };
}

/** A server on 127.0.0.1 (or `host`) at a port of the kernel's choice. */
export async function listen(
  onConnection: (socket: Socket) => void,
  host = '127.0.0.1',
): Promise<{ port: number; server: Server }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    onConnection(socket);
  });
  server.listen(0, host);
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, server };
}

/** A TCP port that nobody listens on. */
export async function findFreePort(host = '127.0.0.1'): Promise<number> {
  const { port, server } = await listen(() => {}, host);
  server.close();
  await once(server, 'close');
  return port;
}
