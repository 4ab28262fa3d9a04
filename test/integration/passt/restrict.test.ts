/**
 * `--user-net restrict=on`: nothing that a guest tries leaves the host's sockets, and what the host forwards to it still works. The
 * host's own counters are the judge: they see attempts that no server would notice.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Agent, startAgent } from '../../support/netns/agent.ts';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import type { Namespace } from '../../support/netns/namespace.ts';
import { startListener } from '../../support/peer.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { rigSuiteExceptOnDebian } from '../../support/rig-suite.ts';

await requireOrSkip(needCommand('socat', 'socat'));

const HTTP_PORT = 8080;
/** Ports of the guest that forwards lead to. */
const SERVICE_PORT = 6000;
const DATAGRAM_PORT = 6001;
/** Forwarded too, and nobody listens. */
const UNUSED_PORT = 6002;

const tcp = (address: string, port: number, options = ''): string =>
  `echo attempt | socat -T 1 -t 1 - TCP:${address}:${port},connect-timeout=1${options}`;
const udp = (address: string, port: number, options = '', bytes = 10): string =>
  `head -c ${bytes} /dev/zero | socat -b 65000 -T 0.05 -t 0.05 - UDP:${address}:${port}${options}`;
const ping = (address: string): string => `ping -c 1 -W 0.3 ${address}`;

/** What a guest could try. */
const ATTEMPTS: Readonly<Record<string, string>> = {
  "the host's loopback by TCP": tcp('10.0.2.2', HTTP_PORT),
  "the host's loopback by TCP over IPv6": tcp('[fec0::2]', HTTP_PORT),
  "the host's loopback by UDP": udp('10.0.2.2', 7),
  "the host's loopback by UDP over IPv6": udp('[fec0::2]', 7),
  "the host's loopback by its forwarded port": tcp('10.0.2.2', 7001),
  "the host's own address": tcp(HOST_NET.hostV4, HTTP_PORT),
  "the host's own address over IPv6": tcp(`[${HOST_NET.hostV6}]`, HTTP_PORT),
  "the host's own address by UDP": udp(HOST_NET.hostV4, 7),
  'a server by TCP': tcp(HOST_NET.remoteV4, HTTP_PORT),
  'a server by TCP over IPv6': tcp(`[${HOST_NET.remoteV6}]`, HTTP_PORT),
  'a server by UDP': udp(HOST_NET.remoteV4, 7),
  'a server by UDP over IPv6': udp(`[${HOST_NET.remoteV6}]`, 7),
  'a server by a datagram in fragments': udp(HOST_NET.remoteV4, 7, '', 60_000),
  'the name server by UDP': udp('10.0.2.3', 53),
  'the name server by UDP over IPv6': udp('[fec0::3]', 53),
  'the name server by TCP': tcp('10.0.2.3', 53),
  'the name server by TLS': tcp('10.0.2.3', 853),
  'a resolver beyond the host': udp(HOST_NET.remoteV4, 53),
  'nobody in its network': tcp('10.0.2.77', HTTP_PORT),
  'the link-local address of the router': tcp('[fe80::2%tap0]', HTTP_PORT),
  "the gateway of the host's network": tcp(HOST_NET.gatewayV4, HTTP_PORT),
  'an address for cloud metadata': tcp('169.254.169.254', 80),
  'a broadcast': udp('255.255.255.255', 7, ',broadcast'),
  'a multicast group': udp('224.0.0.251', 5353),
  'an echo request to the router': ping('10.0.2.2'),
  'an echo request to a server': ping(HOST_NET.remoteV4),
  'an echo request to a server over IPv6': ping(`-6 ${HOST_NET.remoteV6}`),
  'TCP from the port of a service that is forwarded': tcp(HOST_NET.remoteV4, HTTP_PORT, `,sourceport=${UNUSED_PORT}`),
  'a remote that has come by a forward, on another of its ports': udp(
    HOST_NET.gatewayV4,
    7,
    `,sourceport=${UNUSED_PORT}`,
  ),
  'a server, from an address that it was not given': tcp(HOST_NET.remoteV4, HTTP_PORT, ',bind=10.0.2.99'),
};

