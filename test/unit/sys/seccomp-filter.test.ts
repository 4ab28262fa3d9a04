import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BpfProgram } from '../../../src/sys/bpf.ts';
import { findCodeRange } from '../../../src/sys/sandbox.ts';
import {
  ALLOWED,
  ANSWERED,
  buildFilter,
  buildRefusal,
  EPERM,
  FATAL,
  FILTER_ALLOW,
  FILTER_ERRNO,
  FILTER_KILL,
  type FilterOptions,
} from '../../../src/sys/seccomp-filter.ts';
import { findArchitecture, SYSCALL_NAMES, type SyscallName } from '../../../src/sys/syscalls.ts';

const DENY = FILTER_ERRNO | EPERM;
const SEALED = 0x5000_0000_0000n;
const GIB4 = 0x1_0000_0000n;

/** Runs a program as the kernel does, from its own reading of the format. @returns the result */
function run(program: Uint8Array, number: number, arch: number, args: readonly bigint[]): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setInt32(0, number, true);
  data.setUint32(4, arch, true);
  args.forEach((value, index) => {
    data.setBigUint64(16 + 8 * index, BigInt.asUintN(64, value), true);
  });
  const code = new DataView(program.buffer);
  let accumulator = 0;
  let index = 0;
  for (let at = 0; at < program.length; at += 8) {
    const value = code.getUint32(at + 4, true);
    const skip = (taken: boolean): void => {
      at += 8 * code.getUint8(at + (taken ? 2 : 3));
    };
    const operation = code.getUint16(at, true);
    if (operation === 0x20) accumulator = data.getUint32(value, true);
    else if (operation === 0x54) accumulator = (accumulator & value) >>> 0;
    else if (operation === 0x14) accumulator = (accumulator - value) >>> 0;
    else if (operation === 0x0c) accumulator = (accumulator + index) >>> 0;
    else if (operation === 0x07) index = accumulator;
    else if (operation === 0x15) skip(accumulator === value);
    else if (operation === 0x25) skip(accumulator > value);
    else if (operation === 0x35) skip(accumulator >= value);
    else if (operation === 0x45) skip((accumulator & value) !== 0);
    else if (operation === 0x06) return value;
    else throw new Error(`unknown operation ${operation}`);
  }
  throw new Error('ran off the end');
}

