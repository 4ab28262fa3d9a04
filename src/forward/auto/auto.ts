/**
 * `auto`: forwards that follow what the other side listens on. Each second the tables of listening sockets of one side decide which ports
 * the other side's listeners are to hold; connections that came by a port that is closed go on.
 *
 * What passel itself listens on does not count: a port that it forwards one way would otherwise be found on that side and
 * forwarded back, a circle without a server. A UDP rule has the ports of forwarded TCP ones too, where it leads to the same number, since
 * one service may use both and says nothing of UDP before its first datagram (pasta(1)).
 *
 * A table is read only while a rule follows it.
 */
import type { Logger } from '../../base/logger.ts';
import type { ForwardListeners, OpenForward } from '../listeners.ts';
import { PortBits, readListeningPorts } from '../listening-ports.ts';
import type { ForwardProto } from '../port-spec.ts';

const INTERVAL_MS = 1000;

/** Open descriptors of /proc/net/…, which belong to the namespace they were opened in; -1: none. */
export interface PortTables {
  readonly tcp: number;
  readonly tcp6: number;
  readonly udp: number;
  readonly udp6: number;
}

export interface AutoForwardOptions {
  /** Listeners of the host (`-t`, `-u`), which follow the tables of the namespace. */
  readonly host: ForwardListeners;
  /** Listeners of the namespace (`-T`, `-U`), which follow the tables of the host. */
  readonly namespace: ForwardListeners;
  /** All descriptors stay the caller's. */
  readonly hostTables: PortTables;
  readonly namespaceTables: PortTables;
  readonly log: Logger;
  /** The socket of a listener is about to be closed. */
  readonly onHostClose: (index: number) => void;
  readonly onNamespaceClose: (index: number) => void;
  /** Called after changes. */
  readonly endTurn: () => void;
}

export interface AutoForward {
  /** Scans now and then each second. */
  start(): void;
  scan(): void;
  stop(): void;
}

/** The listeners of one side and what they follow, for one protocol. */
interface Follower {
  readonly proto: ForwardProto;
  readonly listeners: ForwardListeners;
  /** Listeners on the side that is followed: ours, so they do not count. */
  readonly opposite: ForwardListeners;
  readonly tables: readonly number[];
  readonly onClose: (index: number) => void;
  readonly side: string;
  readonly found: PortBits;
  /** What the last update went by. */
  readonly last: PortBits;
  /** Version of the listeners after it; -1: something is to be tried again. */
  version: number;
}

export function createAutoForward(options: AutoForwardOptions): AutoForward {
  const { host, namespace, hostTables, namespaceTables, log } = options;
  const createFollower = (proto: ForwardProto, isHost: boolean): Follower => {
    const tables = isHost ? namespaceTables : hostTables;
    return {
      proto,
      listeners: isHost ? host : namespace,
      opposite: isHost ? namespace : host,
      tables: proto === 'tcp' ? [tables.tcp, tables.tcp6] : [tables.udp, tables.udp6],
      onClose: isHost ? options.onHostClose : options.onNamespaceClose,
      side: isHost ? 'host' : 'namespace',
      found: new PortBits(),
      last: new PortBits(),
      version: -1,
    };
  };
  // TCP first: UDP follows it.
  const followers = [
    createFollower('tcp', true),
    createFollower('tcp', false),
    createFollower('udp', true),
    createFollower('udp', false),
  ];
  let timer: NodeJS.Timeout | undefined;

  const scan = (): void => {
    let changes = 0;
    for (const follower of followers) changes += update(follower, log);
    if (changes > 0) options.endTurn();
  };
  return {
    scan,
    start() {
      scan();
      timer ??= setInterval(scan, INTERVAL_MS);
    },
    stop() {
      clearInterval(timer);
      timer = undefined;
    },
  };
}

/** @returns ports opened and closed */
function update(follower: Follower, log: Logger): number {
  const { proto, listeners, opposite, found } = follower;
  const rules = listeners.list().filter(({ rule }) => rule.scan && rule.proto === proto);
  if (rules.length === 0) return 0;
  found.clear();
  try {
    for (const fd of follower.tables) readListeningPorts(proto, fd, found);
  } catch (error) {
    log.debug(`auto: a table of ${proto} sockets cannot be read: ${(error as Error).message}`);
    return 0;
  }
  found.forEach((port) => {
    if (opposite.holdsPort(proto, port)) found.delete(port);
  });
  // The version says whether forwarded TCP ports are others, and whether a rule has come.
  if (follower.version === listeners.version && follower.last.equals(found)) return 0;
  let changes = 0;
  let failed = 0;
  for (const forward of rules) {
    const result = listeners.follow(forward.id, wantedBy(forward, follower), follower.onClose);
    changes += result.changed;
    failed += result.failed;
  }
  if (changes > 0) log.debug(`auto: ${changes} ${proto} ports of the ${follower.side} opened or closed`);
  follower.version = failed > 0 ? -1 : listeners.version;
  follower.last.set(found);
  return changes;
}

function wantedBy({ rule }: OpenForward, { proto, listeners, found }: Follower): (port: number) => boolean {
  return (port) => {
    const target = rule.targetFirst + (port - rule.first);
    return found.has(target) || (proto === 'udp' && target === port && listeners.holdsPort('tcp', port));
  };
}
