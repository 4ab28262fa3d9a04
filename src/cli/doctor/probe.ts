/** Looks at this machine, as the user who asks. Nothing is changed, and nothing is sent anywhere. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { reasonOf } from '../../base/errors.ts';
import { DEFAULT_ACL_PATH, readAcl } from '../../bridge/acl.ts';
import { readHostFacts } from '../../sys/host-facts.ts';
import { loadNative, type NativeAddon } from '../../sys/native.ts';
import { CLONE_NEWNET, CLONE_NEWUSER, startProgram } from '../../sys/process.ts';
import { findGuestKernel } from '../demo/guest-kernel.ts';
import { isExecutable } from '../links/callers.ts';
import { type Finding, fine, limited, missing } from './finding.ts';
import {
  judgeBridgeAcl,
  judgeBuffers,
  judgeLowPorts,
  judgeOpenFiles,
  judgePingGroups,
  judgeQemu,
  judgeRawIo,
  judgeSeccomp,
} from './judge.ts';

const LEAST_NODE = [20, 19] as const;
const QEMU_TIMEOUT_MS = 5_000;

// Linux: socket(7), udp(7).
const SOL_SOCKET = 1;
const SO_PEEK_OFF = 42;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const STREAM = 1;
const DATAGRAM = 2;
const CAP_NET_BIND_SERVICE = 10;

/** Everything, the most important first. */
export function examineMachine(): Finding[] {
  const findings: Finding[] = [probeNode()];
  let native: NativeAddon;
  try {
    native = loadNative();
    findings.push(fine('addon', 'the native addon loads'));
  } catch (error) {
    findings.push(missing('addon', reasonOf(error), 'nothing works without it', 'npm run build'));
    return findings;
  }
  findings.push(
    probeAddresses(),
    judgePingGroups(readSetting('/proc/sys/net/ipv4/ping_group_range') ?? '1 0', listGroups()),
    judgeLowPorts(readSetting('/proc/sys/net/ipv4/ip_unprivileged_port_start') ?? '1024', mayBindLowPorts()),
    judgeBuffers(readSetting('/proc/sys/net/core/rmem_max') ?? '0', readSetting('/proc/sys/net/core/wmem_max') ?? '0'),
    judgeOpenFiles(readSetting('/proc/self/limits') ?? ''),
    probePeekOffset(native),
    probeDatagramRuns(native),
    judgeSeccomp(readSetting('/proc/sys/kernel/seccomp/actions_avail')),
    probeUserNamespaces(native),
    judgeRawIo(readSetting('/proc/self/status') ?? ''),
    probeDevice(
      'tun',
      '/dev/net/tun',
      'network namespaces cannot be guests (passel demo)',
      'modprobe tun; chmod 666 /dev/net/tun',
    ),
    probeDevice(
      'kvm',
      '/dev/kvm',
      'virtual machines are emulated, ten times slower or more',
      'load kvm_intel or kvm_amd; join the group kvm',
    ),
    judgeBridgeAcl(DEFAULT_ACL_PATH, () => readAcl(DEFAULT_ACL_PATH)),
    probeQemu(),
    probeKernel(),
  );
  return findings;
}

function readSetting(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function probeNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const shown = `${process.versions.node} at ${process.execPath}`;
  if (major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1])) return fine('node', shown);
  return missing('node', shown, 'it is too old', `Node ${LEAST_NODE.join('.')} or newer`);
}

function probeAddresses(): Finding {
  const { ipv4, ipv6 } = readHostFacts({});
  const shown = [ipv4 && `IPv4 of ${ipv4.interfaceName}`, ipv6 && `IPv6 of ${ipv6.interfaceName}`].filter(Boolean);
  if (ipv4 !== undefined && ipv6 !== undefined) return fine('addresses', `the guest gets ${shown.join(' and ')}`);
  return limited(
    'addresses',
    shown.length === 0 ? 'no interface has a default route' : `the guest gets ${shown.join()} only`,
    shown.length === 0
      ? 'the guest gets a link-local address and reaches this host alone'
      : `it has no ${ipv4 === undefined ? 'IPv4' : 'IPv6'} beyond its link`,
    'give this host a default route of that family, or name an interface: --interface',
  );
}

function listGroups(): number[] {
  return [process.getegid!(), ...process.getgroups!()];
}

