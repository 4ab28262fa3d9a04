import type { HostSockets } from '../stack/ports.ts';

/**
 * The C addon as TypeScript sees it, one function per system call or per batch of them. See `src/native/native.h` for the conventions:
 * integers in, integers out, `-errno` for an error, offsets into the arena that was bound last on this thread.
 * `-EFAULT` (-14): a range outside the arena or buffer. `-EINVAL` (-22): also an argument of the wrong type.
 */
export interface NativeAddon
  extends DataPathAddon,
    UnixSocketAddon,
    DescriptorAddon,
    OpenAddon,
    MemoryAddon,
    TapAddon,
    NetifAddon,
    ProcessAddon,
    SandboxAddon,
    SpliceAddon,
    NamespaceAddon,
    SgAddon,
    PrAddon,
    PrivilegesAddon,
    OpenFileAddon,
    FrameAddon,
    ConnectorAddon {}

/** What `startPoll` gives: opaque, kept alive by the addon while the poll runs. */
export type PollHandle = object;

/** epoll_ctl(2) operations. */
export const EPOLL_ADD = 1;
export const EPOLL_DELETE = 2;
export const EPOLL_MODIFY = 3;

/** Bytes that `epollWait` writes per event: u32 LE events, kind, index. */
export const EPOLL_EVENT_BYTES = 12;

/** The functions behind {@link HostSockets}, the arena, checksums, and the event loop. */
export interface DataPathAddon extends Omit<HostSockets, 'watch' | 'rewatch' | 'unwatch'> {
  /**
   * Makes `buffer` the arena of this thread; offsets of all later calls are into it. The addon keeps the buffer alive; it must
   * not be transferred to another thread.
   * @returns 0 or -errno
   */
  bindArena(buffer: ArrayBuffer): number;
  /**
   * One complement sum as `sum` gives it (RFC 1071: words in network order, folded to 16 bits, not inverted), over bytes that do
   * not lie in the arena.
   */
  checksumBuffer(bytes: Uint8Array, offset: number, lengthBytes: number, initial: number): number;

  /** epoll_create1(2). @returns an fd that belongs to the caller, or -errno */
  epollCreate(): number;
  /** epoll_ctl(2): `operation` is EPOLL_ADD, EPOLL_MODIFY or EPOLL_DELETE; `kind` and `index` come back with each event. */
  epollControl(epollFd: number, operation: number, fd: number, events: number, kind: number, index: number): number;
  /**
   * epoll_wait(2): writes up to `max` (256 at most per call) events of {@link EPOLL_EVENT_BYTES} to `offset`.
   * @param timeoutMs - 0: do not wait; -1: for ever, which blocks the whole thread
   * @returns the number of events (0 also when a signal ended the wait) or -errno
   */
  epollWait(epollFd: number, offset: number, max: number, timeoutMs: number): number;

  /**
   * Calls `callback` from Node's event loop whenever `fd` is readable (uv_poll_t, level-triggered). Microtasks and
   * process.nextTick run after each call; an exception goes to `uncaughtException` and the poll goes on. The fd stays the
   * caller's and must not be closed before `stopPoll`.
   * @returns a handle, or -errno
   */
  startPoll(fd: number, callback: () => void): PollHandle | number;
  /** Ends a poll. A second call does nothing. */
  stopPoll(handle: PollHandle): number;
  /** Lets the poll keep the process alive (the initial state). */
  refPoll(handle: PollHandle): number;
  /** Lets the process end while the poll runs. */
  unrefPoll(handle: PollHandle): number;

  /**
   * Makes the thread sleep in an epoll set instead of Node's own loop, which becomes a member of it (kind 0): takes the set's events,
   * as `epollWait` does, and calls `callback` with their number. Node's loop has its turn whenever it has something to do, and
   * is kept alive. What lies at `offset` is overwritten when the callback has returned or thrown. For the rest see `startPoll`.
   * @param max - events taken at once, up to 256
   * @param callback - returns for how many microseconds to look for events before the next sleep, which is given up while it does not pay
   * @returns a handle, or -errno; -EBUSY (-16): this thread has one
   */
  startEventLoop(
    epollFd: number,
    offset: number,
    max: number,
    callback: (count: number) => number,
  ): PollHandle | number;
  /** Ends it, and removes Node's loop from the set. A second call does nothing. */
  stopEventLoop(handle: PollHandle): number;
}

