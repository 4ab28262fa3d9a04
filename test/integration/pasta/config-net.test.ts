/** What --config-net makes of a namespace, as the kernel inside reports it. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HOST_NET } from '../../support/netns/host.ts';
import { createPastaHost, type PastaHost } from '../../support/pasta-host.ts';
import { runInPasta } from '../../support/pasta-rig.ts';
import { itIsOursOnly, pastaSuite } from '../../support/pasta-suite.ts';

interface Address {
  family: string;
  local: string;
  prefixlen: number;
  scope: string;
}

interface Link {
  ifname: string;
  mtu: number;
  address: string;
  flags: string[];
  addr_info: Address[];
}

interface Route {
  dst: string;
  gateway?: string;
  dev: string;
}

/** A namespace as iproute2 shows it. */
interface Shown {
  links: Link[];
  routes: { IPv4: Route[]; IPv6: Route[] };
}

const SHOW = 'ip -j addr; ip -j -4 route; ip -j -6 route';

/** Addresses of `link` that are not link-local, as ADDRESS/LENGTH. */
function globalAddresses(link: Link | undefined): string[] {
  const global = (link?.addr_info ?? []).filter(({ scope }) => scope === 'global');
  return global.map(({ local, prefixlen }) => `${local}/${prefixlen}`);
}

const defaultRoute = (routes: Route[]): Route | undefined => routes.find(({ dst }) => dst === 'default');

pastaSuite('--config-net', () => {
  let host: PastaHost;
  beforeAll(async () => {
    host = await createPastaHost();
  });
  afterAll(() => host?.close());

  const show = async (...args: string[]): Promise<Shown> => {
    const { stdout } = await runInPasta(host, args, ['sh', '-c', SHOW]);
    // One JSON text per line; nothing at all for a family without routes.
    const [links, v4 = '[]', v6 = '[]'] = stdout.trim().split('\n');
    return { links: JSON.parse(links ?? ''), routes: { IPv4: JSON.parse(v4 || '[]'), IPv6: JSON.parse(v6 || '[]') } };
  };
  const linkNamed = (shown: Shown, name: string): Link | undefined => shown.links.find((link) => link.ifname === name);

  it("gives the namespace the host's addresses, prefixes and routers of both families, and the name of its interface", async () => {
    const shown = await show('--config-net');
    expect(shown.links.map(({ ifname }) => ifname)).toEqual(['lo', 'eth0']);
    const link = linkNamed(shown, 'eth0');
    expect(link?.flags).toContain('UP');
    expect(globalAddresses(link)).toEqual([`${HOST_NET.hostV4}/24`, `${HOST_NET.hostV6}/64`]);
    expect(defaultRoute(shown.routes.IPv4)).toMatchObject({ gateway: HOST_NET.gatewayV4, dev: 'eth0' });
    expect(defaultRoute(shown.routes.IPv6)).toMatchObject({ gateway: HOST_NET.gatewayLinkLocal, dev: 'eth0' });
    expect(shown.routes.IPv4.map(({ dst }) => dst)).toContain('192.0.2.0/24');
    expect(shown.routes.IPv6.map(({ dst }) => dst)).toContain('2001:db8:1::/64');
  });

  it('brings up loopback, and makes the MTU 65520', async () => {
    const shown = await show('--config-net');
    expect(linkNamed(shown, 'lo')?.flags).toContain('UP');
    expect(linkNamed(shown, 'eth0')?.mtu).toBe(65520);
  });

  it('gives IPv4 only with --ipv4-only', async () => {
    for (const option of ['--ipv4-only', '-4']) {
      const shown = await show('--config-net', option);
      expect(globalAddresses(linkNamed(shown, 'eth0'))).toEqual([`${HOST_NET.hostV4}/24`]);
      expect(defaultRoute(shown.routes.IPv4)).toMatchObject({ gateway: HOST_NET.gatewayV4 });
      expect(defaultRoute(shown.routes.IPv6)).toBeUndefined();
    }
  });

  it('gives IPv6 only with --ipv6-only', async () => {
    for (const option of ['--ipv6-only', '-6']) {
      const shown = await show('--config-net', option);
      expect(globalAddresses(linkNamed(shown, 'eth0'))).toEqual([`${HOST_NET.hostV6}/64`]);
      expect(shown.routes.IPv4).toEqual([]);
      expect(defaultRoute(shown.routes.IPv6)).toMatchObject({ gateway: HOST_NET.gatewayLinkLocal });
    }
  });

  for (const [form, netmask] of [
    ['in bits', '16'],
    ['with dots', '255.255.0.0'],
  ] as const) {
    it(`takes address, gateway and netmask (${form}) from the command line`, async () => {
      const given = ['-a', '10.1.2.3', '-n', netmask, '-g', '10.1.0.1'];
      const shown = await show('--config-net', ...given, '-a', '2001:db8:9::5', '-g', '2001:db8:9::1');
      expect(globalAddresses(linkNamed(shown, 'eth0'))).toEqual(['10.1.2.3/16', '2001:db8:9::5/64']);
      expect(defaultRoute(shown.routes.IPv4)).toMatchObject({ gateway: '10.1.0.1' });
      expect(defaultRoute(shown.routes.IPv6)).toMatchObject({ gateway: '2001:db8:9::1' });
    });
  }

  itIsOursOnly('commandBeforeNetwork', 'is done when the command starts', async () => {
    for (let i = 0; i < 5; i++) {
      // A shell's own words: a program started first would give pasta time.
      const script = 'read -r line < /proc/net/if_inet6 && while read -r line; do echo "$line"; done < /proc/net/route';
      const { stdout } = await runInPasta(host, ['--config-net'], ['sh', '-c', script]);
      expect(stdout).toMatch(/^eth0\t00000000\t010200C0\t/m);
    }
  });

  itIsOursOnly('addressPrefix', 'takes the prefix length with the address', async () => {
    const shown = await show('--config-net', '--address=10.1.2.3/20', '-g', '10.1.0.1');
    expect(globalAddresses(linkNamed(shown, 'eth0'))[0]).toBe('10.1.2.3/20');
  });

  for (const mtu of [1280, 1500, 9000]) {
    it(`makes the MTU ${mtu} when asked to`, async () => {
      expect(linkNamed(await show('--config-net', '-m', String(mtu)), 'eth0')?.mtu).toBe(mtu);
    });
  }

  it('assigns no MTU with --mtu 0', async () => {
    const link = linkNamed(await show('--config-net', '--mtu', '0'), 'eth0');
    expect(link?.mtu).toBe(1500);
    expect(globalAddresses(link)).toEqual([`${HOST_NET.hostV4}/24`, `${HOST_NET.hostV6}/64`]);
  });

  it('names the interface and sets its MAC address as it is told', async () => {
    const shown = await show('--config-net', '--ns-ifname', 'tap7', '--ns-mac-addr', '02:11:22:33:44:55');
    expect(shown.links.map(({ ifname }) => ifname)).toEqual(['lo', 'tap7']);
    expect(linkNamed(shown, 'tap7')).toMatchObject({ address: '02:11:22:33:44:55' });
    expect(defaultRoute(shown.routes.IPv4)).toMatchObject({ dev: 'tap7' });
    expect(defaultRoute(shown.routes.IPv6)).toMatchObject({ dev: 'tap7' });
    expect(linkNamed(await show('--config-net', '-I', 'tap8'), 'tap8')?.flags).toContain('UP');
  });

  it('sets the rootlesskit and slirp4netns addresses', async () => {
    const args = ['--ns-ifname=tap0', '--mtu=65520', '--address=10.0.2.100', '--netmask=24', '--gateway=10.0.2.2'];
    const shown = await show('--config-net', ...args, '--ipv4-only');
    expect(globalAddresses(linkNamed(shown, 'tap0'))).toEqual(['10.0.2.100/24']);
    expect(shown.routes.IPv4).toMatchObject([{ dst: 'default', gateway: '10.0.2.2' }, { dst: '10.0.2.0/24' }]);
  });

  it('leaves the interface down and empty when it is not given', async () => {
    const shown = await show();
    const link = linkNamed(shown, 'eth0');
    expect(link?.flags).not.toContain('UP');
    expect(link?.addr_info).toEqual([]);
    expect(linkNamed(shown, 'lo')?.flags).toContain('UP');
    expect(shown.routes.IPv4).toEqual([]);
    expect(defaultRoute(shown.routes.IPv6)).toBeUndefined();
  });

  it('lets the namespace be configured otherwise, by a root that is only root there', async () => {
    const script = `id -u; ip link set eth0 mtu 1400; ip addr add 10.7.7.7/24 dev eth0; ${SHOW}`;
    const { stdout } = await runInPasta(host, ['--config-net'], ['sh', '-ec', script]);
    const [uid, links] = stdout.split('\n');
    expect(uid).toBe('0');
    const link = (JSON.parse(links ?? '') as Link[]).find(({ ifname }) => ifname === 'eth0');
    expect(link?.mtu).toBe(1400);
    expect(globalAddresses(link)).toContain('10.7.7.7/24');
  });
});

