/**
 * The filter of system calls of a process that runs a network stack: what it may still do once all is open.
 *
 * Calls that Node and V8 need to go on (memory, time, signals, waiting) and those of the data path are allowed; the rest fails with EPERM,
 * which Node takes as an ordinary error. A few calls that have no place in such a process in any case, and that whoever took it
 * over would like to make, end it. The order is by frequency among calls whose arguments are looked at: the kernel keeps the
 * answer for calls that are allowed whatever their arguments (Linux 5.11).
 *
 * Pointers cannot be looked behind. Removing files is therefore allowed only with the address of a name that was written before into
 * a page that cannot be written any more (`sealName`), and the calls that change mappings must keep off that page.
 */
import { BpfProgram, DATA_ARCH, DATA_NUMBER, highHalf, type Label, lowHalf } from './bpf.ts';
import type { Architecture, SyscallName } from './syscalls.ts';

/** Results of a filter: seccomp(2). */
export const FILTER_ALLOW = 0x7fff_0000;
export const FILTER_ERRNO = 0x0005_0000;
export const FILTER_KILL = 0x8000_0000;

export const EPERM = 1;
const EBADF = 9;
const EACCES = 13;
const ENOSYS = 38;

/** A range of addresses: 64-bit, `end` is the first one behind it. */
export interface AddressRange {
  readonly start: bigint;
  readonly end: bigint;
}

/** A file that may be removed: the address of its sealed name, and the directory it is relative to. */
export interface RemovableFile {
  readonly dirFd: number;
  readonly nameAddress: bigint;
}

export interface FilterOptions {
  readonly architecture: Architecture;
  /** The only process that signals may be sent to. */
  readonly pid: number;
  /** Where V8 keeps machine code, less than 4 GiB; undefined: not known, so any page may become executable. */
  readonly codeRange: AddressRange | undefined;
  readonly removable: readonly RemovableFile[];
  /** Allow listen(2): for forwards that are made at run time. */
  readonly mayListen: boolean;
  /** Allow pipes between sockets: pipe2(2), splice(2). */
  readonly maySplice?: boolean;
  /** Allow pairs of connected unix sockets: socketpair(2), which leads nowhere but to this process. */
  readonly mayPair?: boolean;
  /** A process that sends commands to devices and has no network: see {@link DeviceWork}. */
  readonly devices?: DeviceWork;
}

/**
 * What a process may do that works on devices: SG_IO, threads to wait for them, looking at files. It may make no sockets and connect
 * none.
 */
export interface DeviceWork {
  /** Files that exist may be opened for reading and writing at once, as device nodes are; otherwise only for reading. */
  readonly mayOpenForWriting: boolean;
}

/** Allowed whatever their arguments. Each acts on descriptors that are open, on own memory or on nothing but this process. */
export const ALLOWED: readonly SyscallName[] = [
  // The data path and Node's loop.
  ...(['epoll_pwait', 'epoll_wait', 'recvmsg', 'sendmsg', 'recvfrom', 'sendto', 'recvmmsg', 'sendmmsg'] as const),
  ...(['read', 'write', 'close', 'epoll_ctl', 'getsockopt', 'connect', 'bind', 'accept4', 'shutdown'] as const),
  ...(['getsockname', 'getpeername', 'readv', 'writev', 'pread64', 'pwrite64', 'ftruncate', 'fstat'] as const),
  // Threads that are there, memory, time, signals.
  ...(['futex', 'madvise', 'brk', 'sched_yield', 'sched_getaffinity', 'membarrier', 'getrandom'] as const),
  ...(['clock_gettime', 'clock_getres', 'clock_nanosleep', 'nanosleep', 'gettimeofday', 'restart_syscall'] as const),
  ...(['rt_sigaction', 'rt_sigprocmask', 'rt_sigreturn', 'sigaltstack', 'exit', 'exit_group'] as const),
  // Facts about this process.
  ...(['sched_getparam', 'sched_getscheduler'] as const),
  ...(['getpid', 'gettid', 'getuid', 'geteuid', 'getgid', 'getegid', 'getrusage', 'uname'] as const),
];