/** Local sockets and what can be passed over them: unix(7). */
export interface UnixSocketAddon {
  /**
   * bind(2) of a unix socket (`open(1, type, 0)`).
   * @param path - a path, or an abstract name that starts with NUL; at most 107 bytes (-ENAMETOOLONG)
   * @param mode - permissions of the socket file, less the umask, in force from its first moment; -1: 0777 less the umask
   */
  unixBind(fd: number, path: string, mode: number): number;
  /** connect(2); -EAGAIN (-11) when the listener's backlog is full. */
  unixConnect(fd: number, path: string): number;
  /** accept4(2) on a unix socket. @returns an fd, non-blocking and the caller's, or -errno */
  unixAccept(fd: number): number;
  /** socketpair(2): two connected fds, both the caller's, go to `fds[0]` and `fds[1]`. */
  socketPair(type: number, fds: Int32Array): number;
  /** SO_PEERCRED: pid, uid and gid of the peer at the time of connecting go to `out[0..2]`. */
  peerCredentials(fd: number, out: Int32Array): number;
  /**
   * SO_PEERPIDFD (Linux 6.5): a pidfd, the caller's, of the process that connected: no other that gets its number later. @returns it, or -errno
   * (-ENOPROTOOPT (-92): an older kernel; -ESRCH (-3), -ENODATA (-61): it had ended before)
   */
  peerPidfd(fd: number): number;
  /**
   * The address of a unix socket (`peer` 0) or of its other end (1), one character a byte; abstract names start with NUL. @returns '' for none, or
   * -errno (-ENOTCONN (-107); -EAFNOSUPPORT (-97): no unix socket)
   */
  unixName(fd: number, peer: number): string | number;
  /**
   * SO_PEERGROUPS (Linux 4.13): the peer's supplementary groups at the time of connecting go to `out`. @returns their number, or -errno (-ERANGE
   * (-34): more than `out` has room for)
   */
  peerGroups(fd: number, out: Int32Array): number;
  /**
   * One sendmsg(2) with `count` (at most 253) descriptors, which stay the caller's. With descriptors at least one byte must go.
   * @returns bytes taken (all descriptors went with the first) or -errno
   */
  sendFds(fd: number, bytes: Uint8Array, offset: number, lengthBytes: number, fds: Int32Array, count: number): number;
  /**
   * One recvmsg(2). `fds[0]` becomes the number of descriptors received; they follow from `fds[1]`, are close-on-exec and the
   * caller's. `credentials` become pid, uid, gid of the sender if SO_PASSCRED is set, else -1.
   * @returns bytes, 0 at end of stream, or -errno. -EMSGSIZE (-90): payload or descriptors were cut, or more came than `fds`
   * has room for; all of them are closed and the message is lost
   */
  receiveFds(
    fd: number,
    bytes: Uint8Array,
    offset: number,
    lengthBytes: number,
    fds: Int32Array,
    credentials: Int32Array,
  ): number;
}

/** Descriptors of any kind. */
export interface DescriptorAddon {
  /** FD_CLOEXEC; `on` is 0 or 1. */
  setCloseOnExec(fd: number, on: number): number;
  /** O_NONBLOCK, which everybody who shares the open file sees; `on` is 0 or 1. */
  setNonBlocking(fd: number, on: number): number;
  /** F_GETFL of fcntl(2): access mode (bits 0 and 1) and O_* flags. */
  statusFlags(fd: number): number;
  /** F_DUPFD_CLOEXEC: a new fd for the same open file, the first free one from `lowest`. */
  duplicate(fd: number, lowest: number): number;
  /** dup3(2) with O_CLOEXEC: `target` is closed first if it is open. */
  duplicateTo(fd: number, target: number): number;
  /** Marks every fd from `lowest` on close-on-exec (close_range(2), Linux 5.11). */
  closeOnExecFrom(lowest: number): number;
  /** eventfd(2), non-blocking. */
  eventfdCreate(initial: number): number;
  /** timerfd_create(2) on CLOCK_MONOTONIC, non-blocking. */
  timerfdCreate(): number;
  /** timerfd_settime(2): `firstUs` 0 stops the timer; `intervalUs` 0 makes it fire once. Up to 2^32-1 microseconds (71 minutes). */
  timerfdSet(fd: number, firstUs: number, intervalUs: number): number;
  /** Reads and resets an eventfd's count or a timerfd's number of expirations. @returns it, or -errno (-EAGAIN: 0) */
  counterRead(fd: number): number;
  /** Adds to an eventfd's count. */
  counterWrite(fd: number, value: number): number;
  /** RLIMIT_NOFILE: the soft limit (`hard` 0) or the hard one (1); 2^31-1 if there is none. */
  getFileLimit(hard: number): number;
  /** Sets the soft RLIMIT_NOFILE. */
  setFileLimit(soft: number): number;
}