pastaSuite('--config-net on a host of one family', () => {
  for (const [only, options, expected] of [
    ['IPv4', { ipv6: false }, [`${HOST_NET.hostV4}/24`]],
    ['IPv6', { ipv4: false }, [`${HOST_NET.hostV6}/64`]],
  ] as const) {
    it(`gives the namespace ${only} only`, async () => {
      const host = await createPastaHost(options);
      try {
        const { stdout } = await runInPasta(host, ['--config-net'], ['sh', '-c', SHOW]);
        const [links] = stdout.split('\n');
        const link = (JSON.parse(links ?? '') as Link[]).find(({ ifname }) => ifname === 'eth0');
        expect(globalAddresses(link)).toEqual(expected);
      } finally {
        await host.close();
      }
    });
  }
});

pastaSuite('--config-net on a host with more routes', () => {
  let host: PastaHost;
  beforeAll(async () => {
    host = await createPastaHost();
    await host.sh(
      [
        'ip route add 203.0.113.0/25 via 192.0.2.7 dev eth0',
        'ip route add 203.0.113.128/25 dev eth0',
        'ip -6 route add 2001:db8:77::/48 via fe80::77 dev eth0',
      ].join('\n'),
    );
  });
  afterAll(() => host?.close());

  itIsOursOnly('hostRoutes', 'gives the namespace those routes', async () => {
    const { stdout } = await runInPasta(host, ['--config-net'], ['sh', '-c', SHOW]);
    const [, v4, v6] = stdout.split('\n').map((line) => (line === '' ? [] : (JSON.parse(line) as Route[])));
    expect(v4).toContainEqual(expect.objectContaining({ dst: '203.0.113.0/25', gateway: '192.0.2.7', dev: 'eth0' }));
    expect(v4).toContainEqual(expect.objectContaining({ dst: '203.0.113.128/25', dev: 'eth0' }));
    expect(v6).toContainEqual(expect.objectContaining({ dst: '2001:db8:77::/48', gateway: 'fe80::77', dev: 'eth0' }));
  });
});
