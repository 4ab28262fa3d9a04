/**
 * The loopback splice of a namespace, both ways: what a program on the host sends to a forwarded port of its loopback reaches the
 * namespace's sockets, and what one in the namespace sends to a port of `-T`/`-U` reaches the host's, without frames and without the
 * stack. See tcp.ts and udp.ts for how.
 *
 * Inbound, the stack accepts and receives, since others than the host's loopback come in on the same listeners; it offers everything to
 * {@link SpliceForward.bypass} first. Outbound, the listeners are ours, bound to the namespace's loopback.
 */
import { EACCES, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM } from '../../base/errno.ts';
import { isMappedIpv4 } from '../../base/ip-text.ts';
import { createLogGate, warnGated } from '../../base/logger.ts';
import {
  DATAGRAM_META_SOURCE,
  ENDPOINT_BYTES,
  EVENT_IN,
  type ForwardTarget,
  type HostSockets,
  KIND_NAMESPACE_TCP_LISTENER,
  KIND_NAMESPACE_UDP_LISTENER,
  KIND_SPLICE_TCP,
  KIND_SPLICE_UDP,
} from '../../stack/ports.ts';
import { openListeners } from '../listeners.ts';
import { isLoopbackEndpoint, loopbackOf, writeEndpoint } from './endpoints.ts';
import type { NamespaceSockets, SpliceForward, SpliceOptions, SpliceSockets } from './ports.ts';
import { type OpenSocket, TcpSplice } from './tcp.ts';
import { UdpSplice } from './udp.ts';

/** Errors of single connections may follow each other (accept(2)); an error that stays must not keep us here. */
const ERRORS_MAX = 64;
/** How long a listener that cannot be emptied for want of descriptors is left alone. */
const PAUSE_MS = 250;
const LOG_INTERVAL_MS = 10_000;

/**
 * Opens the listeners of `namespaceRules` and starts.
 * @throws PasselError PASSEL_E_PORT_BIND when one cannot be opened
 */
