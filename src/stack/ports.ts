/**
 * What the stack needs from the world, declared by the stack and implemented elsewhere: `link/` implements {@link GuestLink},
 * `sys/` implements {@link HostSockets}, `forward/` implements {@link AddressMap}. Tests implement all three.
 *
 * Conventions. Integers in, integers out; every offset is into the arena. A negative result is `-errno` unless said otherwise.
 * Addresses of both families travel as four unsigned 32-bit words in network order of significance, IPv4 in its v4-mapped form
 * (0, 0, 0xffff, address).
 */

// ---------------------------------------------------------------------------------------------------------------- endpoint record

/**
 * An *endpoint record* is how an address and port lie in the arena for the addon: 24 bytes.
 * byte 0: family, 4 or 6 (0: none); byte 1: 0; bytes 2–3: port, big-endian; bytes 4–7: scope id (interface index), little-endian;
 * bytes 8–23: address in network order (IPv4 in bytes 8–11, the rest 0).
 */
export const ENDPOINT_BYTES = 24;
export const ENDPOINT_PORT = 2;
export const ENDPOINT_SCOPE = 4;
export const ENDPOINT_ADDRESS = 8;

/**
 * What `receiveDatagrams` tells about one datagram: 64 bytes.
 * 0: source endpoint record; 24: local destination endpoint record (family 0 if the socket has no PKTINFO; its scope is the
 * arrival interface, its port is 0); 48: u32 LE payload length in the arena; 52: u32 LE flags ({@link DATAGRAM_TRUNCATED});
 * 56: u32 LE one's complement sum of the payload, folded to 16 bits, not inverted; 60: u32 LE UDP_GRO segment size or 0.
 */
export const DATAGRAM_META_BYTES = 64;
export const DATAGRAM_META_SOURCE = 0;
export const DATAGRAM_META_LOCAL = 24;
export const DATAGRAM_META_LENGTH = 48;
export const DATAGRAM_META_FLAGS = 52;
export const DATAGRAM_META_SUM = 56;
export const DATAGRAM_META_SEGMENT = 60;
export const DATAGRAM_TRUNCATED = 1;

/**
 * What `receiveError` tells about one entry of a socket's error queue: 64 bytes (Linux `struct sock_extended_err`, ip(7)).
 * 0: u32 LE errno; 4: origin (2 ICMP, 3 ICMPv6); 5: ICMP type; 6: ICMP code; 8: u32 LE info (the MTU for "too big");
 * 12: offender endpoint record (who sent the ICMP error; family 0 if unknown); 36: original destination endpoint record.
 */
export const SOCKET_ERROR_BYTES = 64;
export const SOCKET_ERROR_ERRNO = 0;
export const SOCKET_ERROR_ORIGIN = 4;
export const SOCKET_ERROR_TYPE = 5;
export const SOCKET_ERROR_CODE = 6;
export const SOCKET_ERROR_INFO = 8;
export const SOCKET_ERROR_OFFENDER = 12;
export const SOCKET_ERROR_DESTINATION = 36;

// ---------------------------------------------------------------------------------------------------------------- guest link

/** `receive` results below this are `-errno`; these two are not errors of a system call. */
export const LINK_IDLE = 0;

/** What frames to the guest may leave to it: bits of {@link GuestLink.offloads}. */
/** The checksum of TCP and UDP: only the pseudo-header's sum stands in its place. */
export const OFFLOAD_CHECKSUM = 0x1;
/** Cutting a TCP frame into segments, over IPv4 and IPv6. */
export const OFFLOAD_TCP4 = 0x2;
export const OFFLOAD_TCP6 = 0x4;
/** Cutting a UDP frame into datagrams of equal length. */
export const OFFLOAD_UDP4 = 0x8;
export const OFFLOAD_UDP6 = 0x10;

