/** Runs bridge helpers as their callers do, in a network of their own: see caller.py. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PROJECT_ROOT } from '../native-tools.ts';
import type { Requirement } from '../netns/capabilities.ts';
import { createNamespace, type Namespace } from '../netns/namespace.ts';

/** Debian's program. */
export const C_HELPER = '/usr/lib/qemu/qemu-bridge-helper';

export const needBridgeHelper: Requirement = {
  name: 'qemu-bridge-helper',
  probe: () => (existsSync(C_HELPER) ? '' : `${C_HELPER} is not there (Debian: qemu-system-common)`),
};

/** A file of the access list's folder. `text` holds a byte in each character. */
export type AclFile =
  | { readonly text: string; readonly mode?: string; readonly uid?: number; readonly gid?: number }
  | { readonly link: string };

export interface BridgeCase {
  readonly name: string;
  /** The folder /etc/qemu, by file name. */
  readonly files: Readonly<Record<string, AclFile>>;
  /** `{fd}` stands for the socket. */
  readonly args: readonly string[];
  /** Another user than root: the C program is setuid then, ours has CAP_NET_ADMIN as an ambient capability. */
  readonly user?: { readonly uid: number; readonly gid: number; readonly groups?: readonly number[] };
  readonly socket?: 'stream' | 'dgram' | 'none' | 'pipe';
  readonly cwd?: string;
}

export interface BridgeTap {
  readonly name: string;
  /** IFF_* of TUNGETIFF. */
  readonly flags: number;
  readonly vnetHeaderBytes: number;
  readonly mtu: number;
  /** Of the hardware address, hexadecimal. */
  readonly firstByte: string;
  readonly up: boolean;
  readonly bridge: string | null;
  readonly isolated: boolean | null;
  readonly blocking: boolean;
}

export interface BridgeOutcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Payload of the message, hexadecimal; null: none came. */
  readonly byte: string | null;
  readonly taps: readonly BridgeTap[];
  /** Names of tap devices that exist after the caller has closed what it got. */
  readonly left: readonly string[];
}

export interface BridgeProgram {
  readonly command: readonly string[];
  /** Give it CAP_NET_ADMIN when it runs as another user. */
  readonly ambient?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** Bridges of the network, with their MTU. */
export const BRIDGES = { br0: 1500, 'br-jumbo': 9000, abcdefghijklmno: 1400 } as const;

/** A network with {@link BRIDGES}, an interface `veth0` that is none, /etc/qemu of its own and a tun device for everybody. */
export interface BridgePlace {
  readonly namespace: Namespace;
  /** A copy of the C program, setuid root. */
  readonly setuidCopy: string;
  /** Ours, as a command that every user can run. */
  readonly helper: readonly string[];
  readonly broker: readonly string[];
  /** A client of the broker: see broker-client.py. */
  readonly client: readonly string[];
  run(
    cases: readonly BridgeCase[],
    programs: Readonly<Record<string, BridgeProgram>>,
  ): Promise<Record<string, BridgeOutcome>[]>;
  close(): Promise<void>;
}

export async function createBridgePlace(file: string): Promise<BridgePlace> {
  const namespace = await createNamespace('bridges');
  const folder = dirname(fileURLToPath(import.meta.url));
  const lines = [
    'mount -t sysfs sysfs /sys',
    // The access list's path is compiled into the C program.
    'mount -t tmpfs none /mnt',
    'mkdir /mnt/etc /mnt/bin && cp -a /etc/. /mnt/etc && mkdir -p /mnt/etc/qemu && mount --bind /mnt/etc /etc',
    `cp ${file} /mnt/bin/helper && chmod 4755 /mnt/bin/helper`,
    // Other users must be able to read these, wherever the project lies.
    `cp -r ${PROJECT_ROOT}/dist /mnt/passel && cp ${folder}/broker-client.py /mnt/bin && chmod -R a+rX /mnt/passel /mnt/bin`,
    'mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200',
    'ip link add veth0 type veth peer name veth1',
    ...Object.entries(BRIDGES).map(
      ([name, mtu]) => `ip link add ${name} type bridge && ip link set ${name} mtu ${mtu} up`,
    ),
  ];
  try {
    await namespace.sh(lines.join('\n'));
  } catch (error) {
    await namespace.close();
    throw error;
  }
  const script = join(folder, 'caller.py');
  return {
    namespace,
    setuidCopy: '/mnt/bin/helper',
    helper: [process.execPath, '/mnt/passel/helpers/passel-bridge-helper.cjs'],
    broker: [process.execPath, '/mnt/passel/helpers/passel-fd-broker.cjs'],
    client: ['/usr/bin/python3', '/mnt/bin/broker-client.py'],
    async run(cases, programs) {
      const input = JSON.stringify({ acl_dir: '/etc/qemu', programs, cases });
      const { stdout } = await namespace.run('/usr/bin/python3', [script], { input, timeoutMs: 120_000 });
      return stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, BridgeOutcome>);
    },
    close: () => namespace.close(),
  };
}
