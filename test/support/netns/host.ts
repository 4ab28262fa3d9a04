/**
 * An isolated machine for the stack under test: the "host" namespace with an uplink, addresses and default routes of both
 * families, resolvers of our choice, and behind the uplink a "wan" namespace that answers as router and as a server
 * beyond it. Nothing here can reach the real network.
 *
 *     wan  198.51.100.1/32 2001:db8:2::1/128 (lo)      host
 *          192.0.2.1/24, 2001:db8:1::1/64  ── veth ──  192.0.2.15/24, 2001:db8:1::15/64 (eth0)
 */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createNamespace, linkVeth, type Namespace } from './namespace.ts';

/** Addresses of {@link createHost}'s two namespaces. */
export const HOST_NET = {
  interfaceName: 'eth0',
  hostV4: '192.0.2.15',
  hostV6: '2001:db8:1::15',
  prefixV4: 24,
  prefixV6: 64,
  gatewayV4: '192.0.2.1',
  gatewayV6: '2001:db8:1::1',
  /** The gateway's link-local address, which is what the host's default route names. */
  gatewayLinkLocal: 'fe80::1:1',
  /** A server beyond the gateway. */
  remoteV4: '198.51.100.1',
  remoteV6: '2001:db8:2::1',
  hostMac: '02:00:5e:00:01:0f',
  gatewayMac: '02:00:5e:00:01:01',
} as const;

/** Options of {@link createHost}. */
export interface HostOptions {
  /** Text of /etc/resolv.conf as seen inside; names the remote server of both families by default. */
  resolvConf?: string;
  /** Leave out one family or both: no address, no route. */
  ipv4?: boolean;
  ipv6?: boolean;
  /** Allow ping sockets to every group (true by default). */
  pingSockets?: boolean;
  /** Uplink MTU in bytes; 1500 by default. */
  mtu?: number;
}

/** An isolated host, its uplink and a scratch directory that any user may write to. */
export interface Host extends Namespace {
  /** The namespace behind the uplink. */
  readonly wan: Namespace;
  /** Mode 0777, removed by close(): sockets go here, since a stack started as root becomes `nobody`. */
  readonly directory: string;
  /** Replaces the text of /etc/resolv.conf as seen inside. */
  setResolvConf(text: string): Promise<void>;
}

const DEFAULT_RESOLV_CONF = `nameserver ${HOST_NET.remoteV4}\nnameserver ${HOST_NET.remoteV6}\nsearch passel.test\n`;

/** Builds the isolated host. See the picture above for its addresses. */
export async function createHost(options: HostOptions = {}): Promise<Host> {
  const { ipv4 = true, ipv6 = true, pingSockets = true, mtu = 1500 } = options;
  const directory = await mkdtemp(join(tmpdir(), 'passel-host-'));
  const resolvConf = join(directory, 'resolv.conf');
  await writeFile(resolvConf, options.resolvConf ?? DEFAULT_RESOLV_CONF);
  const [host, wan] = await Promise.all([createNamespace('host'), createNamespace('wan')]);
  const close = async (): Promise<void> => {
    await Promise.all([host.close(), wan.close()]);
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const hostAddresses: string[] = [];
    const wanAddresses: string[] = [];
    // The first neighbour solicitation after link-up is easily lost and costs a second: neighbours are given, not found.
    const routes: string[] = [];
    const wanNeighbours: string[] = [];
    if (ipv4) {
      hostAddresses.push(`${HOST_NET.hostV4}/${HOST_NET.prefixV4}`);
      wanAddresses.push(`${HOST_NET.gatewayV4}/${HOST_NET.prefixV4}`);
      routes.push(
        `ip -4 route add default via ${HOST_NET.gatewayV4} dev eth0`,
        `ip neigh add ${HOST_NET.gatewayV4} lladdr ${HOST_NET.gatewayMac} dev eth0`,
      );
      wanNeighbours.push(`ip neigh add ${HOST_NET.hostV4} lladdr ${HOST_NET.hostMac} dev uplink`);
    }
    if (ipv6) {
      hostAddresses.push(`${HOST_NET.hostV6}/${HOST_NET.prefixV6}`);
      wanAddresses.push(`${HOST_NET.gatewayV6}/${HOST_NET.prefixV6}`, `${HOST_NET.gatewayLinkLocal}/64`);
      routes.push(
        `ip -6 route add default via ${HOST_NET.gatewayLinkLocal} dev eth0`,
        `ip neigh add ${HOST_NET.gatewayLinkLocal} lladdr ${HOST_NET.gatewayMac} dev eth0`,
        `ip neigh add ${HOST_NET.gatewayV6} lladdr ${HOST_NET.gatewayMac} dev eth0`,
      );
      wanNeighbours.push(`ip neigh add ${HOST_NET.hostV6} lladdr ${HOST_NET.hostMac} dev uplink`);
    }
    await linkVeth(host, wan, {
      a: { name: HOST_NET.interfaceName, addresses: hostAddresses, mac: HOST_NET.hostMac, mtu },
      b: { name: 'uplink', addresses: wanAddresses, mac: HOST_NET.gatewayMac, mtu },
    });
    // An ordinary user's namespace has only group 0 mapped, and the kernel refuses a range it cannot map.
    const groups = !pingSockets ? '1 0' : process.getuid?.() === 0 ? '0 2147483647' : '0 0';
    await Promise.all([
      host.sh(
        [
          ...routes,
          `echo "${groups}" > /proc/sys/net/ipv4/ping_group_range`,
          'echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start',
          `mount --bind ${resolvConf} /etc/resolv.conf`,
        ].join('\n'),
      ),
      wan.sh(
        [
          ...wanNeighbours,
          `ip addr add ${HOST_NET.remoteV4}/32 dev lo`,
          `ip addr add ${HOST_NET.remoteV6}/128 dev lo nodad`,
          'echo 1 > /proc/sys/net/ipv4/ip_forward',
          'echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
        ].join('\n'),
      ),
      chmod(directory, 0o777),
    ]);
  } catch (error) {
    await close();
    throw error;
  }
  return { ...host, wan, directory, close, setResolvConf: (text) => writeFile(resolvConf, text) };
}