/** Fail with another error than EPERM, for the sake of who calls. */
export const ANSWERED: ReadonlyArray<readonly [SyscallName, number]> = [
  ['open', EACCES],
  ['openat', EACCES],
  ['openat2', EACCES],
  ['creat', EACCES],
  // The C library then tries clone(2), and reports that to be refused.
  ['clone3', ENOSYS],
  ['close_range', ENOSYS],
  // What some C libraries make of fstat(2). Node looks at its standard descriptors when it ends and takes no other error.
  ['newfstatat', EBADF],
];

/** End the process. */
export const FATAL: readonly SyscallName[] = [
  ...(['execve', 'execveat', 'ptrace', 'process_vm_readv', 'process_vm_writev', 'process_madvise'] as const),
  ...(['pidfd_getfd', 'bpf', 'perf_event_open', 'userfaultfd', 'init_module', 'finit_module'] as const),
  ...(['delete_module', 'kexec_load', 'kexec_file_load', 'reboot', 'swapon', 'swapoff', 'mount'] as const),
  ...(['umount2', 'pivot_root', 'chroot', 'move_mount', 'open_tree', 'fsopen', 'fsmount'] as const),
  ...(['mount_setattr', 'open_by_handle_at', 'unshare', 'setns', 'add_key', 'request_key', 'keyctl'] as const),
  ...(['iopl', 'ioperm', 'modify_ldt'] as const),
];

const SOCK_TYPE_MASK = 0xf;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;

/** Rows: address family, type, protocols. */
const SOCKETS: ReadonlyArray<readonly [number, number, readonly number[]]> = [
  [2, SOCK_STREAM, [0, 6]],
  [2, SOCK_DGRAM, [0, 17, 1]],
  [10, SOCK_STREAM, [0, 6]],
  [10, SOCK_DGRAM, [0, 17, 58]],
];

/**
 * Levels of setsockopt(2), and the options of each that are refused: filters that the kernel would run, keys, other protocols on
 * top of TCP (TCP_ULP), and netfilter's tables.
 */
const OPTION_LEVELS: ReadonlyArray<readonly [number, readonly number[]]> = [
  [1, [26, 50, 51, 52]],
  [6, [14, 31, 32, 38, 39]],
  [0, [64, 65]],
  [41, [64, 65]],
  [17, []],
];

/** F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. */
const DESCRIPTOR_COMMANDS = [1, 2, 3, 4, 1030];
/** F_SETPIPE_SZ, F_GETPIPE_SZ. */
const PIPE_COMMANDS = [1031, 1032];

/** FIONBIO, FIONREAD, FIOCLEX, FIONCLEX; TCGETS and TCSETS: Node restores a terminal when it ends. */
const DEVICE_COMMANDS = [0x5421, 0x541b, 0x5451, 0x5450, 0x5401, 0x5402];

/** Of the calls that are allowed, those that a process without a network has no use for. */
const NETWORK_ONLY: ReadonlySet<SyscallName> = new Set(['connect', 'bind', 'recvmmsg', 'sendmmsg']);

/** Of a process that works on devices. Threads register themselves by the two calls in front. */
const DEVICE_CALLS: readonly SyscallName[] = [
  ...(['set_robust_list', 'rseq', 'epoll_create1'] as const),
  ...(['statx', 'newfstatat', 'getdents64', 'readlinkat'] as const),
];

/** SG_IO of linux/scsi/sg.h. */
const SG_IO = 0x2285;

const CLONE_THREAD = 0x1_0000;
const O_WRONLY = 0o1;
const O_RDWR = 0o2;
/** O_CREAT, O_TRUNC, __O_TMPFILE. */
const O_MAKING = 0o100 | 0o1000 | 0o20000000;

const PROT_EXEC = 4;
const MAP_FIXED = 0x10;
const STDERR_FD = 2;