/**
 * A transport to the guest: whole Ethernet frames in both directions.
 *
 * Guest → host: {@link receive} reads as much as one system call gives and yields (offset, length) pairs. The bytes stay valid
 * until the next `receive`.
 *
 * Host → guest: ask for room with {@link reserve}, lay frames into it one after the other, {@link commit} each in order, and
 * {@link flush} once per turn. Nothing is sent before `flush`; what the transport's socket does not take then is kept and sent
 * later, so a committed frame is never lost while the guest stays connected.
 */
export interface GuestLink {
  /** Bytes that the transport puts in front of every frame (4 on a stream: the length word; 16 on a tap with virtio-net headers). */
  readonly headroomBytes: number;
  /**
   * A virtio-net header (wire/vnet.ts) is the last part of each frame's headroom. It stands in front of the frames that `receive`
   * gives, and says whether they have whole checksums and are to be cut; whoever commits a frame has written one.
   */
  readonly hasVnetHeader: boolean;
  /** OFFLOAD_* that frames to the guest may use, by their virtio-net header; 0 without one. Longer than `maxFrameBytes` they are not. */
  readonly offloads: number;
  /** The largest Ethernet frame (header and payload, no headroom) that may be committed. */
  readonly maxFrameBytes: number;
  /** False while no guest is attached: `reserve` then gives -1 and nothing is queued. */
  readonly connected: boolean;

  /**
   * Reads frames from the guest.
   * @param frames filled with pairs: offset of the Ethernet header in the arena, length in bytes
   * @returns the number of frames; {@link LINK_IDLE} when there is nothing to read now; or -errno (the link has then dropped the
   * guest and told its owner)
   */
  receive(frames: Int32Array): number;

  /**
   * Makes sure that `bytes` (frames and their headrooms together) fit contiguously.
   * @returns the offset at which the first frame's *headroom* starts, or -1 when there is no room now. A caller that needs the
   * room later must say so with `StackContext.waitForRoom`, since no event reminds it.
   */
  reserve(bytes: number): number;

  /** Bytes that `reserve` would grant now. */
  roomBytes(): number;

  /**
   * Queues the frame whose Ethernet header is at `offset`. Frames lie back to back: `offset` must be the end of the last committed
   * frame (or the reserved start) plus `headroomBytes`.
   */
  commit(offset: number, lengthBytes: number): void;

  /**
   * Sends what is queued with as few system calls as it takes.
   * @returns the bytes still queued (0: all sent; else the link waits for the transport to take more and then calls back
   * `onRoom`), or -errno when the guest is gone
   */
  flush(): number;
}

// ---------------------------------------------------------------------------------------------------------------- host sockets

/** Host events, as epoll gives them (epoll(7)). */
export const EVENT_IN = 0x001;
export const EVENT_OUT = 0x004;
export const EVENT_ERR = 0x008;
export const EVENT_HUP = 0x010;
export const EVENT_RDHUP = 0x2000;
export const EVENT_EDGE = 0x80000000;

export const SOCKET_STREAM = 1;
export const SOCKET_DGRAM = 2;

export const SHUT_READ = 0;
export const SHUT_WRITE = 1;
export const SHUT_BOTH = 2;

/** Where no sums may go: `peekSegments` then computes none. */
export const NO_SUMS = 0;

/**
 * The host's sockets. Every fd returned is close-on-exec and non-blocking and belongs to the caller, who gives it back with
 * `close`. EINTR never comes out of these calls; MSG_NOSIGNAL is always set.
 */
