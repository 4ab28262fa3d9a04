/**
 * A namespace that configures itself, by the clients that are really run there: udhcpc, ISC dhclient for DHCPv6, and the kernel
 * for router advertisements. No --config-net: the namespace starts with an interface that is down.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exchangeTcp, goodTcp } from '../../support/exchange.ts';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import { waitForExit, waitUntil } from '../../support/netns/namespace.ts';
import { createPastaHost, type Guest, type PastaHost } from '../../support/pasta-host.ts';
import { startPasta } from '../../support/pasta-rig.ts';
import { eitherWay, pastaSuite } from '../../support/pasta-suite.ts';

const suite = await requireOrSkip(
  needCommand('udhcpc', 'udhcpc'),
  needCommand('dhclient', 'isc-dhcp-client'),
  needCommand('tcpdump', 'tcpdump'),
);

type Lease = Record<string, string>;

pastaSuite('a namespace that asks', () => {
  suite('for its configuration', () => {
    let host: PastaHost;
    let script: string;
    let serial = 0;
    /** What went over the tap in the guest of now. */
    let record = '';
    beforeAll(async () => {
      host = await createPastaHost();
      script = join(host.directory, 'client-script');
      // Every call of a client leaves its variables; the interface stays as it is.
      writeFileSync(script, '#!/bin/sh\nenv > "$PASSEL_OUT.$1$reason"\n', { mode: 0o755 });
    });
    afterAll(() => host?.close());

    /** Runs `body` in a namespace whose interface is up, without addresses but a link-local one. */
    const withGuest = async (args: readonly string[], body: (guest: Guest) => Promise<void>): Promise<void> => {
      record = join(host.directory, `record-${serial++}.pcap`);
      const pasta = await startPasta(host, ['--pcap', record, ...args]);
      try {
        await pasta.guest.sh(
          'echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 mtu 9000; ip link set eth0 up',
        );
        await body(pasta.guest);
      } finally {
        await pasta.close();
      }
    };

    const readLease = (out: string, event: string): Lease =>
      Object.fromEntries(
        readFileSync(`${out}.${event}`, 'utf8')
          .split('\n')
          .map((line) => line.split(/=(.*)/s).slice(0, 2)),
      );

    /** What udhcpc was given; undefined when nobody answered. */
    const askDhcp = async (guest: Guest): Promise<Lease | undefined> => {
      const out = join(host.directory, `udhcpc-${serial++}`);
      const wanted = ['-O', 'search', '-O', 'mtu', '-O', 'hostname', '-O', 'staticroutes'];
      const { status } = await guest.run(
        'udhcpc',
        ['-i', 'eth0', '-f', '-n', '-q', '-t', '2', '-T', '1', '-s', script, ...wanted],
        { env: { PASSEL_OUT: out }, check: false },
      );
      return status === 0 ? readLease(out, 'bound') : undefined;
    };

    /** What dhclient was given; undefined when nobody answered within three seconds. */
    const askDhcpv6 = async (guest: Guest): Promise<Lease | undefined> => {
      const out = join(host.directory, `dhclient-${serial++}`);
      writeFileSync(`${out}.conf`, 'timeout 3;\nrequest dhcp6.name-servers, dhcp6.domain-search;\n');
      writeFileSync(`${out}.leases`, '');
      const files = ['-cf', `${out}.conf`, '-lf', `${out}.leases`, '-pf', `${out}.pid`, '-sf', script];
      const child = guest.spawn('dhclient', ['-6', '-d', '-1', '-e', `PASSEL_OUT=${out}`, ...files, 'eth0'], {
        stdio: 'ignore',
      });
      const read = (): Lease | undefined => {
        try {
          const lease = readLease(out, 'BOUND6');
          return lease['new_ip6_address'] === undefined ? undefined : lease;
        } catch {
          // Not yet there.
          return undefined;
        }
      };
      await waitUntil('a lease', () => read() !== undefined || child.exitCode !== null, 8_000, 50).catch(() => {});
      child.kill('SIGTERM');
      await waitForExit(child);
      return read();
    };

    /** Router advertisements as tcpdump describes them from the record that pasta keeps; '' when none came. */
    const askRouter = async (guest: Guest): Promise<string> => {
      // The kernel solicits when the link comes up.
      await guest.sh('ip link set eth0 down; ip link set eth0 up');
      const filter = 'icmp6 and ip6[40] == 134';
      const read = async (): Promise<string> =>
        (await host.run('tcpdump', ['-n', '-vv', '-r', record, filter], { check: false })).stdout;
      await waitUntil('an advertisement', async () => (await read()) !== '', 2_500, 100).catch(() => {});
      return read();
    };

    it("leases the host's address, router and MTU by DHCP", () =>
      withGuest(['--mtu', '9000'], async (guest) => {
        const lease = await askDhcp(guest);
        expect(lease).toMatchObject({
          ip: HOST_NET.hostV4,
          mask: '24',
          router: HOST_NET.gatewayV4,
          serverid: HOST_NET.gatewayV4,
          mtu: '9000',
        });
        // The namespace has the host's files and so its resolvers already: they are told only when asked to.
        expect(lease?.['dns']).toBeUndefined();
        expect(lease?.['search']).toBeUndefined();
      }));

    it("leases the host's address by DHCPv6", () =>
      withGuest([], async (guest) => {
        const lease = await askDhcpv6(guest);
        expect(lease).toMatchObject({ new_ip6_address: HOST_NET.hostV6 });
        expect(lease?.['new_dhcp6_name_servers']).toBeUndefined();
      }));

    it('advertises prefix, router and MTU: the namespace has an address, a route, and is served', () =>
      withGuest(['--mtu', '8000'], async (guest) => {
        const show = async (command: string): Promise<string> => (await guest.sh(command)).stdout;
        await waitUntil('an address of the prefix', async () =>
          /2001:db8:1::?[0-9a-f:]+\/64 scope global .*mngtmpaddr/.test(await show('ip -6 addr show dev eth0')),
        );
        expect(await show('ip -6 route show default')).toContain(`via ${HOST_NET.gatewayLinkLocal} dev eth0 proto ra`);
        expect(await show('cat /proc/sys/net/ipv6/conf/eth0/mtu')).toBe('8000\n');
        const server = { in: host.wan, addr: HOST_NET.remoteV6, port: 5001 };
        expect(await exchangeTcp(server, { in: guest, addr: HOST_NET.remoteV6, port: 5001 })).toMatchObject(goodTcp());
      }));

    it('tells resolvers and search domains by DHCP, DHCPv6 and advertisements when asked to', () =>
      withGuest(['--dhcp-dns', '--dhcp-search'], async (guest) => {
        expect(await askDhcp(guest)).toMatchObject({ dns: HOST_NET.remoteV4, search: 'passel.test' });
        expect(await askDhcpv6(guest)).toMatchObject({
          new_dhcp6_name_servers: HOST_NET.remoteV6,
          new_dhcp6_domain_search: 'passel.test.',
        });
        const advertisement = await askRouter(guest);
        expect(advertisement).toContain(`addr: ${HOST_NET.remoteV6}`);
        expect(advertisement).toContain('passel.test');
      }));

    it('tells those that it was given instead', () =>
      withGuest(
        ['--dhcp-dns', '--dhcp-search', '-D', '192.0.2.53', '-D', '2001:db8:1::53', '-S', 'a.test b.test'],
        async (guest) => {
          expect(await askDhcp(guest)).toMatchObject({ dns: '192.0.2.53', search: 'a.test b.test' });
          const lease = await askDhcpv6(guest);
          expect(lease?.['new_dhcp6_name_servers']).toBe('2001:db8:1::53');
          const search = eitherWay('dhcpv6Search', { ours: 'a.test. b.test.', debian: undefined });
          expect(lease?.['new_dhcp6_domain_search']).toBe(search);
        },
      ));

    it('leases the address and mask that it was given, as slirp4netns does for a cidr', () =>
      withGuest(['-4', '-a', '10.0.135.228', '-n', '25', '-g', '10.0.135.129'], async (guest) => {
        expect(await askDhcp(guest)).toMatchObject({ ip: '10.0.135.228', mask: '25', router: '10.0.135.129' });
      }));

    it('leases nothing with --no-dhcp and --no-dhcpv6, and advertises still', () =>
      withGuest(['--no-dhcp', '--no-dhcpv6'], async (guest) => {
        expect(await askDhcp(guest)).toBeUndefined();
        expect(await askDhcpv6(guest)).toBeUndefined();
        expect(await askRouter(guest)).toContain('router advertisement');
      }));

    for (const option of ['--no-ra', '--no-ndp']) {
      it(`advertises nothing with ${option}, and leases still`, () =>
        withGuest([option], async (guest) => {
          expect(await askRouter(guest)).toBe('');
          expect(await askDhcp(guest)).toMatchObject({ ip: HOST_NET.hostV4 });
        }));
    }

    it('tells no MTU with --mtu 0', () =>
      withGuest(['--mtu', '0'], async (guest) => {
        const lease = await askDhcp(guest);
        expect(lease).toMatchObject({ ip: HOST_NET.hostV4 });
        expect(lease?.['mtu']).toBeUndefined();
        expect(await askRouter(guest)).not.toContain('mtu option');
      }));

    it('gives one family only when told to', async () => {
      await withGuest(['-4'], async (guest) => {
        expect(await askDhcp(guest)).toMatchObject({ ip: HOST_NET.hostV4 });
        expect(await askRouter(guest)).toBe('');
      });
      await withGuest(['-6'], async (guest) => {
        expect(await askDhcp(guest)).toBeUndefined();
        expect(await askDhcpv6(guest)).toMatchObject({ new_ip6_address: HOST_NET.hostV6 });
      });
    });
  });
});