/** Opening files for somebody else. Every fd is close-on-exec and the caller's. */
export interface OpenAddon {
  /**
   * openat2(2): `path`, relative to the open folder `dirFd`, with O_* `flags` and, for O_CREAT, `mode`. -EXDEV (-18): a link or `..` leads out
   * of the folder; -ELOOP (-40): a magic link.
   */
  openBeneath(dirFd: number, path: string, flags: number, mode: number): number;
  /**
   * open(2) as a user: with the file system rights of `uid`, `gid` and the first `count` of `groups`. -EPERM (-1): this process may not act for
   * others (CAP_SETUID, CAP_SETGID).
   */
  openAs(path: string, flags: number, uid: number, gid: number, groups: Int32Array, count: number): number;
}

/** Memory that other processes can be given. */
export interface MemoryAddon {
  /** memfd_create(2), sealable, of `sizeBytes` zeros. */
  memfdCreate(name: string, sizeBytes: number): number;
  /** F_ADD_SEALS of fcntl(2): 1 seal, 2 shrink, 4 grow, 8 write. */
  addSeals(fd: number, seals: number): number;
  /**
   * mmap(2), shared, readable and writable; unmapped when the buffer is collected. The fd may be closed at once. `offset` is a
   * multiple of the page size. A file that others can shrink must be sealed first: touching what is gone ends the process (SIGBUS).
   * @returns the buffer, or -errno
   */
  mapFd(fd: number, offset: number, lengthBytes: number): ArrayBuffer | number;
}

/** Tap devices, in the network namespace of the calling thread. */
export interface TapAddon {
  /** TUNSETIFF on a new non-blocking fd of /dev/net/tun. `name` '' or with `%d`: the kernel chooses. `flags`: IFF_* of tap.ts. */
  tunOpen(name: string, flags: number): number;
  /** TUNGETFEATURES: the IFF_* flags that the kernel's driver knows. */
  tunGetFeatures(): number;
  /** @returns the device's name, or -errno (-EBADFD (-77): a tun fd without a device; -ENOTTY (-25): no tun fd) */
  tunGetName(fd: number): string | number;
  /** TUNGETIFF: the IFF_* flags. */
  tunGetFlags(fd: number): number;
  /** TUNSETOFFLOAD: TUN_F_* bits that the reader of this fd accepts. */
  tunSetOffload(fd: number, flags: number): number;
  /** TUNSETVNETHDRSZ: 10 or 12. */
  tunSetVnetHeader(fd: number, bytes: number): number;
  /**
   * read(2) of frames until the range has no room for one of `slotBytes`, `frames` is full, or none is left. Longer ones are dropped.
   * @param headerBytes - of the virtio-net header in front of each
   * @param frames - filled with pairs: offset and length of the Ethernet frame, the header not counted
   * @returns the number of frames; -errno when there was none (-EAGAIN (-11): none left)
   */
  tunRead(
    fd: number,
    offset: number,
    lengthBytes: number,
    slotBytes: number,
    headerBytes: number,
    frames: Int32Array,
  ): number;
  /**
   * write(2) of all the frames that lie in the range, one behind the other: u32 LE length of the frame, `headerBytes` of virtio-net
   * header, the frame. @returns bytes of the range that are done with, less than asked when the device takes no more; -errno when the
   * first frame did not go
   */
  tunWrite(fd: number, offset: number, lengthBytes: number, headerBytes: number): number;
  /** TUNSETPERSIST: whether the device outlives its fds; `on` is 0 or 1. */
  tunSetPersist(fd: number, on: number): number;
}

