/**
 * Numbers of the system calls that the filter names, by architecture. The list is the kernel's ABI and never changes: those of x86-64 are in
 * arch/x86/entry/syscalls/syscall_64.tbl, those of aarch64 the generic ones of include/uapi/asm-generic/unistd.h. Calls
 * with one name and several forms have the name of their 64-bit form.
 */

/** Columns: x86-64, aarch64; undefined: the architecture does not have it. */
const SYSCALLS = {
  epoll_wait: [232, undefined],
  epoll_pwait: [281, 22],
  recvmsg: [47, 212],
  sendmsg: [46, 211],
  recvfrom: [45, 207],
  sendto: [44, 206],
  recvmmsg: [299, 243],
  sendmmsg: [307, 269],
  read: [0, 63],
  write: [1, 64],
  close: [3, 57],
  epoll_ctl: [233, 21],
  getsockopt: [55, 209],
  setsockopt: [54, 208],
  socket: [41, 198],
  connect: [42, 203],
  bind: [49, 200],
  listen: [50, 201],
  accept4: [288, 242],
  shutdown: [48, 210],
  getsockname: [51, 204],
  getpeername: [52, 205],
  futex: [202, 98],
  mmap: [9, 222],
  munmap: [11, 215],
  mprotect: [10, 226],
  pkey_mprotect: [329, 288],
  madvise: [28, 233],
  brk: [12, 214],
  readv: [19, 65],
  pipe2: [293, 59],
  splice: [275, 76],
  socketpair: [53, 199],
  writev: [20, 66],
  pread64: [17, 67],
  pwrite64: [18, 68],
  ftruncate: [77, 46],
  fstat: [5, 80],
  fcntl: [72, 25],
  ioctl: [16, 29],
  dup3: [292, 24],
  unlinkat: [263, 35],
  clock_gettime: [228, 113],
  clock_getres: [229, 114],
  clock_nanosleep: [230, 115],
  nanosleep: [35, 101],
  gettimeofday: [96, 169],
  restart_syscall: [219, 128],
  rt_sigaction: [13, 134],
  rt_sigprocmask: [14, 135],
  rt_sigreturn: [15, 139],
  sigaltstack: [131, 132],
  kill: [62, 129],
  tgkill: [234, 131],
  getpid: [39, 172],
  gettid: [186, 178],
  getuid: [102, 174],
  geteuid: [107, 175],
  getgid: [104, 176],
  getegid: [108, 177],
  getrusage: [98, 165],
  sched_yield: [24, 124],
  sched_getparam: [143, 121],
  sched_getscheduler: [145, 120],
  sched_getaffinity: [204, 123],
  getrandom: [318, 278],
  membarrier: [324, 283],
  uname: [63, 160],
  exit: [60, 93],
  exit_group: [231, 94],
  epoll_create1: [291, 20],
  set_robust_list: [273, 99],
  rseq: [334, 293],
  statx: [332, 291],
  getdents64: [217, 61],
  readlinkat: [267, 78],
  io_uring_setup: [425, 425],
  open: [2, undefined],
  openat: [257, 56],
  openat2: [437, 437],
  creat: [85, undefined],
  clone: [56, 220],
  clone3: [435, 435],
  fork: [57, undefined],
  vfork: [58, undefined],
  newfstatat: [262, 79],
  close_range: [436, 436],
  execve: [59, 221],
  execveat: [322, 281],
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  process_madvise: [440, 440],
  pidfd_getfd: [438, 438],
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  move_mount: [429, 429],
  open_tree: [428, 428],
  fsopen: [430, 430],
  fsmount: [432, 432],
  mount_setattr: [442, 442],
  open_by_handle_at: [304, 265],
  unshare: [272, 97],
  setns: [308, 268],
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  iopl: [172, undefined],
  ioperm: [173, undefined],
  modify_ldt: [154, undefined],
} as const satisfies Record<string, readonly [number, number | undefined]>;

export type SyscallName = keyof typeof SYSCALLS;

/** An architecture that filters are built for. */
export interface Architecture {
  /** AUDIT_ARCH_* of linux/audit.h, which the kernel gives filters along with the number. */
  readonly auditArch: number;
  /** Numbers from here on are those of another ABI of the same architecture (x32); undefined: there is none. */
  readonly foreignFrom: number | undefined;
  /** A call's number, or undefined where there is no such call. */
  number(name: SyscallName): number | undefined;
}

const X86_64: Architecture = {
  auditArch: 0xc000_003e,
  foreignFrom: 0x4000_0000,
  number: (name) => SYSCALLS[name][0],
};

const AARCH64: Architecture = {
  auditArch: 0xc000_00b7,
  foreignFrom: undefined,
  number: (name) => SYSCALLS[name][1],
};

/** @param name - as `process.arch` has it. @returns undefined for an architecture without a table */
export function findArchitecture(name: string): Architecture | undefined {
  if (name === 'x64') return X86_64;
  return name === 'arm64' ? AARCH64 : undefined;
}

/** Every name that has a row. */
export const SYSCALL_NAMES = Object.keys(SYSCALLS) as SyscallName[];