/** The filter as `loadFilter` takes it. */
export function buildFilter(options: FilterOptions): Uint8Array {
  const { architecture, pid, removable } = options;
  const program = new BpfProgram();
  const kill = program.newLabel();
  const numbers = program.newLabel();
  program.load(DATA_ARCH);
  program.jump('equal', architecture.auditArch, undefined, kill);
  program.load(DATA_NUMBER);
  if (architecture.foreignFrom === undefined) program.jump('atLeast', 0, numbers, numbers);
  else program.jump('atLeast', architecture.foreignFrom, kill, numbers);
  program.place(kill);
  program.give(FILTER_KILL);
  program.place(numbers);

  const rule = (name: SyscallName, body: (allow: Label, deny: Label) => void): void => {
    const number = architecture.number(name);
    if (number === undefined) return;
    const next = program.newLabel();
    const allow = program.newLabel();
    const deny = program.newLabel();
    program.jump('equal', number, undefined, next);
    body(allow, deny);
    program.place(deny);
    program.give(FILTER_ERRNO | EPERM);
    program.place(allow);
    program.give(FILTER_ALLOW);
    program.place(next);
  };
  const answer = (name: SyscallName, result: number): void => {
    const number = architecture.number(name);
    if (number === undefined) return;
    const next = program.newLabel();
    program.jump('equal', number, undefined, next);
    program.give(result);
    program.place(next);
  };
  const oneOf = (name: SyscallName, argument: number, values: readonly number[]): void =>
    rule(name, (allow) => {
      program.load(lowHalf(argument));
      for (const value of values) program.jump('equal', value, allow);
    });

  rule('setsockopt', (allow, deny) => checkOption(program, allow, deny));
  const { devices } = options;
  if (devices === undefined) rule('socket', (allow, deny) => checkSocket(program, allow, deny));
  oneOf('fcntl', 1, options.maySplice ? [...DESCRIPTOR_COMMANDS, ...PIPE_COMMANDS] : DESCRIPTOR_COMMANDS);
  oneOf('ioctl', 1, devices === undefined ? DEVICE_COMMANDS : [SG_IO, ...DEVICE_COMMANDS]);
  rule('mmap', (allow, deny) => {
    program.load(lowHalf(2));
    program.jump('anyBit', PROT_EXEC, deny);
    program.load(lowHalf(3));
    program.jump('anyBit', MAP_FIXED, undefined, allow);
    keepOff(program, removable, allow, deny);
  });
  rule('munmap', (allow, deny) => keepOff(program, removable, allow, deny));
  for (const name of ['mprotect', 'pkey_mprotect'] as const) {
    rule(name, (allow, deny) => {
      const executable = program.newLabel();
      const { codeRange } = options;
      program.load(lowHalf(2));
      if (codeRange !== undefined) program.jump('anyBit', PROT_EXEC, executable);
      keepOff(program, removable, allow, deny);
      program.place(executable);
      if (codeRange !== undefined) checkInside(program, codeRange, allow, deny);
    });
  }
  if (devices !== undefined) {
    rule('clone', (allow, deny) => {
      program.load(lowHalf(0));
      program.jump('anyBit', CLONE_THREAD, allow, deny);
    });
    rule('openat', (allow, deny) => {
      program.load(lowHalf(2));
      program.jump('anyBit', O_WRONLY | O_MAKING | (devices.mayOpenForWriting ? 0 : O_RDWR), deny, allow);
    });
    for (const name of DEVICE_CALLS) answer(name, FILTER_ALLOW);
  }
  for (const name of ALLOWED) {
    if (devices === undefined || !NETWORK_ONLY.has(name)) answer(name, FILTER_ALLOW);
  }
  for (const [name, errno] of ANSWERED) answer(name, FILTER_ERRNO | errno);
  if (options.mayListen) answer('listen', FILTER_ALLOW);
  if (options.mayPair) answer('socketpair', FILTER_ALLOW);
  if (options.maySplice) for (const name of ['splice', 'pipe2'] as const) answer(name, FILTER_ALLOW);
  for (const name of ['kill', 'tgkill'] as const) oneOf(name, 0, [pid]);
  oneOf('dup3', 1, [STDERR_FD]);
  const removal = architecture.number('unlinkat');
  if (removal !== undefined) for (const file of removable) allowRemoval(program, removal, file);
  for (const name of FATAL) answer(name, FILTER_KILL);
  program.give(FILTER_ERRNO | EPERM);
  return program.assemble();
}

/** A filter that answers one call with ENOSYS, as an old kernel does, and allows all others. */
export function buildRefusal(architecture: Architecture, name: SyscallName): Uint8Array {
  const program = new BpfProgram();
  const allow = program.newLabel();
  program.load(DATA_ARCH);
  program.jump('equal', architecture.auditArch, undefined, allow);
  program.load(DATA_NUMBER);
  program.jump('equal', architecture.number(name) ?? -1, undefined, allow);
  program.give(FILTER_ERRNO | ENOSYS);
  program.place(allow);
  program.give(FILTER_ALLOW);
  return program.assemble();
}