function mayBindLowPorts(): boolean {
  const effective = /^CapEff:\s+([0-9a-f]+)$/m.exec(readSetting('/proc/self/status') ?? '')?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> BigInt(CAP_NET_BIND_SERVICE)) & 1n) === 1n;
}

/** Whether a new socket takes an option. */
function takesOption(native: NativeAddon, family: 4 | 6, type: number, level: number, name: number): boolean {
  const fd = native.open(family, type, 0);
  if (fd < 0) return false;
  const status = native.setOption(fd, level, name, 0);
  native.close(fd);
  return status >= 0;
}

function probePeekOffset(native: NativeAddon): Finding {
  const [v4, v6] = ([4, 6] as const).map((family) => takesOption(native, family, STREAM, SOL_SOCKET, SO_PEEK_OFF));
  if (v4 && v6) return fine('peek-offset', 'SO_PEEK_OFF works for TCP over IPv4 and IPv6');
  return limited(
    'peek-offset',
    `SO_PEEK_OFF works for TCP over ${v4 ? 'IPv4 only' : v6 ? 'IPv6 only' : 'neither IPv4 nor IPv6'}`,
    'data that waits for the guest is copied again with each batch',
    'Linux 6.9 has it for IPv4, newer ones for IPv6 too',
  );
}

function probeDatagramRuns(native: NativeAddon): Finding {
  const segment = takesOption(native, 4, DATAGRAM, SOL_UDP, UDP_SEGMENT);
  const coalesce = takesOption(native, 4, DATAGRAM, SOL_UDP, UDP_GRO);
  if (segment && coalesce) return fine('udp-offload', 'UDP_SEGMENT and UDP_GRO work');
  const lacking = [segment ? '' : 'UDP_SEGMENT', coalesce ? '' : 'UDP_GRO'].filter((name) => name !== '').join(', ');
  return limited('udp-offload', `without ${lacking}`, 'datagrams go to the kernel one by one', 'Linux 5.0 or newer');
}

function probeUserNamespaces(native: NativeAddon): Finding {
  try {
    const child = startProgram(native, {
      file: process.execPath,
      args: ['node', '--eval', ''],
      env: [],
      namespaces: CLONE_NEWUSER | CLONE_NEWNET,
      uidMap: `0 ${process.getuid!()} 1`,
      gidMap: `0 ${process.getgid!()} 1`,
    });
    child.ended.catch(() => {});
    return fine('user-namespaces', 'they can be made, network namespaces in them too');
  } catch (error) {
    return limited(
      'user-namespaces',
      reasonOf(error),
      'passel demo has no Linux guest without root, and tests need root',
      'sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns',
    );
  }
}

function probeDevice(id: string, path: string, consequence: string, remedy: string): Finding {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return fine(id, `${path} can be opened`);
  } catch (error) {
    return limited(id, `${path}: ${reasonOf(error)}`, consequence, remedy);
  }
}

function probeQemu(): Finding {
  const [path] = listQemus();
  if (path === undefined) {
    return limited('qemu', 'no qemu-system-* in PATH', 'there is no machine to serve', 'install QEMU 7.2 or newer');
  }
  const ask = (...args: string[]): string => {
    try {
      return execFileSync(path, args, {
        encoding: 'utf8',
        timeout: QEMU_TIMEOUT_MS,
        stdio: ['ignore', 'pipe', 'ignore'],
      });
    } catch {
      return '';
    }
  };
  return judgeQemu(path, ask('--version'), ask('-machine', 'none', '-netdev', 'help'));
}

/** Those of this processor first. */
function listQemus(): string[] {
  const own = { x64: 'x86_64', arm64: 'aarch64' }[process.arch as string] ?? process.arch;
  const found: string[] = [];
  for (const folder of (process.env['PATH'] ?? '').split(':')) {
    try {
      const names = readdirSync(folder).filter((name) => name.startsWith('qemu-system-'));
      found.push(...names.map((name) => join(folder, name)).filter(isExecutable));
    } catch {
      // PATH may name what is not there.
    }
  }
  return found.sort((a, b) => Number(b.endsWith(`-${own}`)) - Number(a.endsWith(`-${own}`)));
}

function probeKernel(): Finding {
  const kernel = findGuestKernel();
  if (kernel !== undefined) return fine('kernel-image', kernel.imagePath);
  return limited(
    'kernel-image',
    'none in /boot that can be read, with its modules',
    'passel demo boots no virtual machine',
    'chmod a+r /boot/vmlinuz-*, or name one: PASSEL_KERNEL=PATH',
  );
}
