/**
 * A real guest on a stream netdev: Linux under QEMU with the stock clients, against the stack under test in an isolated
 * host. One guest serves many checks, in order; the host's addresses are drawn in support/netns/host.ts.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Agent, startAgent } from '../support/netns/agent.ts';
import { needNamespaces, needVeth, requireOrSkip } from '../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../support/netns/host.ts';
import { waitUntil } from '../support/netns/namespace.ts';
import { bootGuest, type Guest, needGuest } from '../support/qemu-guest/guest.ts';
import { type StackName, stackCommand } from '../support/stack-under-test.ts';
import {
  CONFIRM_DHCPV6_LEASE,
  echoDatagram,
  fetchAndHash,
  GET_DHCPV4_LEASE,
  GET_DHCPV6_INFORMATION,
  GET_DHCPV6_LEASE,
  GET_SLAAC_ADDRESS,
  parseEnvironment,
  postFile,
  REBOOT_WITH_FOREIGN_LEASE,
} from './guest-commands.ts';
import { type ListeningStack, startListeningStack } from './listening-stack.ts';

const SIZE_BYTES = 20 * 1024 * 1024;
const LARGE_DATAGRAM_BYTES = 5 * 1024;
const GUEST_MAC = '52:54:00:70:61:73';
/** What SLAAC makes of that address and the host's prefix. */
const SLAAC_ADDRESS = '2001:db8:1:0:5054:ff:fe70:6173';
const SERVER_NAME = 'server.passel.test';
const RECORDS = { [SERVER_NAME]: [HOST_NET.remoteV4, HOST_NET.remoteV6] };

const REMOTE_URLS = { IPv4: `http://${HOST_NET.remoteV4}:8080`, IPv6: `http://[${HOST_NET.remoteV6}]:8080` } as const;

/** Checks that a stack is known not to pass, with the reason. */
const KNOWN_DIFFERENCES: Partial<Record<StackName, Record<string, string>>> = {
  debian: {
    'is told by DHCPv4 that a lease from elsewhere is not good here': 'acknowledges another address than was asked for',
    'receives everything after it has half-closed': 'stalls or repeats data after a FIN from the guest',
    'sees a closed port refused at once': 'its RST in answer to a SYN lacks the ACK, which the guest must ignore',
    'sees a closed UDP port as unreachable': 'does not pass errors on',
    'fetches 20 MB unchanged with an e1000 over IPv4': 'sends acknowledged data again, stalls and resets',
    'exchanges a 5 KiB datagram in IPv4 fragments': 'drops fragments',
    'exchanges a 5 KiB datagram in IPv6 fragments': 'does not know the fragment header',
  },
};

/** A test that is left out, with the reason in its name, where the stack is known to differ. */
function check(name: string, body: () => Promise<void>): void {
  const difference = KNOWN_DIFFERENCES[stackCommand().name]?.[name];
  it.runIf(difference === undefined)(
    difference === undefined ? name : `${name} (known difference: ${difference})`,
    body,
  );
}

type Family = keyof typeof REMOTE_URLS;

async function fetchLargeFile(guest: Guest, agent: Agent, family: Family): Promise<void> {
  const seed = family === 'IPv4' ? 4 : 6;
  const expected = await agent.hashPattern({ lengthBytes: SIZE_BYTES, seed });
  expect(await guest.check(fetchAndHash(`${REMOTE_URLS[family]}/bytes/${SIZE_BYTES}/${seed}`))).toBe(expected);
}

async function fetchFromBothFamilies(guest: Guest, agent: Agent): Promise<void> {
  await fetchLargeFile(guest, agent, 'IPv4');
  await fetchLargeFile(guest, agent, 'IPv6');
}

const describeSuite = await requireOrSkip(needNamespaces, needVeth, ...needGuest('cloud', 'generic'));