export function createSpliceForward(options: SpliceOptions): SpliceForward {
  const { arena, sockets, namespace, forwards, clock, log } = options;
  const { view } = arena;
  const scratch = arena.allocate(ENDPOINT_BYTES);
  const target = arena.allocate(2 * ENDPOINT_BYTES);
  const peer = arena.allocate(ENDPOINT_BYTES);

  const listeners = openListeners(options.namespaceRules, {
    sockets: withNamespace(sockets, namespace),
    view,
    scratchOffset: scratch,
    logger: log,
    ipv4: options.ipv4,
    ipv6: options.ipv6,
    freebind: false,
    namespace: true,
  });
  const tcp = new TcpSplice({ arena, sockets, clock, log, kickTurn: options.kickTurn });
  const udp = new UdpSplice({
    arena,
    sockets,
    clock,
    log,
    listenerFd: (index, ofNamespace) => (ofNamespace ? listeners : forwards).fdOf(index),
    bindLow: namespace.bind === undefined ? undefined : (fd, endpoint) => namespace.bind!(fd, endpoint),
  });
  const openInNamespace: OpenSocket = (family, type) => namespace.open(family, type);
  const openOnHost: OpenSocket = (family, type) => sockets.open(family, type, 0);

  const paused: number[] = [];
  let pause: NodeJS.Timeout | undefined;
  const gate = createLogGate(LOG_INTERVAL_MS);

  /**
   * Writes where a flow goes to `target`. A namespace that is not configured (yet) has no address but its loopback: that is tried next.
   * @returns the family
   */
  const aim = (to: ForwardTarget, clientFamily: number, ofNamespace: boolean): number => {
    const own = to.guestAddress === undefined && !ofNamespace ? options.guestAddress(clientFamily) : undefined;
    const address = to.guestAddress ?? own ?? loopbackOf(clientFamily);
    writeEndpoint(view, target, address, to.guestPort);
    writeEndpoint(view, target + ENDPOINT_BYTES, loopbackOf(clientFamily), to.guestPort);
    if (own === undefined) view.setUint8(target + ENDPOINT_BYTES, 0);
    return isMappedIpv4(address) ? 4 : 6;
  };

  const acceptAll = (index: number): void => {
    const fd = listeners.fdOf(index);
    const to = listeners.targetOf(index);
    if (fd < 0 || to === undefined) return;
    for (let errors = 0; errors < ERRORS_MAX; ) {
      const accepted = sockets.accept(fd, peer);
      if (accepted >= 0) {
        const family = aim(to, view.getUint8(peer), true);
        tcp.join(accepted, index, true, openOnHost, target, family);
      } else if (accepted === EAGAIN) {
        return;
      } else if (accepted === EMFILE || accepted === ENFILE || accepted === ENOMEM || accepted === ENOBUFS) {
        warnGated(log, gate, clock.nowMs(), `connections of the namespace have to wait: errno ${-accepted}`);
        // The listener would be reported again at once.
        sockets.rewatch(fd, 0, KIND_NAMESPACE_TCP_LISTENER, index);
        paused.push(index);
        pause ??= setTimeout(resume, PAUSE_MS);
        return;
      } else {
        errors++;
      }
    }
  };
  const resume = (): void => {
    pause = undefined;
    for (const index of paused.splice(0)) {
      const fd = listeners.fdOf(index);
      if (fd >= 0) sockets.rewatch(fd, EVENT_IN, KIND_NAMESPACE_TCP_LISTENER, index);
    }
  };
  const readNamespace = (index: number): void => {
    const fd = listeners.fdOf(index);
    const to = listeners.targetOf(index);
    if (fd < 0 || to === undefined) return;
    udp.readListener(fd, (meta, data, stride, count) => {
      const family = aim(to, view.getUint8(meta + DATAGRAM_META_SOURCE), true);
      udp.deliver(index, true, meta, data, stride, count, openOnHost, target, family);
    });
  };

  return {
    bypass: {
      takeConnection(listener, fd, peerOffset) {
        if (!isLoopbackEndpoint(view, peerOffset)) return false;
        const to = forwards.targetOf(listener);
        if (to === undefined) return false;
        const family = aim(to, view.getUint8(peerOffset), false);
        tcp.join(fd, listener, false, openInNamespace, target, family);
        return true;
      },
      takeDatagrams(listener, metaOffset, dataOffset, strideBytes, count) {
        const source = metaOffset + DATAGRAM_META_SOURCE;
        if (!isLoopbackEndpoint(view, source)) return 0;
        const to = forwards.targetOf(listener);
        if (to === undefined) return 0;
        const run = udp.runLength(metaOffset, count);
        const family = aim(to, view.getUint8(source), false);
        udp.deliver(listener, false, metaOffset, dataOffset, strideBytes, run, openInNamespace, target, family);
        return run;
      },
    },
    listeners,
    tcp,
    udp,
    install(handlers) {
      handlers[KIND_SPLICE_TCP] = (index, events) => tcp.onEvent(index, events);
      handlers[KIND_SPLICE_UDP] = (index) => udp.onEvent(index);
      handlers[KIND_NAMESPACE_TCP_LISTENER] = acceptAll;
      handlers[KIND_NAMESPACE_UDP_LISTENER] = readNamespace;
      listeners.watchAll();
    },
    endTurn() {
      tcp.endTurn();
      udp.endTurn();
    },
    onListenerClosed(index, ofNamespace) {
      udp.onListenerClosed(index, ofNamespace);
      udp.endTurn();
    },
    close() {
      clearTimeout(pause);
      listeners.closeAll();
      tcp.close();
      udp.close();
    },
  };
}

/** The host's socket calls, with sockets that are made in the namespace and bound with its rights where that takes any. */
function withNamespace(sockets: SpliceSockets, namespace: NamespaceSockets): HostSockets {
  return {
    ...sockets,
    open: (family, type) => namespace.open(family, type),
    bind: (fd, endpoint) => {
      const status = sockets.bind(fd, endpoint);
      return status === EACCES && namespace.bind !== undefined ? namespace.bind(fd, endpoint) : status;
    },
  };
}