function checkSocket(program: BpfProgram, allow: Label, deny: Label): void {
  for (const [family, type, protocols] of SOCKETS) {
    const next = program.newLabel();
    program.load(lowHalf(0));
    program.jump('equal', family, undefined, next);
    program.load(lowHalf(1));
    program.and(SOCK_TYPE_MASK);
    program.jump('equal', type, undefined, next);
    program.load(lowHalf(2));
    for (const protocol of protocols) program.jump('equal', protocol, allow);
    program.jump('equal', 0, deny, deny);
    program.place(next);
  }
}

function checkOption(program: BpfProgram, allow: Label, deny: Label): void {
  for (const [level, refused] of OPTION_LEVELS) {
    const next = program.newLabel();
    program.load(lowHalf(1));
    program.jump('equal', level, undefined, next);
    program.load(lowHalf(2));
    for (const option of refused) program.jump('equal', option, deny);
    program.jump('equal', 0, allow, allow);
    program.place(next);
  }
}

/**
 * Allows an address and length (arguments 0 and 1) that do not touch sealed names. Those have 4 GiB to themselves, so the upper half of
 * the address decides, given that the length has none.
 */
function keepOff(program: BpfProgram, removable: readonly RemovableFile[], allow: Label, deny: Label): void {
  const [first] = removable;
  if (first === undefined) {
    program.jump('atLeast', 0, allow, allow);
    return;
  }
  const sealedHigh = Number(first.nameAddress >> 32n);
  program.load(highHalf(1));
  program.jump('equal', 0, undefined, deny);
  program.load(highHalf(0));
  // From the 4 GiB before, a mapping could reach into them.
  program.jump('atLeast', sealedHigh - 1, undefined, allow);
  program.jump('above', sealedHigh, allow, deny);
}

/** Allows an address and length (arguments 0 and 1) that lie in a range. */
function checkInside(program: BpfProgram, range: AddressRange, allow: Label, deny: Label): void {
  const size = Number(range.end - range.start);
  const startLow = Number(range.start & 0xffff_ffffn);
  const startHigh = Number(range.start >> 32n);
  const crosses = Number((range.end - 1n) >> 32n) !== startHigh;
  const beforeBorder = program.newLabel();
  const behindBorder = program.newLabel();
  const inside = program.newLabel();
  program.load(highHalf(0));
  program.jump('equal', startHigh, beforeBorder);
  if (crosses) program.jump('equal', startHigh + 1, behindBorder);
  program.jump('equal', 0, deny, deny);
  program.place(beforeBorder);
  program.load(lowHalf(0));
  program.jump('atLeast', startLow, inside, deny);
  if (crosses) {
    program.place(behindBorder);
    program.load(lowHalf(0));
    program.jump('atLeast', startLow, deny);
  }
  program.place(inside);
  // Modulo 2^32, which is exact since the range is smaller.
  program.subtract(startLow);
  program.jump('atLeast', size, deny);
  program.toIndex();
  program.load(highHalf(1));
  program.jump('equal', 0, undefined, deny);
  program.load(lowHalf(1));
  program.jump('above', size, deny);
  program.addIndex();
  program.jump('above', size, deny, allow);
}

/** A rule for each file, because no jump leads over many: another one goes on with the next rule, the number loaded again. */
function allowRemoval(program: BpfProgram, number: number, { dirFd, nameAddress }: RemovableFile): void {
  const next = program.newLabel();
  const other = program.newLabel();
  program.jump('equal', number, undefined, next);
  program.load(lowHalf(0));
  program.jump('equal', dirFd, undefined, other);
  program.load(lowHalf(1));
  program.jump('equal', Number(nameAddress & 0xffff_ffffn), undefined, other);
  program.load(highHalf(1));
  program.jump('equal', Number(nameAddress >> 32n), undefined, other);
  program.load(lowHalf(2));
  program.jump('equal', 0, undefined, other);
  program.give(FILTER_ALLOW);
  program.place(other);
  program.load(DATA_NUMBER);
  program.place(next);
}
