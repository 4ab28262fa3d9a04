/**
 * A Linux network namespace behind the tap link, without the command around it:
 *
 *     wan ── veth ── host: tap-stack/main.ts ── tap ── guest: Linux
 *
 * Addresses are those of rig.ts.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { buildSync } from 'esbuild';
import type { FaultRates } from '../../../src/link/fault.ts';
import { type JsonChild, type JsonEvent, wrapJsonChild } from '../json-child.ts';
import { PROJECT_ROOT } from '../native-tools.ts';
import { createHost, HOST_NET, type Host, type HostOptions } from '../netns/host.ts';
import { createNamespace, type Namespace } from '../netns/namespace.ts';
import { describeProcess, type StackProcess } from '../stack-process.ts';

export interface TapStackConfig {
  /** IP MTU. */
  readonly mtu: number;
  /** Open the tap with a virtio-net header and all offloads. */
  readonly offloads: boolean;
  readonly guest4: string;
  readonly guest6: string;
  readonly router4: string;
  readonly router6: string;
  /** Forwarded from the host to the same ports of the guest. */
  readonly tcpPorts: readonly number[];
  readonly udpPorts: readonly number[];
  readonly pcapPath?: string | undefined;
  /** Of both directions, drawn per frame, however large. */
  readonly faults?: FaultRates | undefined;
}

/** What the stack says when it ends. */
export interface TapStackEnd extends JsonEvent {
  reason: string;
  tcpRetransmits: number;
  badTcp: number;
  badUdp: number;
  badEthernet: number;
  refusedFrames: number;
}

export interface TapRig {
  readonly host: Host;
  readonly guest: Namespace;
  readonly tapName: string;
  readonly udpSegmentation: boolean;
  readonly process: JsonChild & Pick<StackProcess, 'cpuSeconds' | 'rssBytes'>;
  /** SIGTERM. @returns the last words */
  stop(): Promise<TapStackEnd>;
  close(): Promise<void>;
}

export interface TapRigOptions
  extends Partial<Pick<TapStackConfig, 'mtu' | 'offloads' | 'tcpPorts' | 'udpPorts' | 'faults'>> {
  /** Record in `stack.pcap` of the host's directory. */
  readonly pcap?: boolean;
  readonly host?: HostOptions;
}

let bundle: string | undefined;

function buildStack(): string {
  if (bundle !== undefined) return bundle;
  const folder = join(PROJECT_ROOT, 'node_modules/.cache/passel-tap-stack');
  mkdirSync(folder, { recursive: true });
  const outfile = join(folder, `${process.pid}.cjs`);
  buildSync({
    entryPoints: [join(PROJECT_ROOT, 'test/support/tap-stack/main.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    define: { 'import.meta.url': 'undefined' },
    logLevel: 'error',
  });
  bundle = outfile;
  return outfile;
}

/** Builds the two namespaces and the stack between them; on failure everything is taken down again. */
export async function createTapRig(options: TapRigOptions = {}): Promise<TapRig> {
  const { mtu = 1500, offloads = true, tcpPorts = [], udpPorts = [], pcap = false, faults } = options;
  const [host, guest] = await Promise.all([createHost(options.host), createNamespace('guest')]);
  const close = async (): Promise<void> => {
    await Promise.all([guest.close(), host.close()]);
  };
  try {
    const config: TapStackConfig = {
      mtu,
      offloads,
      guest4: HOST_NET.hostV4,
      guest6: HOST_NET.hostV6,
      router4: HOST_NET.gatewayV4,
      router6: HOST_NET.gatewayLinkLocal,
      tcpPorts,
      udpPorts,
      pcapPath: pcap ? join(host.directory, 'stack.pcap') : undefined,
      faults,
    };
    const child = host.spawn(process.execPath, [buildStack(), JSON.stringify(config)], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '', PASSEL_NATIVE: join(PROJECT_ROOT, 'build/Release/passel.node') },
    });
    const tool = wrapJsonChild('tap stack', child);
    const ready = await tool.next('ready', 10_000);
    const tapName = String(ready['tap']);
    await host.sh(`ip link set ${tapName} netns ${guest.pid}`);
    await guest.sh(
      [
        `echo 0 > /proc/sys/net/ipv6/conf/${tapName}/accept_ra`,
        `ip link set ${tapName} mtu ${mtu}`,
        `ip link set ${tapName} up`,
        `ip addr add ${HOST_NET.hostV4}/${HOST_NET.prefixV4} dev ${tapName}`,
        `ip route add default via ${HOST_NET.gatewayV4} dev ${tapName}`,
        `ip addr add ${HOST_NET.hostV6}/${HOST_NET.prefixV6} dev ${tapName} nodad`,
        `ip -6 route add default via ${HOST_NET.gatewayLinkLocal} dev ${tapName}`,
      ].join('\n'),
    );
    return {
      host,
      guest,
      tapName,
      udpSegmentation: ready['udpSegmentation'] === true,
      process: { ...tool, ...describeProcess(child.pid as number) },
      stop: async () => {
        child.kill('SIGTERM');
        return await tool.next<TapStackEnd>('end', 5_000);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
