/** What the kernel's settings mean for us: from their text to findings. Pure, so that machines we do not have can be tested. */
import { type Acl, AclError } from '../../bridge/acl.ts';
import { CAP_SYS_RAWIO } from '../../sys/privileges.ts';
import { type Finding, fine, limited } from './finding.ts';

/** Least net.core.{r,w}mem_max with which the netdev's socket is no bottleneck; the link asks for more and takes what it gets. */
const BUFFER_ENOUGH_BYTES = 4 << 20;
/** Connections take a descriptor each. */
const FILES_ENOUGH = 4096;

/** net.ipv4.ping_group_range against our groups. */
export function judgePingGroups(range: string, groups: readonly number[]): Finding {
  const [first = 1, last = 0] = range.trim().split(/\s+/).map(Number);
  const shown = `net.ipv4.ping_group_range is ${first} ${last}`;
  if (groups.some((group) => group >= first && group <= last)) return fine('ping-sockets', shown);
  return limited(
    'ping-sockets',
    first > last ? `${shown}: nobody` : `${shown}: no group of ours`,
    "the guest's pings are not answered, unless we have CAP_NET_RAW",
    'sysctl -w net.ipv4.ping_group_range="0 2147483647"',
  );
}

/** net.ipv4.ip_unprivileged_port_start. */
export function judgeLowPorts(start: string, maySpareRights: boolean): Finding {
  const port = Number(start.trim());
  const shown = `net.ipv4.ip_unprivileged_port_start is ${port}`;
  if (port <= 1 || maySpareRights) return fine('low-ports', maySpareRights ? `${shown}, and we may pass it` : shown);
  return limited(
    'low-ports',
    shown,
    `ports of this host below ${port} cannot be forwarded`,
    'sysctl -w net.ipv4.ip_unprivileged_port_start=0, or forward a higher port: -t 2222:22',
  );
}

/** net.core.rmem_max and wmem_max, in bytes. */
export function judgeBuffers(receive: string, send: string): Finding {
  const [rmem, wmem] = [Number(receive.trim()), Number(send.trim())];
  const shown = `net.core.rmem_max is ${rmem}, wmem_max ${wmem}`;
  if (rmem >= BUFFER_ENOUGH_BYTES && wmem >= BUFFER_ENOUGH_BYTES) return fine('socket-buffers', shown);
  return limited(
    'socket-buffers',
    shown,
    'transfers take more and smaller system calls than they need',
    `sysctl -w net.core.rmem_max=${4 * BUFFER_ENOUGH_BYTES} net.core.wmem_max=${4 * BUFFER_ENOUGH_BYTES}`,
  );
}

/** kernel.seccomp.actions_avail; undefined where the kernel has no such file. */
export function judgeSeccomp(actions: string | undefined): Finding {
  const wanted = ['kill_process', 'errno', 'allow'];
  const have = actions?.trim().split(/\s+/) ?? [];
  if (wanted.every((action) => have.includes(action))) return fine('seccomp', `actions ${have.join(' ')}`);
  return limited(
    'seccomp',
    actions === undefined ? 'the kernel has none' : `actions ${have.join(' ')}`,
    'a program that is taken over is not held back by a filter of system calls',
    'use a kernel with CONFIG_SECCOMP_FILTER, 4.14 or newer',
  );
}

/** The hard limit of open files, from /proc/self/limits; Node raises the soft one to it. */
export function judgeOpenFiles(limits: string): Finding {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? '0';
  const count = hard === 'unlimited' ? Number.POSITIVE_INFINITY : Number(hard);
  if (count >= FILES_ENOUGH) return fine('open-files', `at most ${hard}`);
  return limited(
    'open-files',
    `at most ${hard}`,
    'each connection and each forwarded port takes one',
    'ulimit -Hn, limits.conf(5), or LimitNOFILE= of the service',
  );
}

/** `--version` and `-netdev help` of a QEMU. */
export function judgeQemu(name: string, version: string, netdevs: string): Finding {
  const number = /version (\d+)\.(\d+)/.exec(version);
  const shown = `${name} ${number === null ? 'of unknown version' : `${number[1]}.${number[2]}`}`;
  const list = netdevs.split(/\s+/);
  if (list.includes('stream'))
    return fine('qemu', `${shown} with -netdev stream${list.includes('passt') ? ' and passt' : ''}`);
  const isOld = number !== null && Number(number[1]) * 100 + Number(number[2]) < 702;
  return limited(
    'qemu',
    `${shown} without -netdev stream`,
    isOld ? 'it can join by -netdev socket,fd= only' : 'it was built without it',
    'QEMU 7.2 or newer; passel-qrap helps older ones',
  );
}

/** CAP_SYS_RAWIO, from /proc/self/status: the kernel takes reservations of SCSI disks from nobody without it. */
export function judgeRawIo(status: string): Finding {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  if ((BigInt(`0x${effective}`) & (1n << BigInt(CAP_SYS_RAWIO))) !== 0n) return fine('raw-io', 'we have CAP_SYS_RAWIO');
  return limited(
    'raw-io',
    'we do not have CAP_SYS_RAWIO',
    'passel-pr-helper does not start from here',
    'start it as root, or by systemd with AmbientCapabilities=CAP_SYS_RAWIO',
  );
}

/**
 * The access list of the bridge helper.
 * @param read - reads it; throws what {@link readAcl} does
 */
export function judgeBridgeAcl(path: string, read: () => Acl): Finding {
  let acl: Acl;
  try {
    acl = read();
  } catch (error) {
    if (!(error instanceof AclError)) throw error;
    const isMissing = (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT' && error.place === path;
    return limited(
      'bridge-acl',
      isMissing ? `there is no ${path}` : `${error.place}: ${error.message}`,
      'passel-bridge-helper grants no bridge',
      isMissing
        ? `root writes lines such as "allow br0" into it, mode 0644`
        : 'passel-bridge-helper --check --br=BRIDGE says more',
    );
  }
  const allowed = acl.rules.filter(({ kind }) => kind === 'allow').map(({ argument }) => argument);
  return fine(
    'bridge-acl',
    allowed.length === 0 ? `${path} allows no bridge` : `${path} allows ${[...new Set(allowed)].join(', ')}`,
  );
}