/**
 * Network interfaces by name: netdevice(7), ipv6(7). IPv4 addresses are unsigned numbers, IPv6 addresses 16 bytes.
 * -ENODEV (-19): no such interface.
 */
export interface NetifAddon {
  netifIndex(name: string): number;
  netifGetMtu(name: string): number;
  netifSetMtu(name: string, bytes: number): number;
  /** IFF_* bits: 1 up, 8 loopback, 0x40 running. */
  netifGetFlags(name: string): number;
  netifSetFlags(name: string, set: number, clear: number): number;
  /** @param out - 6 bytes, filled */
  netifGetHardwareAddress(name: string, out: Uint8Array): number;
  netifSetHardwareAddress(name: string, address: Uint8Array): number;
  /** The first IPv4 address (`mask` 0) or its mask (1). -EADDRNOTAVAIL (-99): it has none. */
  netifGetAddress(name: string, mask: number): number;
  netifSetAddress(name: string, address: number, prefixLength: number): number;
  netifAddAddressV6(name: string, address: Uint8Array, prefixLength: number): number;
  /** @param gateway - 0: on link */
  netifAddRoute(name: string, destination: number, prefixLength: number, gateway: number): number;
  /** @param gateway - 16 bytes; all 0: on link */
  netifAddRouteV6(name: string, destination: Uint8Array, prefixLength: number, gateway: Uint8Array): number;
  /**
   * SIOCBRADDIF: makes the interface with this index a port of `bridge`. Index 0 only asks: -EINVAL (-22) from a bridge, -EOPNOTSUPP
   * (-95) from another interface. -EPERM (-1): no CAP_NET_ADMIN.
   */
  netifBridgeAdd(bridge: string, index: number): number;
}

/** A program for `forkExec` or `execute`. Strings must not hold NUL. */
export interface ExecRequest {
  /** Path of the program; PATH is not searched. */
  readonly file: string;
  /** Its whole argument list, `args[0]` included. */
  readonly args: readonly string[];
  /** Its whole environment, as `NAME=value`. */
  readonly env: readonly string[];
  readonly cwd?: string;
  /** Pairs (fd in the new program, fd here). They may overlap. fds 0–2 are inherited in any case. */
  readonly fds?: Int32Array;
  /** file, args, env and cwd hold a byte in each character ('latin1' of Buffer): not every argument in the world is UTF-8. */
  readonly bytes?: boolean;
  /** Soft RLIMIT_NOFILE of the program, since Node has raised its own; 0 or none: as it is. */
  readonly fileLimit?: number;
  /** Signals to ignore; all others get their default action. */
  readonly ignoredSignals?: Int32Array;
  /** Signals blocked at its start. */
  readonly blockedSignals?: Int32Array;
  /** forkExec: namespace fds to join, in this order (the user namespace first). */
  readonly joins?: Int32Array;
  /** forkExec: CLONE_NEW* of process.ts to leave this process's namespaces for new ones. */
  readonly namespaces?: number;
  /** forkExec: one line for /proc/self/uid_map in the new user namespace, e.g. `0 1000 1`; the only id is this process's own. */
  readonly uidMap?: string;
  readonly gidMap?: string;
  /** forkExec: the child is sent this signal when the thread that started it ends. */
  readonly deathSignal?: number;
  /** forkExec: setsid(2). */
  readonly newSession?: boolean;
  /** forkExec: also hand on the fds that are not close-on-exec already. Node marks most of those that it inherited. */
  readonly keepInherited?: boolean;
}