describeSuite(`virtio-net guest on the stream netdev of ${stackCommand().name}`, () => {
  let host: Host;
  let onHost: Agent;
  let onWan: Agent;
  let stack: ListeningStack;
  let guest: Guest;

  beforeAll(async () => {
    host = await createHost();
    [onHost, onWan] = await Promise.all([startAgent(host), startAgent(host.wan)]);
    await Promise.all([
      onWan.serveDns({ host: HOST_NET.remoteV4, records: RECORDS }),
      onWan.serveDns({ host: HOST_NET.remoteV6, records: RECORDS }),
      onWan.serveHttp({ host: '0.0.0.0', port: 8080 }),
      onWan.serveHttp({ host: '::', port: 8080 }),
      onWan.serveUdpEcho({ host: HOST_NET.remoteV4, port: 7 }),
      onWan.serveUdpEcho({ host: HOST_NET.remoteV6, port: 7 }),
      onHost.serveHttp({ host: '127.0.0.1', port: 8081 }),
      onHost.serveHttp({ host: '::1', port: 8081 }),
    ]);
    stack = await startListeningStack(host, ['-t', '10001,10002:22,10009', '-u', '10003']);
    guest = await bootGuest({ netdev: stack.netdev, mac: GUEST_MAC });
  });

  afterAll(async () => {
    await guest?.stop();
    await stack?.stop();
    await host?.close();
  });

  check('gets the address, router, resolver, search list and MTU by DHCPv4', async () => {
    await guest.check(GET_DHCPV4_LEASE);
    const lease = parseEnvironment(await guest.check('cat /tmp/dhcp4.env'));
    expect(lease).toMatchObject({
      ip: HOST_NET.hostV4,
      mask: '24',
      router: HOST_NET.gatewayV4,
      dns: HOST_NET.remoteV4,
      search: 'passel.test',
      mtu: '65520',
    });
    expect(await guest.check('ip -4 route show default')).toContain(`default via ${HOST_NET.gatewayV4} dev eth0`);
    expect(await guest.check('cat /sys/class/net/eth0/mtu')).toBe('65520');
  });

  check('makes an address and a default route from the router advertisement', async () => {
    expect(await guest.check(GET_SLAAC_ADDRESS)).toContain(`${SLAAC_ADDRESS}/64`);
    const routes = await guest.check('ip -6 route');
    expect(routes).toContain(`default via ${HOST_NET.gatewayLinkLocal} dev eth0`);
    expect(routes).toMatch(/2001:db8:1::\/64 dev eth0/);
    expect(await guest.check('cat /proc/sys/net/ipv6/conf/eth0/mtu')).toBe('65520');
  });

  check("gets the host's address, resolver and search list by DHCPv6", async () => {
    await guest.check(GET_DHCPV6_LEASE);
    const lease = parseEnvironment(await guest.check('cat /tmp/dhcp6.env'));
    expect(lease).toMatchObject({
      reason: 'BOUND6',
      new_ip6_address: HOST_NET.hostV6,
      new_dhcp6_name_servers: HOST_NET.remoteV6,
      new_dhcp6_domain_search: 'passel.test.',
    });
    expect(await guest.check('ip -6 addr show dev eth0')).toContain(HOST_NET.hostV6);
  });

  check('has its DHCPv6 lease confirmed, and gets options without one', async () => {
    const confirmed = await guest.check(CONFIRM_DHCPV6_LEASE);
    expect(confirmed).toMatch(/Forming Confirm.*RCV: Reply.*PRC: Bound/s);
    expect(await guest.check(GET_DHCPV6_INFORMATION)).toMatch(/Forming Info-Request.*RCV: Reply.*PRC: Done/s);
  });

  check('is told by DHCPv4 that a lease from elsewhere is not good here', async () => {
    const exchange = await guest.check(REBOOT_WITH_FOREIGN_LEASE);
    expect(exchange).toContain('DHCPREQUEST for 10.9.9.9');
    expect(exchange).toContain('DHCPNAK');
    expect(exchange).toContain(`DHCPACK of ${HOST_NET.hostV4}`);
  });

  check('fetches 20 MB unchanged over IPv4 and IPv6', () => fetchFromBothFamilies(guest, onWan));

  check('uploads 20 MB unchanged over IPv4 and IPv6', async () => {
    // A file of its own: the guest's bytes, not an echo of the server's.
    const hash = await guest.check(
      `head -c ${SIZE_BYTES} /dev/urandom > /tmp/upload; sha256sum /tmp/upload | cut -d ' ' -f 1`,
    );
    for (const target of [`TCP4:${HOST_NET.remoteV4}:8080`, `TCP6:[${HOST_NET.remoteV6}]:8080`]) {
      expect(await guest.check(postFile(target, '/tmp/upload', SIZE_BYTES))).toBe(`${hash} ${SIZE_BYTES}`);
    }
  });

  check('answers ping through the gateway and from it, over IPv4 and IPv6', async () => {
    const targets = [HOST_NET.gatewayV4, HOST_NET.remoteV4, `${HOST_NET.gatewayLinkLocal}%eth0`, HOST_NET.remoteV6];
    for (const target of targets) {
      const output = await guest.check(`ping${target.includes(':') ? '6' : ''} -c 2 -i 0.2 -W 3 ${target}`);
      expect(output).toContain('2 packets received');
    }
  });

  check('resolves a name by the resolvers handed out, over both families', async () => {
    for (const server of ['', HOST_NET.remoteV6]) {
      const output = await guest.check(`nslookup ${SERVER_NAME} ${server}`);
      expect(output).toContain(`Address: ${HOST_NET.remoteV4}`);
      expect(output).toContain(`Address: ${HOST_NET.remoteV6}`);
    }
    // The search list completes it, and a fetch by name uses it all.
    expect(await guest.check(`timeout 10 wget -q -O - http://server:8080/from`)).toMatch(
      /192\.0\.2\.15|2001:db8:1::15/,
    );
  });

  check("reaches servers on the host's loopback by the gateway's address", async () => {
    const expected = await onHost.hashPattern({ lengthBytes: 100_000, seed: 3 });
    const byIpv4 = fetchAndHash(`http://${HOST_NET.gatewayV4}:8081/bytes/100000/3`);
    expect(await guest.check(byIpv4)).toBe(expected);
    // A URL cannot name the zone of a link-local address for busybox's wget.
    const output = await guest.check(
      `printf 'GET /bytes/100000/3 HTTP/1.0\\r\\n\\r\\n' | socat -t 10 - 'TCP6:[${HOST_NET.gatewayLinkLocal}%eth0]:8081,shut-none' |
       tail -c 100000 | sha256sum | cut -d ' ' -f 1`,
    );
    expect(output).toBe(expected);
  });

  check('receives everything after it has half-closed', async () => {
    for (const target of [`TCP4:${HOST_NET.remoteV4}:8080`, `TCP6:[${HOST_NET.remoteV6}]:8080`]) {
      const output = await guest.check(
        `printf 'GET /bytes/${SIZE_BYTES}/4 HTTP/1.0\\r\\n\\r\\n' | socat -t 5 - ${target} | tail -c ${SIZE_BYTES} |
         sha256sum | cut -d ' ' -f 1`,
      );
      expect(output).toBe(await onWan.hashPattern({ lengthBytes: SIZE_BYTES, seed: 4 }));
    }
  });

  for (const [family, address] of [
    ['4', HOST_NET.remoteV4],
    ['6', `[${HOST_NET.remoteV6}]`],
  ] as const) {
    check(`exchanges datagrams of 1 byte to 5 KiB over IPv${family}`, async () => {
      for (const lengthBytes of [1, 512, 1472, LARGE_DATAGRAM_BYTES]) {
        expect(await guest.check(echoDatagram(`UDP${family}:${address}:7`, lengthBytes))).toBe('same');
      }
    });
  }

  check('is reached on forwarded TCP ports from the host and from beyond it', async () => {
    await guest.start('socat -t 20 TCP6-LISTEN:10001,ipv6only=0,reuseaddr,fork EXEC:cat');
    // The guest's IPv4 listener: an IPv6 one would see mapped addresses written in full.
    await guest.start(`socat TCP4-LISTEN:22,reuseaddr,fork SYSTEM:'echo from $SOCAT_PEERADDR'`);
    await guest.check('until [ $(netstat -ltn | grep -cE ":(10001|22) ") = 2 ]; do sleep 0.1; done');
    const lengthBytes = 2 * 1024 * 1024;
    for (const [agent, target] of [
      [onHost, '127.0.0.1'],
      [onHost, '::1'],
      [onWan, HOST_NET.hostV4],
      [onWan, HOST_NET.hostV6],
    ] as const) {
      const echoed = await agent.exchangeTcp({ host: target, port: 10001, lengthBytes, seed: 5 });
      expect(echoed, target).toMatchObject({ receivedBytes: lengthBytes, receivedHash: echoed.sentHash });
    }
    // Remapped port; a remote peer's address is kept, the host's own loopback shows as the gateway.
    const fromRemote = await onWan.exchangeTcp({
      host: HOST_NET.hostV4,
      port: 10002,
      localAddress: HOST_NET.remoteV4,
    });
    expect(fromRemote.text).toContain(HOST_NET.remoteV4);
    const fromLoopback = await onHost.exchangeTcp({ host: '127.0.0.1', port: 10002 });
    expect(fromLoopback.text).toContain(HOST_NET.gatewayV4);
  });

  check('is reached on a forwarded UDP port, 5 KiB included', async () => {
    await guest.start('socat -b 65536 UDP6-RECVFROM:10003,ipv6only=0,fork EXEC:cat');
    await guest.check('until netstat -lun | grep -q ":10003 "; do sleep 0.1; done');
    for (const lengthBytes of [100, LARGE_DATAGRAM_BYTES]) {
      for (const [agent, target, localAddress] of [
        [onHost, '127.0.0.1', '127.0.0.1'],
        [onWan, HOST_NET.hostV4, HOST_NET.remoteV4],
        [onWan, HOST_NET.hostV6, HOST_NET.remoteV6],
      ] as const) {
        const answer = await agent.exchangeUdp({ host: target, port: 10003, lengthBytes, localAddress });
        expect(answer, `${target} ${lengthBytes}`).toMatchObject({ same: true, from: target });
      }
    }
  });

  check('sees a closed port refused at once', async () => {
    for (const address of [HOST_NET.remoteV4, `[${HOST_NET.remoteV6}]`]) {
      const startMs = performance.now();
      const { status, stdout } = await guest.exec(`timeout 10 wget -O - http://${address}:9/`);
      expect(status).not.toBe(0);
      expect(stdout).toContain('Connection refused');
      expect(performance.now() - startMs).toBeLessThan(5_000);
    }
  });

  check('sees a closed UDP port as unreachable', async () => {
    for (const target of [`UDP4:${HOST_NET.remoteV4}:9`, `UDP6:[${HOST_NET.remoteV6}]:9`]) {
      const { stdout } = await guest.exec(`(echo one; sleep 1; echo two; sleep 1) | socat -t 1 - ${target}`);
      expect(stdout).toContain('Connection refused');
    }
  });

  check('refuses a forwarded connection that nobody in the guest takes', async () => {
    await expect(onWan.exchangeTcp({ host: HOST_NET.hostV4, port: 10009, lengthBytes: 10 })).rejects.toThrow(
      /ECONNRESET|EPIPE|ECONNREFUSED/,
    );
  });

  check('goes on after the link was down', async () => {
    await guest.qmp.execute('set_link', { name: 'nic0', up: false });
    await guest.check('until [ "$(cat /sys/class/net/eth0/carrier)" = 0 ]; do sleep 0.05; done');
    await guest.qmp.execute('set_link', { name: 'nic0', up: true });
    await guest.check('until [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do sleep 0.05; done');
    await guest.check(`timeout 10 wget -q -O - ${REMOTE_URLS.IPv4}/from`);
  });

  check('gets a new lease and its data when its card is unplugged and a new one plugged', async () => {
    await guest.qmp.execute('device_del', { id: 'nic0' });
    await guest.check('while [ -e /sys/class/net/eth0 ]; do sleep 0.05; done');
    await waitUntil('the card to be gone', () => guest.qmp.events.some(({ event }) => event === 'DEVICE_DELETED'));
    await guest.qmp.execute('netdev_del', { id: 'n0' });
    await guest.qmp.execute('netdev_add', {
      type: 'stream',
      id: 'n1',
      server: false,
      addr: { type: 'unix', path: stack.socketPath },
    });
    await guest.qmp.execute('device_add', { driver: 'virtio-net-pci', id: 'nic1', netdev: 'n1', mac: GUEST_MAC });
    await guest.check('until [ -e /sys/class/net/eth0 ]; do sleep 0.05; done; ip link set eth0 up');
    await guest.check(GET_DHCPV4_LEASE);
    await guest.check(GET_SLAAC_ADDRESS);
    await fetchFromBothFamilies(guest, onWan);
  });

  check('leaves the stack ready for the next guest', async () => {
    // Power failure: no FIN, no RST, a transfer under way.
    await guest.start(`wget -q -O /dev/null ${REMOTE_URLS.IPv4}/bytes/${5 * SIZE_BYTES}/1`);
    await guest.stop();
    guest = await bootGuest({ netdev: stack.netdev, mac: GUEST_MAC });
    await guest.check(GET_DHCPV4_LEASE);
    await guest.check(GET_SLAAC_ADDRESS);
    await fetchFromBothFamilies(guest, onWan);
  });

  check('ends the stack with status 0 on SIGTERM, its guest still there', async () => {
    expect(await stack.stop()).toBe(0);
  });
});