export interface HostSockets {
  /** socket(2). `family` 4 or 6; `type` SOCKET_STREAM or SOCKET_DGRAM; `protocol` an IPPROTO number, 0 for the default. @returns fd or -errno */
  open(family: number, type: number, protocol: number): number;
  /** bind(2) to the endpoint record at `endpointOffset`. */
  bind(fd: number, endpointOffset: number): number;
  /** connect(2), non-blocking: -EINPROGRESS (-115) is the usual answer for TCP. */
  connect(fd: number, endpointOffset: number): number;
  listen(fd: number, backlog: number): number;
  /** accept4(2). Writes the peer's endpoint record at `endpointOffset`. @returns fd or -errno (-EAGAIN: -11) */
  accept(fd: number, endpointOffset: number): number;
  /** getsockname(2) into an endpoint record. */
  getName(fd: number, endpointOffset: number): number;
  /** getpeername(2) into an endpoint record. */
  getPeer(fd: number, endpointOffset: number): number;
  shutdown(fd: number, how: number): number;
  close(fd: number): number;
  /** SO_ERROR, cleared by reading: a positive errno, or 0. */
  takeError(fd: number): number;
  /** getsockopt(2) of an int. @returns the value (non-negative) or -errno */
  getOption(fd: number, level: number, name: number): number;
  /** setsockopt(2) of an int. */
  setOption(fd: number, level: number, name: number, value: number): number;
  /** setsockopt(2) of a string: SO_BINDTODEVICE. */
  setOptionString(fd: number, level: number, name: number, value: string): number;
  /** TCP_INFO: copies at most `lengthBytes` of `struct tcp_info` to `offset`. @returns bytes copied or -errno */
  getTcpInfo(fd: number, offset: number, lengthBytes: number): number;

  /** recv(2) into the arena. @returns bytes, 0 at end of stream, or -errno */
  receive(fd: number, offset: number, lengthBytes: number, flags: number): number;
  /** send(2) from the arena. @returns bytes taken or -errno */
  send(fd: number, offset: number, lengthBytes: number, flags: number): number;
  /** send(2) from any buffer (spilled data, which does not lie in the arena). @returns bytes taken or -errno */
  sendBuffer(fd: number, buffer: Uint8Array, offset: number, lengthBytes: number, flags: number): number;
  /**
   * One sendmsg(2) with `count` iovecs. At `listOffset` in the arena lie `count` pairs of u32 LE (offset, length). Up to 1024 per
   * system call; the addon makes more calls if it must and stops at the first short one.
   * @returns bytes taken in all (which may end inside a segment), or -errno when nothing was taken
   */
  sendSegments(fd: number, listOffset: number, count: number, flags: number): number;
  /**
   * Peeks stream data (MSG_PEEK) into segments: segment i gets up to `segmentBytes` at `offset + i * strideBytes`. Starts at the
   * socket's SO_PEEK_OFF and advances it by what was peeked; `skipBytes` further bytes are skipped first (for kernels without
   * SO_PEEK_OFF on this family; 0 otherwise). For each segment touched the folded one's complement sum of its payload goes to
   * `sumsOffset + 4 * i` (u32 LE, 16 bits used, not inverted, as if the payload began at an even position), unless that is {@link NO_SUMS}.
   * @returns bytes peeked in all, 0 at end of stream, or -errno (-EAGAIN: nothing there)
   */
  peekSegments(
    fd: number,
    offset: number,
    strideBytes: number,
    segmentBytes: number,
    count: number,
    skipBytes: number,
    sumsOffset: number,
  ): number;
  /** Drops `lengthBytes` from the front of a TCP receive queue (MSG_TRUNC without a buffer, tcp(7)). @returns bytes dropped or -errno */
  discard(fd: number, lengthBytes: number): number;

