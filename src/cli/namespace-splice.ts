/**
 * What a namespace has in addition to a stack: loopback connections that pass it by, and forwards that follow the ports in use on the other
 * side.
 */
import { closeSync, openSync } from 'node:fs';
import type { Arena } from '../base/arena.ts';
import { systemClock } from '../base/clock.ts';
import type { Logger } from '../base/logger.ts';
import { createAutoForward, type PortTables } from '../forward/auto/auto.ts';
import type { ForwardListeners } from '../forward/listeners.ts';
import type { PortForwardRule } from '../forward/port-spec.ts';
import type { SpliceForward } from '../forward/splice/ports.ts';
import { createSpliceForward } from '../forward/splice/splice.ts';
import type { HostSockets, LoopbackBypass } from '../stack/ports.ts';
import type { GuestNamespace } from '../sys/namespace.ts';
import type { NativeAddon } from '../sys/native-addon.ts';

export interface NamespaceSpliceConfig {
  readonly namespace: GuestNamespace;
  /** From the namespace's loopback to the host's. */
  readonly namespaceForwards: readonly PortForwardRule[];
  /** The host's loopback reaches the namespace directly. */
  readonly splice: boolean;
  /** Where that leads, per family, as 4 words; undefined: the namespace's loopback. */
  readonly guestAddress: (family: number) => Uint32Array | undefined;
  readonly ipv4: boolean;
  readonly ipv6: boolean;
}

/** What it is made from: parts of a stack that is being made. */
export interface NamespaceSpliceParts {
  readonly native: NativeAddon;
  readonly arena: Arena;
  readonly sockets: HostSockets;
  readonly forwards: ForwardListeners;
  readonly log: Logger;
  /** Ends a turn that no event began. */
  readonly kickTurn: () => void;
  /** A listener of the host is about to be closed. */
  readonly onHostClose: (index: number) => void;
}

export interface NamespaceSplice {
  readonly splice: SpliceForward;
  /** For the stack; undefined: everything takes the interface. */
  readonly bypass: LoopbackBypass | undefined;
  /** Begins to follow ports. */
  start(): void;
  close(): void;
}

const HOST_TABLES = ['/proc/net/tcp', '/proc/net/tcp6', '/proc/net/udp', '/proc/net/udp6'] as const;

/** @throws PasselError PASSEL_E_PORT_BIND */
export function createNamespaceSplice(config: NamespaceSpliceConfig, parts: NamespaceSpliceParts): NamespaceSplice {
  const { namespace } = config;
  const { native, arena, sockets, forwards, log, kickTurn } = parts;
  const splice = createSpliceForward({
    arena,
    sockets: { ...sockets, pipe: native.pipe, spliceStream: native.spliceStream },
    namespace,
    forwards,
    guestAddress: config.guestAddress,
    clock: systemClock,
    log,
    namespaceRules: config.namespaceForwards,
    ipv4: config.ipv4,
    ipv6: config.ipv6,
    kickTurn,
  });
  const hostTables = openHostTables();
  const auto = createAutoForward({
    host: forwards,
    namespace: splice.listeners,
    hostTables,
    namespaceTables: namespace.tables,
    log,
    onHostClose(index) {
      splice.onListenerClosed(index, false);
      parts.onHostClose(index);
    },
    onNamespaceClose: (index) => splice.onListenerClosed(index, true),
    endTurn: kickTurn,
  });
  return {
    splice,
    bypass: config.splice ? splice.bypass : undefined,
    start: () => auto.start(),
    close() {
      auto.stop();
      splice.close();
      for (const fd of Object.values(hostTables)) if (fd >= 0) closeSync(fd);
    },
  };
}

/** -1 where the kernel has no such table. */
function openHostTables(): PortTables {
  const [tcp, tcp6, udp, udp6] = HOST_TABLES.map((path) => {
    try {
      return openSync(path, 'r');
    } catch {
      return -1;
    }
  });
  return { tcp: tcp!, tcp6: tcp6!, udp: udp!, udp6: udp6! };
}