describeSuite(`e1000 guest with MTU 1500 on the stream netdev of ${stackCommand().name}`, () => {
  let host: Host;
  let onHost: Agent;
  let onWan: Agent;
  let stack: ListeningStack;
  let guest: Guest;

  beforeAll(async () => {
    host = await createHost({ resolvConf: 'nameserver 127.0.0.53\n' });
    [onHost, onWan] = await Promise.all([startAgent(host), startAgent(host.wan)]);
    await Promise.all([
      onHost.serveDns({ host: '127.0.0.53', records: RECORDS }),
      onWan.serveHttp({ host: '0.0.0.0', port: 8080 }),
      onWan.serveHttp({ host: '::', port: 8080 }),
      onWan.serveUdpEcho({ host: HOST_NET.remoteV4, port: 7 }),
      onWan.serveUdpEcho({ host: HOST_NET.remoteV6, port: 7 }),
    ]);
    stack = await startListeningStack(host, ['--one-off', '--mtu', '1500']);
    guest = await bootGuest({ netdev: stack.netdev, mac: GUEST_MAC, nic: 'e1000' });
  });

  afterAll(async () => {
    await guest?.stop();
    await stack?.stop();
    await host?.close();
  });

  check('gets its DHCPv4 lease and SLAAC address with that MTU', async () => {
    await guest.check(GET_DHCPV4_LEASE);
    const lease = parseEnvironment(await guest.check('cat /tmp/dhcp4.env'));
    expect(lease).toMatchObject({ ip: HOST_NET.hostV4, router: HOST_NET.gatewayV4, mtu: '1500' });
    expect(await guest.check(GET_SLAAC_ADDRESS)).toContain(`${SLAAC_ADDRESS}/64`);
    expect(await guest.check('cat /proc/sys/net/ipv6/conf/eth0/mtu')).toBe('1500');
  });

  for (const family of ['IPv4', 'IPv6'] as const) {
    check(`fetches 20 MB unchanged with an e1000 over ${family}`, () => fetchLargeFile(guest, onWan, family));
  }

  check("resolves by the host's loopback resolver", async () => {
    expect(await guest.check(`nslookup ${SERVER_NAME}`)).toContain(`Address: ${HOST_NET.remoteV4}`);
  });

  check('exchanges a 5 KiB datagram in IPv4 fragments', async () => {
    const script = echoDatagram(`UDP4:${HOST_NET.remoteV4}:7`, LARGE_DATAGRAM_BYTES);
    expect(await guest.check(script)).toBe('same');
  });

  check('exchanges a 5 KiB datagram in IPv6 fragments', async () => {
    const script = echoDatagram(`UDP6:[${HOST_NET.remoteV6}]:7`, LARGE_DATAGRAM_BYTES);
    expect(await guest.check(script)).toBe('same');
  });

  check('ends a one-off stack with status 0 when it leaves', async () => {
    const ended = stack.exited();
    await guest.stop();
    expect(await ended).toBe(0);
  });
});