  /**
   * recvmmsg(2): up to `count` datagrams, the i-th to `offset + i * strideBytes` (at most `maxBytes`), its
   * {@link DATAGRAM_META_BYTES} record to `metaOffset + i * 64`. @returns datagrams received or -errno
   */
  receiveDatagrams(
    fd: number,
    offset: number,
    strideBytes: number,
    maxBytes: number,
    count: number,
    metaOffset: number,
  ): number;
  /** As `receiveDatagrams`, with 0 for the sum of each payload. */
  receiveUnsummed(
    fd: number,
    offset: number,
    strideBytes: number,
    maxBytes: number,
    count: number,
    metaOffset: number,
  ): number;
  /**
   * As `receiveDatagrams`, for datagrams that mostly have one length: what is longer than `maxBytes` goes on at
   * `tailOffset + i * tailStrideBytes`, to 65 535 bytes in all. Length and sum are those of the whole.
   */
  receiveSplitDatagrams(
    fd: number,
    offset: number,
    strideBytes: number,
    maxBytes: number,
    count: number,
    metaOffset: number,
    tailOffset: number,
    tailStrideBytes: number,
  ): number;
  /** sendmmsg(2) on a connected socket: `count` pairs of u32 LE (offset, length) at `listOffset`. @returns datagrams taken or -errno */
  sendDatagrams(fd: number, listOffset: number, count: number): number;
  /**
   * sendmmsg(2) on a socket that is not connected: as `sendDatagrams`, all to the endpoint record at `remoteOffset`, leaving from the
   * address of the record at `localOffset` (IP_PKTINFO/IPV6_PKTINFO; its port means nothing; family 0: the kernel's choice).
   * @returns datagrams taken or -errno
   */
  sendDatagramsTo(fd: number, listOffset: number, count: number, remoteOffset: number, localOffset: number): number;
  /**
   * One sendmsg(2) with UDP_SEGMENT (udp(7)) on a connected socket: as `sendDatagrams`, for 1 … 64 datagrams that all have
   * `lengthBytes`, but for the last, which may be shorter, and 65 000 bytes together at most. The kernel handles them as one until the
   * last moment. All or none: -EINVAL, -EIO or -EMSGSIZE mean that this path or length does not allow it.
   * @returns `count` or -errno
   */
  sendEqualDatagrams(fd: number, listOffset: number, count: number, lengthBytes: number): number;
  /** sendto(2). @returns bytes or -errno */
  sendTo(fd: number, offset: number, lengthBytes: number, endpointOffset: number): number;
  /**
   * Takes one entry from the socket's error queue (MSG_ERRQUEUE): record of {@link SOCKET_ERROR_BYTES} to `recordOffset`, the
   * start of the datagram that caused it to `offset`. @returns payload bytes (may be 0) or -errno (-EAGAIN: queue empty)
   */
  receiveError(fd: number, recordOffset: number, offset: number, lengthBytes: number): number;

  /** One's complement sum of arena bytes, folded to 16 bits, not inverted; `initial` is added. */
  sum(offset: number, lengthBytes: number, initial: number): number;

  /** Registers `fd` with the data path's poller: its events come to the handler for `kind` with `index`. */
  watch(fd: number, events: number, kind: number, index: number): number;
  /** Changes the events of a registered fd. */
  rewatch(fd: number, events: number, kind: number, index: number): number;
  /** Unregisters; not needed before `close` when the fd has no duplicates. */
  unwatch(fd: number): number;
}

/** The `kind` of an event: who handles it. `index` is a flow index for the flow kinds, else the handler's own number. */
export const KIND_LINK = 1;
export const KIND_LINK_LISTENER = 2;
export const KIND_TCP = 3;
export const KIND_TCP_LISTENER = 4;
export const KIND_UDP = 5;
export const KIND_UDP_LISTENER = 6;
export const KIND_PING = 7;
/** One socket of a spliced connection: index is twice its flow, plus 1 for the side that was connected to. */
export const KIND_SPLICE_TCP = 8;
/** The far socket of a spliced UDP flow. */
export const KIND_SPLICE_UDP = 9;
/** Listeners in the guest's namespace. */
export const KIND_NAMESPACE_TCP_LISTENER = 10;
export const KIND_NAMESPACE_UDP_LISTENER = 11;

/** Answers of the process that opens what the stack must not: see {@link GuestServices}. */
export const KIND_SERVICES = 12;
/** Sockets of the name server, and of those who ask it. */
export const KIND_NAMES = 13;

// ---------------------------------------------------------------------------------------------------------------- services

/**
 * What stands behind addresses of the guest's network other than hosts, and the files of its TFTP server. Another process opens them, so
 * every request has a ticket, a flow's index and generation, and is answered later, once, by `NetworkStack.onServiceAnswer`.
 */