describe.each(['x64', 'arm64'])('the filter for %s', (name) => {
  const architecture = findArchitecture(name)!;
  const filterWith = (options: Partial<FilterOptions> = {}) => {
    const program = buildFilter({
      architecture,
      pid: 1234,
      codeRange: { start: 0x7f12_f000_0000n, end: 0x7f13_1000_0000n },
      removable: [
        { dirFd: 23, nameAddress: SEALED },
        { dirFd: 24, nameAddress: SEALED + 4096n },
      ],
      mayListen: false,
      ...options,
    });
    return (call: SyscallName, ...args: Array<number | bigint>): number =>
      run(program, architecture.number(call)!, architecture.auditArch, args.map(BigInt));
  };
  const filter = filterWith();
  const has = (call: SyscallName): boolean => architecture.number(call) !== undefined;

  it('allows, answers and ends by its lists', () => {
    for (const call of ALLOWED.filter(has)) expect([call, filter(call, -1, -1, -1, -1)]).toEqual([call, FILTER_ALLOW]);
    for (const [call, errno] of ANSWERED.filter(([call]) => has(call))) {
      expect([call, filter(call)]).toEqual([call, FILTER_ERRNO | errno]);
    }
    for (const call of FATAL.filter(has)) expect([call, filter(call)]).toEqual([call, FILTER_KILL]);
  });
  it('refuses what is on none', () => {
    for (const call of ['clone', 'listen'] as const) expect(filter(call)).toBe(DENY);
    const program = buildFilter({ architecture, pid: 1, codeRange: undefined, removable: [], mayListen: false });
    const listed = new Set(SYSCALL_NAMES.map((call) => architecture.number(call)));
    for (let number = 0; number < 1000; number++) {
      if (!listed.has(number)) expect(run(program, number, architecture.auditArch, [])).toBe(DENY);
    }
  });
  it('ends a process that calls by another ABI', () => {
    const program = buildFilter({ architecture, pid: 1, codeRange: undefined, removable: [], mayListen: false });
    expect(run(program, 3, 0x4000_0003, [])).toBe(FILTER_KILL);
    if (name === 'x64') expect(run(program, 0x4000_0000, architecture.auditArch, [])).toBe(FILTER_KILL);
  });
  it('looks at families, types and protocols of sockets', () => {
    for (const [family, type, protocol, expected] of [
      [2, 1, 0, FILTER_ALLOW],
      [2, 0x80801, 6, FILTER_ALLOW],
      [10, 0x80802, 17, FILTER_ALLOW],
      [2, 2, 1, FILTER_ALLOW],
      [10, 2, 58, FILTER_ALLOW],
      [2, 2, 58, DENY],
      [10, 2, 1, DENY],
      [2, 1, 17, DENY],
      [2, 3, 0, DENY],
      [1, 1, 0, DENY],
      [0x1_0000, 1, 0, DENY],
    ] as const) {
      expect([family, type, protocol, filter('socket', family, type, protocol)]).toEqual([
        ...[family, type, protocol],
        expected,
      ]);
    }
  });
  it('looks at levels and names of socket options', () => {
    expect(filter('setsockopt', 3, 1, 42)).toBe(FILTER_ALLOW);
    expect(filter('setsockopt', 3, 6, 1)).toBe(FILTER_ALLOW);
    expect(filter('setsockopt', 3, 17, 103)).toBe(FILTER_ALLOW);
    for (const [level, option] of [
      [1, 26],
      [1, 50],
      [6, 31],
      [0, 64],
      [41, 64],
      [132, 1],
    ] as const) {
      expect([level, option, filter('setsockopt', 3, level, option)]).toEqual([level, option, DENY]);
    }
  });
  it('lets memory become executable inside of the code range only, across a border of 4 GiB too', () => {
    for (const [start, end] of [
      [0x7f12_f000_0000n, 0x7f13_1000_0000n],
      [0x7f12_2000_0000n, 0x7f12_4000_0000n],
      [0x7f12_e000_0000n, 0x7f13_0000_0000n],
    ] as const) {
      const check = filterWith({ codeRange: { start, end } });
      const size = end - start;
      for (const [address, length, expected] of [
        [start, 4096n, FILTER_ALLOW],
        [start, size, FILTER_ALLOW],
        [end - 4096n, 4096n, FILTER_ALLOW],
        [start + 0x1000_0000n, 4096n, FILTER_ALLOW],
        [start + 0xfff_f000n, 8192n, FILTER_ALLOW],
        [start, size + 4096n, DENY],
        [start - 4096n, 4096n, DENY],
        [start - 4096n, 8192n, DENY],
        [end - 4096n, 8192n, DENY],
        [end, 4096n, DENY],
        [start + 4096n, GIB4 + 4096n, DENY],
        [start + 4096n, GIB4 - 4096n, DENY],
        [start + GIB4, 4096n, DENY],
        [start - GIB4, 4096n, DENY],
        [0x1000n, 4096n, DENY],
      ] as const) {
        for (const call of ['mprotect', 'pkey_mprotect'] as const) {
          expect([address, length, check(call, address, length, 5)]).toEqual([address, length, expected]);
        }
      }
      expect(check('mprotect', 0x1000, 4096, 3)).toBe(FILTER_ALLOW);
    }
    expect(filterWith({ codeRange: undefined })('mprotect', 0x1000, 4096, 7)).toBe(FILTER_ALLOW);
  });
  it('maps no executable memory, and keeps off the names that may be removed', () => {
    expect(filter('mmap', 0, 4096, 3, 0x22)).toBe(FILTER_ALLOW);
    expect(filter('mmap', 0, 4096, 4, 0x22)).toBe(DENY);
    expect(filter('mmap', 0, GIB4 * 2n, 3, 0x22)).toBe(FILTER_ALLOW);
    for (const [address, length, expected] of [
      [SEALED, 4096n, DENY],
      [SEALED + 4096n, 4096n, DENY],
      [SEALED - 4096n, 8192n, DENY],
      [SEALED - GIB4, GIB4 - 4096n, DENY],
      [SEALED - 2n * GIB4, 3n * GIB4, DENY],
      [SEALED - 2n * GIB4, GIB4 - 4096n, FILTER_ALLOW],
      [SEALED + GIB4, 4096n, FILTER_ALLOW],
      [0x7f12_0000_0000n, 4096n, FILTER_ALLOW],
    ] as const) {
      expect([address, filter('mmap', address, length, 3, 0x32)]).toEqual([address, expected]);
      expect([address, filter('munmap', address, length)]).toEqual([address, expected]);
      expect([address, filter('mprotect', address, length, 3)]).toEqual([address, expected]);
    }
    expect(filterWith({ removable: [] })('munmap', SEALED, 4096)).toBe(FILTER_ALLOW);
  });
  it('removes a file by its sealed name and directory together', () => {
    expect(filter('unlinkat', 23, SEALED, 0)).toBe(FILTER_ALLOW);
    expect(filter('unlinkat', 24, SEALED + 4096n, 0)).toBe(FILTER_ALLOW);
    expect(filter('unlinkat', 23, SEALED + 4096n, 0)).toBe(DENY);
    expect(filter('unlinkat', 23, SEALED + GIB4, 0)).toBe(DENY);
    expect(filter('unlinkat', 23, SEALED, 0x200)).toBe(DENY);
    expect(filter('unlinkat', -100, SEALED, 0)).toBe(DENY);
  });
  it('removes each of as many files as there can be, and no other', () => {
    const removable = Array.from({ length: 66 }, (_, i) => ({
      dirFd: 30 + (i % 3),
      nameAddress: SEALED + 4096n * BigInt(i),
    }));
    const many = filterWith({ removable });
    for (const { dirFd, nameAddress } of removable) {
      expect(many('unlinkat', dirFd, nameAddress, 0)).toBe(FILTER_ALLOW);
      expect(many('unlinkat', dirFd + 1, nameAddress, 0)).toBe(DENY);
    }
    expect(many('unlinkat', 30, SEALED + 4096n * 66n, 0)).toBe(DENY);
    expect(many('kill', 1234, 15)).toBe(FILTER_ALLOW);
  });
  it('signals this process only, and replaces standard error only', () => {
    expect(filter('kill', 1234, 15)).toBe(FILTER_ALLOW);
    expect(filter('tgkill', 1234, 1235, 6)).toBe(FILTER_ALLOW);
    for (const pid of [-1, 0, 1, -1234]) expect(filter('kill', pid, 15)).toBe(DENY);
    expect(filter('dup3', 30, 2)).toBe(FILTER_ALLOW);
    expect(filter('dup3', 30, 1)).toBe(DENY);
  });
  it('has few commands for descriptors and devices', () => {
    expect(filter('fcntl', 5, 4)).toBe(FILTER_ALLOW);
    expect(filter('fcntl', 5, 8)).toBe(DENY);
    expect(filter('ioctl', 5, 0x5421)).toBe(FILTER_ALLOW);
    expect(filter('ioctl', 5, 0x5412)).toBe(DENY);
  });
  it('refuses a single call where that is all that is asked for', () => {
    const program = buildRefusal(architecture, 'io_uring_setup');
    expect(run(program, 425, architecture.auditArch, [])).toBe(FILTER_ERRNO | 38);
    expect(run(program, 426, architecture.auditArch, [])).toBe(FILTER_ALLOW);
    expect(run(program, 425, 0x4000_0003, [])).toBe(FILTER_ALLOW);
  });
  it('works on devices when asked to, and then on nothing of the network', () => {
    const devices = filterWith({ devices: { mayOpenForWriting: false } });
    const writing = filterWith({ devices: { mayOpenForWriting: true } });
    const SG_IO = 0x2285;
    expect(filter('ioctl', 5, SG_IO)).toBe(DENY);
    expect(devices('ioctl', 5, SG_IO)).toBe(FILTER_ALLOW);
    expect(devices('ioctl', 5, SG_IO + 1)).toBe(DENY);
    for (const call of ['socket', 'connect', 'bind', 'listen'] as const) expect(devices(call, 1, 1, 0)).toBe(DENY);
    // Threads, and no processes.
    expect(devices('clone', 0x3d0f00)).toBe(FILTER_ALLOW);
    expect(devices('clone', 17)).toBe(DENY);
    expect(filter('clone', 0x3d0f00)).toBe(DENY);
    expect(devices('execve')).toBe(FILTER_KILL);
    // O_RDONLY, O_WRONLY, O_RDWR, and what makes or cuts files.
    expect([0, 1, 2, 0o2000000].map((flags) => devices('openat', -100, 0, flags))).toEqual([
      FILTER_ALLOW,
      DENY,
      DENY,
      FILTER_ALLOW,
    ]);
    expect([0, 1, 2].map((flags) => writing('openat', -100, 0, flags))).toEqual([FILTER_ALLOW, DENY, FILTER_ALLOW]);
    for (const making of [0o100, 0o1000, 0o20000000]) {
      for (const access of [0, 2]) expect(writing('openat', -100, 0, making | access)).toBe(DENY);
    }
  });
  it('listens when asked to', () => {
    expect(filterWith({ mayListen: true })('listen', 5, 1)).toBe(FILTER_ALLOW);
    expect(filterWith({})('socketpair', 1, 1, 0)).not.toBe(FILTER_ALLOW);
    expect(filterWith({ mayPair: true })('socketpair', 1, 1, 0)).toBe(FILTER_ALLOW);
  });
});

