/**
 * A real Linux network stack as the guest, without a virtual machine:
 *
 *     wan ── veth ── host: the stack under test ── unix socket ── pump ── tap0 ── guest: Linux
 *
 * The three are network namespaces (see netns/host.ts for the addresses). The guest has the host's addresses, as passt's
 * guests do; what it sends to others comes out of the stack as ordinary sockets of the host.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createHost, HOST_NET, type Host, type HostOptions } from './netns/host.ts';
import { createNamespace, type Namespace, waitUntil } from './netns/namespace.ts';
import { type Pump, startPump, waitForPump } from './pump.ts';
import { type StackProcess, startStack } from './stack-process.ts';
import { type StackCommand, stackCommand } from './stack-under-test.ts';

/** Options of {@link createRig}. */
export interface RigOptions {
  /** The stack; by default the one that PASSEL_STACK names. */
  stack?: StackCommand;
  /** More options for it, after `--foreground --socket PATH`. */
  args?: readonly string[];
  /** MTU of the guest's tap in bytes; 65520 by default. */
  mtu?: number;
  /** Give the guest its addresses and routes (the default), or leave that to DHCP and router advertisements. */
  guest?: 'static' | 'unconfigured';
  /** Options of the isolated host. */
  host?: HostOptions;
  /** How long the stack may take until its socket can be connected to; 10 s by default. */
  readyTimeoutMs?: number;
}

/** A rig. */
export interface Rig {
  readonly host: Host;
  readonly wan: Namespace;
  readonly guest: Namespace;
  readonly stack: StackProcess;
  readonly stackName: string;
  readonly pump: Pump;
  readonly socketPath: string;
  readonly mtu: number;
  /** Waits until the stack has no more descriptors than when the guest had just been connected. */
  waitUntilIdle(timeoutMs?: number): Promise<void>;
  /** Replaces the pump: the guest's card is unplugged and plugged in again. */
  reconnect(): Promise<void>;
  /** TCP segments the guest has sent again since it was made. */
  guestRetransmits(): number;
  /**
   * Ends all; rejects if the stack had ended by itself, did not end with status 0 on SIGTERM, or a process is left.
   * Safe to call twice.
   */
  close(): Promise<void>;
}

/**
 * So many descriptors more than at the start are not yet a leak. Debian's passt fills two pools of 32 sockets after its first
 * connections.
 */
const FD_SLACK: Record<StackCommand['name'], number> = { ours: 2, debian: 72 };

/** Builds a rig; on failure everything is taken down again. */
export async function createRig(options: RigOptions = {}): Promise<Rig> {
  const { stack: command = stackCommand(), args = [], mtu = 65520 } = options;
  const [host, guest] = await Promise.all([createHost(options.host), createNamespace('guest')]);
  const socketPath = join(host.directory, 'passt.socket');
  const closeNamespaces = async (): Promise<void> => {
    await Promise.all([guest.close(), host.close()]);
  };
  try {
    const stack = startStack(host, command, ['--foreground', '--socket', socketPath, ...args]);
    let pump: Pump;
    try {
      pump = await plugIn(guest, socketPath, mtu, options);
    } catch (error) {
      throw new Error(`${(error as Error).message}\nthe stack said:\n${stack.output()}`);
    }
    if (!args.includes('--no-sandbox')) await waitUntilConfined(stack);
    const baseline = stack.fdCount();
    let closed = false;
    const rig: Rig = {
      host,
      wan: host.wan,
      guest,
      stack,
      stackName: command.name,
      get pump() {
        return pump;
      },
      socketPath,
      mtu,
      waitUntilIdle: async (timeoutMs = 15_000) => {
        const before = (): number => stack.fdCount() - baseline;
        await waitUntil('the stack to be idle', () => before() <= FD_SLACK[command.name], timeoutMs, 50).catch(
          (error: Error) => {
            const targets = stack.fdTargets().slice(0, 40).join('\n');
            throw new Error(`${error.message}: ${before()} descriptors more than at the start\n${targets}`);
          },
        );
      },
      reconnect: async () => {
        await pump.stop();
        pump = await plugIn(guest, socketPath, mtu, options);
      },
      guestRetransmits: () => readTcpCounter(guest, 'RetransSegs'),
      close: async () => {
        if (closed) return;
        closed = true;
        try {
          const alive = stack.running();
          const status = alive ? await stack.stop() : await stack.exited();
          if (!alive || status !== 0) {
            const how = alive ? `ended with status ${status} on SIGTERM` : `had ended with status ${status}`;
            throw new Error(`the stack ${how}; it said:\n${stack.output()}`);
          }
          await pump.ended();
          await waitUntil('the stack to leave no process', () => host.processes().length === 0, 2_000);
        } finally {
          await closeNamespaces();
        }
      },
    };
    return rig;
  } catch (error) {
    await closeNamespaces();
    throw error;
  }
}

/** Its socket takes connections before it has opened everything; a filter of system calls is the last thing that it gives itself. */
async function waitUntilConfined({ pid, running }: StackProcess): Promise<void> {
  const isConfined = (): boolean => /^Seccomp:\s+2$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  // Where there are no such filters there is nothing to wait for.
  await waitUntil('the stack to be confined', () => !running() || isConfined(), 5_000, 20).catch(() => {});
}

async function plugIn(guest: Namespace, socketPath: string, mtu: number, options: RigOptions): Promise<Pump> {
  const { readyTimeoutMs = 10_000 } = options;
  const pump = startPump(guest, { socket: socketPath, mtu, connectTimeoutMs: readyTimeoutMs });
  await waitForPump(pump, readyTimeoutMs + 1_000);
  await guest.sh(guestScript(pump.tapName, options).join('\n'));
  return pump;
}

function guestScript(tap: string, options: RigOptions): string[] {
  const { ipv4 = true, ipv6 = true } = options.host ?? {};
  const lines = [
    // Router advertisements are for the suites that test them; here they would add addresses at a time of their own.
    `echo ${options.guest === 'unconfigured' ? 1 : 0} > /proc/sys/net/ipv6/conf/${tap}/accept_ra`,
    `ip link set ${tap} up`,
  ];
  if (options.guest === 'unconfigured') return lines;
  if (ipv4) {
    lines.push(
      `ip addr add ${HOST_NET.hostV4}/${HOST_NET.prefixV4} dev ${tap}`,
      `ip route add default via ${HOST_NET.gatewayV4} dev ${tap}`,
    );
  }
  if (ipv6) {
    lines.push(
      `ip addr add ${HOST_NET.hostV6}/${HOST_NET.prefixV6} dev ${tap} nodad`,
      `ip -6 route add default via ${HOST_NET.gatewayLinkLocal} dev ${tap}`,
    );
  }
  return lines;
}

/** A counter of the Tcp lines of /proc/net/snmp, as the namespace sees it. */
export function readTcpCounter(namespace: Namespace, name: string): number {
  const lines = readFileSync(`/proc/${namespace.pid}/net/snmp`, 'utf8').split('\n');
  const [names, values] = lines.filter((line) => line.startsWith('Tcp:')).map((line) => line.split(' '));
  return Number(values?.[names?.indexOf(name) ?? -1] ?? Number.NaN);
}