export interface GuestServices {
  /** The service that the guest reaches by TCP at this address (4 words) and port. @returns its number, or -1 */
  find(address: Uint32Array, port: number): number;
  /**
   * The host's address (4 words) and port that a service leads to; undefined: another process connects.
   */
  targetOf(service: number): { readonly address: Uint32Array; readonly port: number } | undefined;
  /** Asks for a connection: a connected, non-blocking stream socket. @returns false when it cannot be asked for */
  connect(service: number, index: number, generation: number): boolean;
  /** Asks for a file of the TFTP server, opened for reading; undefined: there is no server. @returns as `connect` */
  readonly openFile: ((path: string, index: number, generation: number) => boolean) | undefined;
  /** Length of a regular file in bytes, or -errno. */
  fileBytes(fd: number): number;
  /** pread(2) into the arena. @returns bytes read, less than asked for at the end of the file only; or -errno */
  readFile(fd: number, offset: number, lengthBytes: number, position: number): number;
}

// ---------------------------------------------------------------------------------------------------------------- names

/** The name server of the guest's network, where it has one of its own. */
export interface NameServer {
  /** Whether the guest finds it at this address (4 words). */
  isAt(address: Uint32Array): boolean;
  /**
   * Takes a DNS query that came as a datagram.
   * @param query - valid during the call only
   * @param limitBytes - the longest answer that there is a way for
   * @param answer - called once at most, from inside this call or in a later turn; the message is valid during its call only
   */
  ask(query: Uint8Array, limitBytes: number, answer: (message: Uint8Array) => void): void;
}

// ---------------------------------------------------------------------------------------------------------------- address map

export const MAP_AS_IS = 0;
/** The address was rewritten. */
export const MAP_REWRITTEN = 1;
/** The address is one that nothing may be sent to (e.g. the mapped gateway with mapping off and no such host). */
export const MAP_REFUSED = 2;

/** Which host address stands behind an address that the guest uses, and the other way round. */
export interface AddressMap {
  /**
   * Guest's destination → host's destination, rewritten in place.
   * @param address 4 words; replaced by what the host is to be asked for
   * @param protocol IPPROTO number
   * @returns MAP_AS_IS, MAP_REWRITTEN or MAP_REFUSED
   */
  toHost(address: Uint32Array, port: number, protocol: number): number;
  /** Remote's address as the host sees it → the source address that the guest is shown, rewritten in place. */
  toGuest(address: Uint32Array, port: number, protocol: number): number;
  /** Interface index for a link-local IPv6 destination on the host side, 0 if none. */
  readonly linkLocalScopeId: number;
}

/** A listener's accept or datagram is for this port and address of the guest. */
export interface ForwardTarget {
  /** Port in the guest. */
  readonly guestPort: number;
  /** Address in the guest, 4 words; undefined: the guest's current address of the family. */
  readonly guestAddress?: Uint32Array;
}

/** Finds the forward behind a listening socket; the owner of the listeners (forward/) implements it. */
export interface ForwardLookup {
  /** `index` as given to `watch` for KIND_TCP_LISTENER/KIND_UDP_LISTENER. @returns undefined when the rule was removed meanwhile */
  targetOf(index: number): ForwardTarget | undefined;
  /** The listening fd of `index`, or -1. */
  fdOf(index: number): number;
  /** The index of a listener on this UDP port of the host, or -1. Left out: there are none. */
  udpListenerAt?(port: number): number;
}

/**
 * Takes connections and datagrams of forwarded ports before they become the guest's flows: in namespace mode the host's loopback reaches
 * the guest's sockets without the link. `forward/splice` implements it.
 */
export interface LoopbackBypass {
  /**
   * A connection was accepted.
   * @param fd - becomes the bypass's when it answers true
   * @param peerOffset - endpoint record of its peer
   */
  takeConnection(listener: number, fd: number, peerOffset: number): boolean;
  /**
   * Datagrams were received.
   * @param metaOffset - DATAGRAM_META record of the first; the others follow
   * @param dataOffset - payload of the first; each further one is `strideBytes` on
   * @returns how many, from the first on, were taken
   */
  takeDatagrams(listener: number, metaOffset: number, dataOffset: number, strideBytes: number, count: number): number;
}