/** Children that Node does not know of, and this process's privileges. */
export interface ProcessAddon {
  /**
   * Starts a child that does all that the request says and executes the program. Blocks until it has (about 1 ms).
   * @param step - `step[0]`: what failed, an index of `EXEC_STEPS` in process.ts
   * @returns the pid, to be waited for with `waitProcess`; or -errno
   */
  forkExec(request: ExecRequest, step: Int32Array): number;
  /**
   * execve(2): this process becomes the program and keeps its pid. @returns only when it fails, with -errno, and all is as before,
   * except that fds named in `fds` are close-on-exec.
   */
  execute(request: ExecRequest): number;
  /** waitpid(2) without waiting. `status[0]`: the wait status. @returns the pid, 0 while it runs, or -errno */
  waitProcess(pid: number, status: Int32Array): number;
  /** pidfd_open(2) (Linux 5.3): an fd that becomes readable when the process ends. */
  pidfdOpen(pid: number): number;
  /** PR_SET_NO_NEW_PRIVS for this thread and those that it starts from now on. */
  setNoNewPrivileges(): number;
  /** PR_SET_DUMPABLE: whether processes of the same user may trace this one; `on` is 0 or 1. */
  setDumpable(on: number): number;
  /** getrandom(2): fills `bytes`, 256 at most. @returns their number */
  fillRandom(bytes: Uint8Array): number;
}

/** Giving up, in all threads of the process, what it could do. Nothing of it can be undone. */
export interface SandboxAddon {
  /**
   * Keeps, of the capabilities that each thread holds, those in `keep`; none is inheritable or ambient afterwards. Of the bounding
   * set those in `bound` stay, which takes CAP_SETPCAP; without it the set is left alone. Masks are two halves of 32 bits.
   * @param threadList - a directory fd of /proc/self/task
   * @returns the number of threads, or -errno (-ETIMEDOUT (-110): one did not answer within 2 s)
   */
  limitCapabilities(threadList: number, keepLow: number, keepHigh: number, boundLow: number, boundHigh: number): number;
  /**
   * PR_SET_NO_NEW_PRIVS and a seccomp(2) filter with SECCOMP_FILTER_FLAG_TSYNC.
   * @param program - struct sock_filter, 8 bytes in the machine's byte order for each instruction
   * @returns 0, -errno, or the id of a thread that has a filter of its own
   */
  loadFilter(program: Uint8Array): number;
  /** fchdir(2) and chroot(2): the directory becomes root and working directory. */
  changeRoot(fd: number): number;
  /**
   * mount(2) of an empty, read-only tmpfs and pivot_root(2): it becomes the root and working directory of every process in this mount
   * namespace, and all other file systems leave the namespace. Only ever in a mount namespace of one's own.
   * @param scratch - path of an existing directory
   */
  pivotRoot(scratch: string): number;
  /**
   * Notes a file that `unlinkSealed` may remove later, by its name in the open directory `dirFd`, which stays the caller's. The name
   * lies in a read-only page at a fixed address above 0x5000_0000_0000, so that a filter can allow it and nothing else.
   * @param slot - 0 to 65
   * @returns the address, or -errno (-EEXIST (-17): the slot or the address is taken)
   */
  sealName(slot: number, dirFd: number, name: string): number;
  /** unlinkat(2) of a sealed name. */
  unlinkSealed(slot: number): number;
}

