/**
 * What the loopback splice needs from the world, declared here and implemented by `sys/` (and by tests).
 */
import type { Arena } from '../../base/arena.ts';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/logger.ts';
import type { HostSockets, LoopbackBypass } from '../../stack/ports.ts';
import type { ForwardListeners } from '../listeners.ts';
import type { PortForwardRule } from '../port-spec.ts';
import type { TcpSplice } from './tcp.ts';
import type { UdpSplice } from './udp.ts';

/**
 * Sockets that belong to the guest's network namespace. A socket stays in the namespace that it was made in, so everything but
 * its making is done by this process; only a port below `net.ipv4.ip_unprivileged_port_start` takes a right that the namespace's own
 * user namespace gives.
 */
export interface NamespaceSockets {
  /**
   * An unbound socket of the guest's namespace, non-blocking and close-on-exec; the caller's.
   * @param family - 4 or 6
   * @param type - SOCKET_STREAM or SOCKET_DGRAM
   * @returns fd or -errno
   */
  open(family: number, type: number): number;
  /**
   * bind(2) with the rights of the namespace; asked for only when a plain bind said -EACCES. Left out: there is nobody who has them.
   * @param endpointOffset - endpoint record in the arena
   * @returns 0 or -errno
   */
  bind?(fd: number, endpointOffset: number): number;
}

/** System calls of the addon that only the splice makes. */
export interface SpliceCalls {
  /**
   * pipe2(2), non-blocking and close-on-exec, with a capacity of `sizeBytes` or the nearest smaller one that the kernel grants.
   * @param fds - read end to `fds[0]`, write end to `fds[1]`; both the caller's
   * @returns capacity in bytes, or -errno
   */
  pipe(sizeBytes: number, fds: Int32Array): number;
  /**
   * Moves bytes from one stream socket to another through a pipe, without bringing them to user space: splice(2) in and out by turns until
   * the source is empty or ended, the target is full, an error shows, or `budgetBytes` have left.
   * @param pendingBytes - what the pipe holds
   * @param recordOffset - {@link SPLICE_RECORD_BYTES} bytes of the arena, filled
   * @returns 0 or -errno (then nothing has happened)
   */
  spliceStream(
    sourceFd: number,
    pipeReadFd: number,
    pipeWriteFd: number,
    targetFd: number,
    pendingBytes: number,
    budgetBytes: number,
    recordOffset: number,
  ): number;
}

/**
 * What `spliceStream` tells: u32 LE bytes in the pipe; u32 LE bytes that reached the target; i32 LE state of the source
 * ({@link SPLICE_OPEN}, {@link SPLICE_ENDED} or -errno; -EAGAIN (-11): empty); i32 LE state of the target ({@link SPLICE_OPEN} or
 * -errno; -EAGAIN: full).
 */
export const SPLICE_RECORD_BYTES = 16;
export const SPLICE_PENDING = 0;
export const SPLICE_MOVED = 4;
export const SPLICE_SOURCE = 8;
export const SPLICE_TARGET = 12;
/** There may be more. */
export const SPLICE_OPEN = 0;
/** End of stream: the peer has shut its sending side down and all of it has been read. */
export const SPLICE_ENDED = 1;

/** What the splice does with sockets: the host's, whichever namespace they come from, and the addon's splice calls. */
export type SpliceSockets = HostSockets & SpliceCalls;

/** What `createSpliceForward` (splice.ts) is made from. */
export interface SpliceOptions {
  readonly arena: Arena;
  readonly sockets: SpliceSockets;
  readonly namespace: NamespaceSockets;
  /** The host's listeners (`-t`, `-u`); what comes in on them from the host's loopback is spliced. */
  readonly forwards: ForwardListeners;
  /**
   * Where connections from the host's loopback go in the namespace, per family, as 4 words: the guest's own address, as pasta since
   * October 2024 does, and its loopback while it does not have that address; undefined: its loopback (`--host-lo-to-ns-lo`, `--splice-only`). Asked for each flow.
   */
  readonly guestAddress: (family: number) => Uint32Array | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** `-T` and `-U`: listeners on the namespace's loopback that lead to the host's. */
  readonly namespaceRules: readonly PortForwardRule[];
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** Ends a turn that no event of the poller began (its `kickTurn`). */
  readonly kickTurn: () => void;
}

/** The splice at work; owns the namespace's listeners and all spliced flows. */
export interface SpliceForward {
  /** For the stack, which accepts and receives on the host's listeners. */
  readonly bypass: LoopbackBypass;
  /** The namespace's listeners (`-T`, `-U`). */
  readonly listeners: ForwardListeners;
  /** Sets the handlers of the KIND_SPLICE_… and KIND_NAMESPACE_… events and watches the namespace's listeners. */
  install(handlers: (((index: number, events: number) => void) | undefined)[]): void;
  /** Call at the end of each turn. */
  endTurn(): void;
  /** A listener of the host (`ofNamespace` false) or of the namespace is about to be closed: its UDP flows end. */
  onListenerClosed(index: number, ofNamespace: boolean): void;
  /** The flows, for people: counters, `describe`. */
  readonly tcp: TcpSplice;
  readonly udp: UdpSplice;
  close(): void;
}