/** What the namespace's own stack has sent out or begun, as its counters say. */
function countOutgoing(namespace: Namespace): Record<string, number> {
  const counters: Record<string, number> = {};
  const snmp = readFileSync(`/proc/${namespace.pid}/net/snmp`, 'utf8').split('\n');
  for (let i = 0; i + 1 < snmp.length; i += 2) {
    const values = snmp[i + 1]!.split(' ');
    for (const [at, name] of snmp[i]!.split(' ').entries()) counters[`${values[0]}${name}`] = Number(values[at]);
  }
  for (const line of readFileSync(`/proc/${namespace.pid}/net/snmp6`, 'utf8').split('\n')) {
    const [name = '', value] = line.split(/\s+/);
    counters[name] = Number(value);
  }
  const wanted = ['Tcp:ActiveOpens', 'Udp:OutDatagrams', 'Icmp:OutEchos', 'Udp6OutDatagrams', 'Icmp6OutEchos'];
  return Object.fromEntries(wanted.map((name) => [name, counters[name] ?? Number.NaN]));
}

rigSuiteExceptOnDebian('it has no --user-net', 'a restricted guest', () => {
  let rig: Rig;
  let onWan: Agent;
  let onGuest: Agent;
  let onHost: { stop(): Promise<unknown> }[] = [];

  beforeAll(async () => {
    const options = `restrict=on,hostfwd=tcp::7001-:${SERVICE_PORT},hostfwd=udp::7002-:${DATAGRAM_PORT},hostfwd=tcp::7003-:${UNUSED_PORT},hostfwd=udp::7003-:${UNUSED_PORT}`;
    rig = await createRig({ args: ['--user-net', options], guest: 'unconfigured' });
    await rig.guest.sh(`
      echo 0 > /proc/sys/net/ipv6/conf/${rig.pump.tapName}/accept_ra
      ip addr add 10.0.2.15/24 dev ${rig.pump.tapName}; ip addr add 10.0.2.99/24 dev ${rig.pump.tapName}
      ip addr add fec0::15/64 dev ${rig.pump.tapName} nodad
      ip route replace default via 10.0.2.2; ip -6 route replace default via fe80::2 dev ${rig.pump.tapName}`);
    [onWan, onGuest] = await Promise.all([startAgent(rig.wan), startAgent(rig.guest)]);
    onHost = await Promise.all([
      startListener(rig.host, 'listen', { addr: '::', port: HTTP_PORT, echo: true }),
      startListener(rig.host, 'udp-listen', { addr: '::', port: 7, echo: true }),
    ]);
    for (const host of [HOST_NET.remoteV4, HOST_NET.remoteV6, HOST_NET.gatewayV4]) {
      await onWan.serveHttp({ host, port: HTTP_PORT });
      await onWan.serveUdpEcho({ host, port: 7 });
    }
    await onGuest.serveHttp({ host: '10.0.2.15', port: SERVICE_PORT });
    await onGuest.serveUdpEcho({ host: '10.0.2.15', port: DATAGRAM_PORT });
  });

  afterAll(async () => {
    for (const listener of onHost) await listener.stop();
    await rig?.close();
  });

  it('is reached by forwards', async () => {
    const request = `printf 'GET /from HTTP/1.0\\r\\n\\r\\n' | socat -t 10 - TCP:${HOST_NET.hostV4}:7001`;
    expect((await rig.wan.sh(request)).stdout).toMatch(/^HTTP\/1.1 200[\s\S]*192\.0\.2\.1\n$/);
    const { same } = await onWan.exchangeUdp({ host: HOST_NET.hostV4, port: 7002, lengthBytes: 100 });
    expect(same).toBe(true);
    await rig.wan.sh(`echo | socat -u - UDP:${HOST_NET.hostV4}:7003,bind=${HOST_NET.gatewayV4}`);
  });

  it.each(Object.entries(ATTEMPTS))('does not get to %s', async (_what, script) => {
    const before = countOutgoing(rig.host);
    expect(Object.values(before)).not.toContain(Number.NaN);
    await rig.guest.sh(script, { check: false });
    // Frames are handled in order: once this is refused, what came before has been handled.
    expect((await rig.guest.sh(tcp('10.0.2.2', 9), { check: false })).stderr).toContain('refused');
    expect(countOutgoing(rig.host)).toEqual(before);
  });

  it('is still reached by forwards', async () => {
    const { same } = await onWan.exchangeUdp({ host: HOST_NET.hostV4, port: 7002, lengthBytes: 100 });
    expect(same).toBe(true);
  });
});