/** Stream data that stays in the kernel: pipe(7), splice(2). */
export interface SpliceAddon {
  /**
   * pipe2(2), non-blocking and close-on-exec, with a capacity of `sizeBytes` or the nearest smaller one that the kernel grants (limits:
   * fs.pipe-max-size, fs.pipe-user-pages-soft).
   * @param fds - read end to `fds[0]`, write end to `fds[1]`; both the caller's
   * @returns capacity in bytes, or -errno
   */
  pipe(sizeBytes: number, fds: Int32Array): number;
  /**
   * splice(2) from a socket into a pipe and from there into another socket, by turns, until the source is empty or ended, the target is
   * full, an error shows, or `budgetBytes` have left.
   * @param pendingBytes - what the pipe holds already
   * @param recordOffset - 16 bytes of the arena, filled with u32 LE bytes in the pipe, u32 LE bytes given to the target, i32 LE state of the
   * source (0: there may be more, 1: end of stream, or -errno; -EAGAIN: empty), i32 LE state of the target (0, or -errno; -EAGAIN: full)
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

/** Requests to a namespace agent, which the calling thread waits for (some 20 µs). */
export interface NamespaceAddon {
  /**
   * New sockets of the agent's network namespace, non-blocking and close-on-exec, the caller's.
   * @param family - 4 or 6
   * @param count - 1 to 64
   * @param fds - of 64 elements; filled from the start
   * @returns how many were made, or -errno (-EPIPE (-32): the agent is gone)
   */
  namespaceSockets(agentFd: number, family: number, type: number, count: number, fds: Int32Array): number;
  /** bind(2) with the agent's rights; `endpointOffset`: an endpoint record in the arena. */
  namespaceBind(agentFd: number, fd: number, endpointOffset: number): number;
}

/** A pool of threads for SCSI commands: opaque, ended when it is collected. */
export type SgPool = object;

/** SCSI commands through SG_IO, each on a thread of its own, and what a descriptor refers to. */
export interface SgAddon {
  /** @param threads - at most so many commands at a time, 1 to 4096; more wait. @returns a pool, or -errno */
  sgCreate(threads: number): SgPool | number;
  /** An eventfd that is readable while commands are done and not taken. It is the pool's. */
  sgEventFd(pool: SgPool): number;
  /**
   * Starts a command. All is copied; `fd` must stay open until the command is taken.
   * @param token - comes back with the result
   * @param bytes - the CDB and, behind it, what goes to the device
   * @param transferBytes - length of the data in either direction, at most 65536
   * @param direction - SG_DXFER_*: -1 none, -2 to the device, -3 from it
   */
  sgSubmit(
    pool: SgPool,
    token: number,
    fd: number,
    bytes: Uint8Array,
    cdbBytes: number,
    transferBytes: number,
    direction: number,
    timeoutMs: number,
  ): number;
  /**
   * Takes the result of one command: token, errno of the ioctl, SCSI status, host status, driver status, bytes of sense written, bytes
   * of data transferred, microseconds. 96 bytes of sense go to `senseOffset`, data read from the device to `dataOffset`.
   * @returns 1; 0 when there is none, and the eventfd is reset; or -errno
   */
  sgTake(pool: SgPool, result: Int32Array, bytes: Uint8Array, senseOffset: number, dataOffset: number): number;
  /** fstat(2) and F_GETFL: `out` becomes the type (S_IFMT), major and minor of the device, O_ACCMODE and O_PATH. */
  describeFile(fd: number, out: Int32Array): number;
}

/** The threads of a reservation helper: opaque, ended when it is collected. */
export type PrThreads = object;

/**
 * Reservation requests from the client's socket to the device and back, on threads of the addon's: src/native/pr-server.c. `slot` stands for a
 * connection until its end is taken.
 */
export interface PrAddon {
  /**
   * @param threads - at most so many commands at a time, 1 to 4096
   * @param perDevice - of one device's; others wait in order
   * @param verdicts - 3 x 256 of 20 bytes, for each errno, host status and driver status: flags (1: it decides, 2: it has sense), status, sense
   */
  prCreate(threads: number, perDevice: number, timeoutMs: number, verdicts: Uint8Array): PrThreads | number;
  /** An eventfd that is readable when there is something to take. It is the threads'. */
  prEventFd(server: PrThreads): number;
  /** Greets a client on a connected, non-blocking socket. @returns its slot, and the socket has an owner; or -errno, and it has not */
  prAttach(server: PrThreads, fd: number): number;
  /**
   * Takes what there is to tell.
   * @param numbers - becomes records taken, connections ended, 1 when there is more, requests not answered; then 16 for each record:
   * kind, slot, type, major, minor, flags, status, payload, length of the request, errno, host status, driver status, microseconds
   * @param bytes - 136 for each record: the first 40 of the request, and 96 of sense
   * @param ended - slot and reason of each, whose slot is free then
   * @param arm - 1: when there was nothing, the eventfd tells of the next; otherwise it tells of questions, and of records when there are many
   */
  prTake(server: PrThreads, numbers: Int32Array, bytes: Uint8Array, ended: Int32Array, arm: number): number;
  /**
   * Takes a request that is to be decided about: slot, type, major, minor, flags, errno of looking at the descriptor, the descriptor, which stays
   * open until the request is answered or let through, length.
   * @param bytes - at least 8208; becomes the request
   * @returns 1; 0 when there is none, or -errno
   */
  prQuestion(server: PrThreads, numbers: Int32Array, bytes: Uint8Array): number;
  /** Lets a request through. @param grant - 1: and all others for its device, but changes with a descriptor that is not writable */
  prRun(server: PrThreads, slot: number, grant: number): number;
  /** Answers a request. All is copied. */
  prAnswer(server: PrThreads, slot: number, bytes: Uint8Array, lengthBytes: number): number;
  /**
   * Requests that are not answered, as far as there is room.
   * @param numbers - 8 for each: slot, type, major, minor, flags, milliseconds since it came, length, errno of looking at the descriptor
   * @param bytes - 40 for each: the begin of the request
   * @returns how many
   */
  prPending(server: PrThreads, numbers: Int32Array, bytes: Uint8Array): number;
  /** Ends connections that wait for nothing, the others when they have their answers. */
  prStop(server: PrThreads): number;
  /**
   * Ends the threads; those that a device has, when it lets them. Every call but this and the next answers -EBADF afterwards.
   * @returns how many there are still; the eventfd tells when the last one has left
   */
  prEnd(server: PrThreads): number;
  /** Closes what is open, the eventfd too. @returns 0; -EBUSY (-16) while there are threads */
  prClose(server: PrThreads): number;
}

/** Another user, and PID files. */
export interface PrivilegesAddon {
  /**
   * No supplementary groups, and the real, effective and saved ids, for all threads; permitted capabilities stay. -1: as it is.
   * @param threadList - a directory fd of /proc/self/task
   */
  changeUser(threadList: number, uid: number, gid: number): number;
  /** F_SETLK with a write lock on the whole file. -EAGAIN or -EACCES: another process has it. */
  lockFile(fd: number): number;
}

/** What an open file is. */
export interface OpenFileAddon {
  /**
   * statx(2) of what the kernel knows without asking the server of a network or FUSE file system: `out[0..4]` become mode, major and minor of the
   * device that holds it, and the two halves of its inode number.
   */
  fileFacts(fd: number, out: Int32Array): number;
  /** kcmp(2): 0 when both are the same open file, 1 to 3 when not, or -errno (-EPERM, -ENOSYS: a sandbox that does not let one ask). */
  compareFiles(a: number, b: number): number;
  /**
   * close(2) on a thread of its own, which then writes `token` (four bytes) to the pipe `done`: closing may wait for a server, or for a peer.
   * @returns 0: the descriptor is given away; or -errno
   */
  closeAside(fd: number, done: number, token: number): number;
}

/** A record for `receiveFrames`: who may send. Its bytes: see frame-io.c, and link/datagram.ts which writes them. */
export const SENDER_BYTES = 116;

/** Frames that are a datagram each. */
export interface FrameAddon {
  /**
   * recvmmsg(2): as many datagrams as there are, the i-th to `offset + i * slotBytes`, `lengthBytes / slotBytes` at most.
   * @param pairs - filled with offset and length; for a datagram that was cut -EMSGSIZE (-90) in place of a length, for one from whom the record
   * refuses -EPERM (-1)
   * @param senderOffset - a record of {@link SENDER_BYTES}
   * @returns the number of datagrams or -errno
   */
  receiveFrames(
    fd: number,
    offset: number,
    lengthBytes: number,
    slotBytes: number,
    pairs: Int32Array,
    senderOffset: number,
  ): number;
  /** IP_ADD_MEMBERSHIP of an IPv4 group on the interface with the address of the second endpoint record; family 0 there: any. */
  joinGroup(fd: number, groupOffset: number, localOffset: number): number;
  /** IP_MULTICAST_IF: datagrams to groups leave by the interface with the address of the endpoint record. */
  sendToGroupFrom(fd: number, localOffset: number): number;
}

/** A process that connects to a local socket on behalf of one that may not any more. */
export interface ConnectorAddon {
  /**
   * Starts it (fork(2)): for each byte that it is sent it connects to `path` and answers with a signed 32-bit number in the machine's order, 0 or
   * -errno.
   * @param path - as for `unixConnect`
   * @param socketFd - a datagram socket, which it connects; -1: it makes a stream socket and sends it along
   * @param out - gets our end of a SEQPACKET pair, which is the caller's, and the process's pid; it ends when the end is closed
   * @returns 0 or -errno
   */
  startConnector(path: string, socketFd: number, out: Int32Array): number;
}
