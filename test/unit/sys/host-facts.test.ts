import { describe, expect, it } from 'vitest';
import { formatIp, formatIpv4, parseIpv4 } from '../../../src/base/ip-text.ts';
import { type HostSources, hasInterface, readHostFacts } from '../../../src/sys/host-facts.ts';
import { parseIpv6Addresses } from '../../../src/sys/proc-addresses.ts';
import { parseIpv4DefaultRoutes, parseIpv6DefaultRoutes } from '../../../src/sys/proc-routes.ts';
import { parseResolvConf } from '../../../src/sys/resolv-conf.ts';

const ROUTE = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
blk0\t00000000\t00000000\t0201\t0\t0\t1\t00000000\t0\t0\t0
`;
const ROUTE6 = `fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000099 00000400 00000002 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 00000300 00000002 00000000 00000001     tun0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`;
const IF_INET6 = `fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000002 04 40 00 80     eth0
20010db8000000000000000000000003 04 80 00 80     eth0
20010db8000000000000000000000004 04 80 00 a0     eth0
`;

/** A host made of files; every interface named in `addresses` exists. */
function hostOf(files: Record<string, string>, addresses: Record<string, string> = {}): HostSources {
  return {
    readText: (path) => files[path],
    listIpv4(name) {
      const [address, prefix] = (addresses[name] ?? '').split('/');
      return address ? [{ address: parseIpv4(address)!, prefixLength: Number(prefix) }] : [];
    },
  };
}
const HOST = hostOf(
  {
    '/proc/net/route': ROUTE,
    '/proc/net/ipv6_route': ROUTE6.replace(/.*tun0\n/, ''),
    '/proc/net/if_inet6': IF_INET6,
    '/proc/net/dev': 'Inter-|   Receive\n face |bytes\n    lo: 10 20\n  eth0: 10 20\n',
    '/etc/resolv.conf': 'nameserver 127.0.0.53\nsearch example.org lab\n',
  },
  { eth0: '192.0.2.2/24', wlan0: '192.168.1.7/16' },
);

describe('default routes', () => {
  it('of IPv4 are sorted by metric, rejects and other destinations left out', () => {
    const shown = parseIpv4DefaultRoutes(ROUTE).map((r) => [r.interfaceName, formatIpv4(r.gateway!)]);
    expect(shown).toEqual([
      ['eth0', '192.0.2.1'],
      ['wlan0', '192.168.1.1'],
    ]);
  });
  it('of IPv6 may have no gateway; the catch-all on lo is none', () => {
    const shown = parseIpv6DefaultRoutes(ROUTE6).map((r) => [r.interfaceName, r.gateway && formatIp(r.gateway)]);
    expect(shown).toEqual([
      ['tun0', undefined],
      ['eth0', 'fe80::99'],
    ]);
  });
  it('are absent in an empty table', () => {
    expect(parseIpv4DefaultRoutes('')).toEqual([]);
    expect(parseIpv6DefaultRoutes('\n')).toEqual([]);
  });
});

describe('IPv6 addresses', () => {
  it('leave out loopback and deprecated ones', () => {
    expect(parseIpv6Addresses(IF_INET6).map((a) => formatIp(a.address))).toEqual([
      'fe80::fc:ff:fe00:1',
      '2001:db8::2',
      '2001:db8::3',
    ]);
  });
});

describe('resolv.conf', () => {
  it('gives name servers in order and the last search list', () => {
    const { resolvers, searchDomains } = parseResolvConf(
      '# made by hand\nnameserver 192.0.2.53 # first\n nameserver fe80::53%eth0\nnameserver nonsense\ndomain a.\nsearch b c.\n;search d\noptions edns0\n',
    );
    expect(resolvers.map(formatIp)).toEqual(['192.0.2.53', 'fe80::53']);
    expect(searchDomains).toEqual(['b', 'c']);
  });
  it('takes domain as a search list of one', () => {
    expect(parseResolvConf('domain example.org\n').searchDomains).toEqual(['example.org']);
  });
});

describe('host facts', () => {
  it('come from the interface with the best default route', () => {
    const { ipv4, ipv6, resolvers, searchDomains } = readHostFacts({}, HOST);
    expect(ipv4).toEqual({
      interfaceName: 'eth0',
      address: parseIpv4('192.0.2.2'),
      prefixLength: 24,
      gateway: parseIpv4('192.0.2.1'),
    });
    expect(formatIp(ipv6!.address)).toBe('2001:db8::3');
    expect(ipv6!.interfaceIndex).toBe(4);
    expect(ipv6!.prefixLength).toBe(128);
    expect(formatIp(ipv6!.gateway!)).toBe('fe80::99');
    expect(formatIp(ipv6!.linkLocal!)).toBe('fe80::fc:ff:fe00:1');
    expect(resolvers.map(formatIp)).toEqual(['127.0.0.53']);
    expect(searchDomains).toEqual(['example.org', 'lab']);
  });
  it('come from the named interface instead', () => {
    const { ipv4, ipv6 } = readHostFacts({ interface4: 'wlan0', interface6: 'wlan0' }, HOST);
    expect(formatIpv4(ipv4!.address)).toBe('192.168.1.7');
    expect(formatIpv4(ipv4!.gateway!)).toBe('192.168.1.1');
    expect(ipv6).toBeUndefined();
  });
  it('are absent on a host without routes or files', () => {
    expect(readHostFacts({}, hostOf({}))).toEqual({
      ipv4: undefined,
      ipv6: undefined,
      resolvers: [],
      searchDomains: [],
    });
  });
  it('know which interfaces exist', () => {
    expect(hasInterface('eth0', HOST)).toBe(true);
    expect(hasInterface('nope0', HOST)).toBe(false);
    expect(hasInterface('eth', HOST)).toBe(false);
    expect(hasInterface('th0', HOST)).toBe(false);
  });
});