describe('the table of system calls', () => {
  const headers = (pattern: RegExp, ...paths: string[]): Map<string, number> => {
    const path = paths.find((each) => existsSync(each));
    const text = path === undefined ? '' : readFileSync(path, 'latin1');
    return new Map([...text.matchAll(pattern)].map((match) => [match[1]!, Number(match[2])]));
  };
  /** Debian has them in a folder named after the machine. */
  const inInclude = (name: string): string[] =>
    readdirSync('/usr/include')
      .map((folder) => `/usr/include/${folder}/${name}`)
      .concat(`/usr/include/${name}`);

  it('agrees with the kernel headers of this machine', () => {
    const x64 = headers(/^#define __NR_(\w+)\s+(\d+)/gm, ...inInclude('asm/unistd_64.h'));
    const generic = headers(/^#define __NR(?:3264)?_(\w+)\s+(\d+)/gm, '/usr/include/asm-generic/unistd.h');
    const genericNames: Partial<Record<SyscallName, string>> = { newfstatat: 'fstatat' };
    const wrong: string[] = [];
    for (const name of SYSCALL_NAMES) {
      const [own64, ownArm] = ['x64', 'arm64'].map((arch) => findArchitecture(arch)!.number(name));
      const header64 = x64.get(name);
      const headerArm = generic.get(genericNames[name] ?? name);
      if (header64 !== undefined && own64 !== header64) wrong.push(`${name} on x64: ${own64}, not ${header64}`);
      if (headerArm !== undefined && ownArm !== headerArm) wrong.push(`${name} on arm64: ${ownArm}, not ${headerArm}`);
    }
    expect(wrong).toEqual([]);
  });
  it('is not there for other processors', () => {
    expect(findArchitecture('riscv64')).toBeUndefined();
  });
});

describe('the manual page', () => {
  it('lists the calls that are allowed in any case', () => {
    const page = readFileSync(resolve(import.meta.dirname, '../../../man/passel-passt.1'), 'utf8');
    const list = page.slice(page.indexOf('\n.nh\n') + 5, page.indexOf('\n.hy\n'));
    const names = list
      .replace(' and\n', ',')
      .replace(/\nand /, ',')
      .split(/[\s,;]+/);
    expect(names.filter((name) => name !== '').sort()).toEqual([...ALLOWED].sort());
  });
});

describe('the assembler', () => {
  it('refuses jumps that BPF cannot make', () => {
    const program = new BpfProgram();
    const far = program.newLabel();
    program.jump('equal', 1, far);
    for (let i = 0; i < 256; i++) program.load(0);
    program.place(far);
    program.give(0);
    expect(() => program.assemble()).toThrow(/not possible/);
    const lost = new BpfProgram();
    lost.jump('equal', 1, lost.newLabel());
    expect(() => lost.assemble()).toThrow(/not possible/);
  });
});

describe('the code range of V8', () => {
  const RESERVATION = { start: 0x7f31_9400_0000n, end: 0x7f31_b400_0000n };
  const TAIL = [
    '7f31b3e40000-7f31b3fd2000 r-xp 014c4000 fe:00 260689                     /usr/bin/node',
    '7f31b3fd2000-7f31b4000000 ---p 00000000 00:00 0 ',
    '7f31b4000000-7f31b4021000 rw-p 00000000 00:00 0 ',
    '7f31b4021000-7f31b8000000 ---p 00000000 00:00 0 ',
    '7f31b91f8000-7f31b9219000 rw-p 00000000 00:00 0 ',
  ];
  it('is the reservation around what is writable and executable', () => {
    const maps = [
      '7f3194000000-7f3194002000 rw-p 00000000 00:00 0 ',
      '7f3194002000-7f3194003000 ---p 00000000 00:00 0 ',
      '7f3194003000-7f319403f000 rwxp 00000000 00:00 0 ',
      '7f319403f000-7f31b3e40000 ---p 00000000 00:00 0 ',
      ...TAIL,
    ];
    expect(findCodeRange(maps.join('\n'))).toEqual(RESERVATION);
  });
  it('goes on behind the first unit', () => {
    const maps = [
      '7f3194000000-7f3194002000 rw-p 00000000 00:00 0 ',
      '7f3194002000-7f3194003000 ---p 00000000 00:00 0 ',
      '7f3194003000-7f319403f000 rwxp 00000000 00:00 0 ',
      '7f319403f000-7f3194040000 ---p 00000000 00:00 0 ',
      '7f3194040000-7f3194042000 rw-p 00000000 00:00 0 ',
      '7f3194042000-7f3194043000 ---p 00000000 00:00 0 ',
      '7f3194043000-7f319407f000 rwxp 00000000 00:00 0 ',
      '7f319407f000-7f31b3e40000 ---p 00000000 00:00 0 ',
      ...TAIL,
    ];
    expect(findCodeRange(maps.join('\n'))).toEqual(RESERVATION);
  });
  it('includes a first unit that was given back, and what is inaccessible before it', () => {
    const maps = [
      '7f3190021000-7f31940c0000 ---p 00000000 00:00 0 ',
      '7f31940c0000-7f31940c2000 rw-p 00000000 00:00 0 ',
      '7f31940c2000-7f31940c3000 ---p 00000000 00:00 0 ',
      '7f31940c3000-7f31940ff000 rwxp 00000000 00:00 0 ',
      '7f31940ff000-7f31b3e40000 ---p 00000000 00:00 0 ',
      ...TAIL,
    ];
    expect(findCodeRange(maps.join('\n'))).toEqual({ ...RESERVATION, start: 0x7f31_9002_1000n });
  });
  it('begins with its first unit also where another mapping ends against it', () => {
    // As seen: a range counted back from the end missed the unit in use, and V8 ended the process.
    const maps = [
      '7f6a2bf80000-7f6a2bf82000 rw-p 00000000 00:00 0 ',
      '7f6a2bf82000-7f6a2bf83000 ---p 00000000 00:00 0 ',
      '7f6a2bf83000-7f6a2bfbf000 rwxp 00000000 00:00 0 ',
      '7f6a2bfbf000-7f6a4bdc0000 ---p 00000000 00:00 0 ',
      '7f6a4bdc0000-7f6a4bf52000 r-xp 014c4000 fe:00 260689                     /usr/bin/node',
      '7f6a4bf52000-7f6a4bf80000 ---p 00000000 00:00 0 ',
      '7f6a4bf80000-7f6a4bf84000 rw-p 00000000 00:00 0 ',
      '7f6a4bf84000-7f6a4c000000 ---p 00000000 00:00 0 ',
      '7f6a4c000000-7f6a4c021000 rw-p 00000000 00:00 0 ',
      '7f6a4c021000-7f6a50000000 ---p 00000000 00:00 0 ',
    ];
    expect(findCodeRange(maps.join('\n'))).toEqual({ start: 0x7f6a_2bf8_0000n, end: 0x7f6a_4c00_0000n });
  });
  it('is unknown where it would be too large for the filter', () => {
    const maps = [
      '100000000000-100000001000 rwxp 00000000 00:00 0 ',
      '100000001000-100100000000 ---p 00000000 00:00 0 ',
    ];
    expect(findCodeRange(maps.join('\n'))).toBeUndefined();
  });
  it('is unknown where nothing is both', () => {
    expect(findCodeRange('00400000-00b6f000 r-xp 00000000 fe:00 260689 /usr/bin/node\n')).toBeUndefined();
  });
  it('is found in this very process', () => {
    const range = findCodeRange(readFileSync('/proc/self/maps', 'latin1'))!;
    expect(Number(range.end - range.start)).toBeGreaterThan(64 << 20);
    expect(range.end - range.start).toBeLessThan(1n << 32n);
  });
});
